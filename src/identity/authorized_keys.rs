//! The lines of `authorized_keys` (sshd(8), AUTHORIZED_KEYS FILE FORMAT).

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::line::{LINE_LIMIT, is_key_type, lines, quote, word};
use super::line_error::{LineReason, no_type};
use super::options::split;
use super::{Fingerprint, KeyOptions, LineError, Permits, PublicKey, Sought};

/// Bytes of a line of the usual kind of key with a short comment.
const USUAL_LINE: usize = 90;

/// A key that is let in, or that signs certificates of those who are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, from 1.
    pub line: usize,
    /// The key itself.
    pub key: PublicKey,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// What stands before it.
    pub options: Arc<KeyOptions>,
    /// What stands after it; may be empty.
    pub comment: String,
}

/// A file's keys. A list may be long, and of all its lines a login needs one: each is judged when the file is read,
/// and what it says is made out when it is asked for. Most ask for the key that they prove; the fingerprints of all are
/// made when one is asked for by its name.
pub(super) struct Keys {
    text: Arc<String>,
    permits: Permits,
    /// In the order of the lines.
    places: Vec<Place>,
    /// The [`tail`] of each.
    tails: Vec<u64>,
    /// The start of each fingerprint and whose it is, in this order.
    by_name: OnceCell<Vec<(u64, usize)>>,
}

/// Where a key stands, in bytes of the text.
struct Place {
    line: usize,
    /// The line's content.
    content: Range<usize>,
    /// Where its base64 starts.
    base64: usize,
}

impl Keys {
    pub(super) fn parse(text: &Arc<String>, permits: Permits) -> (Self, Vec<LineError>) {
        Self::judge(text, permits, |_| Ok(()))
    }

    pub(super) fn authorities(text: &Arc<String>) -> (Self, Vec<LineError>) {
        let permits = Permits::default();
        Self::judge(text, permits, |content| {
            parse_authority(0, content)?;
            Ok(())
        })
    }

    fn judge(
        text: &Arc<String>,
        permits: Permits,
        is_good: impl Fn(&str) -> Result<(), LineReason>,
    ) -> (Self, Vec<LineError>) {
        let room = text.len() / USUAL_LINE;
        let (mut places, mut tails) = (Vec::with_capacity(room), Vec::with_capacity(room));
        let mut errors = Vec::new();
        // What is looked at is a part of the text.
        let at = |part: &str| part.as_ptr().addr() - text.as_ptr().addr();
        for (line, content) in lines(text) {
            match is_good(content).and_then(|()| base64_of(content, permits)) {
                Ok(base64) => {
                    let content = at(content)..at(content) + content.len();
                    places.push(Place { line, content, base64: at(base64) });
                    tails.push(tail(base64));
                }
                Err(reason) => errors.push(LineError { line, reason }),
            }
        }
        let (text, by_name) = (Arc::clone(text), OnceCell::new());
        (Self { text, permits, places, tails, by_name }, errors)
    }

    /// How many lines there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The lines with this key, the first one first.
    pub(super) fn of(&self, key: &Sought) -> impl Iterator<Item = Entry> {
        let fingerprint = key.fingerprint();
        let near = match key {
            Sought::Key(key) => self.written_as(&key.to_base64()),
            Sought::Named(_) => self.named(fingerprint),
        };
        let entries = near.into_iter().filter_map(|at| self.entry(self.places.get(at)?));
        entries.filter(move |entry| entry.fingerprint == fingerprint)
    }

    /// The places of the keys that begin like this one, which only longer ones do besides it: a key is written in one
    /// way only. To go through the tails of a long list takes less time than to put them in an order.
    fn written_as(&self, base64: &str) -> Vec<usize> {
        let tail = tail(base64);
        let begins = |at: &usize| {
            let place = self.places.get(*at).and_then(|place| self.text.get(place.base64..));
            place.is_some_and(|text| text.starts_with(base64))
        };
        let tails = self.tails.iter().enumerate();
        tails.filter(|(_, other)| **other == tail).map(|(at, _)| at).filter(begins).collect()
    }

