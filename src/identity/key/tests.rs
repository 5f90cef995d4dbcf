use std::process::Command;

use ssh_key::private::{EcdsaKeypair, RsaKeypair};

use super::*;

fn keygen(args: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let status = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(args).status();
    assert!(status.unwrap().success());
    (dir, path)
}

/// Every kind that can sign from a file.
const KINDS: [&[&str]; 6] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "rsa", "-b", "2048"],
    &["-t", "rsa", "-b", "3072"],
    &["-t", "rsa", "-b", "4096"],
];

#[test]
fn loads_what_ssh_keygen_made() {
    for kind in KINDS {
        let (_dir, path) = keygen(&[kind, &["-N", "", "-C", "a comment"]].concat());
        let key = Key::load(&path).unwrap();
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(format!("{} a comment\n", key.public()), line);
        let listed = Command::new("ssh-keygen").arg("-lf").arg(&path).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.contains(&format!(" {} ", key.public().fingerprint())), "{listed}");
        assert!(format!("{key:?}").contains("hidden"));
        assert_eq!(key.tls_signer().is_some(), kind[1] == "ed25519");
    }
}

#[test]
fn a_passphrase_opens_what_ssh_keygen_locked() {
    for kind in KINDS {
        let (_dir, path) = keygen(&[kind, &["-N", "hunter22", "-a", "2"]].concat());
        let KeyFile::Key(stored) = KeyFile::load(&path).unwrap() else { panic!() };
        assert!(stored.is_locked() && !format!("{stored:?}").contains("file"));
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert!(line.starts_with(&stored.public().to_string()));
        for wrong in ["", "hunter2", "hunter222"] {
            let error = stored.unlock(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, KeyError::WrongPassphrase(_)), "{error}");
        }
        assert_eq!(stored.unlock(b"hunter22").unwrap().public(), stored.public());
        let text = stored.open().unwrap_err().to_string();
        assert!(text.contains("nobody to ask") && text.contains("REXEC_ASKPASS"), "{text}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    for (kind, part) in [
        (["ecdsa", "521"], "keys of type ecdsa-sha2-nistp521 are not supported"),
        (["rsa", "1024"], "an RSA key has 2048 to 8192 bits, this one has 1024"),
        (["rsa", "2560"], "of another length than 2048, 3072 or 4096 bits; add it to ssh-agent"),
    ] {
        let (_dir, path) = keygen(&["-t", kind[0], "-b", kind[1], "-N", ""]);
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn damage_is_damage() {
    let path = Path::new("k");
    let (_, pem) = Key::generate("c").unwrap();
    Key::from_openssh(pem.as_bytes(), path).unwrap();
    for cut in 0..pem.len() - 1 {
        assert!(
            matches!(Key::from_openssh(&pem.as_bytes()[..cut], path), Err(KeyError::Damaged(_))),
            "cut at {cut}"
        );
    }
    assert!(Key::from_openssh(b"PuTTY-User-Key-File-3: ssh-ed25519", path).is_err());
}

/// A signature by such a pair gives the private half away.
#[test]
fn halves_of_two_keys_are_no_key() {
    let public = *Key::from_seed(&[8; 32]).unwrap().public.data().ed25519().unwrap();
    let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&[7; 32]) };
    assert!(Key::from_pair(&pair).is_none());

    let pair = |kind: &str| {
        let (_dir, path) = keygen(&["-t", kind, "-N", ""]);
        PrivateKey::from_openssh(std::fs::read(path).unwrap()).unwrap().key_data().clone()
    };
    let (KeypairData::Ecdsa(one), KeypairData::Ecdsa(two)) = (pair("ecdsa"), pair("ecdsa")) else {
        panic!("ssh-keygen makes other keys")
    };
    let (EcdsaKeypair::NistP256 { public, .. }, EcdsaKeypair::NistP256 { private, .. }) =
        (one.clone(), two)
    else {
        panic!("ssh-keygen makes other keys")
    };
    let mixed = KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private });
    assert!(Private::of(&KeypairData::Ecdsa(one)).is_some() && Private::of(&mixed).is_none());

    let (KeypairData::Rsa(one), KeypairData::Rsa(two)) = (pair("rsa"), pair("rsa")) else {
        panic!("ssh-keygen makes other keys")
    };
    let mixed = RsaKeypair::new(one.public().clone(), two.private().clone()).unwrap();
    assert!(Private::of(&KeypairData::Rsa(one)).is_some());
    assert!(Private::of(&KeypairData::Rsa(mixed)).is_none());
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::testing::put(&path, 0o600, &vec![b'x'; KEY_FILE_LIMIT + 1]);
    assert!(matches!(Key::load(&path), Err(KeyError::File(FsError::TooLong { .. }))));
}

