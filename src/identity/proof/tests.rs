use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use ssh_key::Algorithm;

use super::*;
use crate::identity::soft_key::{SoftKey, TOUCHED, VERIFIED};

/// Every kind of key that signs from a file, as `ssh-keygen -t`, `-b` has it.
const KINDS: [(&str, &str); 4] =
    [("ed25519", "256"), ("ecdsa", "256"), ("ecdsa", "384"), ("rsa", "2048")];

fn key() -> Key {
    Key::generate("test").unwrap().0
}

/// A folder with `key`, made by ssh-keygen.
fn made(kind: (&str, &str)) -> (tempfile::TempDir, Key) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind.0, "-b", kind.1, "-N", "", "-f"]).arg(&path);
    assert!(command.status().unwrap().success());
    let key = Key::load(&path).unwrap();
    (dir, key)
}

fn soft(is_ed25519: bool) -> (SoftKey, PublicKey) {
    let key = SoftKey::new(is_ed25519);
    let public = PublicKey::from_blob(&key.blob()).unwrap();
    assert_eq!(public.to_string(), key.line());
    (key, public)
}

fn check(key: &Key, armoured: &str, message: &[u8]) -> Result<(), ProofError> {
    verify(key.public(), armoured, message, Presence::default())
}

#[test]
fn the_text_is_the_documented_one() {
    let key = key();
    let host = Fingerprint::of_blob(b"host");
    let text = auth_text(&host, None, key.public(), &[0xa5; 32]).unwrap();
    let expected = format!(
        "rexec-auth-v1\nrole client\nhost-key {host}\nuser -\nkey {}\nexporter {}\n",
        key.public().to_base64(),
        "a5".repeat(32)
    );
    assert_eq!(text, expected);
    let text = auth_text(&host, Some("deploy"), key.public(), &[0; 32]).unwrap();
    assert!(text.contains("\nuser deploy\n"));
}

#[test]
fn a_user_name_cannot_forge_a_line() {
    let (key, host) = (key(), Fingerprint::of_blob(b""));
    let long = "u".repeat(USER_LIMIT + 1);
    for user in ["", "-", "a b", "a\nkey x", "a\0", "\u{85}", &long] {
        let text = auth_text(&host, Some(user), key.public(), &[0; 32]);
        assert_eq!(text, Err(ProofError::User), "{user:?}");
    }
    assert!(auth_text(&host, Some(&long[1..]), key.public(), &[0; 32]).is_ok());
}

/// A proof replayed on, or moved to, anything else than what it was made for proves nothing there.
#[test]
fn a_proof_counts_for_one_key_host_user_role_namespace_and_connection() {
    let host = Fingerprint::of_blob(b"host");
    for kind in KINDS {
        let (_dir, key) = made(kind);
        let (_dir, other) = made(kind);
        let text = auth_text(&host, Some("u"), key.public(), &[1; 32]).unwrap();
        let right = sign_auth(&key, &host, Some("u"), &[1; 32]).unwrap();
        let of = |text: &str| sign(&key, text.as_bytes()).unwrap();
        let wrong = Err(ProofError::Wrong);
        let rows: [(&str, String, Result<(), ProofError>); 8] = [
            ("as it was made", right, Ok(())),
            ("another host", of(&text.replace("SHA256:", "SHA256:x")), wrong),
            ("another user", of(&text.replace("user u", "user v")), wrong),
            ("no user", of(&text.replace("user u", "user -")), wrong),
            ("another role", of(&text.replace("role client", "role server")), wrong),
            ("another version", of(&text.replace("auth-v1", "auth-v2")), wrong),
            ("another connection", of(&text.replace("exporter 01", "exporter 02")), wrong),
            ("another key", sign(&other, text.as_bytes()).unwrap(), Err(ProofError::OtherKey)),
        ];
        for (name, proof, expected) in rows {
            let presence = Presence::default();
            let got = verify_auth(key.public(), &proof, &host, Some("u"), &[1; 32], presence);
            assert_eq!(got, expected, "{kind:?}: {name}");
        }
        let data = SshSig::signed_data("file", HASH, text.as_bytes()).unwrap();
        let made = key.sign(&data).unwrap();
        let moved = SshSig::new(key.public().data().clone(), "file", HASH, made.clone()).unwrap();
        let renamed = armour(key.public(), made).unwrap();
        let moved = moved.to_pem(LineEnding::LF).unwrap();
        assert_eq!(check(&key, &moved, text.as_bytes()), Err(ProofError::Namespace), "{kind:?}");
        assert_eq!(check(&key, &renamed, text.as_bytes()), Err(ProofError::Wrong), "{kind:?}");
    }
}

