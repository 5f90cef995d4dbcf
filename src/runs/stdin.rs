//! A run's standard input on its way from the client to the command.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use super::credit::{Budget, INPUT, Window};
use crate::proto::digest::{Algorithm, Running};
use crate::proto::header::{Grant, StdinPiece};

/// How many bytes of small pieces are gathered.
const GATHER: usize = 64 * 1024;

/// Why a piece is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StdinError {
    /// It does not start where the last one ended.
    #[error("standard input goes on at {expected}, the piece starts at {offset}")]
    Offset {
        /// Where the piece starts.
        offset: u64,
        /// Where it should.
        expected: u64,
    },
    /// Its digest is not that of the stream.
    #[error("the digest of the standard input does not match up to {offset}")]
    Hash {
        /// Where the stream would stand.
        offset: u64,
    },
    /// More was sent than was granted.
    #[error("standard input was granted up to {granted}, sent up to {sent}")]
    Beyond {
        /// What was granted.
        granted: u64,
        /// What was sent.
        sent: u64,
    },
    /// Something came after the end.
    #[error("standard input goes on after its end")]
    AfterEnd,
}

/// What is there for the command. Debug does not show the bytes: they may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Next {
    /// These bytes.
    Bytes(Bytes),
    /// The end of the input.
    End,
    /// Nothing yet.
    Nothing,
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::End => f.write_str("End"),
            Self::Nothing => f.write_str("Nothing"),
        }
    }
}

/// Received and not yet written to the command. Debug does not show the bytes: they may hold secrets.
pub struct StdinQueue {
    /// What the command gets next.
    front: Bytes,
    /// What comes behind it. Pieces are gathered: a client that sends byte by byte makes the server hold
    /// bytes, not frames.
    back: VecDeque<BytesMut>,
    received: Running,
    written: u64,
    /// Promised to the client, and charged from then on: it may come at any moment.
    granted: u64,
    ended: bool,
    /// The command closed its end: what comes is counted and thrown away.
    closed: bool,
    window: Window,
}

impl fmt::Debug for StdinQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdinQueue")
            .field("received", &self.received.offset())
            .field("written", &self.written)
            .field("granted", &self.granted)
            .field("ended", &self.ended)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

impl StdinQueue {
    /// An empty queue with the first grant; an ended one if no input will come.
    #[must_use]
    pub fn new(budget: Arc<Budget>, wanted: bool, algorithm: Algorithm) -> Self {
        let mut window = Window::new(budget, INPUT);
        let granted = if wanted { INPUT.first } else { 0 };
        window.take(granted);
        Self {
            front: Bytes::new(),
            back: VecDeque::new(),
            received: Running::by(algorithm),
            written: 0,
            granted: granted as u64,
            ended: !wanted,
            closed: false,
            window,
        }
    }

    /// Takes the client's next piece.
    ///
    /// # Errors
    /// A [`StdinError`]: the client is at fault and nothing was taken.
    pub fn push(&mut self, piece: StdinPiece, bytes: &Bytes) -> Result<(), StdinError> {
        let running = self.check(piece, bytes)?;
        if running.offset() > self.granted {
            return Err(StdinError::Beyond { granted: self.granted, sent: running.offset() });
        }
        self.received = running;
        if self.closed {
            self.written = self.received.offset();
        } else if !bytes.is_empty() {
            self.gather(bytes);
        }
        Ok(())
    }

    fn gather(&mut self, bytes: &[u8]) {
        match self.back.back_mut() {
            Some(last) if last.len() + bytes.len() <= GATHER => last.extend_from_slice(bytes),
            _ => self.back.push_back(bytes.into()),
        }
    }

    /// Takes the end of the input; said twice, it is the same end.
    ///
    /// # Errors
    /// A [`StdinError`]: the client is at fault and nothing was taken.
    pub fn end(&mut self, piece: StdinPiece) -> Result<(), StdinError> {
        if self.ended && piece.offset == self.received.offset() {
            return Ok(());
        }
        self.check(piece, &[])?;
        self.ended = true;
        self.withdraw(self.granted - self.received.offset());
        Ok(())
    }

    fn check(&self, piece: StdinPiece, bytes: &[u8]) -> Result<Running, StdinError> {
        if self.ended {
            return Err(StdinError::AfterEnd);
        }
        let expected = self.received.offset();
        if piece.offset != expected {
            return Err(StdinError::Offset { offset: piece.offset, expected });
        }
        let mut running = self.received.clone();
        running.update(bytes);
        if running.digest() == piece.hash {
            Ok(running)
        } else {
            Err(StdinError::Hash { offset: running.offset() })
        }
    }

    /// What to write to the command next.
    #[must_use]
    pub fn front(&mut self) -> Next {
        if self.front.is_empty() {
            self.front = self.back.pop_front().unwrap_or_default().freeze();
        }
        match self.front.is_empty() {
            false => Next::Bytes(self.front.clone()),
            true if self.ended => Next::End,
            true => Next::Nothing,
        }
    }

    /// `count` bytes of what is next were written.
    pub fn wrote(&mut self, count: usize) {
        self.written += count as u64;
        self.window.give(count);
        self.front.advance(count.min(self.front.len()));
    }

