//! How often a row measures.

use std::iter;
use std::time::{Duration, Instant};

/// Rounds of a row: as many as are expected to fit into its time, within bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    /// So many are made, whatever they take.
    pub(crate) least: usize,
    /// More are not made, however short they are.
    pub(crate) most: usize,
    pub(crate) time: Duration,
}

impl Rounds {
    /// The rounds that count, from 1 on.
    pub(crate) fn counted(self) -> impl Iterator<Item = usize> {
        let begun = Instant::now();
        (1..=self.most).take_while(move |round| self.has_time_for(*round, begun.elapsed()))
    }

    /// The same, after a round 0 that fills the caches and is not counted.
    pub(crate) fn after_warm_up(self) -> impl Iterator<Item = usize> {
        iter::once(0).chain(self.counted())
    }

    fn has_time_for(self, round: usize, spent: Duration) -> bool {
        let rounds = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        round <= self.least || spent / rounds(round - 1) * rounds(round) <= self.time
    }
}
