//! The caller's standard input on its way to the server.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::proto::digest::{Algorithm, Digest, Running};
use crate::proto::frame::{BODY_LIMIT, FrameError};
use crate::proto::header::{ClientHeader, Grant, Started, StdinPiece};

/// Most bytes of the first pieces, which is what a pipe holds.
const FIRST_PIECE: usize = 64 * 1024;
/// Most bytes of one piece, of an input that fills the pieces before it.
const PIECE: usize = 256 * 1024;
const _: () = assert!(PIECE <= BODY_LIMIT);

/// Nothing more is read while so much is kept for a server that does not confirm it, whatever it grants.
/// Much more than the 1 MiB that a server of this version ever grants ahead.
pub(super) const KEPT_LIMIT: usize = 16 * 1024 * 1024;
/// What a kept piece costs beside its bytes.
const PIECE_COST: usize = 128;

/// What was read of the caller's input and may have to be sent again.
pub(super) struct StdinSender {
    /// Pieces that the server may not have, whole as they were first sent.
    kept: VecDeque<(StdinPiece, Bytes)>,
    /// What they cost to keep, bytes.
    kept_size: usize,
    read: Running,
    /// Most bytes of the next piece.
    reach: usize,
    granted: u64,
    /// The server has so much.
    confirmed: u64,
    ended: bool,
    /// The command takes no more.
    closed: bool,
    /// Another client has sent so much to the run, with this digest: as much of the input is passed over.
    known: Option<(u64, Digest)>,
    /// The same of a run that takes no more: nothing of this input was read.
    unread: Option<(u64, Digest)>,
}

impl StdinSender {
    /// Nothing read, nothing granted. Without an input it has ended already, and the server knows.
    pub(super) fn new(wanted: bool) -> Self {
        Self {
            kept: VecDeque::new(),
            kept_size: 0,
            read: Running::new(),
            reach: FIRST_PIECE,
            granted: 0,
            confirmed: 0,
            ended: !wanted,
            closed: !wanted,
            known: None,
            unread: None,
        }
    }

    /// By what its digests are made; to be said before anything is read.
    pub(super) fn go_by(&mut self, algorithm: Algorithm) {
        self.read = Running::by(algorithm);
    }

    /// How many bytes to read now; none if there is no credit or no need.
    pub(super) fn wanted(&self) -> Option<usize> {
        if self.kept_size >= KEPT_LIMIT {
            return None;
        }
        let to = self.known.map_or(self.granted, |(offset, _)| offset);
        let credit = to.saturating_sub(self.read.offset());
        let credit = usize::try_from(credit).unwrap_or(usize::MAX).min(self.reach);
        (credit > 0 && !self.ended && !self.closed).then_some(credit)
    }

    /// The frame of bytes that were just read; no bytes: the end. None if they are not what another client
    /// has sent.
    pub(super) fn take(&mut self, bytes: Bytes) -> Option<Result<Vec<u8>, FrameError>> {
        let Some((offset, hash)) = self.known else { return Some(self.take_new(bytes)) };
        self.read.update(&bytes);
        if self.read.offset() == offset && self.read.digest() == hash {
            (self.known, self.confirmed) = (None, offset);
            return Some(Ok(Vec::new()));
        }
        (!bytes.is_empty() && self.read.offset() < offset).then_some(Ok(Vec::new()))
    }

    fn take_new(&mut self, bytes: Bytes) -> Result<Vec<u8>, FrameError> {
        let offset = self.read.offset();
        self.read.update(&bytes);
        self.ended |= bytes.is_empty();
        if bytes.len() >= self.reach {
            self.reach = (self.reach * 4).min(PIECE);
        }
        let piece = StdinPiece { offset, hash: self.read.digest() };
        let frame = frame(piece, &bytes)?;
        if !bytes.is_empty() {
            self.kept_size += bytes.len() + PIECE_COST;
            self.kept.push_back((piece, bytes));
        }
        Ok(frame)
    }

    /// The server has everything up to `taken`.
    pub(super) fn grant(&mut self, grant: Grant) {
        self.granted = self.granted.max(grant.to);
        self.forget(grant.taken);
    }

    /// The command takes no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
        (self.kept, self.kept_size) = (VecDeque::new(), 0);
    }

    /// After `started`: the frames to send again. None if the server does not have what it must.
    pub(super) fn resume(&mut self, started: &Started) -> Option<Result<Vec<u8>, FrameError>> {
        self.granted = self.granted.max(started.stdin_grant);
        if self.closed {
            return Some(Ok(Vec::new()));
        }
        if self.read.offset() == 0 && !self.ended && started.stdin_offset > 0 {
            if started.stdin_grant <= started.stdin_offset {
                self.unread = Some((started.stdin_offset, started.stdin_hash));
                self.close();
            } else {
                self.known = Some((started.stdin_offset, started.stdin_hash));
            }
            return Some(Ok(Vec::new()));
        }
        if self.known.is_some() {
            // Nothing was sent yet; how much another client has sent is said anew.
            self.known = Some((started.stdin_offset, started.stdin_hash));
            return (self.read.offset() <= started.stdin_offset).then_some(Ok(Vec::new()));
        }
        let first = self.kept.front().map_or(self.read.offset(), |(piece, _)| piece.offset);
        let boundary = started.stdin_offset == self.read.offset()
            || self.kept.iter().any(|(piece, _)| piece.offset == started.stdin_offset);
        if started.stdin_offset < first || !boundary {
            return None;
        }
        self.forget(started.stdin_offset);
        Some(self.again())
    }

    /// How this input has to begin to be that of the run, if nothing was read of it: with so many bytes of this
    /// digest.
    pub(super) fn unread(&self) -> Option<(u64, Digest)> {
        self.unread
    }

    /// Whether the server needs nothing more of it: all of it was sent, or none is wanted.
    pub(super) fn is_sent(&self) -> bool {
        self.ended || self.closed
    }

    /// How much the server is known to have.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn forget(&mut self, taken: u64) {
        self.confirmed = self.confirmed.max(taken);
        while let Some((piece, bytes)) = self.kept.front()
            && piece.offset + bytes.len() as u64 <= taken
        {
            self.kept_size -= bytes.len() + PIECE_COST;
            self.kept.pop_front();
        }
    }

    fn again(&self) -> Result<Vec<u8>, FrameError> {
        let mut frames = Vec::new();
        for (piece, bytes) in &self.kept {
            frames.extend(frame(*piece, bytes)?);
        }
        if self.ended {
            let end = StdinPiece { offset: self.read.offset(), hash: self.read.digest() };
            frames.extend(frame(end, b"")?);
        }
        Ok(frames)
    }
}

fn frame(piece: StdinPiece, bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    let header =
        if bytes.is_empty() { ClientHeader::StdinEnd(piece) } else { ClientHeader::Stdin(piece) };
    let mut out = Vec::with_capacity(bytes.len() + 200);
    crate::proto::frame::encode(&header, bytes, &mut out)?;
    Ok(out)
}