/// One P-256 key in 512 is written so by ssh-keygen.
#[test]
fn a_number_with_a_leading_zero_is_no_damage() {
    let path = Path::new("k");
    let key = Key::from_openssh(SHORT.as_bytes(), path).unwrap();
    let signed = key.sign(b"m").unwrap();
    let presence = crate::identity::Presence::default();
    assert_eq!(crate::identity::signature::verify(key.public(), b"m", &signed, presence), Ok(()));
    let KeyFile::Key(locked) = KeyFile::parse(SHORT_LOCKED.as_bytes(), path).unwrap() else {
        panic!("no key")
    };
    assert_eq!(locked.unlock(b"secret").unwrap().public(), key.public());
    assert!(matches!(locked.unlock(b"sacred"), Err(KeyError::WrongPassphrase(_))));
    for cut in 0..SHORT.len() - 1 {
        let read = Key::from_openssh(&SHORT.as_bytes()[..cut], path);
        // What is left out may be no more than the padding and the comment.
        assert!(read.is_err() || cut > SHORT.len() - 60, "cut at {cut}");
    }
}

/// Made by `ssh-keygen -t ecdsa`, used by nobody; the number has 31 bytes.
const SHORT: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAaAAAABNlY2RzYS\n\
1zaGEyLW5pc3RwMjU2AAAACG5pc3RwMjU2AAAAQQSAKwBX6VG28DXKlTLvgcVIsRxdS5g7\n\
cC6fXykHyAJVoY5I5fvri9ln+pd4DK4oXjvXD4lrsqSbkna3qFRJXm1uAAAAoNHHK+bRxy\n\
vmAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBIArAFfpUbbwNcqV\n\
Mu+BxUixHF1LmDtwLp9fKQfIAlWhjkjl++uL2Wf6l3gMriheO9cPiWuypJuSdreoVElebW\n\
4AAAAfMfTihuFJtH/JC+r4SSRxYpaIt2tmL4JjsWXwHaufFgAAAAVzaG9ydAECAwQ=\n\
-----END OPENSSH PRIVATE KEY-----\n\
";
/// The same with the passphrase `secret`.
const SHORT_LOCKED: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABBvbX2ISJ\n\
LjEfy09vNwUOCAAAAAAQAAAAEAAABoAAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlz\n\
dHAyNTYAAABBBIArAFfpUbbwNcqVMu+BxUixHF1LmDtwLp9fKQfIAlWhjkjl++uL2Wf6l3\n\
gMriheO9cPiWuypJuSdreoVElebW4AAACg3dtqcsU0TkBqlPxKNyKKppO2hVW0ac4LUjVn\n\
CxjMCVBHaClWhSRuB0D/1XI3MEWJpheAAhIiwfzstTR4l5YXQEaXNKOGwhbEsjKNQhtPsN\n\
BN9mSlwb3Rd7EBAsK9+LcYTyHeuPDXicaU+3Vkt6dDHSyoisdlZWxpEuAaRo+adfFjVG2C\n\
wbE6btMwgLE69hl4u8zLS3fZXNHbbTZIZfiteg==\n\
-----END OPENSSH PRIVATE KEY-----\n\
";
