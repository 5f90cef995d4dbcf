//! How the holder of a key proves it: an SSHSIG (OpenSSH's `PROTOCOL.sshsig`) in namespace `rexec`
//! over a text that names the connection, so that a proof is worth nothing on another one.

use std::fmt::Write as _;

use ssh_key::{HashAlg, LineEnding, SshSig};

use super::{Fingerprint, Key, PublicKey};

/// The namespace of rexec's signatures; one made for another purpose has another.
pub const NAMESPACE: &str = "rexec";
/// Most bytes of a proof. An Ed25519 one has about 300.
pub const PROOF_LIMIT: usize = 8 << 10;
/// Most bytes of a user name.
pub const USER_LIMIT: usize = 256;

/// Why a proof is not accepted, or cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// The user name cannot stand in a line.
    #[error(
        "a user name has 1 to {USER_LIMIT} bytes, no blanks and no control characters, and is not \"-\""
    )]
    User,
    /// Longer than [`PROOF_LIMIT`].
    #[error("the signature is over the limit of {PROOF_LIMIT} bytes")]
    TooLong,
    /// Not an armoured SSHSIG of version 1.
    #[error("the signature is not an SSH signature")]
    Malformed,
    /// Made for another purpose.
    #[error("the signature was not made for rexec")]
    Namespace,
    /// Made by another key than the one named.
    #[error("the signature was made by another key")]
    OtherKey,
    /// Of an algorithm that is not this key's, or over another text.
    #[error("the signature does not prove the key on this connection")]
    Wrong,
    /// The provider refused to sign.
    #[error("the key could not sign")]
    Sign,
}

