//! Frames that no client sees, and that have no `seq`: those that stand only in a record on disk, of how far its
//! supervisor came, and the one by which a supervisor tells its server of the record.
//!
//! A record is `claimed`, `running`, the frames that clients
//! see, and the `verdict`; what is missing at its end did not happen, or was not written in time.

use serde::{Deserialize, Serialize};

/// A header that stands only in a record.
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

/// How far a record is. A supervisor says so behind `started`, and then when the server has confirmed the last frame
/// of what it was told before and there is more: the server reads the record itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "grown")]
pub struct Grown {
    /// Bytes of whole frames in the file, the verdict's not counted.
    pub length: u64,
    /// Place of the last frame among them that clients see; 0 if there is none.
    pub last: u64,
}
