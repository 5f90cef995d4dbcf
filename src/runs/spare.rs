//! A supervisor that is kept ready, so that a durable run does not wait for a program to start.
//!
//! There is one at most, from the first durable run on. It has made and locked an empty record, and
//! listens, in a folder that becomes that of a run. It holds nothing of any run until it is told which
//! one, and goes with its server: the link is its standard input.

use std::sync::Mutex;

use super::ready::Ready;
use crate::sys::mutex::lock;
use crate::sys::process::is_stopped;

/// The supervisor that waits, if there is one.
#[derive(Debug, Default)]
pub(super) struct Spare {
    waits: Mutex<Option<Ready>>,
    /// Held while one is started.
    starting: tokio::sync::Mutex<()>,
}

impl Spare {
    /// Takes it. None if there is none, or it was killed, or stopped. One that is being started is there sooner than
    /// another would be.
    pub(super) async fn take(&self) -> Option<Ready> {
        drop(self.starting.lock().await);
        let ready = lock(&self.waits).take()?;
        // It says nothing before it is told something: what comes is its end. One that is stopped has been told of no
        // run either, and ends with its link as soon as it goes on.
        if ready.link.has_news().await || is_stopped(ready.pid).unwrap_or(false) {
            ready.folder.remove();
            return None;
        }
        Some(ready)
    }

    /// The right to start one; none while one waits or is being started.
    pub(super) fn vacancy(&self) -> Option<Vacancy<'_>> {
        let only = self.starting.try_lock().ok()?;
        lock(&self.waits).is_none().then_some(Vacancy { spare: self, _only: only })
    }
}

/// The right to start the supervisor that is to wait: nobody else has it meanwhile.
pub(super) struct Vacancy<'a> {
    spare: &'a Spare,
    _only: tokio::sync::MutexGuard<'a, ()>,
}

impl Vacancy<'_> {
    pub(super) fn fill(self, ready: Ready) {
        *lock(&self.spare.waits) = Some(ready);
    }
}
