//! The running digests of a run's streams, and frames that still want theirs: to hash costs more than all else that is
//! done with output, so who reads it may leave that to another thread.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::proto::digest::{Algorithm, Digest, Running};
use crate::proto::draft::Draft;
use crate::proto::header::{MarkedStream, Stream};
use crate::sys::mutex::lock;

/// The digests.
#[derive(Debug, Clone)]
pub(super) struct Hashes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// One thread at a time has them, for a whole piece.
    streams: Mutex<Streams>,
    /// Called for each piece while somebody waits.
    grown: Condvar,
}

#[derive(Debug)]
struct Streams {
    running: Vec<(Stream, Running)>,
    /// To call nobody would be a system call, for each piece of every run.
    is_awaited: bool,
}

impl Streams {
    fn are_behind(&self, lengths: &[(Stream, u64)]) -> bool {
        let mut streams = self.running.iter().zip(lengths);
        streams.any(|((_, running), (_, length))| running.offset() < *length)
    }
}

impl Hashes {
    pub(super) fn new(streams: &[Stream], algorithm: Algorithm) -> Self {
        let running = streams.iter().map(|stream| (*stream, Running::by(algorithm))).collect();
        let streams = Mutex::new(Streams { running, is_awaited: false });
        Self(Arc::new(Shared { streams, grown: Condvar::new() }))
    }

    pub(super) fn of(&self, stream: Stream, draft: Draft) -> Unhashed {
        Unhashed { draft, stream, hashes: self.clone() }
    }

    /// Returns when so much of each stream has been hashed.
    fn at(&self, lengths: &[(Stream, u64)]) -> MutexGuard<'_, Streams> {
        let is_behind = |streams: &mut Streams| {
            streams.is_awaited = streams.are_behind(lengths);
            streams.is_awaited
        };
        let streams = self.0.grown.wait_while(lock(&self.0.streams), is_behind);
        streams.unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream's digest once all are so long.
    pub(super) fn digest(&self, stream: Stream, lengths: &[(Stream, u64)]) -> Option<Digest> {
        let streams = self.at(lengths);
        streams.running.iter().find(|(s, _)| *s == stream).map(|(_, running)| running.digest())
    }

    /// The hashers' states once the streams are so long; none if they cannot be written down.
    pub(super) fn marked(&self, lengths: &[(Stream, u64)]) -> Option<Vec<MarkedStream>> {
        let marked = |(stream, running): &(Stream, Running)| {
            let (offset, state) = (running.offset(), running.state()?);
            Some(MarkedStream { stream: *stream, offset, state })
        };
        self.at(lengths).running.iter().map(marked).collect()
    }
}

/// A frame on its way into the record.
pub enum Made {
    /// It is hashed first.
    Unhashed(Unhashed),
    /// Nothing is missing.
    Whole(Bytes),
}

/// It shows no output, which may hold secrets.
impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Made({} bytes)", self.len())
    }
}

impl Made {
    /// Bytes of the frame.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has a header at least")]
    pub fn len(&self) -> usize {
        match self {
            Self::Unhashed(frame) => frame.draft.len(),
            Self::Whole(frame) => frame.len(),
        }
    }

    /// The frame, hashed if it was not.
    #[must_use]
    pub fn whole(self) -> Bytes {
        match self {
            Self::Unhashed(frame) => frame.whole(),
            Self::Whole(frame) => frame,
        }
    }
}

/// A frame whose digest is still to be made. Those of a run are to be made whole in their order, and every one: who
/// wants to know how a stream ends waits for them.
#[derive(Debug)]
pub struct Unhashed {
    draft: Draft,
    stream: Stream,
    hashes: Hashes,
}

impl Unhashed {
    /// Hashes the piece: the frame has its digest.
    #[must_use]
    pub fn whole(self) -> Bytes {
        let Self { draft, stream, hashes } = self;
        let mut streams = lock(&hashes.0.streams);
        let running = streams.running.iter_mut().find(|(s, _)| *s == stream);
        // The recorder makes none of a stream that it does not have.
        let digest = running.map_or(Digest::EMPTY, |(_, running)| {
            running.update(draft.piece());
            running.digest()
        });
        let is_awaited = streams.is_awaited;
        drop(streams);
        if is_awaited {
            hashes.0.grown.notify_all();
        }
        draft.whole(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::header::Output;

    #[test]
    fn debug_shows_no_output() {
        let (stream, hash) = (Stream::Both, Digest::EMPTY);
        let header = Output { stream, seq: 1, offset: 0, hash, filename: None, time_ms: 0 };
        let hashes = Hashes::new(&[stream], Algorithm::Sha256);
        let unhashed = hashes.of(stream, Draft::new(header, b"hunter2").unwrap());
        let of_unhashed = format!("{unhashed:?}");
        let made = Made::Unhashed(unhashed);
        let of_made = format!("{made:?}");
        let whole = format!("{:?}", Made::Whole(made.whole()));
        for shown in [of_unhashed, of_made, whole] {
            assert!(shown.contains("bytes") && !shown.contains("hunter2"), "{shown}");
        }
    }
}
