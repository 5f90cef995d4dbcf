//! What a run has to have before it is started, and what is counted of those that have it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::answer::{Denied, Served};
use super::judged::Judged;
use super::shares::{Share, Usage};
use crate::proto::code::Code;

/// Judges what is to be started, by what its identity has under way: what is run, within what, and the part
/// of a minute that the start takes.
pub type Judge<'a> = dyn Fn(Usage) -> Result<(Judged, Duration), (Code, String)> + Send + Sync + 'a;

/// What a run holds as long as it is under way.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

impl Place {
    pub(super) fn new(permit: OwnedSemaphorePermit, share: Share) -> Self {
        Self { _permit: permit, _share: share }
    }
}

/// What has happened to runs since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Started.
    pub started: AtomicU64,
    /// New, and not started.
    pub refused: AtomicU64,
    /// Bytes of output of runs of this process that are over.
    pub output: AtomicU64,
}

impl Counts {
    /// Counts what came of a request.
    pub(super) fn note(&self, served: &Result<Served, Denied>) {
        let counter = match served {
            Ok(Served::Here { attached: false, .. }) => &self.started,
            Err(Denied::Refused(..) | Denied::NotStarted(..)) => &self.refused,
            Ok(_) | Err(Denied::Lost(_)) => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
