//! The exit statuses and the one line for each: one table for the client, its help and its documentation.

use crate::client::{Error, OutputError};
use crate::exec::Signal;
use crate::proto::code::Code;
use crate::proto::header::Stream;
use crate::proto::verdict::{End, HIGHEST_SIGNAL, Limit, StopBy, Stopped, StreamEndKind, Verdict};

/// What the client's exit status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The command's own code.
    Code(u8),
    /// A signal killed the command.
    Signal(u8),
    /// The deadline stopped it.
    Deadline,
    /// This client's Ctrl-C stopped it.
    Interrupted,
    /// This client was told to stop.
    Terminated,
    /// Local stdout was closed.
    Closed,
    /// Not reached.
    Unreached,
    /// Reached, never started.
    NotStarted,
    /// Reached, and not told of a run that others have started.
    Refused,
    /// Cannot know.
    Unknown,
    /// The output here is not what the command wrote.
    Output,
    /// Somebody else stopped it.
    Stopped,
    /// The run id stands for another request.
    Conflict,
    /// Wrong usage.
    Usage,
}

/// One row of the table: status, meaning, whether it is safe to run again.
pub type Row = (&'static str, &'static str, &'static str);

/// The table, as the help and `docs/errors.md` show it.
pub const TABLE: &[Row] = &[
    ("0-255", "the command's own code", "as you know the command"),
    ("128+n", "the command was killed by signal n", "as you know the command"),
    ("124", "stopped by its deadline (--timeout)", "as you know the command"),
    ("130, 143", "stopped by this client: Ctrl-C; SIGTERM or SIGHUP", "as you know the command"),
    (
        "141",
        "local stdout was closed; a command in the foreground is stopped",
        "as you know the command",
    ),
    ("255", "not reached: no byte of the request was sent", "yes"),
    ("254", "reached, never started: not let in, refused, or no such program", "yes"),
    ("253", "cannot know whether or how it ran", "look first at what it did"),
    ("252", "output incomplete, altered, or not writable here", "as you know the command"),
    ("251", "stopped by somebody else: server, policy, operator", "as you know the command"),
    ("250", "the run id stands for another request", "with another id"),
    ("2", "wrong usage", "yes, corrected"),
];

impl Status {
    /// The process's exit status.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
            Self::Deadline => 124,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Closed => 141,
            Self::Unreached => 255,
            Self::NotStarted | Self::Refused => 254,
            Self::Unknown => 253,
            Self::Output => 252,
            Self::Stopped => 251,
            Self::Conflict => 250,
            Self::Usage => 2,
        }
    }

    /// A stable name, for JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Code(_) => "exited",
            Self::Signal(_) => "signaled",
            Self::Deadline => "deadline",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::Closed => "stdout_closed",
            Self::Unreached => "unreached",
            Self::NotStarted => "not_started",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Output => "output_failed",
            Self::Stopped => "stopped",
            Self::Conflict => "conflict",
            Self::Usage => "usage",
        }
    }
}

/// By what this client asked for the run's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM or SIGHUP.
    Terminate,
}

impl Asked {
    fn status(self) -> Status {
        match self {
            Self::Terminate => Status::Terminated,
            Self::Interrupt | Self::Nothing => Status::Interrupted,
        }
    }
}

/// What there is to say about a run: a status, and a line unless the command speaks for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// One line for people, without the program's name.
    pub line: Option<String>,
    /// The code that the line explains, if the wire named one.
    pub code: Option<Code>,
}

impl Answer {
    fn new(status: Status, line: impl Into<String>) -> Self {
        Self { status, line: Some(line.into()), code: None }
    }
}

/// The answer for the end of a run.
#[must_use]
pub fn of_end(end: &Result<Verdict, Error>, asked: Asked) -> Answer {
    match end {
        Ok(verdict) => of_verdict(verdict, asked),
        Err(error) => of_error(error, asked),
    }
}

