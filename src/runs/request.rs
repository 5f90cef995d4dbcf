//! A request to run something, checked against the limits and made comparable.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::journal::TEXT_LIMIT;
use super::record::FRAME_COST;
use crate::exec::Limits;
use crate::exec::spec::{Program, Spec};
use crate::proto::code::Code;
use crate::proto::digest::{Algorithm, Digest};
use crate::proto::frame::{FrameError, INTEGER_LIMIT, encoded};
use crate::proto::header::{ClientHeader, Form, RunRequest, ShowFrom};
use crate::proto::id::RunId;
use crate::proto::strings;

/// How long a run waits for a client that vanished, if the client did not say.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(120);
/// The longest grace that a client may ask for.
pub const LONGEST_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Why a request is not served: the client is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct BadRequest {
    /// The kind.
    pub code: Code,
    /// One line for people.
    pub text: String,
}

fn bad(text: impl Into<String>) -> BadRequest {
    BadRequest { code: Code::BadRequest, text: text.into() }
}

/// What makes two requests with one id the same request. Long values are held as digests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    form: Form,
    words: Digest,
    env: Digest,
    cwd: Digest,
    merge: bool,
    stdin: bool,
    wait_eof: bool,
    deadline_ms: Option<u64>,
    grace_ms: Option<u64>,
}

impl Terms {
    /// Names of the fields in which `other` differs; never their values.
    #[must_use]
    pub fn differing(&self, other: &Self) -> Vec<&'static str> {
        let fields = [
            ("form", self.form == other.form),
            ("command", self.words == other.words),
            ("env", self.env == other.env),
            ("cwd", self.cwd == other.cwd),
            ("merge", self.merge == other.merge),
            ("stdin", self.stdin == other.stdin),
            ("wait_eof", self.wait_eof == other.wait_eof),
            ("deadline", self.deadline_ms == other.deadline_ms),
            ("grace", self.grace_ms == other.grace_ms),
        ];
        fields.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    /// The digest of the command's words, each ended by NUL.
    #[must_use]
    pub fn command_digest(&self) -> Digest {
        self.words
    }
}

/// What a server puts in the place of what a client asks for. It is no part of what makes two requests the
/// same: a client that comes back after the server's files have changed still finds its run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imposed {
    /// Text for the shell. The client's words are then in [`ORIGINAL_COMMAND`] only; its environment and
    /// working folder, by which it could have this command do something else, are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Names and values that go over the client's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<(String, String)>,
}

/// Where a command that was imposed finds what was asked for: rexec's name, and OpenSSH's. Not there if no
/// command was given, but a script on the standard input.
pub const ORIGINAL_COMMAND: [&str; 2] = ["REXEC_ORIGINAL_COMMAND", "SSH_ORIGINAL_COMMAND"];

/// A checked request. Debug shows neither the command nor the environment: both may hold secrets.
#[derive(Clone)]
pub struct Request {
    /// The run's id.
    pub id: RunId,
    /// What is compared when the id comes again.
    pub terms: Terms,
    /// The last frame that the client has.
    pub after: u64,
    /// How long ago the client first sent this id; for ever, if the client knows that it was started.
    pub first_sent_ago: Duration,
    header: RunRequest,
    body: Bytes,
    words_end: usize,
    env_end: usize,
    imposed: Imposed,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("id", &self.id)
            .field("header", &self.header)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

impl Request {
    /// Checks a `run` frame.
    ///
    /// # Errors
    /// [`BadRequest`]; nothing was done.
    pub fn parse(header: RunRequest, body: Bytes) -> Result<Self, BadRequest> {
        check_must(&header)?;
        check_numbers(&header)?;
        check_form(&header)?;
        let id = RunId::new(&header.id).map_err(|e| bad(e.to_string()))?;
        let count = header.words.saturating_add(header.env).saturating_add(u64::from(header.cwd));
        let strings = strings::split(&body, count).map_err(|e| bad(e.to_string()))?;
        let length = |strings: &[&[u8]]| strings.iter().map(|s| s.len() + 1).sum::<usize>();
        // Both counts are at most the count of strings that `split` has just found.
        let (words, rest) =
            strings.split_at(usize::try_from(header.words).unwrap_or(strings.len()));
        let words_end = length(words);
        let env_end = words_end + length(&rest[..rest.len() - usize::from(header.cwd)]);
        let terms = terms(&header, &body, words_end, env_end);
        // A client's clock may have stood still while its machine slept; what it has seen counts more.
        let has_seen_it = header.was_started || header.after > 0;
        let first_sent_ago = if has_seen_it {
            Duration::MAX
        } else {
            Duration::from_millis(header.first_sent_ms_ago)
        };
        Ok(Self {
            id,
            terms,
            after: header.after,
            first_sent_ago,
            header,
            body,
            words_end,
            env_end,
            imposed: Imposed::default(),
        })
    }

