//! Times as `expiry-time=` writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::clock::local_time;

/// 9999-12-31T23:59:59Z: what is later cannot be written in four digits. Local time may be.
const LAST: u64 = 253_402_300_799;

/// The text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no time; write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z behind it for UTC"
)]
pub struct NotATime(pub String);

/// Reads `YYYYMMDD[HHMM[SS]]`, in the time zone of this machine, or in UTC with `Z` behind it
/// (ssh-keygen(1), sshd(8)).
///
/// # Errors
/// [`NotATime`], also for a day that its month does not have.
pub fn parse_time(text: &str) -> Result<SystemTime, NotATime> {
    read(text).ok_or_else(|| NotATime(super::line::quote(text)))
}

fn read(text: &str) -> Option<SystemTime> {
    let (digits, is_utc) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) || ![8, 12, 14].contains(&digits.len()) {
        return None;
    }
    let whole = format!("{digits:0<14}");
    let part = |at: usize, len: usize| whole[at..at + len].parse::<i32>().ok();
    let utc = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &whole[..4],
        &whole[4..6],
        &whole[6..8],
        &whole[8..10],
        &whole[10..12],
        &whole[12..]
    );
    // Which days and hours there are is the same everywhere.
    let utc = humantime::parse_rfc3339(&utc).ok()?;
    if is_utc {
        return Some(utc);
    }
    let fields = [part(0, 4)?, part(4, 2)?, part(6, 2)?, part(8, 2)?, part(10, 2)?, part(12, 2)?];
    let seconds = u64::try_from(local_time(fields)?).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(LAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        Some(parse_time(text).ok()?.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_in_utc() {
        // date -u -d '2026-11-21 07:30:15' +%s
        assert_eq!(seconds("20261121073015Z"), Some(1_795_246_215));
        assert_eq!(seconds("202611210730Z"), Some(1_795_246_200));
        assert_eq!(seconds("20261121Z"), Some(1_795_219_200));
        assert_eq!(seconds("20240229Z"), Some(1_709_164_800));
    }

    /// As `date` has it, in whichever zone this runs.
    #[test]
    fn times_of_this_machine() {
        let mut date = std::process::Command::new("date");
        let said = date.args(["-d", "2026-07-01 12:30:15", "+%s"]).output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap().trim().parse().unwrap();
        assert_eq!(seconds("20260701123015"), Some(said));
    }

    #[test]
    fn texts_that_are_no_time() {
        for text in [
            "",
            "Z",
            "2026",
            "2026112",
            "202611210",
            "2026112107",
            "20261131",
            "20261301Z",
            "20260229Z",
            "202611212460Z",
            "20261121073061",
            "-2026112",
            "+20261121",
            "20261121ZZ",
            "2026112１",
            "tomorrow",
            "19690101Z",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
