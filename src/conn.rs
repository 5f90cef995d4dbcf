//! Frames over any stream: the only asynchronous file that knows them.

use std::fmt;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::proto::frame::{self, Decoded, FrameError, Limits};

mod arrivals;

use arrivals::Room;
pub use arrivals::{ARRIVING_FREE, ARRIVING_LIMIT, ARRIVING_TIME, Arrivals};

/// After so much silence of its own a side sends a heartbeat.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// After so much silence the other side counts as dead.
pub const SILENCE: Duration = Duration::from_secs(45);
/// Room for the first read of a frame whose size nobody knows; what an idle connection holds.
const FIRST_READ: usize = 1024;
/// Most bytes that are read ahead of the frame that is waited for: a TLS record (RFC 8446, 5.1).
const READ_AHEAD: usize = 16 * 1024;
/// A frame that is a smaller part than this of what was read with it is copied out of it, so that whoever
/// keeps it keeps at most so many times its size.
const COPY_BELOW: usize = 4;
/// Frames from this size are handed to the stream as they are; smaller ones are gathered first.
const GATHER: usize = 16 * 1024;

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConnError {
    /// The system's word on the stream.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// What came is no frame.
    #[error("the peer sent something else than frames: {0}")]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the connection was cut inside a frame")]
    Truncated,
    /// Nothing came for too long.
    #[error("nothing was heard for {} s", .0.as_secs())]
    Silent(Duration),
    /// A long frame did not become whole in time.
    #[error("a frame was not whole within {} s", .0.as_secs())]
    Slow(Duration),
}

/// One whole frame, owned. Debug shows neither header nor body: both may hold secrets.
#[derive(Clone)]
pub struct Frame {
    /// Prefix and header, and the body unless it was passed over.
    whole: Bytes,
    /// Bytes of prefix and header.
    head: usize,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = self.head - frame::PREFIX;
        write!(f, "Frame(header of {header} bytes, body of {})", self.body.len())
    }
}

impl Frame {
    /// Bytes of the whole frame: what is held for as long as its body is.
    #[must_use]
    pub fn size(&self) -> usize {
        self.head + self.body.len()
    }

    /// The whole frame as it came, to be sent on.
    #[must_use]
    pub fn encoded(&self) -> Bytes {
        self.whole.clone()
    }

    /// The header as the type that is expected here.
    ///
    /// # Errors
    /// [`FrameError::HeaderNotJson`] if a member is missing or of the wrong type.
    pub fn header<H: DeserializeOwned>(&self) -> Result<H, FrameError> {
        self.header_by(|json| serde_json::from_slice(json))
    }

    /// The header as `read` reads it.
    ///
    /// # Errors
    /// As [`header`](Self::header).
    pub fn header_by<H>(
        &self,
        read: impl FnOnce(&[u8]) -> serde_json::Result<H>,
    ) -> Result<H, FrameError> {
        read(&self.whole[frame::PREFIX..self.head])
            .map_err(|e| FrameError::HeaderNotJson(e.to_string()))
    }
}

/// The reading half of a connection.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    limits: Limits,
    /// What long frames need room in; none: they are as many as there are connections.
    arrivals: Option<Arrivals>,
    /// That of the frame that is waited for.
    room: Option<Room>,
    heard: Instant,
    last_frame: usize,
    /// Capacity of the allocation that `buffer` stands in, or of a larger one before it.
    block: usize,
    /// A frame cannot be whole before the buffer holds so much: it is not looked at any sooner, so that
    /// bytes that drip in cost no more than those that pour.
    need: usize,
}

