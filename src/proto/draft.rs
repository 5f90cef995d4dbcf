//! A frame of output whose digest is still to come. All else of it stands, its length too, so that a place can be
//! kept for it while somebody else hashes.

use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};

use super::digest::{DIGEST_LEN, Digest};
use super::frame::{FrameError, HEADER_ROOM, PREFIX, encode_head};
use super::header::{Output, ServerHeader};

/// Stands in a header for what is not known yet: no other member has as many digits.
const BLANK: Digest = Digest([0; DIGEST_LEN]);

/// The frame. Debug shows no output: it may hold secrets.
pub struct Draft {
    frame: BytesMut,
    /// Where the digest's digits stand.
    digest: usize,
    /// Where the body begins.
    body: usize,
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({} bytes of output)", self.piece().len())
    }
}

impl Draft {
    /// The frame of this piece; `header.hash` is not looked at.
    ///
    /// # Errors
    /// [`FrameError::BodyTooLong`].
    pub fn new(header: Output, piece: &[u8]) -> Result<Self, FrameError> {
        let head = head(header, piece.len())?;
        let mut frame = BytesMut::with_capacity(head.len() + piece.len());
        frame.extend_from_slice(&head);
        frame.extend_from_slice(piece);
        Self::of(frame, head.len())
    }

    /// The same, of a piece that stands in `room` behind [`HEADER_ROOM`] bytes, and stays there.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn around(header: Output, mut room: BytesMut) -> Result<Self, FrameError> {
        let piece = room.get(HEADER_ROOM..).unwrap_or_default();
        let head = head(header.clone(), piece.len())?;
        let start = HEADER_ROOM.checked_sub(head.len());
        let place = start.and_then(|start| Some((start, room.get_mut(start..HEADER_ROOM)?)));
        let Some((start, place)) = place else {
            return Self::new(header, room.get(HEADER_ROOM..).unwrap_or_default());
        };
        place.copy_from_slice(&head);
        room.advance(start);
        Self::of(room, head.len())
    }

    fn of(frame: BytesMut, body: usize) -> Result<Self, FrameError> {
        let blank = BLANK.hex();
        let digest = frame[PREFIX..body].windows(blank.len()).position(|digits| digits == blank);
        let Some(digest) = digest else {
            return Err(FrameError::HeaderNotJson("it has no digest".into()));
        };
        Ok(Self { frame, digest: PREFIX + digest, body })
    }

    /// Bytes of the frame.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a frame has a header at least")]
    pub fn len(&self) -> usize {
        self.frame.len()
    }

    /// The output.
    #[must_use]
    pub fn piece(&self) -> &[u8] {
        &self.frame[self.body..]
    }

    /// The frame, with its digest.
    #[must_use]
    pub fn whole(mut self, digest: Digest) -> Bytes {
        let digits = digest.hex();
        self.frame[self.digest..][..digits.len()].copy_from_slice(&digits);
        self.frame.freeze()
    }
}

fn head(header: Output, piece: usize) -> Result<Vec<u8>, FrameError> {
    let mut head = Vec::with_capacity(HEADER_ROOM);
    let header = ServerHeader::Output(Output { hash: BLANK, ..header });
    encode_head(&header, piece, &mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::frame::{BODY_LIMIT, INTEGER_LIMIT, encoded};
    use crate::proto::header::Stream;

    fn output(seq: u64, filename: Option<String>) -> Output {
        let (stream, hash, offset) = (Stream::Stdout, Digest::of(b"abc"), seq * 3);
        Output { stream, seq, offset, hash, filename, time_ms: seq }
    }

    fn in_room(piece: &[u8]) -> BytesMut {
        BytesMut::from(&[&[0; HEADER_ROOM], piece].concat()[..])
    }

    #[test]
    fn a_draft_becomes_the_frame_that_it_would_have_been_at_once() {
        let long = Some("a".repeat(HEADER_ROOM));
        let zeros = Some("0".repeat(2 * DIGEST_LEN - 1));
        let seqs = [0, 1, INTEGER_LIMIT / 3 - 1];
        for (seq, filename) in seqs.into_iter().zip([None, zeros, long]) {
            let header = output(seq, filename);
            let expected = encoded(&ServerHeader::Output(header.clone()), b"piece").unwrap();
            let drafts = [
                Draft::new(header.clone(), b"piece").unwrap(),
                Draft::around(header.clone(), in_room(b"piece")).unwrap(),
            ];
            for draft in drafts {
                assert_eq!((draft.len(), draft.piece()), (expected.len(), &b"piece"[..]));
                assert_eq!(draft.whole(header.hash), expected);
            }
        }
    }

    #[test]
    fn the_piece_stays_where_it_is() {
        let room = in_room(b"piece");
        let place = room[HEADER_ROOM..].as_ptr();
        let frame = Draft::around(output(1, None), room).unwrap().whole(BLANK);
        assert_eq!(frame[frame.len() - 5..].as_ptr(), place);
    }

    #[test]
    fn too_long_a_piece_is_refused() {
        let long = vec![0; BODY_LIMIT + 1];
        let error = FrameError::BodyTooLong { size: long.len() as u64, limit: BODY_LIMIT };
        assert_eq!(Draft::new(output(1, None), &long).unwrap_err(), error);
        assert_eq!(Draft::around(output(1, None), in_room(&long)).unwrap_err(), error);
    }

    #[test]
    fn debug_shows_no_output() {
        let shown = format!("{:?}", Draft::new(output(1, None), b"hunter2").unwrap());
        assert!(shown.contains("7 bytes") && !shown.contains("hunter2"), "{shown}");
    }
}