/// The limit of the server that stopped a run.
fn limit_of(stopped: &Stopped) -> String {
    match stopped.limit {
        Some(Limit::Deadline { ms }) => {
            let time = crate::units::spelt(std::time::Duration::from_millis(ms));
            format!("the server's policy, by which a run takes at most {time},")
        }
        Some(Limit::Output { bytes }) => {
            format!("the server's policy, by which a run writes at most {bytes} bytes,")
        }
        Some(Limit::Memory { bytes }) => {
            format!("the server's policy, by which a run has at most {bytes} bytes of memory,")
        }
        None => "a limit of the server".into(),
    }
}

/// The answer for a verdict.
#[must_use]
pub fn of_verdict(verdict: &Verdict, asked: Asked) -> Answer {
    let left = left_running(verdict);
    if let Some(stopped) = verdict.stopped {
        let (status, by) = match stopped.by {
            StopBy::Deadline => (Status::Deadline, "its deadline (--timeout)".into()),
            StopBy::Client if asked == Asked::Nothing => {
                (Status::Stopped, "rexec stop, or another client of its owner,".into())
            }
            StopBy::Client => (asked.status(), "this client".into()),
            StopBy::ClientLost => {
                (Status::Stopped, "the server, because its client was gone".into())
            }
            StopBy::Operator => (Status::Stopped, "an operator".into()),
            StopBy::Policy if is_at_limit(verdict) => {
                (Status::Stopped, "the server, because its record passed --record-limit,".into())
            }
            StopBy::Policy => (Status::Stopped, limit_of(&stopped)),
            StopBy::Shutdown => (Status::Stopped, "the server's shutdown".into()),
            StopBy::Unknown => (Status::Stopped, "somebody else".into()),
        };
        return Answer::new(status, format!("stopped by {by} after {} ms{left}", stopped.after_ms));
    }
    match verdict.end {
        Some(End::Exited { code }) => Answer { status: Status::Code(code), line: None, code: None },
        Some(End::Signaled { signal, core_dumped }) if (1..=HIGHEST_SIGNAL).contains(&signal) => {
            let core = if core_dumped { ", core dumped" } else { "" };
            let line = format!("the command was killed by signal {}{core}", signal_name(signal));
            Answer::new(Status::Signal(signal), line)
        }
        // No kernel has such a signal, and 128 + 127 would pass for "not reached".
        Some(End::Signaled { signal, .. }) => {
            Answer::new(Status::Unknown, format!("the server says that signal {signal} killed it"))
        }
        None => Answer::new(Status::Unknown, format!("nobody knows how the command ended{left}")),
    }
}

fn is_at_limit(verdict: &Verdict) -> bool {
    verdict.streams().any(|stream| stream.end == StreamEndKind::Limit)
}

fn left_running(verdict: &Verdict) -> String {
    match verdict.left_running {
        0 => String::new(),
        1 => "; 1 process is left running".into(),
        n => format!("; {n} processes are left running"),
    }
}

pub(super) fn signal_name(signal: u8) -> String {
    match Signal::from_number(signal.into()) {
        Some(named) => format!("{signal} ({named})"),
        None => signal.to_string(),
    }
}

/// The answer for an error.
#[must_use]
pub fn of_error(error: &Error, asked: Asked) -> Answer {
    match error {
        Error::Usage(e) => Answer::new(Status::Usage, e.to_string()),
        Error::Unreached(e) => Answer::new(Status::Unreached, e.to_string()),
        Error::Interrupted => Answer::new(asked.status(), error.to_string()),
        Error::Refused { code, text } => {
            let line = format!("not started: {text} ({}; {})", code.name(), code.advice());
            Answer { code: Some(*code), ..Answer::new(Status::NotStarted, line) }
        }
        Error::NoAnswer(_) => Answer::new(Status::Unknown, error.to_string()),
        Error::Detached { run } => {
            let line = format!("run {run} goes on; see it with: rexec attach ADDR {run}");
            Answer::new(Status::Unknown, line)
        }
        Error::Conflict { text } => {
            let line = format!("{text} ({}; {})", Code::Conflict.name(), Code::Conflict.advice());
            Answer { code: Some(Code::Conflict), ..Answer::new(Status::Conflict, line) }
        }
        Error::Unknown { run, text, code } => {
            let advice =
                code.map_or("look at what the command did before you run it again", Code::advice);
            let line = format!("cannot know how run {run} ended: {text} ({advice})");
            Answer { code: *code, ..Answer::new(Status::Unknown, line) }
        }
        Error::Output { error, verdict } => {
            let left = verdict.as_deref().map(left_running).unwrap_or_default();
            let (status, line) = of_output(error, verdict.as_deref(), asked);
            Answer::new(status, format!("{line}{left}"))
        }
    }
}

