//! Signals by name, as signal(7) and `kill -l` give them.

use std::fmt;
use std::str::FromStr;

use rustix::process::Signal as Raw;

/// A standard signal of Linux. Real-time signals have no fixed names and are not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(Raw);

/// All names, without `SIG`.
const NAMES: [(&str, Raw); 31] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("ILL", Raw::ILL),
    ("TRAP", Raw::TRAP),
    ("ABRT", Raw::ABORT),
    ("BUS", Raw::BUS),
    ("FPE", Raw::FPE),
    ("KILL", Raw::KILL),
    ("USR1", Raw::USR1),
    ("SEGV", Raw::SEGV),
    ("USR2", Raw::USR2),
    ("PIPE", Raw::PIPE),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("STKFLT", Raw::STKFLT),
    ("CHLD", Raw::CHILD),
    ("CONT", Raw::CONT),
    ("STOP", Raw::STOP),
    ("TSTP", Raw::TSTP),
    ("TTIN", Raw::TTIN),
    ("TTOU", Raw::TTOU),
    ("URG", Raw::URG),
    ("XCPU", Raw::XCPU),
    ("XFSZ", Raw::XFSZ),
    ("VTALRM", Raw::VTALARM),
    ("PROF", Raw::PROF),
    ("WINCH", Raw::WINCH),
    ("IO", Raw::IO),
    ("PWR", Raw::POWER),
    ("SYS", Raw::SYS),
];

impl Signal {
    /// SIGINT.
    pub const INT: Self = Self(Raw::INT);
    /// SIGTERM.
    pub const TERM: Self = Self(Raw::TERM);
    /// SIGKILL.
    pub const KILL: Self = Self(Raw::KILL);
    /// SIGSTOP.
    pub const STOP: Self = Self(Raw::STOP);
    /// SIGCONT.
    pub const CONT: Self = Self(Raw::CONT);
    /// SIGTSTP.
    pub const TSTP: Self = Self(Raw::TSTP);

    /// The standard signal with this number.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        Raw::from_named_raw(number).map(Self)
    }

    /// Its number on this machine.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0.as_raw()
    }

    /// Its name without `SIG`.
    #[must_use]
    pub fn name(self) -> &'static str {
        // The table is complete (tested), so the fallback is never seen.
        NAMES.iter().find(|(_, raw)| *raw == self.0).map_or("?", |(name, _)| name)
    }

    pub(super) fn raw(self) -> Raw {
        self.0
    }
}

/// With `SIG`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{}", self.name())
    }
}

/// A text is neither a signal's name nor its number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal: give a name such as INT or SIGINT, or a number from 1 to 31")]
pub struct UnknownSignal;

/// Reads `INT`, `SIGINT` (in either case) or `2`.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        if let Ok(number) = text.parse() {
            return Self::from_number(number).ok_or(UnknownSignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES.iter().find(|(n, _)| *n == name).map(|&(_, raw)| Self(raw)).ok_or(UnknownSignal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name_that_reads_back() {
        for number in 1..=31 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.number(), number);
            assert_eq!(signal.name().parse(), Ok(signal));
            assert_eq!(signal.to_string().to_lowercase().parse(), Ok(signal));
            assert_eq!(number.to_string().parse(), Ok(signal));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "SIG", "0", "32", "-1", "64", "RTMIN", "INTR", "9999999999"] {
            assert_eq!(text.parse::<Signal>(), Err(UnknownSignal), "{text}");
        }
    }
}
