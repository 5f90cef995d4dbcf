//! What tells the processes of a run from others.

use std::fmt;

/// The variable that holds the run's [`Mark`].
pub const MARK_VARIABLE: &str = "REXEC_MARK";

/// 128 random bits in the environment of a run and of all that it starts: by them a process is
/// found again that has left the process group and the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark([u8; Self::LEN]);

impl Mark {
    /// Bytes of a mark.
    pub const LEN: usize = 16;

    /// A new one.
    ///
    /// # Errors
    /// The system's random source does not answer.
    pub fn new() -> std::io::Result<Self> {
        let mut bits = [0; Self::LEN];
        getrandom::fill(&mut bits)?;
        Ok(Self(bits))
    }

    /// Reads what [`fmt::Display`] writes: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let is_digit = |b: &u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 2 * Self::LEN || !text.iter().all(is_digit) {
            return None;
        }
        let digits = std::str::from_utf8(text).ok()?;
        u128::from_str_radix(digits, 16).ok().map(|bits| Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back() {
        let mark = Mark::new().unwrap();
        assert_eq!(Mark::from_hex(mark.to_string().as_bytes()), Some(mark));
        assert_ne!(Mark::new().unwrap(), mark);
    }

    #[test]
    fn a_mark_is_strict() {
        let good = "00112233445566778899aabbccddeeff";
        assert!(Mark::from_hex(good.as_bytes()).is_some());
        assert_eq!(Mark::from_hex(good.to_uppercase().as_bytes()), None);
        assert_eq!(Mark::from_hex(format!("{good}0").as_bytes()), None);
        assert_eq!(Mark::from_hex(&good.as_bytes()[1..]), None);
    }
}