    /// The places of the keys whose fingerprint begins like this one.
    fn named(&self, fingerprint: Fingerprint) -> Vec<usize> {
        let index = self.by_name.get_or_init(|| self.name());
        let from = index.partition_point(|(other, _)| *other < fingerprint.start());
        let near = index[from..].iter().take_while(|(other, _)| *other == fingerprint.start());
        near.map(|(_, at)| *at).collect()
    }

    fn entry(&self, place: &Place) -> Option<Entry> {
        parse_line(place.line, self.text.get(place.content.clone())?, self.permits).ok()
    }

    fn name(&self) -> Vec<(u64, usize)> {
        let start = |place: &Place| {
            let base64 = word(self.text.get(place.base64..place.content.end)?).0;
            STANDARD.decode(base64).ok().map(|blob| Fingerprint::of_blob(&blob).start())
        };
        let places = self.places.iter().enumerate();
        let mut index: Vec<_> =
            places.filter_map(|(at, place)| Some((start(place)?, at))).collect();
        index.sort_unstable();
        index
    }
}

/// Its last characters, by which a key is found among many sooner than by all of it.
fn tail(base64: &str) -> u64 {
    base64.as_bytes().last_chunk().map_or(0, |tail| u64::from_ne_bytes(*tail))
}

/// The base64 of a line's key.
fn base64_of(content: &str, permits: Permits) -> Result<&str, LineReason> {
    let (_, kind, base64, _) = words(content, permits)?;
    PublicKey::check_words(kind, base64)?;
    Ok(base64)
}

/// Reads a file of keys that sign certificates for the account (`TrustedUserCAKeys` of sshd_config(5)), of
/// which nothing else can be said there.
#[must_use]
pub fn parse_authorities(text: &str) -> (Vec<Entry>, Vec<LineError>) {
    read(text, parse_authority)
}

fn parse_authority(line: usize, content: &str) -> Result<Entry, LineReason> {
    let entry = parse_line(line, content, Permits::default())?;
    let is_plain = *entry.options == KeyOptions::default();
    if is_plain { Ok(entry) } else { Err(LineReason::Plain) }
}

/// Reads a file's text. A line that is not understood in full is left out and reported: to ignore an
/// option would be to let in more than was written.
#[must_use]
pub fn parse(text: &str, permits: Permits) -> (Vec<Entry>, Vec<LineError>) {
    read(text, |line, content| parse_line(line, content, permits))
}

fn read(
    text: &str,
    parse: impl Fn(usize, &str) -> Result<Entry, LineReason>,
) -> (Vec<Entry>, Vec<LineError>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for (line, content) in lines(text) {
        match parse(line, content) {
            Ok(entry) => entries.push(entry),
            Err(reason) => errors.push(LineError { line, reason }),
        }
    }
    (entries, errors)
}

fn parse_line(line: usize, content: &str, permits: Permits) -> Result<Entry, LineReason> {
    let (options, kind, base64, comment) = words(content, permits)?;
    let key = PublicKey::from_words(kind, base64)?;
    Ok(Entry {
        line,
        fingerprint: key.fingerprint(),
        key,
        options: options.map(Arc::new).unwrap_or_default(),
        comment: quote(comment),
    })
}

/// What stands on a line: options, the type of the key, the key, and what follows it.
fn words(
    content: &str,
    permits: Permits,
) -> Result<(Option<KeyOptions>, &str, &str, &str), LineReason> {
    if content.len() > LINE_LIMIT {
        return Err(LineReason::TooLong);
    }
    let (options, key) = options_and_key(content)?;
    let options = options.map(|text| KeyOptions::parse(text, permits)).transpose()?;
    let (kind, rest) = word(key);
    let (base64, comment) = word(rest);
    if base64.is_empty() {
        return Err(LineReason::Short);
    }
    Ok((options, kind, base64, comment))
}

/// The options, if there are any, and the rest, which starts with a type of key.
fn options_and_key(content: &str) -> Result<(Option<&str>, &str), LineReason> {
    if is_key_type(word(content).0) {
        return Ok((None, content));
    }
    let (options, key) = split(content).ok_or(LineReason::Quote)?;
    let key = word(key).1;
    if is_key_type(word(key).0) {
        return Ok((Some(options), key));
    }
    // What looks like no option is more likely the type of a key, or no line of this file at all.
    match options.contains(['"', ',', '=']) || KeyOptions::parse(options, ALL).is_ok() {
        true if key.is_empty() => Err(LineReason::Short),
        true => Err(no_type(word(key).0, false)),
        false => Err(no_type(options, key.is_empty())),
    }
}

