//! What the lists of keys share: lines and words.

use memchr::{memchr, memchr2};

/// Most bytes of a key list.
pub(super) const FILE_LIMIT: usize = 4 << 20;
/// Most bytes of one line; OpenSSH takes no public key over 16 KiB either.
pub(super) const LINE_LIMIT: usize = 16 << 10;

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
