//! Public keys as OpenSSH writes them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::agreement::{
    ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral,
};
use ring::rand::SystemRandom;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use ssh_key::encoding::Encode as _;
use ssh_key::public::{EcdsaPublicKey, Ed25519PublicKey, KeyData, RsaPublicKey};

use super::Fingerprint;
use super::line::quote;

/// Fewest bits of an RSA key; what is shorter can be computed (NIST SP 800-131A).
pub const RSA_LEAST: usize = 2048;
/// Most bits of an RSA key: a longer one would make the server work for strangers.
pub const RSA_MOST: usize = 8192;

/// The first byte of an uncompressed point (SEC 1, 2.3.3), the only form that OpenSSH writes.
const UNCOMPRESSED: u8 = 4;

/// A public key that can be checked against: its parsed form and its blob (RFC 4253, 6.6).
/// Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Parsed>);

struct Parsed {
    data: KeyData,
    blob: Vec<u8>,
}

/// Why something is not a public key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// The base64 or what it encodes is damaged.
    #[error("the key is damaged or cut off")]
    Malformed,
    /// A kind of key that cannot be used.
    #[error("keys of type {0} are not supported; use one of type ssh-ed25519")]
    Unsupported(String),
    /// The line of a certificate where one of a key is needed.
    #[error(
        "this is a certificate: write the key that it is for, or that of its CA behind cert-authority"
    )]
    Certificate,
    /// An RSA key that is too short to be safe, or too long.
    #[error(
        "an RSA key has {RSA_LEAST} to {RSA_MOST} bits, this one has {0}; use one of type ssh-ed25519"
    )]
    RsaSize(usize),
    /// The word before the key names another type than the key has.
    #[error("the line says {said} but the key is of type {is}")]
    Mislabelled {
        /// The word.
        said: String,
        /// The key's own type.
        is: String,
    },
}

/// The `SubjectPublicKeyInfo` of an Ed25519 key up to the key's 32 bytes (RFC 8410, 4).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

/// The blob of an Ed25519 key up to the key's 32 bytes: two strings (RFC 8709, 4).
const ED25519_BLOB: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

/// The same in base64, as far as the key has no part in it.
const ED25519_BASE64: &str = "AAAAC3NzaC1lZDI1NTE5AAAAI";

impl PublicKey {
    /// Reads a blob.
    ///
    /// # Errors
    /// It is damaged, goes on after its end, or is of a kind that cannot be used.
    pub fn from_blob(blob: &[u8]) -> Result<Self, PublicKeyError> {
        if let Some(data) = ed25519(blob) {
            return Ok(Self(Arc::new(Parsed { data, blob: blob.to_vec() })));
        }
        let key = ssh_key::PublicKey::from_bytes(blob).map_err(|_| PublicKeyError::Malformed)?;
        let data = KeyData::from(key);
        // One key, one blob, one fingerprint: the parser passes over surplus bytes inside a field.
        if data.encode_vec().ok().as_deref() != Some(blob) {
            return Err(PublicKeyError::Malformed);
        }
        check(&data)?;
        Ok(Self(Arc::new(Parsed { data, blob: blob.to_vec() })))
    }

    /// Reads a blob in base64, as after the type on a line, and compares the type with `said`.
    ///
    /// # Errors
    /// As [`from_blob`](Self::from_blob), or another type than said.
    pub fn from_words(said: &str, base64: &str) -> Result<Self, PublicKeyError> {
        if said.contains("-cert-v01@") {
            return Err(PublicKeyError::Certificate);
        }
        let blob = STANDARD.decode(base64).map_err(|_| PublicKeyError::Malformed)?;
        let key = Self::from_blob(&blob)?;
        let is = key.algorithm();
        if is != said {
            return Err(PublicKeyError::Mislabelled { said: said.to_owned(), is });
        }
        Ok(key)
    }

    /// Whether [`from_words`](Self::from_words) reads a key, with none made: lists of thousands are judged at a login.
    ///
    /// # Errors
    /// As `from_words`.
    pub(super) fn check_words(said: &str, base64: &str) -> Result<(), PublicKeyError> {
        if said == "ssh-ed25519" && is_ed25519(base64) {
            return Ok(());
        }
        Self::from_words(said, base64).map(drop)
    }

    /// Reads the blob in base64, without its type, as [`to_base64`](Self::to_base64) gives it.
    ///
    /// # Errors
    /// As [`from_blob`](Self::from_blob).
    pub fn from_base64(base64: &str) -> Result<Self, PublicKeyError> {
        Self::from_blob(&STANDARD.decode(base64).map_err(|_| PublicKeyError::Malformed)?)
    }

