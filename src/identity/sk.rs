//! Security keys (OpenSSH, `PROTOCOL.u2f`): what a device signs, and what it says of the person before it.
//!
//! The device signs the digest of the application, a byte of flags, a counter and the digest of the
//! message. The counter is not judged: OpenSSH does not either, and keys on several devices share none.

use sha2::{Digest as _, Sha256};

use super::proof_error::ProofError;

/// Somebody touched the device.
const TOUCHED: u8 = 0x01;
/// The device has made sure who it was, by a PIN or a fingerprint.
const VERIFIED: u8 = 0x04;
/// Bytes of the flags and the counter behind a signature.
const TRAILER: usize = 5;

/// What a security key must say of the person before it (sshd(8), `no-touch-required` and `verify-required`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Somebody must have touched it. The default.
    pub touch: bool,
    /// It must have made sure who it was. Not the default.
    pub verify: bool,
}

impl Default for Presence {
    fn default() -> Self {
        Self { touch: true, verify: false }
    }
}

impl Presence {
    pub(super) fn check(self, flags: u8) -> Result<(), ProofError> {
        if self.touch && flags & TOUCHED == 0 {
            return Err(ProofError::Untouched);
        }
        if self.verify && flags & VERIFIED == 0 {
            return Err(ProofError::Unverified);
        }
        Ok(())
    }
}

/// A security key's signature, taken apart.
pub(super) struct Signed<'a> {
    /// What was really signed.
    pub(super) message: Vec<u8>,
    /// The signature over it.
    pub(super) signature: &'a [u8],
    /// What the device says of the person before it; covered by the signature.
    pub(super) flags: u8,
}

impl<'a> Signed<'a> {
    /// Takes apart `bytes`: the signature, the flags, the counter.
    pub(super) fn read(
        bytes: &'a [u8],
        application: &str,
        message: &[u8],
    ) -> Result<Self, ProofError> {
        let end = bytes.len().checked_sub(TRAILER).ok_or(ProofError::Malformed)?;
        let (signature, trailer) = bytes.split_at(end);
        let application = Sha256::digest(application);
        let message =
            [application.as_slice(), trailer, Sha256::digest(message).as_slice()].concat();
        Ok(Self { message, signature, flags: trailer[0] })
    }
}
