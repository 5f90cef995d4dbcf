//! The three clocks: for people, for durations, and for what must survive a restart of the server.

use std::time::{Duration, SystemTime};

pub use crate::sys::clock::boottime;

/// Now, RFC 3339 in UTC with milliseconds, by the clock that people set and that may jump.
#[must_use]
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
