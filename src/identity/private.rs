//! Private halves, as the maths takes them.

use std::sync::Arc;

use crypto_bigint::{BoxedUint, NonZero};
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, RsaKeyPair,
};
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use ssh_key::private::{EcdsaKeypair, KeypairData, RsaKeypair};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, Signature};
use zeroize::Zeroizing;

use super::PublicKey;
use super::signature::{sign_ecdsa, sign_rsa};

/// Most bits of an RSA key that *ring* signs with; the length must be a multiple of [`RSA_STEP`] too.
const RSA_MOST: u32 = 4096;
/// See [`RSA_MOST`].
const RSA_STEP: u32 = 1024;

/// A private half that can sign.
pub(super) enum Private {
    /// In the form that TLS takes too, and what it was made of.
    Ed25519(Arc<dyn SigningKey>, Zeroizing<[u8; 32]>),
    /// P-256 or P-384.
    Ecdsa(Box<EcdsaKeyPair>),
    /// 2048, 3072 or 4096 bits.
    Rsa(Box<RsaKeyPair>),
}

impl Private {
    /// Whether a private half of this public one could be used.
    pub(super) fn can_sign(public: &PublicKey) -> bool {
        match public.data() {
            KeyData::Rsa(key) => key.key_size() <= RSA_MOST && key.key_size() % RSA_STEP == 0,
            _ => true,
        }
    }

    /// None if the two halves do not belong together: a signature by such a pair gives the key away.
    pub(super) fn of(pair: &KeypairData) -> Option<Self> {
        match pair {
            KeypairData::Ecdsa(pair) => ecdsa(pair).map(Box::new).map(Self::Ecdsa),
            KeypairData::Rsa(pair) => rsa(pair).map(Box::new).map(Self::Rsa),
            _ => None,
        }
    }

    /// Signs `message` as an SSH signature of the key's own algorithm; none if that fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Signature> {
        match self {
            Self::Ed25519(signer, _) => {
                let signer = signer.choose_scheme(&[SignatureScheme::ED25519])?;
                Signature::new(Algorithm::Ed25519, signer.sign(message).ok()?).ok()
            }
            Self::Ecdsa(pair) => sign_ecdsa(pair, message),
            Self::Rsa(pair) => sign_rsa(pair, message),
        }
    }
}

fn ecdsa(pair: &EcdsaKeypair) -> Option<EcdsaKeyPair> {
    let (algorithm, private) = match pair {
        EcdsaKeypair::NistP256 { private, .. } => {
            (&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_slice())
        }
        EcdsaKeypair::NistP384 { private, .. } => {
            (&ECDSA_P384_SHA384_FIXED_SIGNING, private.as_slice())
        }
        EcdsaKeypair::NistP521 { .. } => return None,
    };
    let public = EcdsaPublicKey::from(pair);
    let public = public.as_sec1_bytes();
    let random = SystemRandom::new();
    EcdsaKeyPair::from_private_key_and_public_key(algorithm, private, public, &random).ok()
}

fn rsa(pair: &RsaKeypair) -> Option<RsaKeyPair> {
    let (public, private) = (pair.public(), pair.private());
    let d = private.d().as_positive_bytes()?;
    let (p, q) = (private.p().as_positive_bytes()?, private.q().as_positive_bytes()?);
    let (d_p, d_q) = (exponent(d, p)?, exponent(d, q)?);
    let components = KeyPairComponents {
        public_key: PublicKeyComponents {
            n: public.n().as_positive_bytes()?,
            e: public.e().as_positive_bytes()?,
        },
        d,
        p,
        q,
        dP: without_zeros(&d_p),
        dQ: without_zeros(&d_q),
        qInv: private.iqmp().as_positive_bytes()?,
    };
    RsaKeyPair::from_components(&components).ok()
}

/// `d` modulo `prime` - 1, which OpenSSH's files leave out (RFC 8017, 3.2).
fn exponent(d: &[u8], prime: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut less = Zeroizing::new(prime.to_vec());
    let last = less.last_mut().filter(|byte| **byte & 1 == 1)?;
    *last -= 1;
    let number = |bytes: &[u8]| {
        let bits = u32::try_from(8 * bytes.len()).ok()?;
        BoxedUint::from_be_slice(bytes, bits).ok().map(Zeroizing::new)
    };
    let modulus =
        NonZero::new(BoxedUint::clone(&*number(&less)?)).into_option().map(Zeroizing::new)?;
    let rest = Zeroizing::new(number(d)?.rem(&modulus));
    Some(Zeroizing::new(rest.to_be_bytes().into_vec()))
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
