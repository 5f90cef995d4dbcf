//! The beginning of what a run has written, for the journal: only where the policy asks for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::proto::header::Stream;

/// Most bytes of a run's output in the journal. As JSON each may take six, which leaves room in a line of
/// [`LINE_LIMIT`](super::journal::LINE_LIMIT).
pub const EXCERPT_LIMIT: u64 = 64 << 10;
/// Most frames of a durable run's record that are looked through: it may have one for each byte.
pub(super) const FRAMES_LIMIT: usize = 1024;

/// What the journal has of a run's output. Bytes that are no UTF-8 stand there as U+FFFD; the verdict's digest is
/// that of the bytes. Debug does not show it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// Of the standard output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// Of the standard error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Of both through one pipe.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub both: String,
    /// There was more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

impl fmt::Debug for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.stdout.len() + self.stderr.len() + self.both.len();
        write!(f, "Excerpt({bytes} bytes)")
    }
}

/// An excerpt that is being made.
#[derive(Default)]
pub(super) struct Taker {
    /// None: nothing is taken.
    left: Option<usize>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    both: Vec<u8>,
    cut: bool,
}

impl Taker {
    /// Takes at most `limit` bytes, both streams together; nothing without a limit.
    pub(super) fn new(limit: Option<u64>) -> Self {
        let left = limit.map(|limit| usize::try_from(limit.min(EXCERPT_LIMIT)).unwrap_or(0));
        Self { left, ..Self::default() }
    }

    /// The next piece of a stream. Whether more would be taken.
    pub(super) fn add(&mut self, stream: Stream, piece: &[u8]) -> bool {
        let Some(left) = &mut self.left else { return false };
        let taken = &piece[..piece.len().min(*left)];
        *left -= taken.len();
        self.cut |= taken.len() < piece.len();
        let place = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
            Stream::Both => &mut self.both,
        };
        place.extend_from_slice(taken);
        !self.cut
    }

    /// There is more that is not looked at.
    pub(super) fn leave_off(&mut self) {
        self.cut = true;
    }

    /// What was taken; none where nothing was to be.
    pub(super) fn excerpt(&self) -> Option<Excerpt> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        self.left.map(|_| Excerpt {
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            both: text(&self.both),
            cut: self.cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limit: Option<u64>, pieces: &[(Stream, &[u8])]) -> Option<Excerpt> {
        let mut taker = Taker::new(limit);
        for (stream, piece) in pieces {
            taker.add(*stream, piece);
        }
        taker.excerpt()
    }

    #[test]
    fn so_much_is_taken_and_not_a_byte_more() {
        let pieces = [(Stream::Stdout, &b"ab"[..]), (Stream::Stderr, b"c"), (Stream::Stdout, b"d")];
        for (limit, stdout, stderr, cut) in [
            (5, "abd", "c", false),
            (4, "abd", "c", false),
            (3, "ab", "c", true),
            (1, "a", "", true),
        ] {
            let (stdout, stderr, both) = (stdout.into(), stderr.into(), String::new());
            let expected = Excerpt { stdout, stderr, both, cut };
            assert_eq!(taken(Some(limit), &pieces), Some(expected), "{limit}");
        }
        assert_eq!(taken(None, &pieces), None);
    }

    #[test]
    fn the_limit_holds_whatever_is_asked_for_and_its_line_fits_into_the_journal() {
        let limit = usize::try_from(EXCERPT_LIMIT).unwrap();
        let longest = taken(Some(u64::MAX), &[(Stream::Both, &vec![1; limit + 1])]).unwrap();
        assert_eq!((longest.both.len(), longest.cut), (limit, true));
        let line = serde_json::to_string(&longest).unwrap();
        assert!(line.len() < crate::runs::journal::LINE_LIMIT / 2, "{}", line.len());
    }

    #[test]
    fn debug_shows_no_output() {
        let excerpt = taken(Some(9), &[(Stream::Stdout, b"hunter2\xff")]).unwrap();
        assert_eq!(excerpt.stdout, "hunter2\u{fffd}");
        assert_eq!(format!("{excerpt:?}"), "Excerpt(10 bytes)");
    }
}
