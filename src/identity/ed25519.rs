//! The maths of Ed25519 (RFC 8032), on which a server spends much of a login. *ring*'s, or where the processor suits it
//! that of graviola, which is assembler with a proof (s2n-bignum's) and takes half as long.

use ring::signature::{ED25519, UnparsedPublicKey};

#[cfg(target_arch = "x86_64")]
pub(super) use fast::signing_key;

/// Whether a signature is the key's over the message. Both libraries refuse one that was written in another way than the
/// signer's, and compute without cofactor; graviola refuses such a key too.
pub(super) fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    #[cfg(target_arch = "x86_64")]
    if crate::sys::processor::suits_graviola() {
        return fast::verify(key, message, signature);
    }
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// None: *ring* signs with it.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn signing_key(_: &[u8; 32]) -> Option<std::sync::Arc<dyn rustls::sign::SigningKey>> {
    None
}

#[cfg(target_arch = "x86_64")]
mod fast {
    use std::fmt;
    use std::sync::Arc;

    use graviola::signing::eddsa::{Ed25519SigningKey, Ed25519VerifyingKey};
    use rustls::sign::{Signer, SigningKey};
    use rustls::{SignatureAlgorithm, SignatureScheme};

    use crate::sys::processor::suits_graviola;

    pub(super) fn verify(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let key = Ed25519VerifyingKey::from_bytes(key);
        key.is_ok_and(|key| key.verify(signature, message).is_ok())
    }

    /// The key of a seed, for a server that signs often; none if the processor does not suit it.
    pub(in crate::identity) fn signing_key(seed: &[u8; 32]) -> Option<Arc<dyn SigningKey>> {
        if !suits_graviola() {
            return None;
        }
        let key = Ed25519SigningKey::from_bytes(seed).ok()?;
        Some(Arc::new(Key(Arc::new(key))))
    }

    #[derive(Clone)]
    struct Key(Arc<Ed25519SigningKey>);

    impl SigningKey for Key {
        fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
            offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as _)
        }

        fn algorithm(&self) -> SignatureAlgorithm {
            SignatureAlgorithm::ED25519
        }
    }

    impl Signer for Key {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
            Ok(self.0.sign(message).to_vec())
        }

        fn scheme(&self) -> SignatureScheme {
            SignatureScheme::ED25519
        }
    }

    impl fmt::Debug for Key {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Key(hidden)")
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use rustls::SignatureScheme;

    use super::*;

    /// The order of the base point (RFC 8032, 5.1), least byte first.
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];

    fn by_ring(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
    }

    /// What both libraries say.
    fn both(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let says = verify(key, message, signature);
        assert_eq!(
            says,
            by_ring(key, message, signature),
            "{key:02x?} {message:02x?} {signature:02x?}"
        );
        says
    }

    fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
        let mut carry = 0;
        let add = |(a, b): (&u8, &u8)| {
            carry += u16::from(*a) + u16::from(*b);
            let [low, high] = carry.to_le_bytes();
            carry = high.into();
            low
        };
        a.iter().zip(b).map(add).collect()
    }

    #[test]
    fn both_libraries_sign_alike_and_take_the_same_signatures() {
        for n in [0, 1, 2, 17] {
            let (seed, message) = ([n; 32], vec![n; usize::from(n) * 7]);
            let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
            let (key, made) = (pair.public_key().as_ref(), pair.sign(&message));
            let made = made.as_ref();
            assert!(both(key, &message, made));
            if let Some(signer) = signing_key(&seed) {
                let signer = signer.choose_scheme(&[SignatureScheme::ED25519]).unwrap();
                assert_eq!(signer.sign(&message).unwrap(), made);
            }
            for bit in 0..8 * made.len() {
                let mut other = made.to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                assert!(!both(key, &message, &other));
            }
            assert!(!both(key, &[message.as_slice(), b"x"].concat(), made));
            for length in [0, 31, 32, 63] {
                assert!(!both(key, &message, &made[..length]));
                assert!(!both(&key[..length.min(31)], &message, made));
            }
            assert!(!both(key, &message, &[made, &[0]].concat()));
            // The same number modulo the order: whoever saw a signature could make another of it.
            let larger = [&made[..32], &sum(&made[32..], &ORDER)].concat();
            assert!(!both(key, &message, &larger));
        }
    }

    /// Points of small order (RFC 7748, 7), for which the same signature may count for many messages, and keys that stand
    /// for a point in another way than RFC 8032 writes it.
    #[test]
    fn no_key_is_taken_that_ring_refuses() {
        let ends: [[u8; 2]; 4] = [[0xec, 0x7f], [0xed, 0x7f], [0xee, 0x7f], [0xff, 0xff]];
        let mut keys: Vec<[u8; 32]> = vec![[0; 32], [0xff; 32]];
        keys.extend((0..=20).map(|low| {
            let mut key = [0; 32];
            key[0] = low;
            key
        }));
        keys.extend(ends.map(|[low, high]| {
            let mut key = [0xff; 32];
            (key[0], key[31]) = (low, high);
            key
        }));
        let zero = [0; 32];
        for key in &keys {
            for first in &keys {
                for message in [&b"a"[..], b"b", b"c", b"d"] {
                    let signature = [*first, zero].concat();
                    let says = verify(key, message, &signature);
                    assert!(!says || by_ring(key, message, &signature), "{key:02x?} {first:02x?}");
                }
            }
        }
    }
}
