//! A reply: collected within the limits, then sent in the form of its kind.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;
use tokio::time::timeout;

use super::address::Kind;
use super::client::Client;
use super::{Limits, Shared};
use crate::exec::Stream;
use crate::proto::digest::{Digest, Running};

/// Bytes hashed without giving way to other connections: half a millisecond's.
const HASH_PIECE: usize = 1 << 20;

/// Why output cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overflow {
    #[error(
        "the output is longer than {0} bytes, so the command was stopped: write it to a file, or use rexec, which has no such limit"
    )]
    Reply(usize),
    #[error(
        "the classic connections hold {0} bytes of output together, so the command was stopped: try again later"
    )]
    Memory(usize),
}

/// Bytes that are counted against the memory of all connections for as long as they are kept. Debug does
/// not show them: output may hold secrets.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// One permit for each byte; `None` if there is none or they are not counted.
    permit: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} bytes)", self.bytes.len())
    }
}

impl Kept {
    fn add(
        &mut self,
        piece: &[u8],
        limits: Limits,
        memory: &Arc<Semaphore>,
    ) -> Result<(), Overflow> {
        if piece.len() > limits.reply - self.bytes.len() {
            return Err(Overflow::Reply(limits.reply));
        }
        let full = Overflow::Memory(limits.memory);
        let count = u32::try_from(piece.len()).map_err(|_| full)?;
        let permit = Arc::clone(memory).try_acquire_many_owned(count).map_err(|_| full)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }
}

/// The output of a command as far as it will be sent: stderr from its first byte on, else stdout.
#[derive(Debug)]
pub(super) struct Output<'a> {
    shared: &'a Shared,
    stdout: Kept,
    stderr: Kept,
}

impl<'a> Output<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self { shared, stdout: Kept::default(), stderr: Kept::default() }
    }

    /// Takes a piece that is not empty.
    pub(super) fn add(&mut self, stream: Stream, piece: &[u8]) -> Result<(), Overflow> {
        let kept = match stream {
            Stream::Err => {
                self.stdout = Kept::default();
                &mut self.stderr
            }
            Stream::Out | Stream::Both if self.stderr.bytes.is_empty() => &mut self.stdout,
            Stream::Out | Stream::Both => return Ok(()),
        };
        kept.add(piece, self.shared.limits, &self.shared.memory)
    }

    pub(super) fn reply(self) -> Reply {
        Reply(if self.stderr.bytes.is_empty() { self.stdout } else { self.stderr })
    }
}

/// The body of a reply.
#[derive(Debug)]
pub(super) struct Reply(Kept);

impl Reply {
    /// What the server itself has to say.
    pub(super) fn line(text: &impl std::fmt::Display) -> Self {
        let bytes = format!("rexec-server: {text}\n").into_bytes();
        Self(Kept { bytes, permit: None })
    }

    /// Sends it, head and body as one; fails if the client takes nothing for `idle`.
    pub(super) async fn send(
        self,
        kind: Kind,
        client: &mut Client,
        idle: Duration,
    ) -> io::Result<()> {
        let head = head(kind, &self.0.bytes).await;
        let mut bytes = head.chain(&self.0.bytes[..]);
        while bytes.has_remaining() {
            match timeout(idle, client.write(&mut bytes)).await? {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => written?,
            };
        }
        Ok(())
    }
}

/// What goes before a body.
async fn head(kind: Kind, body: &[u8]) -> Vec<u8> {
    match kind {
        Kind::Raw => Vec::new(),
        Kind::Length => length(body).to_vec(),
        Kind::Json => {
            let header = header(digest(body).await, body.len());
            [&length(header.as_bytes()), header.as_bytes()].concat()
        }
    }
}

/// As `struct.pack('i', len(bytes))`; nothing here is longer than an `i32` can say.
fn length(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = bytes.len().to_le_bytes();
    [a, b, c, d]
}

/// As `json.dumps` writes it, with its blanks.
fn header(hash: Digest, size: usize) -> String {
    format!(r#"{{"filename": null, "hash": "{hash}", "size": {size}}}"#)
}

async fn digest(body: &[u8]) -> Digest {
    let mut digest = Running::new();
    for piece in body.chunks(HASH_PIECE) {
        digest.update(piece);
        yield_now().await;
    }
    digest.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_output() {
        let shown = format!("{:?}", Reply(Kept { bytes: b"hunter2".to_vec(), permit: None }));
        assert_eq!(shown, "Reply(Kept(7 bytes))");
    }
}