impl<R> fmt::Debug for FrameReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrameReader({} bytes read ahead)", self.buffer.len())
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads frames within `limits` from `stream`.
    pub fn new(stream: R, limits: Limits) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            limits,
            arrivals: None,
            room: None,
            heard: Instant::now(),
            last_frame: 0,
            block: 0,
            need: frame::PREFIX,
        }
    }

    /// Changes the limits from the next frame on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Long frames need room in `arrivals` from now on.
    pub fn set_arrivals(&mut self, arrivals: Arrivals) {
        self.arrivals = Some(arrivals);
    }

    /// The next frame; none at a clean end of the stream. `silence` bounds the time since any byte
    /// was heard, or since there was room for more; none waits for ever.
    ///
    /// Cancel safe: what was read of a frame stays in the buffer. Who waits for room begins to wait anew.
    ///
    /// # Errors
    /// A [`ConnError`]; the connection is then of no more use.
    pub async fn next(&mut self, silence: Option<Duration>) -> Result<Option<Frame>, ConnError> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Some(frame));
            }
            if !self.read_on(silence).await? {
                return Ok(None);
            }
        }
    }

    /// As [`next`](Self::next), for a reader who wants no bodies: a body is thrown away as it comes, so
    /// that no more than a header is ever held. Not cancel safe.
    ///
    /// # Errors
    /// A [`ConnError`]; the connection is then of no more use.
    pub async fn next_without_body(&mut self) -> Result<Option<Frame>, ConnError> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Some(Frame { body: Bytes::new(), ..frame }));
            }
            if let Some(head) = frame::head_len(&self.buffer) {
                let whole = Bytes::copy_from_slice(&self.buffer[..head]);
                self.discard(self.need).await?;
                return Ok(Some(Frame { whole, head, body: Bytes::new() }));
            }
            if !self.read_on(None).await? {
                return Ok(None);
            }
        }
    }

    /// The frame that the buffer begins with, if it is all there.
    fn whole(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.buffer.len() < self.need {
            return Ok(None);
        }
        match frame::decode(&self.buffer, self.limits)? {
            Decoded::Frame(found) => {
                let (len, header) = (found.len(), found.header.len());
                Ok(Some(self.take(len, header)))
            }
            Decoded::Incomplete { need } => {
                self.need = need;
                Ok(None)
            }
        }
    }

    /// Reads more of the frame that is waited for. False at a clean end of the stream.
    async fn read_on(&mut self, silence: Option<Duration>) -> Result<bool, ConnError> {
        if self.fill(self.need, silence).await? > 0 {
            return Ok(true);
        }
        if self.buffer.is_empty() { Ok(false) } else { Err(ConnError::Truncated) }
    }

    /// Throws a frame of `len` bytes away whose body is not all here yet.
    async fn discard(&mut self, len: usize) -> Result<(), ConnError> {
        let mut left = len - self.buffer.len();
        while left > 0 {
            self.buffer.clear();
            self.buffer.reserve(FIRST_READ);
            match self.stream.read_buf(&mut (&mut self.buffer).limit(left)).await? {
                0 => return Err(ConnError::Truncated),
                count => left -= count,
            }
        }
        self.buffer.clear();
        self.need = frame::PREFIX;
        Ok(())
    }

    /// Reads and discards until the peer closes, at most `bytes`, for at most `time` and not through
    /// `silence`: a socket that is closed with unread input resets the connection and destroys what was
    /// last sent.
    pub async fn drain(&mut self, bytes: usize, silence: Duration, time: Duration) {
        let until = Instant::now() + time;
        let mut left = bytes;
        (self.buffer, self.room) = (BytesMut::new(), None);
        while left > 0 {
            self.buffer.clear();
            self.buffer.reserve(FIRST_READ);
            let until = until.min(Instant::now() + silence);
            match timeout_at(until, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(n)) if n > 0 => left = left.saturating_sub(n),
                _ => break,
            }
        }
        self.buffer.clear();
    }

    /// Waits for room for the frame that arrives. While its length is not known it may be the longest.
    async fn find_room(&mut self) {
        let Some(arrivals) = &self.arrivals else { return };
        if self.need <= ARRIVING_FREE || self.room.is_some() {
            return;
        }
        let is_known = frame::head_len(&self.buffer).is_some();
        let bytes = if is_known { self.need } else { self.limits.longest() };
        self.room = Some(arrivals.room(bytes).await);
        // What was not read cannot have been heard.
        self.heard = Instant::now();
    }

    async fn fill(&mut self, need: usize, silence: Option<Duration>) -> Result<usize, ConnError> {
        self.find_room().await;
        // Of a long frame no more is read than it has: what follows would have to be copied, or would hold
        // the memory of a frame that has left its room.
        let missing = need - self.buffer.len();
        let ahead = self.last_frame.clamp(FIRST_READ, READ_AHEAD);
        let wanted = if self.room.is_some() { missing } else { missing.max(ahead) };
        self.buffer.reserve(wanted);
        self.block = self.block.max(self.buffer.capacity());
        let mut room = (&mut self.buffer).limit(wanted);
        let read = self.stream.read_buf(&mut room);
        let silent = silence.map(|silence| (self.heard + silence, ConnError::Silent(silence)));
        let slow = self.room.as_ref().map(|room| (room.until, ConnError::Slow(ARRIVING_TIME)));
        let read = match silent.into_iter().chain(slow).min_by_key(|(until, _)| *until) {
            None => read.await,
            Some((until, why)) => timeout_at(until, read).await.map_err(|_| why)?,
        };
        self.heard = Instant::now();
        match read {
            // TLS without its goodbye. Frames say what is missing, so it means no more than a clean end.
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
            read => Ok(read?),
        }
    }

    fn take(&mut self, len: usize, header: usize) -> Frame {
        (self.last_frame, self.need, self.room) = (len, frame::PREFIX, None);
        let whole = if len < self.block / COPY_BELOW {
            let whole = Bytes::copy_from_slice(&self.buffer[..len]);
            self.buffer.advance(len);
            whole
        } else {
            self.buffer.split_to(len).freeze()
        };
        if self.buffer.is_empty() {
            // Lets go of the allocation: an idle connection holds what the next `fill` asks for.
            (self.buffer, self.block) = (BytesMut::new(), 0);
        }
        let head = frame::PREFIX + header;
        Frame { body: whole.slice(head..), whole, head }
    }
}

