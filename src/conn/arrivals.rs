//! Memory for frames that are still arriving, shared by all connections of a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::proto::frame::Limits;

/// Most bytes of frames longer than [`ARRIVING_FREE`] that arrive at one time, over all connections. A
/// connection whose frame finds no room is not read on until there is some.
pub const ARRIVING_LIMIT: usize = 64 << 20;
/// The largest frame, in bytes, that waits for no room. Whatever steers a run is far smaller.
pub const ARRIVING_FREE: usize = 16 * 1024;
/// So long a frame that has room may take to arrive: the longest one, over 64 kbit/s. Who sends a byte now
/// and then would keep others out for ever.
pub const ARRIVING_TIME: Duration = Duration::from_secs(180);

const _: () = assert!(Limits::FULL.longest() <= ARRIVING_LIMIT, "the longest frame fits");

/// The room that there is.
#[derive(Debug, Clone)]
pub struct Arrivals(Arc<Semaphore>);

impl Default for Arrivals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ARRIVING_LIMIT)))
    }
}

/// The room that one frame has, until it is whole.
///
/// It is for the whole frame: if each were given some of what it needs, all could wait for the rest.
#[derive(Debug)]
pub(super) struct Room {
    _permit: Option<OwnedSemaphorePermit>,
    pub(super) until: Instant,
}

impl Arrivals {
    /// Waits for room for a frame of this many bytes; first come, first served.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        let bytes = u32::try_from(bytes.min(ARRIVING_LIMIT)).unwrap_or(u32::MAX);
        // It fails only if the semaphore was closed, which nobody does.
        let permit = Arc::clone(&self.0).acquire_many_owned(bytes).await.ok();
        Room { _permit: permit, until: Instant::now() + ARRIVING_TIME }
    }
}