/// The text that a client signs. Each side builds it from its own view of the connection: six lines,
/// each ended by a line feed.
///
/// ```text
/// rexec-auth-v1
/// role client
/// host-key SHA256:…      the server's key, as TLS showed it
/// user …                 or - if none is asked for
/// key …                  the client's key: its blob in base64
/// exporter …             64 hexadecimal digits: 32 bytes from the TLS exporter (RFC 8446, 7.5),
///                        label EXPORTER-rexec-auth-v1, empty context
/// ```
///
/// # Errors
/// [`ProofError::User`].
pub fn auth_text(
    host_key: &Fingerprint,
    user: Option<&str>,
    key: &PublicKey,
    exporter: &[u8; 32],
) -> Result<String, ProofError> {
    let user = match user {
        None => "-",
        Some(user) if is_user(user) => user,
        Some(_) => return Err(ProofError::User),
    };
    let mut text = format!(
        "rexec-auth-v1\nrole client\nhost-key {host_key}\nuser {user}\nkey {}\nexporter ",
        key.to_base64()
    );
    for byte in exporter {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    Ok(text)
}

fn is_user(user: &str) -> bool {
    (1..=USER_LIMIT).contains(&user.len())
        && user != "-"
        && !user.contains(|c: char| c.is_control() || c.is_whitespace())
}

/// Proves `key` on the connection with this host key and exporter: the armoured signature.
///
/// # Errors
/// A bad user name, or the key cannot sign.
pub fn sign_auth(
    key: &Key,
    host_key: &Fingerprint,
    user: Option<&str>,
    exporter: &[u8; 32],
) -> Result<String, ProofError> {
    sign(key, auth_text(host_key, user, key.public(), exporter)?.as_bytes())
}

/// Checks a peer's proof of `key` against this side's own view of the connection.
///
/// # Errors
/// Why it proves nothing.
pub fn verify_auth(
    key: &PublicKey,
    proof: &str,
    host_key: &Fingerprint,
    user: Option<&str>,
    exporter: &[u8; 32],
) -> Result<(), ProofError> {
    verify(key, proof, auth_text(host_key, user, key, exporter)?.as_bytes())
}

/// Signs any message in rexec's namespace, as `ssh-keygen -Y sign -n rexec` does.
///
/// # Errors
/// The key cannot sign.
pub fn sign(key: &Key, message: &[u8]) -> Result<String, ProofError> {
    let hash = HashAlg::Sha512;
    let made = SshSig::signed_data(NAMESPACE, hash, message).ok().and_then(|data| {
        let signature = key.sign(&data)?;
        let whole = SshSig::new(key.public().data().clone(), NAMESPACE, hash, signature).ok()?;
        whole.to_pem(LineEnding::LF).ok()
    });
    made.ok_or(ProofError::Sign)
}

/// Checks that `armoured` is `key`'s signature over `message` in rexec's namespace.
///
/// # Errors
/// Why it is not.
pub fn verify(key: &PublicKey, armoured: &str, message: &[u8]) -> Result<(), ProofError> {
    if armoured.len() > PROOF_LIMIT {
        return Err(ProofError::TooLong);
    }
    let signature = SshSig::from_pem(armoured).map_err(|_| ProofError::Malformed)?;
    if signature.version() != SshSig::VERSION {
        return Err(ProofError::Malformed);
    }
    if signature.namespace() != NAMESPACE {
        return Err(ProofError::Namespace);
    }
    if signature.public_key() != key.data() {
        return Err(ProofError::OtherKey);
    }
    let data = SshSig::signed_data(NAMESPACE, signature.hash_alg(), message)
        .map_err(|_| ProofError::Malformed)?;
    if key.verifies(&data, signature.signature()) { Ok(()) } else { Err(ProofError::Wrong) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;

    fn key() -> Key {
        Key::generate("test").unwrap().0
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

    #[test]
    fn a_proof_counts_for_one_key_host_user_and_connection() {
        let (key, other) = (key(), key());
        let (host, exporter) = (Fingerprint::of_blob(b"host"), [1; 32]);
        let proof = sign_auth(&key, &host, Some("u"), &exporter).unwrap();
        let check = |key: &Key, host: &[u8], user, exporter| {
            verify_auth(key.public(), &proof, &Fingerprint::of_blob(host), user, exporter)
        };
        assert_eq!(check(&key, b"host", Some("u"), &exporter), Ok(()));
        assert_eq!(check(&other, b"host", Some("u"), &exporter), Err(ProofError::OtherKey));
        assert_eq!(check(&key, b"other", Some("u"), &exporter), Err(ProofError::Wrong));
        assert_eq!(check(&key, b"host", None, &exporter), Err(ProofError::Wrong));
        assert_eq!(check(&key, b"host", Some("u"), &[2; 32]), Err(ProofError::Wrong));
    }

    #[test]
    fn damaged_and_long_proofs_are_refused() {
        let key = key();
        let proof = sign(&key, b"m").unwrap();
        for cut in 0..proof.len() - 1 {
            assert_eq!(verify(key.public(), &proof[..cut], b"m"), Err(ProofError::Malformed));
        }
        let long = " ".repeat(PROOF_LIMIT + 1);
        assert_eq!(verify(key.public(), &long, b"m"), Err(ProofError::TooLong));
        assert_eq!(verify(key.public(), &long[1..], b"m"), Err(ProofError::Malformed));
    }

    #[test]
    fn no_flipped_bit_is_accepted() {
        let key = key();
        let proof = sign(&key, b"m").unwrap().into_bytes();
        // The last line feed is no part of the signature.
        for at in 0..proof.len() - 1 {
            for bit in 0..7 {
                let mut bytes = proof.clone();
                bytes[at] ^= 1 << bit;
                let text = String::from_utf8(bytes).unwrap();
                assert!(verify(key.public(), &text, b"m").is_err(), "byte {at} bit {bit}\n{text}");
            }
        }
    }

    #[test]
    fn the_algorithm_must_be_the_keys() {
        let key = key();
        let data = SshSig::signed_data(NAMESPACE, HashAlg::Sha256, b"m").unwrap();
        let right = key.sign(&data).unwrap();
        assert!(key.public().verifies(&data, &right));
        let rsa = ssh_key::Algorithm::Rsa { hash: Some(HashAlg::Sha256) };
        let wrong = ssh_key::Signature::new(rsa, right.as_bytes()).unwrap();
        assert!(!key.public().verifies(&data, &wrong));
    }

    fn keygen(args: &[&str], files: &[&Path], stdin: &[u8]) -> (bool, String) {
        let mut child = Command::new("ssh-keygen")
            .args(args)
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn ssh_keygen_accepts_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sig");
        std::fs::write(&path, sign(&key(), b"message").unwrap()).unwrap();
        let check = |namespace, message: &[u8]| {
            keygen(&["-Y", "check-novalidate", "-n", namespace, "-s"], &[&path], message).0
        };
        assert!(check("rexec", b"message"));
        assert!(!check("file", b"message"));
        assert!(!check("rexec", b"massage"));
    }

    #[test]
    fn we_accept_ssh_keygens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let (key, pem) = Key::generate("test").unwrap();
        crate::sys::fs::atomic_write(&path, 0o600, pem.as_bytes()).unwrap();
        for hash in ["sha256", "sha512"] {
            let option = format!("hashalg={hash}");
            let args =
                |namespace| ["-Y", "sign", "-n", namespace, "-O", &option, "-f"].map(str::to_owned);
            let sign = |namespace| {
                let args = args(namespace);
                let args: Vec<_> = args.iter().map(String::as_str).collect();
                keygen(&args, &[&path], b"message").1
            };
            assert_eq!(verify(key.public(), &sign("rexec"), b"message"), Ok(()));
            assert_eq!(verify(key.public(), &sign("rexec"), b"massage"), Err(ProofError::Wrong));
            assert_eq!(verify(key.public(), &sign("file"), b"message"), Err(ProofError::Namespace));
        }
    }
}
