//! Taking connections from a listener.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::connection::{self, Came};
use super::counters::Why;
use super::shared::Shared;
use crate::sys::shortage::is_shortage;
use crate::transport::Listener;

/// How long to wait before accepting again when the system has no descriptor for a connection.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections for as long as it is polled.
pub(super) async fn accept(listener: Listener, shared: Arc<Shared>) {
    loop {
        match listener.accept().await {
            Ok(accepted) => {
                shared.counters.connected();
                if accepted.address().is_some_and(|address| shared.penalties.holds(address.ip())) {
                    shared.counters.refused(Why::Penalty);
                    continue;
                }
                let came = Came { accepted, is_managed: listener.is_managed() };
                let place = shared.lobby.enter();
                // It is large, and would be copied five times.
                tokio::spawn(Box::pin(connection::serve(came, place, Arc::clone(&shared))));
            }
            Err(e) => {
                shared.about_strangers(|| format!("cannot accept a connection: {e}"));
                pause_after(&e).await;
            }
        }
    }
}

/// Out of descriptors the error stays until some connection is closed; trying again at once would spin.
pub(super) async fn pause_after(error: &io::Error) {
    if is_shortage(error) {
        sleep(ACCEPT_PAUSE).await;
    }
}
