//! Requests that wait for the server that comes: the program that takes over in an upgrade, or the one that a service
//! manager starts next on the same sockets. Their clients ask that one again, or this one goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use crate::runs::host::Host;
use crate::runs::request::Request;

/// How long a request may wait: less than the 45 s after which a client takes the connection for dead and
/// cannot know any more that nothing was started.
pub const HOLD_LIMIT: Duration = Duration::from_secs(40);
/// Most bytes of requests that wait at one time, over all connections.
pub const HELD_LIMIT: usize = 64 << 20;

/// A request that waits.
pub(super) struct Held {
    pub(super) request: Request,
    pub(super) wait: Wait,
}

/// Until when a request waits, and its part of [`HELD_LIMIT`]. Asked again in vain, it goes on waiting with both.
pub(super) struct Wait {
    until: Instant,
    _room: OwnedSemaphorePermit,
}

/// What all requests of a server share that wait.
#[derive(Debug)]
pub(super) struct Holds {
    room: Arc<Semaphore>,
    /// Whether the server leaves them to the next one.
    left: watch::Sender<bool>,
}

impl Default for Holds {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(HELD_LIMIT)), left: watch::Sender::new(false) }
    }
}

impl Holds {
    /// A wait that begins; none if too much waits already.
    pub(super) fn begin(&self, request: &Request) -> Option<Wait> {
        let size = u32::try_from(request.size()).ok()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(size).ok()?;
        Some(Wait { until: Instant::now() + HOLD_LIMIT, _room: room })
    }

    /// Leaves them all to the next server, and whatever comes from now on.
    pub(super) fn leave(&self) {
        self.left.send_replace(true);
    }

    pub(super) fn are_left(&self) -> bool {
        *self.left.borrow()
    }

    /// Waits until none waits any more. None may come.
    pub(super) async fn emptied(&self) {
        let all = u32::try_from(HELD_LIMIT).unwrap_or(u32::MAX);
        // It fails only if the semaphore was closed, which nobody does.
        drop(self.room.acquire_many(all).await);
    }
}

impl Held {
    /// Waits until it may be asked again, or has waited for too long. Cancel safe.
    pub(super) async fn wait(held: Option<&Self>, host: &Host, holds: &Holds) {
        let Some(held) = held else { return std::future::pending().await };
        let called = async {
            if host.is_closed_to_new() {
                // A sender that is gone means that the server is.
                drop(holds.left.subscribe().wait_for(|left| *left).await);
            } else {
                host.admits().await;
            }
        };
        // Which of both it was shows when it is asked again.
        drop(timeout_at(held.wait.until, called).await);
    }
}

impl Wait {
    pub(super) fn is_over(&self) -> bool {
        self.until <= Instant::now()
    }
}