    /// How many bytes it takes while it waits.
    #[must_use]
    pub fn size(&self) -> usize {
        let strings = self.header.must.iter().map(|name| size_of::<String>() + name.len());
        self.body.len() + FRAME_COST + strings.sum::<usize>()
    }

    /// Has this run instead, or besides.
    pub fn impose(&mut self, imposed: Imposed) {
        self.imposed = imposed;
    }

    /// What was imposed.
    #[must_use]
    pub fn imposed(&self) -> &Imposed {
        &self.imposed
    }

    /// What to execute; text goes to `shell`.
    #[must_use]
    pub fn spec(&self, shell: PathBuf) -> Spec {
        let mut spec = match &self.imposed.command {
            Some(command) => self.imposed_spec(shell, command),
            None => self.own_spec(shell),
        };
        let more = self.imposed.environment.iter().map(|(n, v)| (n.into(), v.into()));
        spec.env.extend(more);
        spec
    }

    fn imposed_spec(&self, shell: PathBuf, command: &str) -> Spec {
        let original = self.original();
        let env =
            original.iter().flat_map(|text| ORIGINAL_COMMAND.map(|n| (n.into(), text.clone())));
        Spec {
            program: Program::Shell { shell, text: command.into() },
            env: env.collect(),
            cwd: None,
            merge: self.header.merge,
            // Whoever has sent a script sends it to this command.
            stdin: self.header.stdin || self.header.form == Form::Script,
            wait_eof: self.header.wait_eof,
            own_path: false,
            limits: Limits::default(),
            cgroup: None,
            user: None,
        }
    }

    /// The client's command as one text: the words of an argv as a shell would take them.
    fn original(&self) -> Option<OsString> {
        let words = os_strings(&self.body[..self.words_end]);
        match self.header.form {
            Form::Script => None,
            Form::Shell => words.into_iter().next(),
            Form::Argv => {
                let quoted = words.iter().map(|w| shlex::bytes::try_quote(w.as_bytes()));
                // A word has no NUL, the only byte that cannot be quoted.
                let quoted: Vec<_> = quoted.filter_map(Result::ok).collect();
                Some(OsString::from_vec(quoted.join(&b' ')))
            }
        }
    }

    fn own_spec(&self, shell: PathBuf) -> Spec {
        let mut words = os_strings(&self.body[..self.words_end]);
        let program = match self.header.form {
            Form::Shell => Program::Shell { shell, text: words.pop().unwrap_or_default() },
            Form::Script => Program::Script { shell },
            Form::Argv => Program::Argv { words },
        };
        Spec {
            program,
            env: os_strings(&self.body[self.words_end..self.env_end])
                .into_iter()
                .map(split_setting)
                .collect(),
            cwd: os_strings(&self.body[self.env_end..]).pop().map(PathBuf::from),
            merge: self.header.merge,
            stdin: self.header.stdin,
            wait_eof: self.header.wait_eof,
            own_path: false,
            limits: Limits::default(),
            cgroup: None,
            user: None,
        }
    }

    /// How the command is given.
    #[must_use]
    pub fn form(&self) -> Form {
        self.header.form
    }

    /// The command's words, or its one text.
    #[must_use]
    pub fn words(&self) -> Vec<&[u8]> {
        byte_strings(&self.body[..self.words_end]).collect()
    }

    /// The names of the variables that are to be set.
    #[must_use]
    pub fn env_names(&self) -> Vec<&[u8]> {
        let settings = byte_strings(&self.body[self.words_end..self.env_end]);
        settings.map(|setting| setting.split(|b| *b == b'=').next().unwrap_or_default()).collect()
    }

    /// The folder that the client has named.
    #[must_use]
    pub fn cwd(&self) -> Option<&Path> {
        byte_strings(&self.body[self.env_end..]).next().map(|s| Path::new(OsStr::from_bytes(s)))
    }

    /// Whether the client has a say in where folder and program are looked for: what it names may be on a file
    /// system that does not answer.
    #[must_use]
    pub fn names_a_place(&self) -> bool {
        let is_path = |program: &&[u8]| program.contains(&b'/');
        self.cwd().is_some()
            || self.form() == Form::Argv && self.words().first().is_some_and(is_path)
            || self.env_names().contains(&&b"PATH"[..])
    }

    /// Whether standard input will come.
    #[must_use]
    pub fn has_stdin(&self) -> bool {
        self.header.stdin
    }

    /// By what the digests of the run's streams are made: what the client asks for, if this program knows it
    /// and a record on disk, whose marks hold a hasher's state, does not need SHA-256.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        let asked = self.header.hash.as_deref().filter(|_| !self.header.durable);
        asked.and_then(Algorithm::from_name).unwrap_or_default()
    }