#[test]
fn damaged_and_long_proofs_are_refused() {
    let key = key();
    let proof = sign(&key, b"m").unwrap();
    for cut in 0..proof.len() - 1 {
        assert_eq!(check(&key, &proof[..cut], b"m"), Err(ProofError::Malformed));
    }
    let long = " ".repeat(PROOF_LIMIT + 1);
    assert_eq!(check(&key, &long, b"m"), Err(ProofError::TooLong));
    assert_eq!(check(&key, &long[1..], b"m"), Err(ProofError::Malformed));
}

/// Nothing beside it, and nothing behind the signature in it.
#[test]
fn an_armour_is_one_signature_with_line_breaks_of_either_kind() {
    let key = key();
    let proof = sign(&key, b"m").unwrap();
    let lines: Vec<&str> = proof.lines().collect();
    let base64 = lines[1..lines.len() - 1].concat();
    let armoured = |base64: &str| format!("{}\n{base64}\n{}\n", ARMOUR.0, ARMOUR.1);
    let blob = STANDARD.decode(&base64).unwrap();
    let longer = STANDARD.encode([blob.as_slice(), &[0]].concat());
    for good in [lines.join("\r\n"), armoured(&base64)] {
        assert_eq!(check(&key, &good, b"m"), Ok(()), "{good}");
    }
    let bad = [
        armoured(&longer),
        armoured(&base64.replacen('A', " A", 1)),
        format!("x{proof}"),
        format!("{proof}{proof}"),
        proof.replace("SSH SIGNATURE", "SSH MESSAGE"),
        base64,
    ];
    for bad in bad {
        assert_eq!(check(&key, &bad, b"m"), Err(ProofError::Malformed), "{bad}");
    }
}

/// Of every kind of key. In the base64 of the armour, one bit of each character is looked at.
#[test]
fn no_flipped_bit_is_accepted() {
    let mut proofs: Vec<(PublicKey, String)> = Vec::new();
    for kind in KINDS {
        let (_dir, key) = made(kind);
        proofs.push((key.public().clone(), sign(&key, b"m").unwrap()));
    }
    for is_ed25519 in [true, false] {
        let (key, public) = soft(is_ed25519);
        proofs.push((public, key.sshsig(NAMESPACE, b"m", TOUCHED)));
    }
    for (key, proof) in proofs {
        assert_eq!(verify(&key, &proof, b"m", Presence::default()), Ok(()));
        // The last line feed is no part of the signature.
        for at in 0..proof.len() - 1 {
            let mut bytes = proof.clone().into_bytes();
            bytes[at] ^= 1 << (at % 7);
            let text = String::from_utf8(bytes).unwrap();
            let judged = verify(&key, &text, b"m", Presence::default());
            assert!(judged.is_err(), "{key}: byte {at}\n{text}");
        }
    }
}

/// Whatever the bytes are: also those of a right signature under another name.
#[test]
fn the_algorithm_must_be_the_keys() {
    let data = signed_data(b"m").unwrap();
    let names = [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "rsa-sha2-256",
        "rsa-sha2-512",
        "ssh-rsa",
        "ssh-dss",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    ];
    for kind in KINDS {
        let (_dir, key) = made(kind);
        let right = key.sign(&data).unwrap();
        let accepted = names.iter().filter(|name| {
            let algorithm = Algorithm::new(name).unwrap();
            let signature = Signature::new(algorithm, right.as_bytes());
            let judge = |s| signature::verify(key.public(), &data, &s, Presence::default());
            signature.is_ok_and(|s| judge(s).is_ok())
        });
        let accepted: Vec<_> = accepted.copied().collect();
        assert_eq!(accepted, [right.algorithm().as_str()], "{kind:?}");
    }
}

