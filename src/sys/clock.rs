//! The clock that counts sleep, the time zone of this machine, and waiting for a moment.
#![expect(unsafe_code, reason = "mktime(3) and clock_gettime(2) are asked of the C library")]

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time since the machine started, sleep included: it does not jump, and it is the same for every
/// process until the next boot (`CLOCK_BOOTTIME`, `clock_gettime(2)`). By the C library, which knows the
/// kernel's page of clocks already: rustix would look for it anew, in each process.
#[must_use]
pub fn boottime() -> Duration {
    // SAFETY: `timespec` is a plain C structure, of which all zeroes is a value.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is writable for as long as the call takes. It does not fail for a clock that there is.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Seconds from the start of 1970 to this moment of local time: year, month from 1, day, hour, minute,
/// second (`mktime(3)`, which finds out whether it is in summer time). None if there is none.
#[must_use]
pub fn local_time([year, month, day, hour, minute, second]: [i32; 6]) -> Option<i64> {
    // SAFETY: `tm` is a plain C structure, of which all zeroes is a value.
    let mut fields: libc::tm = unsafe { std::mem::zeroed() };
    fields.tm_year = year.checked_sub(1900)?;
    fields.tm_mon = month.checked_sub(1)?;
    (fields.tm_mday, fields.tm_hour) = (day, hour);
    (fields.tm_min, fields.tm_sec) = (minute, second);
    fields.tm_isdst = -1;
    // SAFETY: `fields` is a valid `tm` of this function's own, for as long as the call takes.
    let seconds = unsafe { libc::mktime(&raw mut fields) };
    (seconds != -1).then_some(seconds)
}

/// Waits until then; without a deadline, for ever.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
