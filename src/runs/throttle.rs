//! So many lines a second about what peers do, however much they do.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sys::mutex::lock;

const PERIOD: Duration = Duration::from_secs(1);

/// Counts what is not said.
#[derive(Debug)]
pub struct Throttle {
    most: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the second began, and how many were said in it.
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Default for Throttle {
    /// One a second.
    fn default() -> Self {
        Self::new(1)
    }
}

impl Throttle {
    /// At most `most` a second.
    #[must_use]
    pub fn new(most: u32) -> Self {
        Self { most, state: Mutex::default() }
    }

    /// The line to write now, if any: with the count of those that were left out before it.
    pub fn line(&self, line: impl FnOnce() -> String) -> Option<String> {
        match self.allow()? {
            0 => Some(line()),
            more => Some(format!("{} (and {more} more since the last such line)", line())),
        }
    }

    /// Whether a line may be written now, and if so how many were left out since the last one.
    pub fn allow(&self) -> Option<u64> {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.since.is_none_or(|since| now - since >= PERIOD) {
            (state.since, state.said) = (Some(now), 0);
        }
        if state.said >= self.most {
            state.left_out += 1;
            return None;
        }
        state.said += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_waits_and_is_counted() {
        for most in [1, 3] {
            let throttle = Throttle::new(most);
            for _ in 0..most {
                assert_eq!(throttle.allow(), Some(0));
            }
            assert_eq!(throttle.allow(), None);
            assert_eq!(throttle.allow(), None);
            if let Ok(mut state) = throttle.state.lock() {
                state.since = state.since.map(|since| since - PERIOD);
            }
            assert_eq!(throttle.allow(), Some(2));
        }
    }
}
