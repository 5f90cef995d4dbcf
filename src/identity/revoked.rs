//! What is not let in any more, whoever lists it: the lines of a revocation list, as ssh-keygen(1) takes
//! them (KEY REVOCATION LISTS).
//!
//! ```text
//! ssh-ed25519 AAAA…             a key: as itself, in a certificate, or as a CA
//! key: ssh-ed25519 AAAA…        the same; sha1: and sha256: too
//! hash: SHA256:…                the same by its fingerprint; also without hash:
//! serial: 17    serial: 5-9     certificates by their number, of every CA
//! id: KEY-ID                    certificates by their key id, of every CA
//! ```
//!
//! What follows a `#` is a comment, wherever it stands.
//!
//! A list that cannot be read in full lets nobody in: a line that is passed over may be the one that
//! counts.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::line::{is_key_type, lines, quote, word};
use super::line_error::{LineReason, no_type};
use super::revoked_error::RevokedError;
use super::{Certificate, Fingerprint, LineError, PublicKey, PublicKeyError};

/// How a binary list of ssh-keygen(1) begins (PROTOCOL.krl).
const BINARY: &str = "SSHKRL\n\0";

/// A revocation list.
#[derive(Debug, Default)]
pub struct Revoked {
    keys: BTreeSet<Fingerprint>,
    serials: Vec<(u64, u64)>,
    ids: BTreeSet<String>,
}

impl Revoked {
    /// Reads a list. Lines that are not understood are reported.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<LineError>) {
        let mut list = Self::default();
        if Self::is_binary(text) {
            return (list, vec![LineError { line: 1, reason: RevokedError::Binary.into() }]);
        }
        let mut errors = Vec::new();
        for (line, content) in lines(text) {
            if let Err(reason) = list.add(content) {
                errors.push(LineError { line, reason });
            }
        }
        (list, errors)
    }

    /// Whether the text is that of a binary list of ssh-keygen(1), which is not read.
    #[must_use]
    pub fn is_binary(text: &str) -> bool {
        text.starts_with(BINARY)
    }

    fn add(&mut self, content: &str) -> Result<(), LineReason> {
        let entry = uncommented(content);
        let Some((name, value)) = named(entry) else {
            return self.add_plain(entry);
        };
        if value.is_empty() {
            return Err(RevokedError::Empty.into());
        }
        match name.as_str() {
            "serial" => self.serials.push(serials(value)?),
            "id" => {
                self.ids.insert(value.to_owned());
                // A key id may have the character in it, and to pass that certificate over would let it in.
                self.ids.extend(named(content).map(|(_, whole)| whole.to_owned()));
            }
            "hash" => drop(self.keys.insert(fingerprint(value)?)),
            _ => drop(self.keys.insert(key(value)?)),
        }
        Ok(())
    }

    fn add_plain(&mut self, content: &str) -> Result<(), LineReason> {
        let revoked = match content.starts_with("SHA256:") {
            true => fingerprint(word(content).0)?,
            false => key(content)?,
        };
        self.keys.insert(revoked);
        Ok(())
    }

    /// Whether this key is on the list.
    #[must_use]
    pub fn has_key(&self, key: &Fingerprint) -> bool {
        self.keys.contains(key)
    }

    /// Whether this certificate, its key or its CA is on the list.
    #[must_use]
    pub fn has_certificate(&self, certificate: &Certificate) -> bool {
        let serial = certificate.serial();
        self.has_key(&certificate.key().fingerprint())
            || self.has_key(&certificate.authority().fingerprint())
            || self.ids.contains(certificate.id())
            || self.serials.iter().any(|(from, to)| (*from..=*to).contains(&serial))
    }
}

impl From<RevokedError> for LineReason {
    fn from(error: RevokedError) -> Self {
        Self::Revoked(error)
    }
}

/// What stands before the comment.
pub(super) fn uncommented(content: &str) -> &str {
    content.split_once('#').map_or(content, |(entry, _)| entry.trim_end())
}

/// A known word before a colon, in small letters, and what follows it.
fn named(content: &str) -> Option<(String, &str)> {
    let (name, value) = content.split_once(':')?;
    let name = name.to_ascii_lowercase();
    let is_known = ["serial", "id", "key", "sha1", "sha256", "hash"].contains(&name.as_str());
    // A fingerprint begins like the word before a key.
    let is_fingerprint = content.starts_with("SHA256:") && !is_key_type(word(value.trim()).0);
    (is_known && !is_fingerprint).then(|| (name, value.trim()))
}

fn fingerprint(text: &str) -> Result<Fingerprint, RevokedError> {
    Ok(text.parse::<Fingerprint>()?)
}

/// The key of a line, also one of a type that cannot log in here.
fn key(line: &str) -> Result<Fingerprint, LineReason> {
    let (kind, rest) = word(line);
    if !is_key_type(kind) {
        return Err(match no_type(kind, rest.is_empty()) {
            LineReason::Type(kind) => RevokedError::Unknown(kind).into(),
            unquoted => unquoted,
        });
    }
    if kind.contains("-cert-v01@") {
        return Err(RevokedError::Certificate.into());
    }
    let base64 = word(rest).0;
    match PublicKey::from_words(kind, base64) {
        Ok(key) => Ok(key.fingerprint()),
        Err(PublicKeyError::Unsupported(_) | PublicKeyError::RsaSize(_)) => {
            let blob = STANDARD.decode(base64).map_err(|_| PublicKeyError::Malformed)?;
            Ok(Fingerprint::of_blob(&blob))
        }
        Err(e) => Err(e.into()),
    }
}

