//! The three clocks: for people, for durations, and for what must survive a restart of the server.

use std::time::{Duration, SystemTime};

/// Now, RFC 3339 in UTC with milliseconds, by the clock that people set and that may jump.
#[must_use]
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Time since the machine started, sleep included: it does not jump, and it is the same for every
/// process until the next boot (`CLOCK_BOOTTIME`, `clock_gettime(2)`).
#[must_use]
pub fn boottime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A duration in whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
