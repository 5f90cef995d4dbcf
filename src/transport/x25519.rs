//! The key exchange of a server (X25519, RFC 7748) where the processor suits graviola, which takes half as long for it as
//! *ring* does: for rustls.

use graviola::key_agreement::x25519::{PrivateKey, PublicKey};
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// The group.
#[derive(Debug)]
pub(super) struct X25519;

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let private = PrivateKey::new_random().map_err(|_| GetRandomFailed)?;
        let public = private.public_key().as_bytes();
        Ok(Box::new(Started { private, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Wiped on drop.
struct Started {
    private: PrivateKey,
    public: [u8; 32],
}

impl ActiveKeyExchange for Started {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        // A point of small order would make a secret that is none (RFC 8446, 7.4.2).
        let secret =
            PublicKey::try_from_slice(peer).and_then(|peer| self.private.diffie_hellman(&peer));
        let secret = secret.map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        Ok(SharedSecret::from(secret.0.as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::ring::kx_group;

    use super::*;
    use crate::sys::processor::suits_graviola;

    #[test]
    fn it_agrees_with_rings_and_refuses_what_is_no_key() {
        if !suits_graviola() {
            return;
        }
        for _ in 0..20 {
            let (ours, theirs) = (X25519.start().unwrap(), kx_group::X25519.start().unwrap());
            let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
            let ours = ours.complete(&their_key).unwrap();
            assert_eq!(ours.secret_bytes(), theirs.complete(&our_key).unwrap().secret_bytes());
        }
        let one = [&[1][..], &[0; 31]].concat();
        for bad in [&[0; 32][..], &one, &[9; 31], &[9; 33], &[]] {
            let error = X25519.start().unwrap().complete(bad).err();
            assert_eq!(error, Some(PeerMisbehaved::InvalidKeyShare.into()), "{bad:?}");
        }
    }
}
