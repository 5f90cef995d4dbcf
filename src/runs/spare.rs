//! A supervisor that is kept ready, so that a durable run does not wait for a program to start.
//!
//! There is one at most, from the first durable run on. It has made and locked an empty record, and
//! listens, in a folder that becomes that of a run. It holds nothing of any run until it is told which
//! one, and goes with its server: the link is its standard input.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::durable::Durable;
use super::host::Host;
use super::launch::Ready;
use crate::sys::mutex::lock;
use crate::sys::process::is_stopped;

/// How long a run is given to end before another supervisor is started: a program that starts takes processors
/// from a run that is short.
const SPARE_AFTER: Duration = Duration::from_millis(5);

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
}

impl Host {
    /// Has a supervisor ready for the next run, if there is none: once `run` is over or has had its time.
    pub(super) fn prepare_another(self: &Arc<Self>, run: Arc<Durable>) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            let _ = timeout(SPARE_AFTER, run.over()).await;
            drop(run);
            let Ok(_only) = host.spare.starting.try_lock() else { return };
            if lock(&host.spare.waits).is_some() || host.is_closed_to_new() {
                return;
            }
            match host.start_another().await {
                Ok(ready) => *lock(&host.spare.waits) = Some(ready),
                Err(e) => warn!("no supervisor is kept ready: {e}"),
            }
        });
    }
}