/// For a line that is refused in any case.
const ALL: Permits = Permits { environment: true };

#[cfg(test)]
mod tests {
    use super::super::OptionError;
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";

    fn one(line: &str) -> Result<Entry, LineReason> {
        let (mut entries, mut errors) = parse(line, Permits::default());
        assert_eq!(entries.len() + errors.len(), 1, "{line:?}");
        entries.pop().ok_or_else(|| errors.pop().unwrap().reason)
    }

    #[test]
    fn plain_lines() {
        for (line, comment) in [
            (KEY.to_owned(), ""),
            (format!("{KEY} me@here"), "me@here"),
            (format!("  \t{KEY}\t two  words # kept\r"), "two  words # kept"),
            (KEY.replace(' ', " \t "), ""),
            (format!("\u{feff}{KEY}"), ""),
            (format!("{KEY} bell\x07"), "bell?"),
        ] {
            assert_eq!(one(&line).unwrap().comment, comment, "{line:?}");
        }
    }

    #[test]
    fn a_bad_line_stops_nothing() {
        let text = format!("# c\n\n{KEY} a\nrubbish it is\n   # c\nssh-ed25519\n{KEY} b");
        let (entries, errors) = parse(&text, Permits::default());
        assert_eq!(entries.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(errors[0].to_string(), "line 4: \"rubbish\" is not a type of key");
        assert_eq!(errors[1].reason, LineReason::Short);
    }

    #[test]
    fn options_before_the_key() {
        for (options, command) in [
            ("command=\"echo hi\"", "echo hi"),
            ("command=\"say \\\"a b\\\" # no\",restrict", "say \"a b\" # no"),
            ("command=\"ssh-ed25519 AAAA\"", "ssh-ed25519 AAAA"),
            ("Command=\"a\tb\"\t", "a\tb"),
        ] {
            let entry = one(&format!("{options} {KEY} me")).unwrap();
            assert_eq!(entry.options.command.as_deref(), Some(command));
            assert_eq!(entry.comment, "me");
        }
        assert!(one(&format!("restrict,pty {KEY}")).unwrap().options.restrict);
    }

    #[test]
    fn a_line_whose_options_are_not_understood_is_refused() {
        let unknown = OptionError::Unknown("unheard-of".into());
        for options in ["unheard-of", "restrict,unheard-of", "unheard-of=\"ssh-rsa \\\"\""] {
            let reason = one(&format!("{options} {KEY} me")).unwrap_err();
            assert_eq!(reason, LineReason::Option(unknown.clone()), "{options}");
        }
        let reason = one(&format!("environment=\"A=b\" {KEY}")).unwrap_err();
        assert_eq!(reason, LineReason::Option(OptionError::Environment));
        assert_eq!(one(&format!("command=\"echo {KEY}")).unwrap_err(), LineReason::Quote);
        assert_eq!(one("restrict").unwrap_err(), LineReason::Short);
        assert_eq!(one("restrict,pty").unwrap_err(), LineReason::Short);
        assert_eq!(one("restrict nonsense AAAA").unwrap_err(), LineReason::Type("nonsense".into()));
    }

    #[test]
    fn keys_that_are_none() {
        let damaged = |r: &LineReason| matches!(r, LineReason::Key(_));
        let cut = &KEY[..KEY.len() - 4];
        for line in [cut, "ssh-ed25519 !!!!", "ssh-ed25519 AAAA", &format!("{KEY}AAAA")] {
            assert!(damaged(&one(line).unwrap_err()), "{line}");
        }
        let reason = one(&KEY.replacen("ssh-ed25519", "ssh-rsa", 1)).unwrap_err();
        assert_eq!(reason.to_string(), "the line says ssh-rsa but the key is of type ssh-ed25519");
        assert!(matches!(one(&format!("ssh-ed448 {}", &KEY[12..])), Err(LineReason::Type(_))));
    }

    #[test]
    fn types_that_cannot_log_in_are_said() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [["ecdsa", "521"], ["rsa", "1024"]] {
            let path = dir.path().join(kind[0]);
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-t", kind[0], "-b", kind[1], "-f"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let reason = one(line.trim_end()).unwrap_err();
            assert!(reason.to_string().contains("use one of type ssh-ed25519"), "{reason}");
        }
    }

