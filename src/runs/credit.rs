//! Credit: how much of a run's output may be kept for a client that has not confirmed it yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The sizes of a window, bytes.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// What each run may keep whatever the budget says, so that no run waits for another's client.
    pub floor: usize,
    /// The window a run starts with, if the budget allows.
    pub first: usize,
    /// The largest window.
    pub largest: usize,
}

/// Windows for output.
pub const OUTPUT: Sizes = Sizes { floor: 32 * 1024, first: 256 * 1024, largest: 8 * 1024 * 1024 };
/// Windows for standard input.
pub const INPUT: Sizes = Sizes { floor: 64 * 1024, first: 64 * 1024, largest: 1024 * 1024 };
/// Less room than this is not worth a read.
pub const LEAST_READ: usize = 4096;

/// The memory that all runs of a server share, `--memory-budget`; each window's floor comes on top.
#[derive(Debug)]
pub struct Budget(AtomicI64);

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self(AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX)))
    }

    /// How many bytes of it are free; more than there are if some are overdrawn.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn free(&self) -> usize {
        usize::try_from(self.0.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Runs decide by `free` and charge after reading, so each may overdraw by one read.
    fn charge(&self, bytes: i64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One run's window: doubled each time a whole window was confirmed after it had been full.
#[derive(Debug)]
pub struct Window {
    budget: Arc<Budget>,
    sizes: Sizes,
    size: usize,
    used: usize,
    charged: i64,
    confirmed: usize,
    was_full: bool,
}

impl Window {
    /// An empty window of its first size.
    #[must_use]
    pub fn new(budget: Arc<Budget>, sizes: Sizes) -> Self {
        Self {
            budget,
            sizes,
            size: sizes.first,
            used: 0,
            charged: 0,
            confirmed: 0,
            was_full: false,
        }
    }

    /// How many bytes may be read now; 0 if it would not be worth it.
    #[must_use]
    pub fn room(&self) -> usize {
        let by_window = self.size.saturating_sub(self.used);
        let by_budget = self.sizes.floor.saturating_sub(self.used) + self.budget.free();
        match by_window.min(by_budget) {
            room if room < LEAST_READ => 0,
            room => room,
        }
    }

    /// `bytes` more are kept.
    pub fn take(&mut self, bytes: usize) {
        self.used += bytes;
        self.was_full |= self.used + LEAST_READ > self.size;
        self.settle();
    }

    /// `bytes` were confirmed and are no longer kept.
    pub fn give(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        self.confirmed += bytes;
        if self.confirmed >= self.size {
            if self.was_full {
                self.size = (self.size * 2).min(self.sizes.largest);
            }
            (self.confirmed, self.was_full) = (0, false);
        }
        self.settle();
    }

    /// The window's size now, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    fn settle(&mut self) {
        let due = i64::try_from(self.used.saturating_sub(self.sizes.floor)).unwrap_or(i64::MAX);
        self.budget.charge(due - self.charged);
        self.charged = due;
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        self.budget.charge(-self.charged);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(budget: u64) -> (Arc<Budget>, Window) {
        let budget = Arc::new(Budget::new(budget));
        (Arc::clone(&budget), Window::new(budget, OUTPUT))
    }

    #[test]
    fn grows_only_when_full_windows_are_confirmed() {
        let (_, mut w) = window(1 << 30);
        w.take(OUTPUT.first / 2);
        w.give(OUTPUT.first / 2);
        w.take(OUTPUT.first / 2);
        w.give(OUTPUT.first / 2);
        assert_eq!(w.size(), OUTPUT.first);
        for _ in 0..20 {
            let size = w.size();
            w.take(size);
            assert_eq!(w.room(), 0);
            w.give(size);
        }
        assert_eq!(w.size(), OUTPUT.largest);
    }

    #[test]
    fn an_exhausted_budget_leaves_each_run_its_floor() {
        let (budget, mut first) = window(100_000);
        let mut second = Window::new(Arc::clone(&budget), OUTPUT);
        assert_eq!(first.room(), OUTPUT.floor + 100_000);
        first.take(OUTPUT.floor + 100_000);
        assert_eq!((first.room(), second.room()), (0, OUTPUT.floor));
        second.take(OUTPUT.floor);
        assert_eq!(second.room(), 0);
        drop(first);
        assert_eq!(second.room(), 100_000);
        drop(second);
        assert_eq!(budget.free(), 100_000);
    }
}
