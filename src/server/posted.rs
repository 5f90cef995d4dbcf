//! What a client sends to a supervisor. It is taken at once and passed on when there is room: a supervisor
//! that is stopped keeps nobody from being heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::end::SessionEnd;
use super::waiting::{BEHIND_LIMIT, flooded};
use crate::proto::frame::encoded;
use crate::runs::link::Link;
use crate::runs::record::FRAME_COST;

/// The way to one supervisor. What waits is still passed on when this is dropped.
pub(super) struct Posted {
    frames: UnboundedSender<Bytes>,
    /// Bytes that wait.
    waiting: Arc<AtomicUsize>,
}

impl Posted {
    pub(super) fn to(link: &Arc<Link>) -> Self {
        let (frames, posted) = unbounded_channel();
        let waiting = Arc::default();
        tokio::spawn(pass_on(Arc::clone(link), posted, Arc::clone(&waiting)));
        Self { frames, waiting }
    }

    /// Sends one frame, now or later.
    pub(super) fn send(&self, header: &impl Serialize, body: &[u8]) -> Result<(), SessionEnd> {
        let frame = encoded(header, body)?;
        let cost = frame.len() + FRAME_COST;
        if self.waiting.fetch_add(cost, Ordering::Relaxed) + cost > BEHIND_LIMIT {
            return Err(flooded());
        }
        if self.frames.send(frame).is_err() {
            // A supervisor that is gone is noticed where its frames are read.
            self.waiting.fetch_sub(cost, Ordering::Relaxed);
        }
        Ok(())
    }
}

async fn pass_on(link: Arc<Link>, mut posted: UnboundedReceiver<Bytes>, waiting: Arc<AtomicUsize>) {
    while let Some(frame) = posted.recv().await {
        let cost = frame.len() + FRAME_COST;
        if link.pass_on(frame).await.is_err() {
            return;
        }
        waiting.fetch_sub(cost, Ordering::Relaxed);
    }
}