/// SHA-1 signatures can be forged (RFC 8332); the sizes that can be computed cannot even be listed.
#[test]
fn rsa_signs_with_sha_2_only() {
    let (_dir, key) = made(("rsa", "2048"));
    let data = signed_data(b"m").unwrap();
    let made = key.sign(&data).unwrap();
    assert_eq!(made.algorithm().as_str(), "rsa-sha2-512");
    let Ok(sha1) = Signature::new(Algorithm::Rsa { hash: None }, made.as_bytes()) else { return };
    let judged = signature::verify(key.public(), &data, &sha1, Presence::default());
    assert_eq!(judged, Err(ProofError::Wrong));
}

#[test]
fn a_security_key_must_have_been_touched() {
    let touch = Presence { touch: true, verify: false };
    let both = Presence { touch: true, verify: true };
    let none = Presence { touch: false, verify: false };
    assert_eq!(Presence::default(), touch);
    let (untouched, unverified) = (Err(ProofError::Untouched), Err(ProofError::Unverified));
    for is_ed25519 in [true, false] {
        let (key, public) = soft(is_ed25519);
        for (flags, expected) in [
            (0, [untouched, untouched, Ok(())]),
            (TOUCHED, [Ok(()), unverified, Ok(())]),
            (TOUCHED | VERIFIED, [Ok(()), Ok(()), Ok(())]),
            (VERIFIED, [untouched, untouched, Ok(())]),
        ] {
            let proof = key.sshsig(NAMESPACE, b"m", flags);
            let judged = [touch, both, none].map(|p| verify(&public, &proof, b"m", p));
            assert_eq!(judged, expected, "flags {flags}");
            assert!(verify(&public, &proof, b"n", none).is_err());
        }
        let elsewhere = key.sshsig("file", b"m", TOUCHED);
        assert_eq!(verify(&public, &elsewhere, b"m", touch), Err(ProofError::Namespace));
        let (_, other) = soft(is_ed25519);
        let proof = key.sshsig(NAMESPACE, b"m", TOUCHED);
        assert_eq!(verify(&other, &proof, b"m", touch), Err(ProofError::OtherKey));
    }
}

fn keygen(args: &[&str], file: &Path, stdin: &[u8]) -> (bool, String) {
    let mut child = Command::new("ssh-keygen")
        .args(args)
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Ours, and those of the software security key: so it signs as OpenSSH understands it.
#[test]
fn ssh_keygen_accepts_ours() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sig");
    let mut proofs: Vec<_> =
        KINDS.iter().map(|kind| sign(&made(*kind).1, b"message").unwrap()).collect();
    proofs.extend([true, false].map(|kind| soft(kind).0.sshsig("rexec", b"message", TOUCHED)));
    for proof in proofs {
        std::fs::write(&path, proof).unwrap();
        let check = |namespace, message: &[u8]| {
            keygen(&["-Y", "check-novalidate", "-n", namespace, "-s"], &path, message).0
        };
        assert!(check("rexec", b"message"));
        assert!(!check("file", b"message"));
        assert!(!check("rexec", b"massage"));
    }
}

#[test]
fn we_accept_ssh_keygens() {
    for kind in KINDS {
        let (dir, key) = made(kind);
        for hash in ["sha256", "sha512"] {
            let option = format!("hashalg={hash}");
            let sign = |namespace| {
                let args = ["-Y", "sign", "-n", namespace, "-O", &option, "-f"];
                keygen(&args, &dir.path().join("key"), b"message").1
            };
            assert_eq!(check(&key, &sign("rexec"), b"message"), Ok(()));
            assert_eq!(check(&key, &sign("rexec"), b"massage"), Err(ProofError::Wrong));
            assert_eq!(check(&key, &sign("file"), b"message"), Err(ProofError::Namespace));
        }
    }
}
