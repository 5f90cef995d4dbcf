//! What is kept of durable runs that are over, and for how long.

use std::time::Duration;

/// How much is kept. The oldest goes first; what goes on is never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// A record is kept for so long after its end, and its id is remembered for so long.
    pub age: Duration,
    /// Most records of runs that are over.
    pub count: usize,
    /// Most bytes of them.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), count: 10_000, bytes: 16 << 30 }
    }
}
