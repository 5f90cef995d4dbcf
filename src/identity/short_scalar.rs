//! P-256 keys whose private number has a leading zero byte. OpenSSH writes such a number shorter (RFC 4251, 5: an
//! mpint has no needless zeros), and the parser of key files takes it for damaged: one key in 512.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::PrivateKey;
use ssh_key::private::{EcdsaKeypair, EcdsaPrivateKey, KeypairData};
use ssh_key::public::EcdsaPublicKey;
use zeroize::Zeroizing;

use super::wire::{take, take_string};

/// Bytes of the number.
const WIDTH: usize = 32;
/// What every decoded file begins with (OpenSSH, `PROTOCOL.key`).
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The two numbers by which a wrong passphrase is seen.
const CHECKS: usize = 8;

/// Reads the text of a file that needs no passphrase.
pub(super) fn read(pem: &[u8]) -> Option<PrivateKey> {
    let text = std::str::from_utf8(pem).ok()?;
    let lines = text.lines().filter(|line| !line.starts_with("-----"));
    let base64: Zeroizing<String> = Zeroizing::new(lines.map(str::trim).collect());
    let file = Zeroizing::new(STANDARD.decode(base64.as_bytes()).ok()?);
    let mut rest = file.strip_prefix(MAGIC)?;
    let (cipher, kdf) = (take_string(&mut rest)?, take_string(&mut rest)?);
    let (_options, _count) = (take_string(&mut rest)?, take(&mut rest, 4)?);
    let (_public, private) = (take_string(&mut rest)?, take_string(&mut rest)?);
    (cipher == b"none" && kdf == b"none").then(|| section(private))?
}

/// Reads a file that `passphrase` opens.
pub(super) fn unlock(file: &PrivateKey, passphrase: &[u8]) -> Option<PrivateKey> {
    let (key, iv) = file.kdf().derive_key_and_iv(file.cipher(), passphrase).ok()?;
    let mut private = Zeroizing::new(file.key_data().encrypted()?.to_vec());
    // Ciphers with a tag, which none of OpenSSH's defaults is, are not read here.
    file.cipher().decrypt(&key, &iv, &mut private, None).ok()?;
    section(&private)
}

/// Reads the private section: the checks, the type, the curve, the point, the number, the comment.
fn section(mut rest: &[u8]) -> Option<PrivateKey> {
    let (one, other) = take(&mut rest, CHECKS)?.split_at(CHECKS / 2);
    let (kind, curve) = (take_string(&mut rest)?, take_string(&mut rest)?);
    let (point, number) = (take_string(&mut rest)?, take_string(&mut rest)?);
    if one != other || (kind, curve) != (b"ecdsa-sha2-nistp256", b"nistp256") {
        return None;
    }
    let mut bytes = Zeroizing::new([0; WIDTH]);
    bytes.get_mut(WIDTH.checked_sub(number.len())?..)?.copy_from_slice(number);
    let private = EcdsaPrivateKey::from(*bytes);
    let EcdsaPublicKey::NistP256(public) = EcdsaPublicKey::from_sec1_bytes(point).ok()? else {
        return None;
    };
    let pair = EcdsaKeypair::NistP256 { public, private };
    PrivateKey::new(KeypairData::Ecdsa(pair), String::new()).ok()
}
