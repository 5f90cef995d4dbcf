//! What may be wrong with a line of a list of keys.

use super::line::{LINE_LIMIT, quote};
use super::{OptionError, PublicKeyError, RevokedError};

/// A line that was left out, and why. The file's other lines count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct LineError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it and what to do.
    pub reason: LineReason,
}

/// What can be wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineReason {
    /// An option before the key.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A quote without its partner.
    #[error("a quote is not closed")]
    Quote,
    /// No such type of key.
    #[error("{0:?} is not a type of key")]
    Type(String),
    /// The same of what may be a part of a private key.
    #[error(
        "no public key; list those, as files that end in .pub have them, and never private ones"
    )]
    NoPublicKey,
    /// The type, or the names, and nothing after.
    #[error("the key is missing")]
    Short,
    /// The key itself.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// A line of a revocation list.
    #[error(transparent)]
    Revoked(RevokedError),
    /// Options where there are none.
    #[error(
        "a key that signs certificates stands here without options; use --authorized-keys for them"
    )]
    Plain,
    /// Longer than 16 KiB.
    #[error("over the limit of {LINE_LIMIT} bytes")]
    TooLong,
    /// `@cert-authority`.
    #[error("@cert-authority is not honoured yet; list the host's own key")]
    CertAuthority,
    /// Another word that starts with `@`.
    #[error("{0:?} is not a marker")]
    Marker(String),
}

/// Why the first word of a line is no type of key, and whether it is all that there is. A private key in the
/// place of the public one is not quoted: it is in lines of base64, in which there is no blank and no hyphen, and
/// each type of key has one.
pub(super) fn no_type(word: &str, is_alone: bool) -> LineReason {
    const SHORT: usize = 16;
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    let may_be_secret = (word.len() > SHORT || is_alone && !is_number) && !word.contains('-');
    match may_be_secret || word.starts_with("-----BEGIN") {
        true => LineReason::NoPublicKey,
        false => LineReason::Type(quote(word)),
    }
}