    /// Reads a raw public key of TLS (RFC 7250).
    ///
    /// # Errors
    /// It is no Ed25519 key.
    pub fn from_spki(spki: &[u8]) -> Result<Self, PublicKeyError> {
        let point = spki.strip_prefix(&ED25519_SPKI).ok_or(PublicKeyError::Malformed)?;
        let point = point.try_into().map_err(|_| PublicKeyError::Malformed)?;
        let data = KeyData::Ed25519(Ed25519PublicKey(point));
        Self::from_blob(&data.encode_vec().map_err(|_| PublicKeyError::Malformed)?)
    }

    /// The raw public key of TLS, by which a server shows this key; none if it is not an Ed25519 key.
    #[must_use]
    pub fn to_spki(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let point = self.0.data.ed25519()?;
        Some([ED25519_SPKI.as_slice(), &point.0].concat().into())
    }

    /// The type as OpenSSH writes it, such as `ssh-ed25519`.
    #[must_use]
    pub fn algorithm(&self) -> String {
        self.0.data.algorithm().to_string()
    }

    /// The blob.
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        &self.0.blob
    }

    /// The blob in base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0.blob)
    }

    /// What names the key to people.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_blob(&self.0.blob)
    }

    /// Whether it lives in a device that somebody has to touch (OpenSSH's types with `sk-`).
    #[must_use]
    pub fn is_security_key(&self) -> bool {
        matches!(self.0.data, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
    }

    /// Whether signatures can fit it: the point of an ECDSA key is to be on its curve. That takes as long as a
    /// login, where no list is judged by it: a key that is none lets nobody in.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let (curve, point) = match &self.0.data {
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP256(_)) => (&ECDH_P256, key.as_sec1_bytes()),
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP384(_)) => (&ECDH_P384, key.as_sec1_bytes()),
            KeyData::SkEcdsaSha2NistP256(key) => (&ECDH_P256, key.ec_point().as_bytes()),
            _ => return true,
        };
        // To agree on a secret is what looks at a point without a signature (NIST SP 800-56A, 5.6.2.3).
        let Ok(own) = EphemeralPrivateKey::generate(curve, &SystemRandom::new()) else {
            return true;
        };
        agree_ephemeral(own, &UnparsedPublicKey::new(curve, point), |_| ()).is_ok()
    }

    pub(super) fn data(&self) -> &KeyData {
        &self.0.data
    }
}

/// The usual kind, of which any 32 bytes are one (RFC 8709, 4): lists of thousands are read at a login.
fn ed25519(blob: &[u8]) -> Option<KeyData> {
    let point = blob.strip_prefix(ED25519_BLOB)?.try_into().ok()?;
    Some(KeyData::Ed25519(Ed25519PublicKey(point)))
}

/// Whether this is the base64 of such a blob. Its 51 bytes are 68 characters with no bits left over: 25 of them say
/// what kind of key it is, the next has two bits of that, and the others may be any.
fn is_ed25519(base64: &str) -> bool {
    let rest = base64.strip_prefix(ED25519_BASE64).map(str::as_bytes);
    let rest: Option<&[u8; 43]> = rest.and_then(|rest| rest.try_into().ok());
    let is_digit = |b: u8| b.is_ascii_alphanumeric() | (b == b'+') | (b == b'/');
    // All of them are looked at: the compiler then takes many at a time.
    rest.is_some_and(|rest| {
        rest[0].wrapping_sub(b'A') < 16 && rest.iter().fold(true, |all, b| all & is_digit(*b))
    })
}

/// Whether a key is of a kind that can be used.
fn check(data: &KeyData) -> Result<(), PublicKeyError> {
    match data {
        KeyData::Ed25519(_) | KeyData::SkEd25519(_) => Ok(()),
        KeyData::Ecdsa(EcdsaPublicKey::NistP521(_)) => Err(unsupported(data)),
        KeyData::Ecdsa(key) => check_point(key.as_sec1_bytes()),
        KeyData::SkEcdsaSha2NistP256(key) => check_point(key.ec_point().as_bytes()),
        KeyData::Rsa(key) => match rsa_bits(key) {
            RSA_LEAST..=RSA_MOST => Ok(()),
            bits => Err(PublicKeyError::RsaSize(bits)),
        },
        other => Err(unsupported(other)),
    }
}