    /// The command closed its standard input: what is left is thrown away.
    pub fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.back.clear();
        self.front.clear();
        let promised = if self.ended { self.received.offset() } else { self.granted };
        self.withdraw(promised - self.written);
        self.written = self.received.offset();
    }

    /// So much of what was promised will not be held after all.
    fn withdraw(&mut self, bytes: u64) {
        self.window.give(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// Whether the command closed its standard input.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What was received: where a client goes on.
    #[must_use]
    pub fn received(&self) -> &Running {
        &self.received
    }

    /// Up to where input may be sent.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// A new grant, when half of the window has become free, or of the floor, which is all that an
    /// exhausted budget leaves.
    pub fn grant(&mut self) -> Option<Grant> {
        if self.ended || self.closed {
            return None;
        }
        let room = self.window.room();
        if room < self.window.size().min(INPUT.floor) / 2 {
            return None;
        }
        self.window.take(room);
        self.granted += room as u64;
        Some(Grant { to: self.granted, taken: self.received.offset() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::digest::Digest;

    fn queue() -> StdinQueue {
        StdinQueue::new(Arc::new(Budget::new(1 << 20)), true, Algorithm::Sha256)
    }

    fn piece(offset: u64, whole: &[u8]) -> StdinPiece {
        StdinPiece { offset, hash: Digest::of(whole) }
    }

    #[test]
    fn pieces_come_out_as_they_went_in() {
        let mut q = queue();
        assert_eq!(q.front(), Next::Nothing);
        q.push(piece(0, b"abc"), &Bytes::from_static(b"abc")).unwrap();
        q.push(piece(3, b"abcd"), &Bytes::from_static(b"d")).unwrap();
        assert_eq!(q.front(), Next::Bytes(Bytes::from_static(b"abcd")), "gathered");
        q.wrote(2);
        q.push(piece(4, b"abcde"), &Bytes::from_static(b"e")).unwrap();
        assert_eq!(q.front(), Next::Bytes(Bytes::from_static(b"cd")));
        q.wrote(2);
        assert_eq!(q.front(), Next::Bytes(Bytes::from_static(b"e")));
        q.end(piece(5, b"abcde")).unwrap();
        q.wrote(1);
        assert_eq!(q.front(), Next::End);
        q.end(piece(5, b"abcde")).unwrap();
    }

    #[test]
    fn an_exhausted_budget_slows_a_grown_window_and_does_not_stop_it() {
        let budget = Arc::new(Budget::new(8 << 20));
        let mut q = StdinQueue::new(Arc::clone(&budget), true, Algorithm::Sha256);
        let mut sent = Running::new();
        let mut feed = |q: &mut StdinQueue| {
            let offset = sent.offset();
            let bytes = vec![7; usize::try_from(q.granted() - offset).unwrap()];
            sent.update(&bytes);
            q.push(StdinPiece { offset, hash: sent.digest() }, &bytes.into()).unwrap();
            while let Next::Bytes(bytes) = q.front() {
                q.wrote(bytes.len());
            }
        };
        for _ in 0..20 {
            feed(&mut q);
            q.grant().unwrap();
        }
        assert_eq!(q.window.size(), INPUT.largest);
        let mut others = Window::new(budget, crate::runs::credit::OUTPUT);
        others.take(16 << 20);
        for _ in 0..3 {
            feed(&mut q);
            let before = q.granted();
            let grant = q.grant().unwrap();
            assert!((1..=INPUT.floor as u64).contains(&(grant.to - before)), "{grant:?}");
        }
    }

    #[test]
    fn what_is_promised_is_charged_until_it_is_written_or_will_not_come() {
        let budget = Arc::new(Budget::new(0));
        let mut q = StdinQueue::new(Arc::clone(&budget), true, Algorithm::Sha256);
        assert_eq!(q.window.room(), 0, "the first grant takes the floor");
        q.push(piece(0, b"a"), &Bytes::from_static(b"a")).unwrap();
        q.end(piece(1, b"a")).unwrap();
        assert_eq!(q.window.room(), INPUT.floor - 1);
        q.close();
        q.close();
        assert_eq!(q.window.room(), INPUT.floor);
    }

    #[test]
    fn a_piece_out_of_place_altered_or_beyond_the_grant_is_refused() {
        let mut q = queue();
        let a = Bytes::from_static(b"a");
        assert_eq!(q.push(piece(1, b"a"), &a), Err(StdinError::Offset { offset: 1, expected: 0 }));
        assert_eq!(q.push(piece(0, b"b"), &a), Err(StdinError::Hash { offset: 1 }));
        let much = vec![0; INPUT.first + 1];
        let error = StdinError::Beyond { granted: INPUT.first as u64, sent: much.len() as u64 };
        assert_eq!(q.push(piece(0, &much), &much.clone().into()), Err(error));
        assert_eq!(q.received().offset(), 0);
        q.end(piece(0, b"")).unwrap();
        assert_eq!(q.push(piece(0, b"a"), &a), Err(StdinError::AfterEnd));
    }

    #[test]
    fn debug_shows_no_input() {
        let mut q = queue();
        q.push(piece(0, b"hunter2"), &Bytes::from_static(b"hunter2")).unwrap();
        let behind = format!("{q:?}");
        let shown = format!("{behind} {:?} {q:?}", q.front());
        assert!(shown.contains("7") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn credit_follows_what_the_command_reads() {
        let mut q = queue();
        assert_eq!(q.grant(), None, "the first grant came with `started`");
        let mut whole = vec![0; INPUT.first];
        q.push(piece(0, &whole), &whole.clone().into()).unwrap();
        assert_eq!(q.grant(), None, "nothing was read");
        assert!(matches!(q.front(), Next::Bytes(bytes) if bytes.len() == whole.len()));
        q.wrote(whole.len());
        let grant = q.grant().unwrap();
        assert!(grant.to >= (2 * INPUT.first) as u64 && grant.taken == INPUT.first as u64);
        whole.push(1);
        q.push(piece(INPUT.first as u64, &whole), &Bytes::from_static(&[1])).unwrap();
        q.close();
        assert_eq!((q.front(), q.grant()), (Next::Nothing, None));
    }
}
