//! At most one line a second about what peers do, however many there are.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);

/// Counts what is not said.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<(Option<Instant>, u64)>);

impl Throttle {
    /// The line to write now, if any: with the count of those that were left out before it.
    pub(super) fn line(&self, line: impl FnOnce() -> String) -> Option<String> {
        match self.allow()? {
            0 => Some(line()),
            more => Some(format!("{} (and {more} more since the last such line)", line())),
        }
    }

    /// Whether a line may be written now, and if so how many were left out since the last one.
    fn allow(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.0.is_some_and(|last| now - last < PERIOD) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_line_waits_and_is_counted() {
        let throttle = Throttle::default();
        assert_eq!(throttle.allow(), Some(0));
        assert_eq!(throttle.allow(), None);
        assert_eq!(throttle.allow(), None);
        if let Ok(mut state) = throttle.0.lock() {
            state.0 = state.0.map(|last| last - PERIOD);
        }
        assert_eq!(throttle.allow(), Some(2));
    }
}
