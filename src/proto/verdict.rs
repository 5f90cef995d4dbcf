//! The verdict: the one honest answer to "how did it end?".

use serde::{Deserialize, Deserializer, Serialize};

use super::digest::Digest;

/// How a run ended. Exactly one is made for each run that started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The frame's place in the record: one after the last.
    pub seq: u64,
    /// The run.
    pub run: String,
    /// How the main process ended; none if it could not be made to end.
    pub end: Option<End>,
    /// Who stopped the run, if the stop began before the main process had ended, or if a limit has cut its
    /// output.
    pub stopped: Option<Stopped>,
    /// Name of the digest of the streams; none: SHA-256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Standard output; none with `merge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<StreamEnd>,
    /// Standard error; none with `merge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<StreamEnd>,
    /// Both streams in one; only with `merge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub both: Option<StreamEnd>,
    /// Standard input that came; only of a durable run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Received>,
    /// When the run was started, RFC 3339 in UTC by the server's clock.
    pub started: String,
    /// From start to the end of the main process, milliseconds, by a clock that does not jump.
    pub elapsed_ms: u64,
    /// Processor time of the main process and the children that it waited for.
    pub usage: Usage,
    /// By what means the process tree was held together.
    pub containment: Containment,
    /// Processes of the run that were alive when the verdict was made.
    pub left_running: u32,
    /// Where the journal holds this verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Anchor>,
}

/// The highest signal of the kernels that servers run on (Linux, `signal(7)`): a verdict that names another
/// one says nothing.
pub const HIGHEST_SIGNAL: u8 = 64;

/// How a process ended (`wait(2)`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It called `exit`.
    Exited {
        /// Its exit code, 0 to 255.
        code: u8,
    },
    /// A signal killed it.
    Signaled {
        /// The signal's number.
        signal: u8,
        /// Whether a core was dumped.
        core_dumped: bool,
    },
}

/// A stop: who asked for it and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// Who.
    pub by: StopBy,
    /// Milliseconds from the start of the run to the stop's first signal.
    pub after_ms: u64,
    /// With [`StopBy::Policy`]: the limit that the run has come to, if the server tells one that this version
    /// knows.
    #[serde(default, deserialize_with = "known", skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
}

/// A limit that the server's policy sets a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Its time.
    Deadline {
        /// Milliseconds from its start.
        ms: u64,
    },
    /// Its output, both streams together.
    Output {
        /// So much of it was taken.
        bytes: u64,
    },
    /// Its memory, all its processes together: the kernel ended them.
    Memory {
        /// So much it may have.
        bytes: u64,
    },
}

/// A limit of another kind is none, so that its verdict can be read.
fn known<'de, D: Deserializer<'de>>(limit: D) -> Result<Option<Limit>, D::Error> {
    Ok(Limit::deserialize(serde_json::Value::deserialize(limit)?).ok())
}

/// Who stopped a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopBy {
    /// Its deadline.
    Deadline,
    /// Its owner, on this connection or another.
    Client,
    /// Nobody: its client vanished and did not come back within the grace.
    ClientLost,
    /// An operator, who is not its owner.
    Operator,
    /// A limit of the server.
    Policy,
    /// The server's shutdown.
    Shutdown,
    /// Somebody of whom this version does not know.
    #[serde(other)]
    Unknown,
}

/// What a stream was, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEnd {
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub hash: Digest,
    /// Why it ends there.
    pub end: StreamEndKind,
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub hash: Digest,
}

/// Why a stream ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamEndKind {
    /// Every writer closed it.
    Eof,
    /// The main process ended; others that it started still hold the pipe.
    Held,
    /// A stop ended the reading although bytes may have been left in the pipe.
    Cut,
    /// The record has passed its limit: more was written, and what came behind is not in it.
    Limit,
    /// A reason that this version does not know.
    #[serde(other)]
    Unknown,
}

impl StreamEndKind {
    /// Whether bytes that were written may be missing.
    #[must_use]
    pub fn is_short(self) -> bool {
        matches!(self, Self::Cut | Self::Limit | Self::Unknown)
    }
}

/// Processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// In user mode, milliseconds.
    pub user_ms: u64,
    /// In the kernel, milliseconds.
    pub system_ms: u64,
}

/// By what means a run's processes are found, strongest last of those that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Containment {
    /// The process group alone.
    Group,
    /// The process group and the mark in each process's environment.
    Marks,
    /// A cgroup of its own.
    Cgroup,
    /// A means that this version does not know.
    #[serde(other)]
    Unknown,
}

/// A line of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Its number, from 1.
    pub seq: u64,
    /// The SHA-256 of the line.
    pub hash: Digest,
}

impl Verdict {
    /// Whether the command ended by itself with exit code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.stopped.is_none() && self.end == Some(End::Exited { code: 0 })
    }

    /// How each stream of its output ended.
    pub fn streams(&self) -> impl Iterator<Item = &StreamEnd> {
        [&self.stdout, &self.stderr, &self.both].into_iter().flatten()
    }

    /// Bytes of all that it has written.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.streams().fold(0, |sum, stream| sum.saturating_add(stream.size))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(stopped: &Value, end: &str, containment: &str) -> Verdict {
        let stream = json!({ "size": 0, "hash": Digest::of(b""), "end": end });
        let verdict = json!({
            "seq": 2, "run": "r", "end": null, "stopped": stopped, "stdout": stream,
            "started": "2026-11-21T01:36:35.417Z", "elapsed_ms": 3,
            "usage": { "user_ms": 0, "system_ms": 0 }, "containment": containment, "left_running": 0,
        });
        serde_json::from_value(verdict).unwrap()
    }

    #[test]
    fn what_a_later_server_tells_of_an_end_does_not_hide_the_verdict() {
        let stopped =
            json!({ "by": "policy", "after_ms": 7, "limit": { "sockets": { "most": 3 } } });
        let verdict = read(&stopped, "eof", "marks");
        let known = Stopped { by: StopBy::Policy, after_ms: 7, limit: None };
        assert_eq!(verdict.stopped, Some(known));
        let verdict = read(&json!({ "by": "the_moon", "after_ms": 7 }), "frozen", "jail");
        let stopped = Stopped { by: StopBy::Unknown, ..known };
        assert_eq!((verdict.stopped, verdict.containment), (Some(stopped), Containment::Unknown));
        assert!(verdict.streams().all(|stream| stream.end.is_short()), "none is taken for whole");
    }

    #[test]
    fn the_limits_that_are_known_are_read_as_they_were_written() {
        for limit in [
            None,
            Some(Limit::Deadline { ms: 1 }),
            Some(Limit::Output { bytes: u64::MAX }),
            Some(Limit::Memory { bytes: 3 }),
        ] {
            let stopped = Stopped { by: StopBy::Policy, after_ms: 7, limit };
            let verdict = read(&serde_json::to_value(stopped).unwrap(), "eof", "marks");
            assert_eq!(verdict.stopped, Some(stopped));
        }
    }
}
