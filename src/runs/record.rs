//! A run's record: its frames in order, kept until they are confirmed.
//!
//! The [`Recorder`] makes frames and belongs to the one who reads the pipes; the [`Record`] keeps them for the
//! connection. Nothing large is hashed under the run's lock: what is kept here is hashed before it comes, and what goes
//! to a disk, if it is large, by another thread.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::credit::{Budget, OUTPUT, Window};
use super::hashes::{Hashes, Unhashed};
use super::intake::Intake;
use crate::proto::digest::{Algorithm, Digest};
use crate::proto::frame::{BODY_LIMIT, FrameError, encoded};
use crate::proto::header::{Mark, Output, ServerHeader, Stream};
use crate::proto::verdict::{StreamEnd, StreamEndKind};

/// Most bytes of one piece of output.
pub(super) const PIECE: usize = 256 * 1024;
const _: () = assert!(PIECE <= BODY_LIMIT);
/// Bytes of output from one mark to the next.
pub const MARK_EVERY: u64 = 64 * 1024 * 1024;
/// What a kept frame costs beside its bytes.
pub const FRAME_COST: usize = 64;

/// Makes the frames of a record.
#[derive(Debug)]
pub struct Recorder {
    /// How long each stream is.
    streams: Vec<(Stream, u64)>,
    hashes: Hashes,
    next_seq: u64,
    since_mark: u64,
}

impl Recorder {
    /// The recorder of a run that has these streams, and digests by this algorithm.
    #[must_use]
    pub fn new(streams: &[Stream], algorithm: Algorithm) -> Self {
        let hashes = Hashes::new(streams, algorithm);
        let streams = streams.iter().map(|stream| (*stream, 0)).collect();
        Self { streams, hashes, next_seq: 1, since_mark: 0 }
    }

    /// The frame of a piece that was just read; none of a stream that the run does not have.
    ///
    /// # Errors
    /// [`FrameError::BodyTooLong`] if the piece is over the body's limit.
    pub fn output(
        &mut self,
        stream: Stream,
        intake: &mut Intake,
        time_ms: u64,
    ) -> Result<Option<Unhashed>, FrameError> {
        let Some((_, end)) = self.streams.iter_mut().find(|(s, _)| *s == stream) else {
            return Ok(None);
        };
        let (seq, offset, size) = (self.next_seq, *end, intake.piece().len() as u64);
        let header = Output { stream, seq, offset, hash: Digest::EMPTY, filename: None, time_ms };
        let draft = intake.draft(header)?;
        // Now it will be hashed.
        *end += size;
        self.since_mark += size;
        self.next_seq += 1;
        Ok(Some(self.hashes.of(stream, draft)))
    }

    /// What a stream was, in all, if it ends here: once all frames have been made whole.
    #[must_use]
    pub fn stream_end(&self, stream: Stream, end: StreamEndKind) -> Option<StreamEnd> {
        let (_, size) = *self.streams.iter().find(|(s, _)| *s == stream)?;
        Some(StreamEnd { size, hash: self.hashes.digest(stream, &self.streams)?, end })
    }

