//! Frames that stand only in a record on disk: how far its supervisor came.
//!
//! They have no `seq` and are never sent. A record is `claimed`, `running`, the frames that clients
//! see, and the `verdict`; what is missing at its end did not happen, or was not written in time.

use serde::{Deserialize, Serialize};

/// A header that is not sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum StoredHeader {
    /// From here on the command may have been started.
    Claimed {
        /// The supervisor, or the server that keeps it from starting.
        pid: u32,
        /// False: it will never be started.
        start: bool,
    },
    /// Its main process is there.
    Running {
        /// The main process.
        pid: u32,
        /// Its start, clock ticks after boot (`proc(5)`, field 22 of `stat`).
        start_time: u64,
    },
    /// A frame that clients see.
    #[serde(other)]
    Shown,
}
