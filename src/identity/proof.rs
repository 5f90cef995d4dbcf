//! How the holder of a key proves it: an SSHSIG (OpenSSH's `PROTOCOL.sshsig`) in namespace `rexec`
//! over a text that names the connection, so that a proof is worth nothing on another one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use ssh_key::encoding::Decode as _;
use ssh_key::{HashAlg, LineEnding, Signature, SshSig};

use super::proof_error::{PROOF_LIMIT, ProofError, USER_LIMIT};
use super::{Fingerprint, Key, Presence, PublicKey, signature};

/// Over which digest of a message rexec's keys sign.
const HASH: HashAlg = HashAlg::Sha512;
/// The namespace of rexec's signatures; one made for another purpose has another.
pub const NAMESPACE: &str = "rexec";
/// What stands before and after the base64 of a signature (`PROTOCOL.sshsig`).
const ARMOUR: (&str, &str) = ("-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----");

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
    let digits = exporter.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let exporter: String = digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect();
    let key = key.to_base64();
    Ok(format!(
        "rexec-auth-v1\nrole client\nhost-key {host_key}\nuser {user}\nkey {key}\nexporter {exporter}\n"
    ))
}

/// Whether this can be the name of a user in a proof: see [`ProofError::User`].
#[must_use]
pub fn is_user(user: &str) -> bool {
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
    presence: Presence,
) -> Result<(), ProofError> {
    verify(key, proof, auth_text(host_key, user, key, exporter)?.as_bytes(), presence)
}

/// Signs any message in rexec's namespace, as `ssh-keygen -Y sign -n rexec` does.
///
/// # Errors
/// The key cannot sign.
pub fn sign(key: &Key, message: &[u8]) -> Result<String, ProofError> {
    let signature = key.sign(&signed_data(message)?).ok_or(ProofError::Sign)?;
    armour(key.public(), signature)
}

/// What a key signs for `message`: its digest, with the namespace before it.
pub(super) fn signed_data(message: &[u8]) -> Result<Vec<u8>, ProofError> {
    data_of(HASH, message).ok_or(ProofError::Sign)
}

/// What is signed for `message`, digested by the library that checks and makes the signatures; none for an
/// algorithm that is not its own.
fn data_of(hash: HashAlg, message: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match hash {
        HashAlg::Sha256 => &digest::SHA256,
        HashAlg::Sha512 => &digest::SHA512,
        _ => return None,
    };
    let digest = digest::digest(algorithm, message);
    SshSig::signed_data_for_prehash(NAMESPACE, hash, digest.as_ref()).ok()
}

/// The whole of a signature over [`signed_data`].
pub(super) fn armour(key: &PublicKey, signature: Signature) -> Result<String, ProofError> {
    let whole = SshSig::new(key.data().clone(), NAMESPACE, HASH, signature);
    whole.and_then(|whole| whole.to_pem(LineEnding::LF)).map_err(|_| ProofError::Sign)
}

/// The signature in an armour. The library's own reader takes many times as long for it.
fn read(armoured: &str) -> Option<SshSig> {
    let text = armoured.trim_ascii().strip_prefix(ARMOUR.0)?.strip_suffix(ARMOUR.1)?;
    let base64: Vec<u8> = text.bytes().filter(|byte| !b"\r\n".contains(byte)).collect();
    let blob = STANDARD.decode(base64).ok()?;
    let mut rest = blob.as_slice();
    let signature = SshSig::decode(&mut rest).ok()?;
    rest.is_empty().then_some(signature)
}

/// Checks that `armoured` is `key`'s signature over `message` in rexec's namespace.
///
/// # Errors
/// Why it is not.
pub fn verify(
    key: &PublicKey,
    armoured: &str,
    message: &[u8],
    presence: Presence,
) -> Result<(), ProofError> {
    if armoured.len() > PROOF_LIMIT {
        return Err(ProofError::TooLong);
    }
    let read = read(armoured).ok_or(ProofError::Malformed)?;
    if read.version() != SshSig::VERSION {
        return Err(ProofError::Malformed);
    }
    if read.namespace() != NAMESPACE {
        return Err(ProofError::Namespace);
    }
    if read.public_key() != key.data() {
        return Err(ProofError::OtherKey);
    }
    let data = data_of(read.hash_alg(), message).ok_or(ProofError::Malformed)?;
    signature::verify(key, &data, read.signature(), presence)
}

#[cfg(test)]
mod tests;
