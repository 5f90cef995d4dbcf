//! Times and sizes: as people write them, and as numbers.

use std::fmt::Display;
use std::time::Duration;

/// The longest duration that is taken: no clock overflows within it.
const LONGEST_DURATION: Duration = Duration::from_secs(100 * YEAR);
/// Seconds of a year, as `100y` is read.
const YEAR: u64 = 31_557_600;
/// The shortest duration that is one on the wire.
const SHORTEST_DURATION: Duration = Duration::from_millis(1);

/// A [`duration`] in which something can happen.
///
/// # Errors
/// One line that says how to write it.
pub fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        read if read < SHORTEST_DURATION => {
            Err("shorter than 1ms, so it would be over at once; give more, or leave the option out"
                .into())
        }
        read => Ok(read),
    }
}

/// A duration for people: `30s`, `1h 30m`, or a plain number of seconds, `0.5` too; at most 100 years.
///
/// # Errors
/// One line that says how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    let is_number = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let read = match text.parse() {
        Ok(seconds) if is_number => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
        _ => humantime::parse_duration(text)
            .map_err(|_| "not a time; write it like 30s, 5m or 1h 30m")?,
    };
    if read > LONGEST_DURATION {
        return Err("longer than 100 years".into());
    }
    Ok(read)
}

/// A duration as [`duration`] reads it.
#[must_use]
pub fn spelt(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A duration in whole milliseconds; the most that there are if it is longer.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A number of things: `1 host`, `2 hosts`. Nouns with a regular plural only.
#[must_use]
pub fn counted<N: Display + PartialEq + From<u8> + Copy>(count: N, noun: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// A count of bytes: `65536`, `64K`, `256M`, `1G`.
///
/// # Errors
/// One line that says how to write it.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|_| "a count of bytes, such as 65536, 64M or 1G")?;
    count.checked_mul(1 << shift).ok_or_else(|| "too many bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("100y"), Ok(LONGEST_DURATION));
        assert_eq!(duration(&LONGEST_DURATION.as_secs().to_string()), Ok(LONGEST_DURATION));
        let over = (LONGEST_DURATION.as_secs() + 1).to_string();
        for bad in
            ["", ".", "1.2.3", "30x", "-1", "1e3", "inf", &over, &u64::MAX.to_string(), "1000000y"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(some_time("1ms"), Ok(SHORTEST_DURATION));
        assert!(duration("x").unwrap_err().contains("write it like 30s"));
        for none in ["0", "0s", "999us", "30x"] {
            assert!(some_time(none).is_err(), "{none}");
        }
    }

    #[test]
    fn byte_counts() {
        assert_eq!(bytes("65536"), Ok(65536));
        assert_eq!(bytes("32M"), Ok(32 << 20));
        for bad in ["", "M", "1T", "-1", "99999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
