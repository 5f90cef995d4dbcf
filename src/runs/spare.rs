//! A supervisor that is kept ready, so that a durable run does not wait for a program to start.
//!
//! There is one at most, from the first durable run on. It has made and locked an empty record, and
//! listens, in a folder that becomes that of a run. It holds nothing of any run until it is told which
//! one, and goes with its server: the link is its standard input.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::durable::{Durable, lock};
use super::host::Host;
use super::launch::{Ready, start_supervisor};

/// A run that was just started has the processors to itself for so long, or until it is over.
const AFTER: Duration = Duration::from_millis(20);

/// The supervisor that waits, if there is one.
#[derive(Debug, Default)]
pub(super) struct Spare {
    waits: Mutex<Option<Ready>>,
    /// Held while one is started.
    starting: tokio::sync::Mutex<()>,
}

impl Spare {
    /// Takes it. None if there is none, or it was killed.
    pub(super) async fn take(&self) -> Option<Ready> {
        let ready = lock(&self.waits).take()?;
        // It says nothing before it is told something: what comes is its end.
        if ready.link.has_news().await {
            ready.folder.remove();
            return None;
        }
        Some(ready)
    }
}

impl Host {
    /// Has a supervisor ready for the run after this one.
    pub(super) fn prepare_another(self: &Arc<Self>, run: &Arc<Durable>) {
        let (host, run) = (Arc::clone(self), Arc::clone(run));
        tokio::spawn(async move {
            let _ = timeout(AFTER, run.over()).await;
            let Ok(_only) = host.spare.starting.try_lock() else { return };
            if lock(&host.spare.waits).is_some() || host.is_closed_to_new() {
                return;
            }
            let starter = Arc::clone(&host);
            // A start waits for the disk, and for the new program.
            let start = move || starter.keeping.as_ref().map(start_supervisor).transpose();
            match spawn_blocking(start).await.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(ready) => *lock(&host.spare.waits) = ready,
                Err(e) => warn!("no supervisor is kept ready: {e}"),
            }
        });
    }
}
