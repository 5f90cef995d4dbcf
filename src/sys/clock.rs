//! The clock that counts sleep.

use std::time::Duration;

/// Time since the machine started, sleep included: it does not jump, and it is the same for every
/// process until the next boot (`CLOCK_BOOTTIME`, `clock_gettime(2)`).
#[must_use]
pub fn boottime() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the nearest there is; only Linux serves.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}