    /// Takes the place of the next frame, which the caller makes.
    pub fn take_seq(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Whether a mark is due before the next piece.
    #[must_use]
    pub fn is_mark_due(&self) -> bool {
        self.since_mark >= MARK_EVERY
    }

    /// The mark that belongs here, once all frames have been made whole. None if the hashers' states cannot be
    /// written down.
    pub(super) fn mark(&mut self) -> Result<Option<Bytes>, FrameError> {
        self.since_mark = 0;
        let Some(streams) = self.hashes.marked(&self.streams) else { return Ok(None) };
        let seq = self.take_seq();
        encoded(&ServerHeader::Mark(Mark { seq, streams }), b"").map(Some)
    }
}

/// The frames that are kept. Debug does not show them: output may hold secrets.
pub struct Record {
    frames: VecDeque<Bytes>,
    /// Place of `frames[0]`; all before it are confirmed.
    first: u64,
    window: Window,
}

/// Why an acknowledgement is refused: it names a frame that was never made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame {acked} is acknowledged, the last one made is {last}")]
pub struct AckAhead {
    /// What the peer says.
    pub acked: u64,
    /// What there is.
    pub last: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} frames from {})", self.frames.len(), self.first)
    }
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { frames: VecDeque::new(), first: 1, window: Window::new(budget, OUTPUT) }
    }

    /// Keeps the next frame.
    pub fn push(&mut self, frame: Bytes) {
        self.window.take(frame.len() + FRAME_COST);
        self.frames.push_back(frame);
    }

    /// How many bytes may be read for it now.
    pub fn room(&mut self) -> usize {
        self.window.room()
    }

    /// The last frame's place; 0 if there was none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first + self.frames.len() as u64 - 1
    }

    /// The first frame that is still kept, or the next one to be made.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Forgets every frame up to `seq`.
    ///
    /// # Errors
    /// [`AckAhead`] if no such frame was made.
    pub fn ack(&mut self, seq: u64) -> Result<(), AckAhead> {
        if seq > self.last() {
            return Err(AckAhead { acked: seq, last: self.last() });
        }
        while self.first <= seq {
            if let Some(frame) = self.frames.pop_front() {
                self.window.give(frame.len() + FRAME_COST);
            }
            self.first += 1;
        }
        Ok(())
    }

    /// Up to about `bytes` of the frames after `seq`, in order, and the place of the last of them.
    #[must_use]
    pub fn after(&self, seq: u64, bytes: usize) -> (Vec<Bytes>, u64) {
        let skip = usize::try_from((seq + 1).saturating_sub(self.first)).unwrap_or(usize::MAX);
        let mut left = bytes;
        let mut taken = Vec::new();
        for frame in self.frames.iter().skip(skip) {
            taken.push(frame.clone());
            if frame.len() >= left {
                break;
            }
            left -= frame.len();
        }
        let last = seq + taken.len() as u64;
        (taken, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::digest::Running;
    use crate::proto::frame::{Decoded, Limits, decode};

    fn header(frame: &[u8]) -> (ServerHeader, Vec<u8>) {
        let Decoded::Frame(f) = decode(frame, Limits::FULL).unwrap() else { panic!("incomplete") };
        (serde_json::from_slice(f.header).unwrap(), f.body.to_vec())
    }

    fn whole(recorder: &mut Recorder, stream: Stream, piece: &[u8], time_ms: u64) -> Bytes {
        recorder.output(stream, &mut Intake::of(piece), time_ms).unwrap().unwrap().whole()
    }

    #[test]
    fn pieces_carry_offset_seq_and_running_digest() {
        let mut recorder = Recorder::new(&[Stream::Stdout, Stream::Stderr], Algorithm::Sha256);
        whole(&mut recorder, Stream::Stdout, b"ab", 1);
        whole(&mut recorder, Stream::Stderr, b"E", 2);
        let frame = whole(&mut recorder, Stream::Stdout, b"c", 3);
        let (ServerHeader::Output(output), body) = header(&frame) else { panic!() };
        assert_eq!((output.seq, output.offset, body), (3, 2, b"c".to_vec()));
        assert_eq!(output.hash, Digest::of(b"abc"));
        let end = recorder.stream_end(Stream::Stdout, StreamEndKind::Eof).unwrap();
        assert_eq!((end.size, end.hash), (3, Digest::of(b"abc")));
        let other = recorder.output(Stream::Both, &mut Intake::of(b"x"), 0).unwrap();
        assert!(other.is_none() && recorder.stream_end(Stream::Both, StreamEndKind::Eof).is_none());
        assert_eq!(recorder.take_seq(), 4);
    }

    #[test]
    fn a_piece_that_is_too_long_is_no_part_of_its_stream() {
        let mut recorder = Recorder::new(&[Stream::Both], Algorithm::Sha256);
        whole(&mut recorder, Stream::Both, b"ab", 0);
        let long = vec![0; BODY_LIMIT + 1];
        recorder.output(Stream::Both, &mut Intake::of(&long), 0).unwrap_err();
        let end = recorder.stream_end(Stream::Both, StreamEndKind::Cut).unwrap();
        assert_eq!((end.size, end.hash), (2, Digest::of(b"ab")));
        assert_eq!(recorder.take_seq(), 2);
    }

    /// Another thread is long at it: whoever did not wait would find less.
    #[test]
    fn the_end_and_a_mark_are_those_of_all_that_was_read() {
        let mut recorder = Recorder::new(&[Stream::Stdout, Stream::Stderr], Algorithm::Sha256);
        let piece = vec![7; BODY_LIMIT];
        for n in 1..=8 {
            let frame = recorder.output(Stream::Stderr, &mut Intake::of(&piece), 0);
            let frame = frame.unwrap().unwrap();
            let hasher = std::thread::spawn(move || frame.whole());
            if n % 2 == 0 {
                let end = recorder.stream_end(Stream::Stderr, StreamEndKind::Eof).unwrap();
                assert_eq!(
                    (end.size, end.hash),
                    (n * piece.len() as u64, Digest::of(&piece.repeat(n as usize)))
                );
            } else {
                let (ServerHeader::Mark(mark), _) = header(&recorder.mark().unwrap().unwrap())
                else {
                    panic!("no mark")
                };
                assert_eq!(mark.streams[1].offset, n * piece.len() as u64);
            }
            hasher.join().unwrap();
        }
    }

    #[test]
    fn a_mark_is_due_every_64_mib_and_a_reader_can_go_on_from_it() {
        let mut recorder = Recorder::new(&[Stream::Both], Algorithm::Sha256);
        let piece = vec![1; PIECE];
        for _ in 0..256 {
            assert!(!recorder.is_mark_due());
            whole(&mut recorder, Stream::Both, &piece, 0);
        }
        assert!(recorder.is_mark_due());
        let (ServerHeader::Mark(mark), _) = header(&recorder.mark().unwrap().unwrap()) else {
            panic!("no mark")
        };
        assert!(!recorder.is_mark_due());
        let frame = whole(&mut recorder, Stream::Both, b"x", 0);
        let (ServerHeader::Output(output), body) = header(&frame) else { panic!("no output") };
        assert_eq!((mark.seq, output.seq), (257, 258));
        let mut running = Running::resume(&mark.streams[0].state, mark.streams[0].offset).unwrap();
        running.update(&body);
        assert_eq!((running.digest(), running.offset()), (output.hash, MARK_EVERY + 1));
    }

    #[test]
    fn frames_are_kept_until_they_are_acknowledged() {
        let mut record = Record::new(Arc::new(Budget::new(1 << 20)));
        for n in 1..=5u8 {
            record.push(vec![n; 10].into());
        }
        assert_eq!(record.after(0, 1000).1, 5);
        assert_eq!(
            record.after(2, 15),
            (vec![Bytes::from(vec![3; 10]), Bytes::from(vec![4; 10])], 4)
        );
        record.ack(3).unwrap();
        record.ack(1).unwrap();
        assert_eq!((record.first(), record.last()), (4, 5));
        assert_eq!(record.after(3, 1), (vec![Bytes::from(vec![4; 10])], 4));
        assert_eq!(record.ack(6), Err(AckAhead { acked: 6, last: 5 }));
        record.ack(5).unwrap();
        assert_eq!((record.first(), record.last()), (6, 5));
    }

    #[test]
    fn debug_shows_no_output() {
        let mut record = Record::new(Arc::new(Budget::new(1 << 20)));
        record.push(Bytes::from_static(b"hunter2"));
        let shown = format!("{record:?}");
        assert!(shown.contains("1 frames") && !shown.contains("hunter2"), "{shown}");
    }
}
