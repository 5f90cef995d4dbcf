//! What a server counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::sys::mutex::lock;

/// Why a stranger was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The key, the account or the proof.
    NotAuthorized,
    /// Another refusal.
    Refused,
    /// TLS did not come about, or the peer left before it had logged in.
    Broken,
    /// What it said was none of this protocol.
    Protocol,
    /// It took too long.
    Late,
    /// It was shown out for a newcomer.
    ShownOut,
    /// It was not spoken to, for what had come from there before.
    Penalty,
}

/// What has happened since the start.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) since: Instant,
    pub(super) connections: AtomicU64,
    pub(super) logins: AtomicU64,
    pub(super) open: AtomicU64,
    refused: Mutex<RefusedCounts>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            connections: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            open: AtomicU64::new(0),
            refused: Mutex::default(),
        }
    }
}

/// Counts a login as long as it is kept.
pub(super) struct Open<'a>(&'a Counters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: Why) {
        *lock(&self.refused).of(why) += 1;
    }

    pub(super) fn refused_so_far(&self) -> RefusedCounts {
        *lock(&self.refused)
    }

    pub(super) fn logged_in(&self) -> Open<'_> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }
}

/// Logins that did not come about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCounts {
    /// The key, the account or the proof.
    pub not_authorized: u64,
    /// Another refusal.
    pub refused: u64,
    /// TLS did not come about, or the peer left.
    pub broken: u64,
    /// Not this protocol.
    pub protocol: u64,
    /// Too late.
    pub late: u64,
    /// Shown out for a newcomer.
    pub shown_out: u64,
    /// Not spoken to, for what had come from there before.
    pub penalty: u64,
}

impl RefusedCounts {
    fn of(&mut self, why: Why) -> &mut u64 {
        match why {
            Why::NotAuthorized => &mut self.not_authorized,
            Why::Refused => &mut self.refused,
            Why::Broken => &mut self.broken,
            Why::Protocol => &mut self.protocol,
            Why::Late => &mut self.late,
            Why::ShownOut => &mut self.shown_out,
            Why::Penalty => &mut self.penalty,
        }
    }
}
