//! What `list` tells of each run.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// The id.
    pub run: String,
    /// Whose it is, where the runs of all are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// How far it is.
    pub state: RunState,
    /// Whether its record is on disk and it outlives the server.
    pub durable: bool,
    /// The command's words, shortened.
    pub command: String,
    /// When it was accepted, RFC 3339 in UTC by the server's clock.
    pub accepted: String,
    /// Seconds since then, by the server's clock.
    pub age_s: u64,
    /// Bytes of output. While the run goes on: of what is recorded of it, which is a little more.
    pub bytes: u64,
    /// Bytes of its record on disk; 0 of a run that is not durable.
    pub disk: u64,
    /// How it ended; none while it goes on, and of one that is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Box<super::verdict::Verdict>>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It goes on.
    Running,
    /// It has its verdict.
    Ended,
    /// It may have been started; nobody can say how it ended.
    Lost,
}
