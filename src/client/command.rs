//! What to run.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use super::error::UsageError;
use crate::proto::digest::Algorithm;
use crate::proto::frame::{BODY_LIMIT, INTEGER_LIMIT};
use crate::proto::header::{Form, RunRequest, ShowFrom};
use crate::proto::id::RunId;
use crate::proto::strings;
use crate::units;

/// A command and how it is to run, much like `std::process::Command`.
///
/// ```
/// use rexec::Command;
/// let command = Command::shell("make -j8 check").cwd("/srv/app").env("CI", "1");
/// let exact = Command::argv(["printf", "%s\n", "no shell reads $THIS"]);
/// # let _ = (command, exact);
/// ```
#[derive(Clone)]
pub struct Command {
    form: Form,
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<PathBuf>,
    merge: bool,
    wait_eof: bool,
    deadline: Option<Duration>,
    grace: Option<Duration>,
    id: Option<String>,
    durable: bool,
    algorithm: Algorithm,
    sent_before: Option<Duration>,
}

/// Values of the environment may be secrets: only names are shown.
impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("form", &self.form)
            .field("words", &self.words)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

impl Command {
    fn new(form: Form, words: Vec<OsString>) -> Self {
        Self {
            form,
            words,
            env: Vec::new(),
            cwd: None,
            merge: false,
            wait_eof: false,
            deadline: None,
            grace: None,
            id: None,
            durable: false,
            algorithm: Algorithm::Sha256,
            sent_before: None,
        }
    }

    /// Text for the server's shell.
    #[must_use]
    pub fn shell(text: impl Into<OsString>) -> Self {
        Self::new(Form::Shell, vec![text.into()])
    }

    /// A program and its arguments, exactly: no shell reads them. Any bytes but NUL.
    #[must_use]
    pub fn argv<I, S>(words: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<OsString>,
    {
        Self::new(Form::Argv, words.into_iter().map(Into::into).collect())
    }

    /// The server's shell, which reads its commands from the standard input.
    #[must_use]
    pub fn script() -> Self {
        Self::new(Form::Script, Vec::new())
    }

    /// The working folder, from the home of the server's account if it is relative; without it, that home.
    #[must_use]
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Both streams through one pipe, in exact order; they arrive as one stream.
    #[must_use]
    pub fn merge(mut self, merge: bool) -> Self {
        self.merge = merge;
        self
    }

    /// Waits until nobody holds the output open any more, as ssh does, not just for the main process.
    #[must_use]
    pub fn wait_eof(mut self, wait: bool) -> Self {
        self.wait_eof = wait;
        self
    }

    /// Stops the run and all that it started after so long, counted on the server.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// How long the run waits for this client should it vanish; 120 s if not set, at most a day.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// The run outlives the server, and its record is kept there on disk.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Asks for digests of this algorithm. A server that does not know it, and every durable run, has SHA-256
    /// all the same; the output is checked in full by what the server uses, and the verdict names it.
    #[must_use]
    pub fn hash(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// The run's id, instead of a random one. While the server remembers it (a minute past its end, at
    /// least) the same id never runs twice.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same request was sent before, under the same [`Command::id`], so long ago, and nobody knows what
    /// became of it. A server that no longer knows its ids of then says so, and does not run it.
    #[must_use]
    pub fn sent_before(mut self, ago: Duration) -> Self {
        self.sent_before = Some(ago);
        self
    }

    /// The request, with or without a standard input to follow.
    pub(in crate::client) fn request(
        &self,
        stdin: bool,
        keep: bool,
    ) -> Result<(RunRequest, Bytes), UsageError> {
        let mut body = Vec::new();
        for word in &self.words {
            push(&mut body, "a word of the command", word)?;
        }
        for (name, value) in &self.env {
            push(&mut body, "the environment", &setting(name, value)?)?;
        }
        if let Some(cwd) = &self.cwd {
            push(&mut body, "the working folder", cwd.as_os_str())?;
        }
        if body.len() > BODY_LIMIT {
            return Err(UsageError::TooLong(body.len()));
        }
        let header = RunRequest {
            id: self.id.as_deref().map_or_else(random_id, checked)?,
            form: self.form,
            words: self.words.len() as u64,
            env: self.env.len() as u64,
            cwd: self.cwd.is_some(),
            merge: self.merge,
            stdin: stdin || self.form == Form::Script,
            wait_eof: self.wait_eof,
            deadline_ms: self.deadline.map(millis),
            grace_ms: self.grace.map(millis),
            durable: self.durable || keep,
            keep,
            first_sent_ms_ago: self.sent_before.map_or(0, |ago| millis(ago).max(1)),
            was_started: false,
            after: 0,
            // Who leaves it wants none of its output.
            from: if keep { ShowFrom::Verdict } else { ShowFrom::Start },
            hash: self.algorithm.member(),
            must: self.must(keep),
        };
        Ok((header, body.into()))
    }

    /// Everything that a server may not pass over.
    fn must(&self, keep: bool) -> Vec<String> {
        let fields = [
            ("merge", self.merge),
            ("wait_eof", self.wait_eof),
            ("deadline_ms", self.deadline.is_some()),
            ("grace_ms", self.grace.is_some()),
            ("durable", self.durable || keep),
            ("keep", keep),
        ];
        fields.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.into()).collect()
    }
}

fn checked(id: &str) -> Result<String, UsageError> {
    RunId::new(id).map(|id| id.to_string()).map_err(|e| UsageError::Id(id.into(), e))
}

fn push(body: &mut Vec<u8>, what: &'static str, string: &OsStr) -> Result<(), UsageError> {
    if string.as_bytes().contains(&0) {
        return Err(UsageError::Nul(what));
    }
    strings::push(body, string.as_bytes());
    Ok(())
}

fn setting(name: &OsStr, value: &OsStr) -> Result<OsString, UsageError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(UsageError::EnvName(name.to_string_lossy().into_owned()));
    }
    let mut setting = name.to_owned();
    setting.push("=");
    setting.push(value);
    Ok(setting)
}

/// As long as the wire can say: what is longer ends after everything else.
pub(super) fn millis(duration: Duration) -> u64 {
    units::millis(duration).min(INTEGER_LIMIT - 1)
}

/// 128 random bits: nobody else's run has the same.
pub(super) fn random_id() -> Result<String, UsageError> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).map_err(|e| UsageError::Random(e.to_string()))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}
