//! Where a piece of output is read to: behind room for the header of its frame, so that a large piece becomes a
//! frame where it stands.

use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};

use crate::proto::draft::Draft;
use crate::proto::frame::{FrameError, HEADER_ROOM};
use crate::proto::header::Output;
use crate::sys::mutex::lock;

/// Memory for one piece after another. Debug does not show output: it may hold secrets.
#[derive(Default)]
pub struct Intake {
    /// [`HEADER_ROOM`] bytes and the piece; nothing before the first.
    room: BytesMut,
    /// None: whoever gets the frames keeps them.
    spares: Option<Arc<Spares>>,
}

/// Memory of frames that nobody has any more: the next pieces are read into it. Pages that are new each time would
/// cost more than to hash what is put into them.
#[derive(Debug)]
pub struct Spares {
    kept: Mutex<Vec<BytesMut>>,
    most: usize,
}

impl Spares {
    /// For so many at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }

    /// Takes the memory of a frame, unless somebody else has it, too.
    pub fn give(&self, frame: Bytes) {
        let Ok(mut room) = frame.try_into_mut() else { return };
        // Or its bytes would be copied when it is to hold a longer piece.
        room.clear();
        let mut kept = lock(&self.kept);
        if kept.len() < self.most {
            kept.push(room);
        }
    }

    fn take(&self) -> BytesMut {
        lock(&self.kept).pop().unwrap_or_default()
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intake({} bytes)", self.piece().len())
    }
}

impl Intake {
    /// For frames that are soon written and dropped: their memory comes back by `spares`.
    #[must_use]
    pub fn recycling(spares: Arc<Spares>) -> Self {
        Self { room: BytesMut::new(), spares: Some(spares) }
    }

    /// What the next piece, of up to `size` bytes, is appended to.
    pub fn buffer(&mut self, size: usize) -> &mut BytesMut {
        if self.room.is_empty() {
            if let Some(spares) = self.spares.as_ref().filter(|_| self.room.capacity() == 0) {
                self.room = spares.take();
            }
            self.room.reserve(HEADER_ROOM + size);
            self.room.resize(HEADER_ROOM, 0);
        }
        &mut self.room
    }

    /// What was read.
    #[must_use]
    pub fn piece(&self) -> &[u8] {
        self.room.get(HEADER_ROOM..).unwrap_or_default()
    }

    /// Forgets what was read.
    pub fn clear(&mut self) {
        self.room.truncate(HEADER_ROOM);
    }

    /// Nothing is read for a while: gives its memory back, unless it is soon used again anyway.
    pub fn rest(&mut self) {
        if self.spares.is_none() {
            self.room = BytesMut::new();
        }
    }

    /// The frame of what was read, without its digest.
    ///
    /// # Errors
    /// As [`Draft::new`].
    pub fn draft(&mut self, header: Output) -> Result<Draft, FrameError> {
        if self.is_worth_its_memory() {
            return Draft::around(header, std::mem::take(&mut self.room));
        }
        let draft = Draft::new(header, self.piece());
        self.clear();
        draft
    }

    /// Whether what was read fills its memory: what is kept is counted by the bytes of frames.
    fn is_worth_its_memory(&self) -> bool {
        self.spares.is_some() || self.room.len() >= self.room.capacity() / 8 * 7
    }
}

#[cfg(test)]
impl Spares {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.kept).len()
    }
}

#[cfg(test)]
impl Intake {
    /// What has read this.
    pub(super) fn of(piece: &[u8]) -> Self {
        let mut intake = Self::default();
        intake.buffer(piece.len()).extend_from_slice(piece);
        intake
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::digest::Digest;
    use crate::proto::frame::{Decoded, Limits, decode};
    use crate::proto::header::Stream;

    fn framed(intake: &mut Intake, size: usize, piece: &[u8]) -> Bytes {
        intake.buffer(size).extend_from_slice(piece);
        assert_eq!(intake.piece(), piece);
        let (stream, hash) = (Stream::Both, Digest::EMPTY);
        let header = Output { stream, seq: 1, offset: 0, hash, filename: None, time_ms: 0 };
        let draft = intake.draft(header).unwrap();
        assert!(intake.piece().is_empty());
        draft.whole(hash)
    }

    fn body(frame: &[u8]) -> &[u8] {
        let Decoded::Frame(frame) = decode(frame, Limits::FULL).unwrap() else { panic!("cut") };
        frame.body
    }

    #[test]
    fn frames_are_made_in_the_memory_of_those_that_nobody_has_any_more() {
        let spares = Arc::new(Spares::new(2));
        let mut intake = Intake::recycling(Arc::clone(&spares));
        let mut places = std::collections::BTreeSet::new();
        let mut waiting = std::collections::VecDeque::new();
        for n in 0..100u8 {
            let frame = framed(&mut intake, 1000, &vec![n; 1000 - usize::from(n)]);
            assert_eq!(body(&frame), vec![n; 1000 - usize::from(n)]);
            places.insert(body(&frame).as_ptr());
            waiting.push_back(frame);
            if waiting.len() == 3 {
                spares.give(waiting.pop_front().unwrap());
            }
        }
        assert_eq!(places.len(), 3, "as many as there are at once");
    }

    #[test]
    fn what_somebody_holds_is_not_written_over_and_only_so_many_are_kept() {
        let spares = Arc::new(Spares::new(2));
        let mut intake = Intake::recycling(Arc::clone(&spares));
        let held: Vec<_> = (0..10u8).map(|n| framed(&mut intake, 1000, &[n; 1000])).collect();
        held.iter().for_each(|frame| spares.give(frame.clone()));
        assert_eq!(spares.len(), 0);
        let frame = framed(&mut intake, 1000, b"x");
        held.into_iter().chain([frame]).for_each(|frame| spares.give(frame));
        assert_eq!(spares.len(), 2);
    }

    #[test]
    fn a_frame_that_is_kept_has_little_more_memory_than_bytes() {
        let mut intake = Intake::default();
        let place = intake.buffer(1000).as_ptr();
        for len in [0, 1, 500, 800] {
            let frame = framed(&mut intake, 1000, &vec![b'a'; len]);
            assert_eq!(body(&frame), vec![b'a'; len]);
            assert_eq!(intake.buffer(1000).as_ptr(), place, "{len} bytes are copied");
        }
        let frame = framed(&mut intake, 1000, &[b'a'; 1000]);
        assert_eq!(body(&frame).as_ptr(), place.wrapping_add(HEADER_ROOM), "1000 are not");
    }

    #[test]
    fn a_longer_piece_than_was_said_is_framed_all_the_same() {
        let mut intake = Intake::default();
        let frame = framed(&mut intake, 10, &[b'a'; 100_000]);
        assert_eq!(body(&frame), [b'a'; 100_000]);
        intake.rest();
        assert_eq!(body(&framed(&mut intake, 10, b"")), b"");
    }

    #[test]
    fn debug_shows_no_output() {
        let mut intake = Intake::default();
        intake.buffer(10).extend_from_slice(b"hunter2");
        let shown = format!("{intake:?}");
        assert!(shown.contains("7 bytes") && !shown.contains("hunter2"), "{shown}");
    }
}
