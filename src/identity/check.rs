//! Every line of the files that say who is let in, and what it means.

use std::path::PathBuf;
use std::time::SystemTime;

use super::authorized_keys::{Entry, parse, parse_authorities};
use super::line::{lines, quote};
use super::line_error::LineReason;
use super::revoked::uncommented;
use super::watched::read_list;
use super::{
    AccessFiles, Fingerprint, Found, LineError, Permits, PublicKeyError, Revoked, Role, Source,
};

/// A file.
#[derive(Debug)]
pub struct CheckedFile {
    /// What it is for.
    pub role: Role,
    /// Where it is.
    pub path: PathBuf,
    /// Its lines that say something, in order; or why it cannot be used.
    pub lines: Result<Vec<CheckedLine>, String>,
}

/// A line.
#[derive(Debug)]
pub struct CheckedLine {
    /// Its number, from 1.
    pub number: usize,
    /// What it says, or why that is not honoured.
    pub says: Result<Said, LineReason>,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A key is let in, or signs certificates.
    Key {
        /// Its type, such as `ssh-ed25519`.
        algorithm: String,
        /// Its fingerprint.
        fingerprint: Fingerprint,
        /// What stands after it.
        comment: String,
        /// What is held back, and what is granted besides, one by one.
        means: Vec<String>,
    },
    /// Something is not let in any more: the line itself.
    Revoked(String),
}

impl CheckedFile {
    /// Whether all of it is honoured.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lines.as_ref().is_ok_and(|lines| lines.iter().all(|line| line.says.is_ok()))
    }
}

/// Reads every file as a server does. What has expired is told as being so at `now`.
#[must_use]
pub fn check_files(files: &AccessFiles, now: SystemTime) -> Vec<CheckedFile> {
    let all = [
        (Role::Keys, &files.keys),
        (Role::Authorities, &files.authorities),
        (Role::Revoked, &files.revoked),
    ];
    let named = all.into_iter().flat_map(|(role, sources)| sources.iter().map(move |s| (role, s)));
    named.map(|(role, source)| check_file(role, source, files.permits, now)).collect()
}

/// The same of a list of keys that was read elsewhere.
#[must_use]
pub fn check_found(path: PathBuf, found: Found, permits: Permits, now: SystemTime) -> CheckedFile {
    let told = |text: Option<String>| keys(parse(&text.unwrap_or_default(), permits), now);
    CheckedFile { role: Role::Keys, path, lines: found.map(told) }
}

fn check_file(role: Role, source: &Source, permits: Permits, now: SystemTime) -> CheckedFile {
    let path = source.path.clone();
    let lines = match read_list(&path) {
        Ok(text) => Ok(match role {
            Role::Keys => keys(parse(&text, permits), now),
            Role::Authorities => keys(parse_authorities(&text), now),
            Role::Revoked => revoked(&text),
        }),
        Err(e) if e.is_missing() && !source.required => Ok(Vec::new()),
        Err(e) => Err(e.to_string()),
    };
    CheckedFile { role, path, lines }
}

fn keys((entries, errors): (Vec<Entry>, Vec<LineError>), now: SystemTime) -> Vec<CheckedLine> {
    let key = |Entry { line, key, fingerprint, options, comment }| {
        let (algorithm, means) = (key.algorithm(), options.means(now));
        let says = match key.is_sound() {
            true => Ok(Said::Key { algorithm, fingerprint, comment, means }),
            false => Err(PublicKeyError::Malformed.into()),
        };
        CheckedLine { number: line, says }
    };
    let refused = |e: LineError| CheckedLine { number: e.line, says: Err(e.reason) };
    let mut all: Vec<_> =
        entries.into_iter().map(key).chain(errors.into_iter().map(refused)).collect();
    all.sort_by_key(|line| line.number);
    all
}

