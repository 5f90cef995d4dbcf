//! The lines of `authorized_keys` (sshd(8), AUTHORIZED_KEYS FILE FORMAT).

use super::line::{FILE_LIMIT, LINE_LIMIT, LineReason, is_key_type, lines, quote, word};
use super::{Fingerprint, LineError, PublicKey};
use crate::sys::fs::{FsError, TrustedFile};

/// A key that is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands, from 1.
    pub line: usize,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// What stands after it; may be empty.
    pub comment: String,
}

/// Reads a file's text. A line that is not understood in full is left out and reported: to ignore an
/// option would be to let in more than was written.
#[must_use]
pub fn parse(text: &str) -> (Vec<Entry>, Vec<LineError>) {
    let (mut entries, mut errors) = (Vec::new(), Vec::new());
    for (line, content) in lines(text) {
        match parse_line(content) {
            Ok((key, comment)) => {
                let fingerprint = key.fingerprint();
                entries.push(Entry { line, fingerprint, comment: quote(comment) });
            }
            Err(reason) => errors.push(LineError { line, reason }),
        }
    }
    (entries, errors)
}

/// Reads an opened file.
///
/// # Errors
/// It is too long or cannot be read.
pub(super) fn read(file: TrustedFile) -> Result<(Vec<Entry>, Vec<LineError>), FsError> {
    Ok(parse(&file.read(FILE_LIMIT)?))
}

fn parse_line(line: &str) -> Result<(PublicKey, &str), LineReason> {
    if line.len() > LINE_LIMIT {
        return Err(LineReason::TooLong);
    }
    let (kind, rest) = word(line);
    if !is_key_type(kind) {
        return Err(not_a_key(line));
    }
    let (base64, comment) = word(rest);
    if base64.is_empty() {
        return Err(LineReason::Short);
    }
    Ok((PublicKey::from_words(kind, base64)?, comment))
}

/// Says whether the line starts with options or with a word that is nothing.
fn not_a_key(line: &str) -> LineReason {
    let Some((options, rest)) = split_options(line) else { return LineReason::Quote };
    if is_key_type(word(rest).0) || options.contains(['"', ',', '=']) {
        return LineReason::Options(quote(options));
    }
    LineReason::Type(quote(options))
}

/// Splits at the first blank outside quotes, in which `\"` is a quote character; none if one stays open.
fn split_options(line: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' if !escaped => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Some((&line[..at], word(&line[at..]).1)),
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    (!quoted).then_some((line, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";

    fn one(line: &str) -> Result<Entry, LineReason> {
        let (mut entries, mut errors) = parse(line);
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
        let text = format!("# c\n\n{KEY} a\nrubbish\n   # c\nssh-ed25519\n{KEY} b");
        let (entries, errors) = parse(&text);
        assert_eq!(entries.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [4, 6]);
        assert_eq!(errors[0].to_string(), "line 4: \"rubbish\" is not a type of key");
        assert_eq!(errors[1].reason, LineReason::Short);
    }

    #[test]
    fn options_are_refused_however_they_are_written() {
        for options in [
            "restrict",
            "no-pty,no-X11-forwarding",
            "command=\"echo hi\"",
            "command=\"say \\\"a b\\\" # no\",restrict",
            "from=\"10.0.0.0/8\"",
            "environment=\"A=b c\"",
            "cert-authority",
            "expiry-time=\"20200101\"",
            "command=\"ssh-ed25519 AAAA\"",
            "principals=\"ssh-rsa \\\"\"",
        ] {
            let reason = one(&format!("{options} {KEY} me")).unwrap_err();
            assert!(matches!(&reason, LineReason::Options(o) if o == options), "{reason:?}");
            assert!(reason.to_string().contains("options are not honoured yet"));
        }
        assert_eq!(one(&format!("command=\"echo {KEY}")).unwrap_err(), LineReason::Quote);
        assert!(matches!(one("restrict,pty").unwrap_err(), LineReason::Options(_)));
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

    #[test]
    fn a_line_over_the_limit() {
        let room = LINE_LIMIT - KEY.len() - 1;
        assert!(one(&format!("{KEY} {}", "c".repeat(room))).is_ok());
        let reason = one(&format!("{KEY} {}", "c".repeat(room + 1))).unwrap_err();
        assert_eq!(reason, LineReason::TooLong);
    }

    #[test]
    fn a_file_over_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("keys");
        for (len, ok) in [(FILE_LIMIT, true), (FILE_LIMIT + 1, false)] {
            crate::sys::fs::atomic_write(&path, 0o600, &vec![b'\n'; len]).unwrap();
            let result = read(TrustedFile::open(&path).unwrap());
            assert_eq!(result.is_ok(), ok);
        }
    }
}
