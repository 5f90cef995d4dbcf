//! A request that waits because the server is being upgraded: the program that takes over will be asked
//! again by its client, or this one goes on.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::runs::host::Host;
use crate::runs::request::Request;

/// How long a request may wait: less than the 45 s after which a client takes the connection for dead and
/// cannot know any more that nothing was started.
pub const HOLD_LIMIT: Duration = Duration::from_secs(40);

/// A request that waits.
pub(super) struct Held {
    pub(super) request: Request,
    until: Instant,
}

impl Held {
    pub(super) fn new(request: Request) -> Self {
        Self { request, until: Instant::now() + HOLD_LIMIT }
    }

    /// Waits until it may be asked again, or has waited for too long. Cancel safe.
    pub(super) async fn wait(held: Option<&Self>, host: &Host) {
        match held {
            // Which of both it was shows when it is asked again.
            Some(held) => drop(timeout_at(held.until, host.admits()).await),
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_late(&self) -> bool {
        self.until <= Instant::now()
    }
}
