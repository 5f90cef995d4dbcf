//! Where a piece of output is read to: behind room for the header of its frame, so that a large piece becomes a
//! frame where it stands.

use std::collections::VecDeque;
use std::fmt;

use bytes::{Bytes, BytesMut};
use serde::Serialize;

use crate::proto::frame::{FrameError, HEADER_ROOM, encoded, encoded_before};

/// Memory for one piece after another. Debug does not show output: it may hold secrets.
#[derive(Default)]
pub struct Intake {
    /// [`HEADER_ROOM`] bytes and the piece; nothing before the first.
    room: BytesMut,
    /// None: whoever gets the frames keeps them.
    made: Option<Made>,
}

/// The frames that were made last. Into the memory of one that nobody has any more the next piece is read: pages that
/// are new each time would cost more than to hash what is put into them.
struct Made {
    frames: VecDeque<Bytes>,
    most: usize,
}

impl Made {
    fn room(&mut self) -> BytesMut {
        if self.frames.len() < self.most {
            return BytesMut::new();
        }
        let Some(Ok(mut oldest)) = self.frames.pop_front().map(Bytes::try_into_mut) else {
            return BytesMut::new();
        };
        // First, or it would be copied.
        oldest.clear();
        oldest
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intake({} bytes)", self.piece().len())
    }
}

impl Intake {
    /// For frames that are soon written and dropped, of which so many wait at most: their memory is used again.
    #[must_use]
    pub fn recycling(waiting: usize) -> Self {
        // Those that wait, and one for the moment in which whoever takes them goes on.
        let most = waiting + 1;
        Self { room: BytesMut::new(), made: Some(Made { frames: VecDeque::new(), most }) }
    }

    /// What the next piece, of up to `size` bytes, is appended to.
    pub fn buffer(&mut self, size: usize) -> &mut BytesMut {
        if self.room.is_empty() {
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
        if self.made.is_none() {
            self.room = BytesMut::new();
        }
    }

    /// The frame of what was read.
    ///
    /// # Errors
    /// As [`encoded`].
    pub fn frame(&mut self, header: &impl Serialize) -> Result<Bytes, FrameError> {
        let frame = match self.is_worth_its_memory() {
            true => encoded_before(header, std::mem::take(&mut self.room))?,
            false => encoded(header, self.piece())?,
        };
        match &mut self.made {
            Some(made) => {
                made.frames.push_back(frame.clone());
                self.room = made.room();
            }
            None => self.clear(),
        }
        Ok(frame)
    }

    /// Whether what was read fills its memory: what is kept is counted by the bytes of frames.
    fn is_worth_its_memory(&self) -> bool {
        self.made.is_some() || self.room.len() >= self.room.capacity() / 8 * 7
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
    use crate::proto::frame::{Decoded, Limits, decode};

    const HEADER: [(&str, &str); 1] = [("type", "x")];

    fn framed(intake: &mut Intake, size: usize, piece: &[u8]) -> Bytes {
        intake.buffer(size).extend_from_slice(piece);
        assert_eq!(intake.piece(), piece);
        let frame = intake.frame(&std::collections::BTreeMap::from(HEADER)).unwrap();
        assert!(intake.piece().is_empty());
        frame
    }

    fn body(frame: &[u8]) -> &[u8] {
        let Decoded::Frame(frame) = decode(frame, Limits::FULL).unwrap() else { panic!("cut") };
        frame.body
    }

    #[test]
    fn frames_are_made_in_the_memory_of_those_that_nobody_has_any_more() {
        const WAITING: usize = 2;
        let mut intake = Intake::recycling(WAITING);
        let mut made = Vec::new();
        for n in 0..100u8 {
            let frame = framed(&mut intake, 1000, &vec![n; 1000 - usize::from(n)]);
            assert_eq!(body(&frame), vec![n; 1000 - usize::from(n)]);
            made.push(body(&frame).as_ptr());
        }
        made.sort_unstable();
        made.dedup();
        assert!(made.len() <= WAITING + 2, "{} places", made.len());
        let held: Vec<_> = (0..100u8).map(|n| framed(&mut intake, 1000, &[n; 1000])).collect();
        for (n, frame) in (0..100u8).zip(&held) {
            assert_eq!(body(frame), [n; 1000], "what is held is not written over");
        }
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
