//! The maths of signatures: *ring*'s, the TLS provider's, but for Ed25519's. Each type of key has its own algorithms; one
//! that belongs to another type is no signature at all.

use ring::rand::SystemRandom;
use ring::signature::{self as maths, EcdsaKeyPair, KeyPair as _, RsaKeyPair, UnparsedPublicKey};
use ssh_key::encoding::{Decode as _, Encode as _};
use ssh_key::public::{EcdsaPublicKey, KeyData, RsaPublicKey};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, Mpint, Signature};

use super::proof_error::ProofError;
use super::sk::{self, Presence};
use super::{PublicKey, ed25519};

/// Checks that `signature` is `key`'s over `message`.
pub(super) fn verify(
    key: &PublicKey,
    message: &[u8],
    signature: &Signature,
    presence: Presence,
) -> Result<(), ProofError> {
    let bytes = signature.as_bytes();
    let is_right = match (key.data(), signature.algorithm()) {
        (KeyData::Ed25519(key), Algorithm::Ed25519) => ed25519::verify(&key.0, message, bytes),
        (KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }) if key.curve() == curve => {
            ecdsa(key, message, bytes)
        }
        (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => rsa(key, hash, message, bytes),
        (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
            let signed = sk::Signed::read(bytes, key.application(), message)?;
            presence.check(signed.flags)?;
            ed25519::verify(&key.public_key().0, &signed.message, signed.signature)
        }
        (KeyData::SkEcdsaSha2NistP256(key), Algorithm::SkEcdsaSha2NistP256) => {
            let signed = sk::Signed::read(bytes, key.application(), message)?;
            presence.check(signed.flags)?;
            ecdsa(&EcdsaPublicKey::NistP256(*key.ec_point()), &signed.message, signed.signature)
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(ProofError::Wrong) }
}

fn ecdsa(key: &EcdsaPublicKey, message: &[u8], signature: &[u8]) -> bool {
    let (algorithm, width) = match key.curve() {
        EcdsaCurve::NistP256 => (&maths::ECDSA_P256_SHA256_FIXED, 32),
        EcdsaCurve::NistP384 => (&maths::ECDSA_P384_SHA384_FIXED, 48),
        EcdsaCurve::NistP521 => return false,
    };
    let key = UnparsedPublicKey::new(algorithm, key.as_sec1_bytes());
    fixed(signature, width).is_some_and(|signature| key.verify(message, &signature).is_ok())
}

fn rsa(key: &RsaPublicKey, hash: HashAlg, message: &[u8], signature: &[u8]) -> bool {
    let algorithm = match hash {
        HashAlg::Sha256 => &maths::RSA_PKCS1_2048_8192_SHA256,
        HashAlg::Sha512 => &maths::RSA_PKCS1_2048_8192_SHA512,
        _ => return false,
    };
    let (Some(n), Some(e)) = (key.n().as_positive_bytes(), key.e().as_positive_bytes()) else {
        return false;
    };
    // Some agents leave leading zeros out (RFC 8332, 3 has them in).
    let missing = n.len().saturating_sub(signature.len());
    let signature = [&vec![0; missing], signature].concat();
    maths::RsaPublicKeyComponents { n, e }.verify(algorithm, message, &signature).is_ok()
}

/// The two numbers of an ECDSA signature (RFC 5656, 3.1.2), each in `width` bytes.
fn fixed(mut signature: &[u8], width: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2 * width];
    for half in bytes.chunks_mut(width) {
        let number = Mpint::decode(&mut signature).ok()?;
        let number = number.as_positive_bytes()?;
        half.get_mut(width.checked_sub(number.len())?..)?.copy_from_slice(number);
    }
    signature.is_empty().then_some(bytes)
}

/// Makes an ECDSA signature over `message`; none if the system has no random numbers.
pub(super) fn sign_ecdsa(pair: &EcdsaKeyPair, message: &[u8]) -> Option<Signature> {
    let made = pair.sign(&SystemRandom::new(), message).ok()?;
    let (r, s) = made.as_ref().split_at(made.as_ref().len() / 2);
    let mut bytes = Vec::new();
    for half in [r, s] {
        Mpint::from_positive_bytes(half).encode(&mut bytes).ok()?;
    }
    // The length of a point: 1 + 2 * 32, or 1 + 2 * 48.
    let curve = match pair.public_key().as_ref().len() {
        65 => EcdsaCurve::NistP256,
        _ => EcdsaCurve::NistP384,
    };
    Signature::new(Algorithm::Ecdsa { curve }, bytes).ok()
}

/// Makes an RSA signature over `message`, with SHA-512; none if the key's halves do not belong together.
pub(super) fn sign_rsa(pair: &RsaKeyPair, message: &[u8]) -> Option<Signature> {
    let mut bytes = vec![0; pair.public().modulus_len()];
    pair.sign(&maths::RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut bytes).ok()?;
    Signature::new(Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, bytes).ok()
}