/// A number from 1, or the first and last of some: decimal, or hexadecimal with 0x. With another 0 in front it
/// would be octal to ssh-keygen(1), and to few who write it.
fn serials(text: &str) -> Result<(u64, u64), RevokedError> {
    let number = |digits: &str| match digits.trim().split_at_checked(2) {
        Some(("0x", hex)) => u64::from_str_radix(hex, 16).ok(),
        _ => digits.trim().parse().ok().filter(|_| !digits.trim().starts_with('0')),
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (number(from), number(to)) {
        (Some(from), Some(to)) if 0 < from && from <= to => Ok((from, to)),
        _ => Err(RevokedError::Serial(quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::NotAFingerprint;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";

    fn listed() -> Fingerprint {
        PublicKey::from_words("ssh-ed25519", &KEY[12..]).unwrap().fingerprint()
    }

    #[test]
    fn a_key_in_each_form() {
        let print = listed();
        for line in [
            KEY.to_owned(),
            format!("{KEY} comment"),
            format!("key: {KEY}"),
            format!("KEY:{KEY} c"),
            format!("sha256: {KEY}"),
            format!("SHA256:{KEY}"),
            format!("sha1: {KEY}"),
            format!("hash: {print}"),
            format!("{print}"),
            format!("{print}\t# lost on the train"),
        ] {
            let (list, errors) = Revoked::parse(&format!("# revoked\n\n{line}\n"));
            assert_eq!(errors, [], "{line}");
            assert!(list.has_key(&print), "{line}");
            assert!(!list.has_key(&Fingerprint::of_blob(b"")), "{line}");
        }
    }

    #[test]
    fn numbers_and_ids() {
        let (list, errors) = Revoked::parse("serial: 17\nSerial:0x10-0xff\nid: a b\nid:x");
        assert_eq!(errors, []);
        assert_eq!(list.serials, [(17, 17), (16, 255)]);
        assert_eq!(list.ids, ["a b", "x"].map(str::to_owned).into());
    }

    /// `ssh-keygen -k` takes a `#` anywhere for the start of a comment: to read one as part of a key id would
    /// let in whom the line names.
    #[test]
    fn a_comment_behind_an_entry_is_none_of_it() {
        let print = listed();
        let text = format!(
            "id: mallory # left in May\nid: build#7\nserial: 5-9 # stolen\nserial:12#\nhash: {print} # c\n\
             {KEY} a#b\nkey: {KEY} # c"
        );
        let (list, errors) = Revoked::parse(&text);
        assert_eq!(errors, []);
        assert_eq!(list.serials, [(5, 9), (12, 12)]);
        for id in ["mallory", "build", "build#7"] {
            assert!(list.ids.contains(id), "{id}");
        }
        assert_eq!(list.keys, [print].into());
        let (_, errors) = Revoked::parse("id: # nobody");
        assert_eq!(errors[0].reason, RevokedError::Empty.into());
    }

    #[test]
    fn what_is_not_understood_is_reported() {
        let unknown = |text: &str| LineReason::from(RevokedError::Unknown(text.into()));
        let serial = |text: &str| LineReason::from(RevokedError::Serial(text.into()));
        for (line, reason) in [
            ("nonsense here", unknown("nonsense")),
            ("nonsense", LineReason::NoPublicKey),
            ("17", unknown("17")),
            ("sha512: x", unknown("sha512:")),
            ("serial: 0", serial("0")),
            ("serial: 9-5", serial("9-5")),
            ("serial: -5", serial("-5")),
            ("serial: x", serial("x")),
            ("serial: 010", serial("010")),
            ("serial: 1-0x", serial("1-0x")),
            ("id:", RevokedError::Empty.into()),
            ("hash: MD5:00", RevokedError::Hash(NotAFingerprint).into()),
            ("SHA256:short", RevokedError::Hash(NotAFingerprint).into()),
            ("key: ssh-ed25519 AAAA", PublicKeyError::Malformed.into()),
            ("ssh-ed25519-cert-v01@openssh.com AAAA", RevokedError::Certificate.into()),
        ] {
            let (_, errors) = Revoked::parse(&format!("{KEY}\n{line}"));
            assert_eq!(errors, [LineError { line: 2, reason }], "{line}");
        }
        let (_, errors) = Revoked::parse("SSHKRL\n\0\u{1}\nmore\nlines");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].to_string().contains("binary list"), "{}", errors[0]);
    }

    #[test]
    fn a_key_that_could_not_log_in_may_be_revoked() {
        let dss = "ssh-dss AAAAB3NzaC1kc3MAAAABAQ";
        let (_, errors) = Revoked::parse(&format!("{dss}=="));
        // Cut off; a whole one is of a type that is not supported.
        assert_eq!(errors[0].reason, PublicKeyError::Malformed.into());
        let blob = [&[0, 0, 0, 7], &b"ssh-rsa"[..], &[0, 0, 0, 1, 3, 0, 0, 0, 1, 0x7f]].concat();
        let (list, errors) = Revoked::parse(&format!("ssh-rsa {} short", STANDARD.encode(&blob)));
        assert_eq!(errors, []);
        assert!(list.has_key(&Fingerprint::of_blob(&blob)));
    }
}
