//! What can go wrong for a client, by what is known of the run.

use std::time::Duration;

use crate::proto::code::Code;
use crate::proto::frame::BODY_LIMIT;
use crate::proto::header::Stream;
use crate::proto::id::BadId;
use crate::proto::verdict::Verdict;
use crate::transport::DialError;

/// The caller asked for something that cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// A byte string holds NUL.
    #[error("{0} holds a NUL byte: pass such data on stdin")]
    Nul(&'static str),
    /// The name of a variable is empty or holds `=`.
    #[error("{0:?} cannot be the name of an environment variable")]
    EnvName(String),
    /// The id is none.
    #[error("{0:?} cannot be the id of a run: {1}")]
    Id(String, BadId),
    /// The request is too long.
    #[error(
        "the command and its environment have {0} bytes, a request carries {BODY_LIMIT}: pass data on stdin"
    )]
    TooLong(usize),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// Why output is not what the command wrote.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A piece or the verdict does not match what came before it.
    #[error("{} was altered on the way: its digest does not match", name(.0))]
    Altered(Stream),
    /// Frames are missing.
    #[error("frames {from} to {to} of the output are no longer kept by the server")]
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// A frame came out of order.
    #[error("frame {got} came where {expected} was due")]
    Order {
        /// The place that was due.
        expected: u64,
        /// The place that the frame has.
        got: u64,
    },
    /// A frame of the record came behind the verdict, which is its last.
    #[error("a frame came behind the verdict, where none was due")]
    AfterVerdict,
    /// The server stopped reading the command's output before its end.
    #[error("{} was cut short on the server", name(.0))]
    Cut(Stream),
    /// The run's record passed the server's limit: it has the first so many bytes.
    #[error(
        "{} is longer than the server's --record-limit lets a record be: {} bytes of it were kept",
        name(.0),
        .1
    )]
    Limit(Stream, u64),
    /// More came than was asked for.
    #[error("the server sent more than this client's credit")]
    Flooded,
    /// The standard input cannot be read here, so the command would have seen a false end.
    #[error("cannot read stdin: {0}")]
    Input(std::io::Error),
    /// The run was started by another client, with another standard input.
    #[error("the run has another standard input than this one")]
    OtherInput,
    /// The caller cancelled before everything was written, and the run had ended by itself.
    #[error("the rest of the output was given up")]
    GivenUp,
    /// It cannot be written here.
    #[error("cannot write {}: {error}", name(.0), error = .1)]
    Write(Stream, std::io::Error),
}

/// A stream's name for people.
fn name(stream: &Stream) -> &'static str {
    match stream {
        Stream::Stdout => "standard output",
        Stream::Stderr => "standard error",
        Stream::Both => "the output",
    }
}

/// Why there is no verdict, or no use in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's fault; nothing was sent.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// Not reached: no byte of the request was sent. Safe to run again.
    #[error(transparent)]
    Unreached(#[from] DialError),
    /// Given up by this client, and never started. Safe to run again.
    #[error("interrupted before the command was started")]
    Interrupted,
    /// Reached, and not started: not let in, or refused. Safe to run again.
    #[error("{text}")]
    Refused {
        /// The kind of refusal.
        code: Code,
        /// The server's words.
        text: String,
    },
    /// The run id stands for another request.
    #[error("{text}")]
    Conflict {
        /// The server's words.
        text: String,
    },
    /// Nobody can say whether it ran, or how it ended. Only the same id is safe to send again.
    #[error("{text}")]
    Unknown {
        /// The run's id.
        run: String,
        /// What is known.
        text: String,
        /// The server's code, if it was the server who could not say.
        code: Option<Code>,
    },
    /// The server gave no answer to a question about a run, or about runs.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// This client has left the run, which goes on.
    #[error("run {run} goes on without this client")]
    Detached {
        /// The run's id.
        run: String,
    },
    /// The output here is not what the command wrote.
    #[error("{error}")]
    Output {
        /// What is wrong with it.
        error: OutputError,
        /// How the run ended, if that is known.
        verdict: Option<Box<Verdict>>,
    },
}

impl Error {
    /// The caller did not even wait for the answer to the cancel of `run`.
    pub(crate) fn hurried(run: &str) -> Self {
        let text = "interrupted again while it was being stopped".into();
        Self::Unknown { run: run.into(), text, code: None }
    }

    /// An earlier program asked for `run`, and this one ended before it had asked for it again.
    pub(super) fn unasked(run: &str) -> Self {
        let text = "asked for earlier, and not again: nobody knows how it ended".into();
        Self::Unknown { run: run.into(), text, code: None }
    }

    /// A server has left without having begun the run, and none has come after it.
    pub(super) fn no_other_server(why: &str, waited: Duration) -> Self {
        let waited = waited.as_secs();
        let text = format!(
            "the server shut down before it began the run, and no other has begun it within {waited} s: {why}"
        );
        Self::Refused { code: Code::ShuttingDown, text }
    }

    /// The link was lost for longer than the caller wanted to wait.
    pub(super) fn lost_link(run: &str, why: &str, waited: Duration) -> Self {
        let text = format!(
            "the connection was lost and did not come back within {} s: {why}",
            waited.as_secs()
        );
        Self::Unknown { run: run.into(), text, code: None }
    }
}