/// The name of an unknown type is the peer's own text.
fn unsupported(data: &KeyData) -> PublicKeyError {
    PublicKeyError::Unsupported(quote(data.algorithm().as_str()))
}

fn check_point(point: &[u8]) -> Result<(), PublicKeyError> {
    if point.first() == Some(&UNCOMPRESSED) { Ok(()) } else { Err(PublicKeyError::Malformed) }
}

/// The length of the modulus without leading zeros.
fn rsa_bits(key: &RsaPublicKey) -> usize {
    let modulus = key.n().as_positive_bytes().unwrap_or_default();
    let zeros = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (8 * modulus.len()).saturating_sub(zeros)
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.blob == other.0.blob
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.blob.hash(state);
    }
}

/// `ssh-ed25519 AAAA…`: as on a line, without a comment.
impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm(), self.to_base64())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> Vec<u8> {
        let len = u32::try_from(bytes.len()).unwrap();
        [&len.to_be_bytes(), bytes].concat()
    }

    fn ed25519(point: &[u8]) -> Vec<u8> {
        [field(b"ssh-ed25519"), field(point)].concat()
    }

    #[test]
    fn forms_of_one_key() {
        let key = PublicKey::from_blob(&ed25519(&[7; 32])).unwrap();
        assert_eq!(PublicKey::from_base64(&key.to_base64()), Ok(key.clone()));
        assert_eq!(PublicKey::from_spki(&key.to_spki().unwrap()), Ok(key.clone()));
        assert_eq!(key.to_string(), format!("ssh-ed25519 {}", key.to_base64()));
        assert_eq!(key.blob(), ed25519(&[7; 32]));
        let read = ssh_key::PublicKey::from_bytes(key.blob()).unwrap();
        assert_eq!(*key.data(), KeyData::from(read), "as the parser of all kinds reads it");
    }

    #[test]
    fn bytes_that_are_no_key() {
        let whole = ed25519(&[7; 32]);
        for cut in 0..whole.len() {
            assert_eq!(PublicKey::from_blob(&whole[..cut]), Err(PublicKeyError::Malformed));
        }
        for len in [0, 31, 33] {
            let blob = ed25519(&vec![7; len]);
            assert_eq!(PublicKey::from_blob(&blob), Err(PublicKeyError::Malformed), "{len}");
        }
        let longer = [whole, vec![0]].concat();
        assert_eq!(PublicKey::from_blob(&longer), Err(PublicKeyError::Malformed));
        assert_eq!(PublicKey::from_spki(&[0; 44]), Err(PublicKeyError::Malformed));
        assert_eq!(PublicKey::from_spki(&ED25519_SPKI), Err(PublicKeyError::Malformed));
    }

    #[test]
    fn the_usual_kind_is_judged_in_base64_as_it_is_read() {
        let both = |text: &str| {
            let read = PublicKey::from_words("ssh-ed25519", text).map(drop);
            assert_eq!(PublicKey::check_words("ssh-ed25519", text), read, "{text}");
            read.is_ok()
        };
        let base64 = PublicKey::from_blob(&ed25519(&[0xb7; 32])).unwrap().to_base64();
        assert!(both(&base64));
        for (at, was) in base64.bytes().enumerate() {
            let good: Vec<u8> = (0..128)
                .filter(|byte| {
                    let mut text = base64.clone().into_bytes();
                    text[at] = *byte;
                    both(str::from_utf8(&text).unwrap())
                })
                .collect();
            let expected = match at {
                ..25 => 1,
                25 => 16,
                26.. => 64,
            };
            assert_eq!(good.len(), expected, "at {at}");
            assert!(good.contains(&was));
            both(&base64[..at]);
        }
        both(&format!("{base64}A"));
        both(&format!("{base64}AAAA"));
        let other = PublicKey::check_words("ssh-rsa", &base64);
        assert!(matches!(other, Err(PublicKeyError::Mislabelled { .. })), "{other:?}");
    }

    #[test]
    fn a_certificate_in_the_place_of_a_key_is_told_so() {
        let said = PublicKey::from_words("ssh-ed25519-cert-v01@openssh.com", "AAAA");
        assert_eq!(said.unwrap_err(), PublicKeyError::Certificate);
    }

    #[test]
    fn a_peers_words_are_shown_without_control_characters() {
        let blob = [field(b"\x1b[2J@x"), field(&[7; 32])].concat();
        let error = PublicKey::from_blob(&blob).unwrap_err();
        assert_eq!(error, PublicKeyError::Unsupported("?[2J@x".to_owned()));
    }
}
