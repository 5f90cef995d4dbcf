//! What may be wrong with a line of a revocation list.

use super::NotAFingerprint;

/// Why a line of a revocation list is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevokedError {
    /// The whole file.
    #[error(
        "this is a binary list of ssh-keygen -k; give the text that it was made from (see ssh-keygen(1), KEY \
         REVOCATION LISTS)"
    )]
    Binary,
    /// Neither a key nor a known word.
    #[error("{0:?} revokes nothing; write a key, or hash:, serial: or id: and a value")]
    Unknown(String),
    /// `serial:`.
    #[error(
        "{0:?} is no serial number, and no range of them such as 5-9; 0 is none, and none begins with it but 0x..."
    )]
    Serial(String),
    /// `hash:`.
    #[error("{0}")]
    Hash(#[from] NotAFingerprint),
    /// `id:` alone.
    #[error("the value is missing")]
    Empty,
    /// The line of a certificate.
    #[error("a certificate is revoked by its number or key id: write serial: N or id: KEY-ID")]
    Certificate,
}