/// The writing half of a connection. What is queued is sent by `flush`, or earlier when it is much.
///
/// Every call is cancel safe as far as the stream goes: it never ends inside a frame as long as there is
/// a next call, which sends the rest first.
pub struct FrameWriter<W> {
    stream: W,
    /// What is left of a large frame; all that is queued comes after it.
    large: Bytes,
    queued: Vec<u8>,
    /// Bytes of `queued` that are sent.
    sent: usize,
}

impl<W> fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.large.len() + self.queued.len() - self.sent;
        write!(f, "FrameWriter({waiting} bytes waiting)")
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Writes frames to `stream`.
    pub fn new(stream: W) -> Self {
        Self { stream, large: Bytes::new(), queued: Vec::new(), sent: 0 }
    }

    /// Queues one frame. Nothing is sent yet.
    ///
    /// # Errors
    /// A [`FrameError`] if it is over the limits of the format.
    pub fn queue<H: Serialize>(&mut self, header: &H, body: &[u8]) -> Result<(), FrameError> {
        frame::encode(header, body, &mut self.queued)
    }

    /// Queues whole frames that are encoded already; if they are large they are sent, with all before
    /// them, at once.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn queue_encoded(&mut self, frames: Bytes) -> Result<(), ConnError> {
        if self.queued.len() + frames.len() < GATHER {
            self.queued.extend_from_slice(&frames);
            return Ok(());
        }
        self.write_queued().await?;
        self.large = frames;
        self.write_queued().await
    }

    /// Whether everything that was queued is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.large.is_empty() && self.queued.is_empty()
    }

    /// Sends everything that is queued.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn flush(&mut self) -> Result<(), ConnError> {
        self.write_queued().await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Queues one frame and sends it.
    ///
    /// # Errors
    /// Those of the frame and of the stream.
    pub async fn send<H: Serialize>(&mut self, header: &H, body: &[u8]) -> Result<(), ConnError> {
        self.queue(header, body)?;
        self.flush().await
    }

    /// Says that nothing more will come.
    ///
    /// # Errors
    /// Those of the stream.
    pub async fn shutdown(&mut self) -> Result<(), ConnError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn write_queued(&mut self) -> Result<(), ConnError> {
        while self.large.has_remaining() {
            let count = self.stream.write_buf(&mut self.large).await?;
            nonzero(count)?;
        }
        // Or an idle connection would hold what it sent last.
        self.large = Bytes::new();
        while self.sent < self.queued.len() {
            let count = self.stream.write(&self.queued[self.sent..]).await?;
            self.sent += nonzero(count)?;
        }
        if self.sent > 0 {
            self.sent = 0;
            self.queued.clear();
            self.queued.shrink_to(GATHER);
        }
        Ok(())
    }
}

fn nonzero(count: usize) -> Result<usize, ConnError> {
    if count == 0 {
        Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into())
    } else {
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