    /// A login judges a line without making out what it says: both are to say the same of each line.
    #[test]
    fn what_is_found_by_its_key_is_what_its_line_says() {
        let dir = tempfile::tempdir().unwrap();
        let made = |kind: [&str; 2]| {
            let path = dir.path().join(kind.concat());
            let mut command = std::process::Command::new("ssh-keygen");
            command.args(["-q", "-N", "", "-C", "x", "-t", kind[0], "-b", kind[1], "-f"]);
            assert!(command.arg(&path).status().unwrap().success());
            std::fs::read_to_string(path.with_extension("pub")).unwrap().trim_end().to_owned()
        };
        let (p256, rsa, p521) =
            (made(["ecdsa", "256"]), made(["rsa", "2048"]), made(["ecdsa", "521"]));
        let blob = KEY.split(' ').nth(1).unwrap();
        let padded = p256.split(' ').nth(1).unwrap().trim_end_matches('=').to_owned();
        let (last, rest) = (padded.as_bytes()[padded.len() - 1], &padded[..padded.len() - 1]);
        let other_bits = char::from(last + 1);
        let text: Arc<String> = [
            format!("\u{feff}{KEY} first"),
            format!("restrict {KEY} \u{e4}gain\r"),
            format!("command=\"a\",unheard-of {KEY}"),
            format!("  {p256}"),
            format!("ecdsa-sha2-nistp256 {padded} no padding"),
            format!("ecdsa-sha2-nistp256 {rest}{other_bits}= bits beyond the end"),
            format!("from=\"10.*\" {rsa}"),
            p521,
            format!("ssh-rsa {blob} mislabelled"),
            format!("ssh-ed25519 {blob}="),
            format!("ssh-ed25519 {}A", &blob[..blob.len() - 1]),
            format!("ssh-ed25519 {}\u{e4}", &blob[..blob.len() - 2]),
            format!("ssh-ed25519 {}", blob.replacen("AAAAC", "AAAAD", 1)),
            format!("ssh-ed25519 {blob}\u{a0}no blank"),
            format!("cert-authority {KEY} ca"),
            "ssh-ed25519".into(),
        ]
        .join("\n")
        .into();
        for permits in [Permits::default(), Permits { environment: true }] {
            let ((keys, found), (entries, errors)) =
                (Keys::parse(&text, permits), parse(&text, permits));
            assert_eq!((keys.len(), found), (entries.len(), errors));
            assert_eq!(keys.len(), 6, "{entries:?}");
            for entry in &entries {
                let same = entries.iter().filter(|other| other.fingerprint == entry.fingerprint);
                assert!(keys.of(&Sought::Named(entry.fingerprint)).eq(same.clone().cloned()));
                let content = text.split('\n').nth(entry.line - 1).unwrap();
                let blob = content.split(' ').find(|word| word.starts_with("AAAA")).unwrap();
                let key = PublicKey::from_base64(blob.trim_end_matches('\r')).unwrap();
                assert!(keys.of(&Sought::Key(key)).eq(same.cloned()), "{entry:?}");
            }
        }
        let (keys, found) = Keys::authorities(&text);
        let (entries, errors) = parse_authorities(&text);
        assert_eq!((keys.len(), found), (entries.len(), errors));
        let of_first = entries.iter().filter(|entry| entry.fingerprint == entries[0].fingerprint);
        assert!(keys.of(&Sought::Named(entries[0].fingerprint)).eq(of_first.cloned()));
    }

    #[test]
    fn a_line_over_the_limit() {
        let room = LINE_LIMIT - KEY.len() - 1;
        assert!(one(&format!("{KEY} {}", "c".repeat(room))).is_ok());
        let reason = one(&format!("{KEY} {}", "c".repeat(room + 1))).unwrap_err();
        assert_eq!(reason, LineReason::TooLong);
    }
}