fn revoked(text: &str) -> Vec<CheckedLine> {
    let errors = Revoked::parse(text).1;
    let error_of = |number| errors.iter().find(|e| e.line == number).map(|e| e.reason.clone());
    let line = |(number, content): (usize, &str)| {
        let says = error_of(number).map_or(Ok(Said::Revoked(quote(uncommented(content)))), Err);
        CheckedLine { number, says }
    };
    // A binary list has one error for all that it holds.
    let shown = if Revoked::is_binary(text) { 1 } else { usize::MAX };
    lines(text).map(line).take(shown).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::identity::parse_time;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";

    fn check(role: Role, text: &str) -> Vec<(usize, Result<Said, LineReason>)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        std::fs::write(&path, text).unwrap();
        let source = vec![Source { path, required: true }];
        let mut files = AccessFiles::default();
        match role {
            Role::Keys => files.keys = source,
            Role::Authorities => files.authorities = source,
            Role::Revoked => files.revoked = source,
        }
        let now = parse_time("20260601Z").unwrap();
        let [file] = check_files(&files, now).try_into().unwrap();
        file.lines.unwrap().into_iter().map(|line| (line.number, line.says)).collect()
    }

    #[test]
    fn what_lines_mean() {
        for (options, told) in [
            ("", &[][..]),
            (
                "restrict ",
                &["runs commands, and follows and stops its own runs; nothing else", "no terminal"],
            ),
            ("no-port-forwarding ", &[]),
            ("command=\"a b\" ", &["runs only: a b"]),
            (
                "from=\"10.0.0.0/8,*.example.com\" ",
                &[
                    "only from 10.0.0.0/8,*.example.com; no names are looked up, so nobody comes from *.example.com",
                ],
            ),
            ("expiry-time=\"20300101Z\" ", &["until 2030-01-01T00:00:00Z"]),
            ("expiry-time=\"20260101Z\" ", &["until 2026-01-01T00:00:00Z: it has expired"]),
            ("cert-authority ", &["signs certificates that name this account"]),
            ("cert-authority,principals=\"a,b\" ", &["signs certificates that name a or b"]),
            (
                "verify-required,no-touch-required ",
                &["a hardware key need not be touched", "a hardware key asks for its PIN"],
            ),
        ] {
            let [(1, Ok(Said::Key { algorithm, comment, means, .. }))] =
                &check(Role::Keys, &format!("{options}{KEY} me\n"))[..]
            else {
                panic!("{options}")
            };
            assert_eq!((&**algorithm, &**comment), ("ssh-ed25519", "me"));
            assert_eq!(means, told, "{options}");
        }
    }

    /// As ssh-keygen has it. At a login nothing fits it.
    #[test]
    fn a_key_that_is_no_point_of_its_curve_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bits in ["256", "384"] {
            let (path, bad) = (dir.path().join(bits), dir.path().join("bad"));
            let keygen = |args: &[&str], path: &std::path::Path| {
                let mut command = std::process::Command::new("ssh-keygen");
                command.args(args).arg("-f").arg(path).output().unwrap().status.success()
            };
            assert!(keygen(&["-q", "-N", "", "-t", "ecdsa", "-b", bits], &path));
            let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
            let [kind, base64, ..] = line.split(' ').collect::<Vec<_>>()[..] else { panic!() };
            let mut blob = STANDARD.decode(base64).unwrap();
            *blob.last_mut().unwrap() ^= 1;
            let off = format!("{kind} {}\n", STANDARD.encode(blob));
            std::fs::write(&bad, &off).unwrap();
            assert!(!keygen(&["-l"], &bad));
            for role in [Role::Keys, Role::Authorities] {
                let lines = check(role, &(line.clone() + &off));
                assert!(lines[0].1.is_ok(), "{lines:?}");
                let damaged = LineReason::Key(PublicKeyError::Malformed);
                assert_eq!(lines[1], (2, Err(damaged)), "{bits}");
            }
        }
    }

    #[test]
    fn refused_lines_stand_where_they_are() {
        let lines = check(Role::Keys, &format!("{KEY}\n# c\nunheard-of {KEY}\n{KEY}\n"));
        assert_eq!(
            lines.iter().map(|(n, says)| (*n, says.is_ok())).collect::<Vec<_>>(),
            [(1, true), (3, false), (4, true)]
        );
        let lines = check(Role::Authorities, &format!("{KEY}\nrestrict {KEY}\n"));
        let refused = lines[1].1.as_ref().unwrap_err().to_string();
        assert!(refused.contains("stands here without options"), "{refused}");
        let lines = check(Role::Revoked, "serial: 7\nnonsense\n");
        assert_eq!(lines[0], (1, Ok(Said::Revoked("serial: 7".into()))));
        assert!(lines[1].1.is_err());
        assert_eq!(check(Role::Revoked, "SSHKRL\n\0\nx\ny\n").len(), 1);
    }
}
