//! A server that is looked for again: which one, how often and how long.

use std::time::Duration;

use tokio::time::Instant;

use crate::transport::DialError;

/// First pause before another attempt; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// The time in which no server answers.
pub(super) struct Outage {
    since: Instant,
    pause: Duration,
}

impl Outage {
    /// It begins now.
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), pause: FIRST_PAUSE }
    }

    /// When to try next; none if that is more than `patience` after it began.
    pub(super) fn next(&mut self, patience: Duration) -> Option<Instant> {
        if self.since.elapsed() + self.pause > patience {
            return None;
        }
        let next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(next)
    }
}

/// Whether another server may be there soon, which has seen nothing of a request: the one that was reached went while
/// TLS was set up, or did so before and none listens yet.
pub(super) fn is_restart(error: &DialError, was_cut: bool) -> bool {
    match error {
        DialError::Broken { .. } => true,
        DialError::Unreachable { .. } => was_cut,
        _ => false,
    }
}
