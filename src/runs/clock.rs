//! The three clocks: for people, for durations, and for what must survive a restart of the server.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

pub use crate::sys::clock::boottime;
pub use crate::units::millis;

/// So long after a boot the clock that people set has been set: until then it may be the one of a machine
/// without a battery.
pub const CLOCK_IS_SET: Duration = Duration::from_secs(600);

/// Now, RFC 3339 in UTC with milliseconds, by the clock that people set and that may jump.
#[must_use]
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// When something happened, so that its age can be told whatever is done to the clock that people set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// RFC 3339.
    pub time: String,
    /// The boot (`random(4)`, boot_id).
    pub boot: String,
    /// Milliseconds since that boot.
    pub boottime_ms: u64,
}

impl Moment {
    /// Now, in the boot of this id.
    #[must_use]
    pub fn now(boot: &str) -> Self {
        Self { time: timestamp(), boot: boot.to_owned(), boottime_ms: millis(boottime()) }
    }

    /// When it was, seen from the boot of this id.
    #[must_use]
    pub fn seen_from(&self, boot: &str) -> When {
        if self.boot == boot {
            return When::ThisBoot(Duration::from_millis(self.boottime_ms));
        }
        When::Before(humantime::parse_rfc3339(&self.time).unwrap_or(SystemTime::UNIX_EPOCH))
    }
}

/// When something happened, as far as this boot of the machine can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// In an earlier boot, by the clock of then.
    Before(SystemTime),
    /// So long after this one.
    ThisBoot(Duration),
}

/// What the clocks show.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since boot.
    pub boottime: Duration,
    /// By the clock that people set.
    pub time: SystemTime,
}

impl Now {
    /// What they show now.
    #[must_use]
    pub fn read() -> Self {
        Self { boottime: boottime(), time: SystemTime::now() }
    }
}

impl When {
    /// How long ago that is at least. Within one boot the clock that people set has no say. Of what was
    /// before, the time since the boot is certain; the rest is believed once that clock has been set.
    #[must_use]
    pub fn age(self, now: Now) -> Duration {
        match self {
            Self::ThisBoot(at) => now.boottime.saturating_sub(at),
            Self::Before(at) if now.boottime >= CLOCK_IS_SET => {
                now.time.duration_since(at).unwrap_or_default().max(now.boottime)
            }
            Self::Before(_) => now.boottime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    const MINUTE: Duration = Duration::from_secs(60);

    fn moment(boot: &str, time: SystemTime, boottime: Duration) -> Moment {
        let time = humantime::format_rfc3339_millis(time).to_string();
        Moment { time, boot: boot.into(), boottime_ms: millis(boottime) }
    }

    #[test]
    fn within_a_boot_no_step_of_the_clock_makes_anything_older_or_younger() {
        let then = SystemTime::UNIX_EPOCH + 50 * YEAR;
        let when = moment("a", then, 5 * MINUTE).seen_from("a");
        for time in [then + YEAR, then - YEAR, SystemTime::UNIX_EPOCH] {
            assert_eq!(when.age(Now { boottime: 6 * MINUTE, time }), MINUTE);
        }
    }

    #[test]
    fn across_boots_the_clock_is_believed_once_it_was_set() {
        let then = SystemTime::UNIX_EPOCH + 50 * YEAR;
        let when = moment("a", then, 5 * YEAR).seen_from("b");
        let age = |boottime, time| when.age(Now { boottime, time });
        assert_eq!(age(MINUTE, then + YEAR), MINUTE, "it may not have been set yet");
        assert_eq!(age(CLOCK_IS_SET, then + YEAR), YEAR);
        assert_eq!(age(YEAR, then - YEAR), YEAR, "what is certain is the time since the boot");
        let unreadable = Moment { time: "soon".into(), ..moment("a", then, MINUTE) };
        assert_eq!(unreadable.seen_from("b"), When::Before(SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn what_was_before_this_boot_comes_first() {
        let late = When::Before(SystemTime::UNIX_EPOCH + 100 * YEAR);
        assert!(late < When::ThisBoot(Duration::ZERO));
        assert!(When::Before(SystemTime::UNIX_EPOCH) < late);
    }
}
