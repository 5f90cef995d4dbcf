//! Why a proof counts for nothing.

/// Most bytes of a proof. An Ed25519 one has about 300, one by the longest RSA key 3,000.
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
    /// A security key that was not touched.
    #[error("the security key was not touched for this signature, and it must be here")]
    Untouched,
    /// A security key that did not ask who it was.
    #[error("the security key did not ask for its PIN for this signature, and it must here")]
    Unverified,
    /// The provider refused to sign.
    #[error("the key could not sign")]
    Sign,
}
