//! What the two kinds of key lists share: lines, words, and what may be wrong with them.

use memchr::{memchr, memchr2};

use super::{OptionError, PublicKeyError, RevokedError};

/// Most bytes of a key list.
pub(super) const FILE_LIMIT: usize = 4 << 20;
/// Most bytes of one line; OpenSSH takes no public key over 16 KiB either.
pub(super) const LINE_LIMIT: usize = 16 << 10;

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

/// The lines that say something, numbered, without blanks around them.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    // Editors of other systems put a byte order mark first and carriage returns last.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Lists of thousands are read at a login, and std's search is ten times as long at it.
    let mut rest = Some(text);
    let split = std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr(b'\n', text.as_bytes());
        rest = end.and_then(|end| text.get(end + 1..));
        text.get(..end.unwrap_or(text.len()))
    });
    let trimmed = split.map(|line| line.trim_matches([' ', '\t', '\r']));
    (1..).zip(trimmed).filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// The first word and what follows it.
pub(super) fn word(text: &str) -> (&str, &str) {
    let end = memchr2(b' ', b'\t', text.as_bytes()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_start_matches([' ', '\t']))
}

/// Whether a word names a type of key, of those that OpenSSH has.
pub(super) fn is_key_type(word: &str) -> bool {
    matches!(
        word,
        "ssh-ed25519"
            | "ssh-rsa"
            | "ssh-dss"
            | "ecdsa-sha2-nistp256"
            | "ecdsa-sha2-nistp384"
            | "ecdsa-sha2-nistp521"
            | "sk-ssh-ed25519@openssh.com"
            | "sk-ecdsa-sha2-nistp256@openssh.com"
    ) || is_certificate_type(word)
}

fn is_certificate_type(word: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'@' | b'.');
    word.ends_with("-cert-v01@openssh.com") && word.bytes().all(plain)
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

/// What a message quotes of a file: its start, without control characters.
pub(super) fn quote(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String =
        text.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
