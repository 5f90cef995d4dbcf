//! A run's output as events.

use std::io;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::mpsc::{OwnedPermit, Sender};

use super::Event;
use crate::client::{INLINE_LIMIT, Output};
use crate::proto::header::Stream;
use crate::sys::mutex::lock;

/// Most bytes of one [`Event::Output`].
pub const PIECE_LIMIT: usize = 64 * 1024;

/// Sends a run's output as events; waits, in the run's own thread, while the channel is full.
pub(super) struct ToEvents {
    pub(super) host: usize,
    pub(super) step: usize,
    pub(super) events: Sender<Event>,
    /// Room in the channel for what [`Output::is_ready`] has promised to take without waiting.
    pub(super) room: Mutex<Option<OwnedPermit<Event>>>,
}

impl ToEvents {
    pub(super) fn new(host: usize, step: usize, events: Sender<Event>) -> Self {
        Self { host, step, events, room: Mutex::new(None) }
    }
}

impl Output for ToEvents {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut room = lock(&self.room).take();
        for piece in bytes.chunks(PIECE_LIMIT) {
            let bytes = Bytes::copy_from_slice(piece);
            let event = Event::Output { host: self.host, step: self.step, stream, bytes };
            match room.take() {
                Some(room) => drop(room.send(event)),
                None => self
                    .events
                    .blocking_send(event)
                    .map_err(|_| io::Error::other("nobody listens to the batch any more"))?,
            }
        }
        Ok(())
    }

    fn is_ready(&self, _: Stream) -> bool {
        let mut room = lock(&self.room);
        if room.is_none() {
            *room = self.events.clone().try_reserve_owned().ok();
        }
        room.is_some()
    }
}

const _: () = assert!(INLINE_LIMIT <= PIECE_LIMIT, "what is written in place is one event");
