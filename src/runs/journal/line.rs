//! What a line of the journal says.

use serde::{Deserialize, Serialize};

use crate::proto::digest::Digest;
use crate::proto::verdict::Verdict;
use crate::runs::excerpt::Excerpt;

/// Most bytes of one line.
pub const LINE_LIMIT: usize = 1 << 20;
/// So much of a command's text goes into the journal; its digest covers all of it.
pub const TEXT_LIMIT: usize = 4096;

/// One line, without the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A server opened the journal.
    Opened(Origin),
    /// A run's id was claimed; from here on it may have been started.
    Accepted(Accepted),
    /// Its main process is there.
    Running {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// The main process.
        pid: u32,
        /// Its start, clock ticks after boot (`proc(5)`, field 22 of `stat`).
        start_time: u64,
    },
    /// It could not be started; the id is free again.
    NotStarted {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// Why.
        code: String,
    },
    /// It ended.
    Ended {
        /// Under which identity.
        identity: String,
        /// How.
        verdict: Box<Verdict>,
        /// What it wrote at first, if the policy wants that written down.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Box<Excerpt>>,
    },
    /// The server was restarted while it ran.
    Lost {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// Processes of it that could not be stopped.
        left_running: u32,
    },
    /// The client gave the id up before it was used.
    Buried {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
    },
    /// Somebody logged in.
    Login {
        /// As whom.
        identity: String,
        /// From where.
        from: String,
        /// What the client calls itself.
        client: String,
    },
    /// Somebody was not let in, or asked for what is not granted.
    Refused(Refused),
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Of whom; none if nobody had logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// From where.
    pub from: String,
    /// Why.
    pub code: String,
    /// The same for people.
    pub text: String,
    /// So many refusals since the line before of this kind have no line of their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where and when a line was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine (`machine-id(5)`), if it has an id.
    pub machine: Option<String>,
    /// The boot (`random(4)`, boot_id).
    pub boot: String,
    /// Inode of the pid namespace.
    pub pid_namespace: u64,
    /// The folder of the journal, as the system tells it from a copy: device and inode.
    #[serde(default)]
    pub folder: Option<String>,
    /// Milliseconds since boot.
    pub boottime_ms: u64,
    /// Bytes of a torn last line that were cut off at opening.
    #[serde(default)]
    pub torn: u64,
}

impl Origin {
    /// Whether the processes that were started there are the ones seen here, and ours: within one boot
    /// and one pid namespace of one machine, and not those of the folder that this one is a copy of.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.is_same_boot(other)
            && (self.pid_namespace, &self.folder) == (other.pid_namespace, &other.folder)
    }

    /// Whether all that was written there can be read here: the machine has not gone down since.
    #[must_use]
    pub fn is_same_boot(&self, other: &Self) -> bool {
        (&self.machine, &self.boot) == (&other.machine, &other.boot)
    }
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The run.
    pub run: String,
    /// Under which identity.
    pub identity: String,
    /// Milliseconds since boot.
    pub boottime_ms: u64,
    /// What its processes carry in their environment.
    pub mark: String,
    /// The command's words, shortened; none if the server keeps their text to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What the client asked for, shortened, if `command` was run instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The user it is run as; none: the server's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Of the client's words, each ended by NUL: see [`Digester`](super::rules::Digester).
    pub digest: Digest,
    /// Whether a supervisor keeps the run, so that it outlives its server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
}

/// A line as it was read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    pub seq: u64,
    /// Digest of the line before; none in the very first.
    pub prev: Option<Digest>,
    /// When it was written, RFC 3339.
    pub time: String,
    /// What it says.
    #[serde(flatten)]
    pub event: Event,
}