fn of_output(error: &OutputError, verdict: Option<&Verdict>, asked: Asked) -> (Status, String) {
    match error {
        OutputError::Write(Stream::Stdout | Stream::Both, e)
            if e.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            let line = match verdict {
                Some(Verdict { stopped: Some(_), .. }) => {
                    "stopped, because stdout was closed".into()
                }
                _ => format!("stdout was closed; {}", what_became(verdict)),
            };
            (Status::Closed, line)
        }
        // Also a request of which it was doubtful whether it had arrived is given up: nobody has stopped that.
        OutputError::GivenUp if asked != Asked::Nothing => (asked.status(), error.to_string()),
        _ => (Status::Output, format!("{error}; {}", what_became(verdict))),
    }
}

/// What the command came to, beside its output.
fn what_became(verdict: Option<&Verdict>) -> String {
    match verdict {
        // Who only looks has stopped nothing.
        None => "the run was left alone".into(),
        Some(Verdict { stopped: None, end: Some(End::Exited { code }), .. }) => {
            format!("the command ended by itself with {code}")
        }
        Some(Verdict { stopped: None, end: Some(End::Signaled { signal, .. }), .. }) => {
            format!("the command was killed by signal {}", signal_name(*signal))
        }
        Some(_) => "the command was stopped".into(),
    }
}

/// `docs/errors.md`, made from the tables.
#[must_use]
pub fn errors_page() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# Exit statuses and errors\n\nThis page is made from the program's own tables; a test compares them.\n\n\
         ## Exit statuses of `rexec`\n\n| status | meaning | safe to run again? |\n|---|---|---|\n",
    );
    // Writing to a String cannot fail.
    for (status, meaning, again) in TABLE {
        let _ = writeln!(page, "| {status} | {meaning} | {again} |");
    }
    page.push_str(
        "\nEight bits cannot hold everything: `--verdict FILE` and `--json` give the whole truth, and stderr \
         says in one line what happened.\n\n## Codes of the server\n\n| code | meaning | what to do |\n|---|---|---|\n",
    );
    for code in Code::ALL {
        let _ = writeln!(page, "| `{}` | {} | {} |", code.name(), code.meaning(), code.advice());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn killed_by(signal: u8) -> Verdict {
        let end = json!({"signaled": {"signal": signal, "core_dumped": false}});
        let verdict = json!({
            "seq": 1, "run": "x", "end": end, "stopped": null, "started": "", "elapsed_ms": 0,
            "usage": {"user_ms": 0, "system_ms": 0}, "containment": "marks", "left_running": 0
        });
        serde_json::from_value(verdict).unwrap()
    }

    #[test]
    fn what_is_left_running_is_told_with_output_that_was_given_up_too() {
        let left = |error| {
            let verdict = Some(Box::new(Verdict { left_running: 2, ..killed_by(9) }));
            of_error(&Error::Output { error, verdict }, Asked::Interrupt).line.unwrap()
        };
        let closed = std::io::ErrorKind::BrokenPipe.into();
        for error in [OutputError::GivenUp, OutputError::Write(Stream::Stdout, closed)] {
            let line = left(error);
            assert!(line.ends_with("; 2 processes are left running"), "{line}");
        }
    }

    #[test]
    fn a_signal_that_no_kernel_has_does_not_pass_for_another_answer() {
        let status = |signal| of_verdict(&killed_by(signal), Asked::Nothing).status.code();
        assert_eq!((status(9), status(64)), (137, 192));
        for signal in [0, 65, 125, 127, 255] {
            assert_eq!(status(signal), Status::Unknown.code(), "{signal}");
        }
    }
}