    /// Whether the run is to outlive its server.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.header.durable
    }

    /// Whether the run needs no client.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.header.keep
    }

    /// From where a record that is kept is shown.
    #[must_use]
    pub fn shown_from(&self) -> ShowFrom {
        self.header.from
    }

    /// The request as a frame for the run's supervisor: as new, or as from a client that has all frames up
    /// to [`Request::after`].
    ///
    /// # Errors
    /// [`FrameError`] if it is over the limits, as no request is that came in a frame.
    pub fn encoded(&self, as_new: bool) -> Result<Bytes, FrameError> {
        let after = if as_new { 0 } else { self.header.after };
        let header = RunRequest {
            id: self.id.to_string(),
            after,
            first_sent_ms_ago: 0,
            was_started: false,
            ..self.header.clone()
        };
        encoded(&ClientHeader::Run(Box::new(header)), &self.body)
    }

    /// When to stop the run, counted from its start.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.header.deadline_ms.map(Duration::from_millis)
    }

    /// How long the run waits for a client that vanished.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.header.grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis)
    }

    /// What is run, for people: shortened to [`TEXT_LIMIT`].
    #[must_use]
    pub fn command(&self) -> String {
        match &self.imposed.command {
            Some(command) => command.chars().take(TEXT_LIMIT).collect(),
            None => self.client_command(),
        }
    }

    /// What the client asked for, for people, if something else is run.
    #[must_use]
    pub fn asked(&self) -> Option<String> {
        self.imposed.command.is_some().then(|| self.client_command())
    }

    /// The words as a shell would take them, shortened to [`TEXT_LIMIT`].
    fn client_command(&self) -> String {
        let words = &self.body[..self.words_end.min(TEXT_LIMIT)];
        let text = String::from_utf8_lossy(words);
        let words = text.split_terminator('\0');
        match self.header.form {
            Form::Argv => words.map(quoted).collect::<Vec<_>>().join(" "),
            Form::Shell | Form::Script => words.collect(),
        }
    }
}

fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}

fn check_must(header: &RunRequest) -> Result<(), BadRequest> {
    match header.must.iter().find(|field| !RunRequest::KNOWN.contains(&field.as_str())) {
        None => Ok(()),
        Some(field) => {
            let field: String = field.chars().take(64).filter(|c| !c.is_control()).collect();
            let text = format!("the request needs {field:?}, which this server does not know");
            Err(BadRequest { code: Code::Unsupported, text })
        }
    }
}

fn check_numbers(header: &RunRequest) -> Result<(), BadRequest> {
    let numbers = [header.deadline_ms.unwrap_or(0), header.first_sent_ms_ago, header.after];
    if numbers.iter().any(|n| *n >= INTEGER_LIMIT) {
        return Err(bad("numbers stay below 2^53"));
    }
    match header.grace_ms {
        Some(ms) if Duration::from_millis(ms) > LONGEST_GRACE => {
            Err(bad(format!("a grace of at most {} s can be asked for", LONGEST_GRACE.as_secs())))
        }
        _ => Ok(()),
    }
}

fn check_form(header: &RunRequest) -> Result<(), BadRequest> {
    if header.keep && !header.durable {
        return Err(bad("only a durable run is kept without a client"));
    }
    match (header.form, header.words) {
        (Form::Shell, 1) | (Form::Script, 0) | (Form::Argv, 1..) => Ok(()),
        (Form::Shell, n) => Err(bad(format!("the shell form has one word, not {n}"))),
        (Form::Script, n) => Err(bad(format!("the script form has no words, not {n}"))),
        (Form::Argv, 0) => Err(bad("the argv form has at least one word")),
    }
}

fn terms(header: &RunRequest, body: &[u8], words_end: usize, env_end: usize) -> Terms {
    Terms {
        form: header.form,
        words: Digest::of(&body[..words_end]),
        env: Digest::of(&body[words_end..env_end]),
        cwd: Digest::of(&body[env_end..]),
        merge: header.merge,
        stdin: header.stdin,
        wait_eof: header.wait_eof,
        deadline_ms: header.deadline_ms,
        grace_ms: header.grace_ms,
    }
}

/// The strings of a body, each of which is ended by NUL.
fn byte_strings(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split_inclusive(|b| *b == 0).map(|s| s.strip_suffix(b"\0").unwrap_or(s))
}

fn os_strings(body: &[u8]) -> Vec<OsString> {
    byte_strings(body).map(|s| OsString::from_vec(s.to_vec())).collect()
}

fn split_setting(setting: OsString) -> (OsString, OsString) {
    let mut name = setting.into_vec();
    let at = name.iter().position(|b| *b == b'=').unwrap_or(name.len());
    let value = name.split_off(at).into_iter().skip(1).collect();
    (OsString::from_vec(name), OsString::from_vec(value))
}
