//! The server's connection to the supervisor of a durable run: the same protocol as a client's.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;

use bytes::Bytes;
use serde::Serialize;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::disk::Folder;
use crate::conn::{ConnError, Frame, FrameReader, FrameWriter};
use crate::proto::frame::Limits;
use crate::proto::header::{ClientHeader, Hello, ServerHeader};

/// A connection to a supervisor. There is no limit to its silence: the kernel tells of a dead one at
/// once, and a stopped one is waited for.
#[derive(Debug)]
pub struct Link {
    reader: Mutex<FrameReader<ReadHalf<UnixStream>>>,
    writer: Mutex<FrameWriter<WriteHalf<UnixStream>>>,
}

impl Link {
    /// Over a stream that is connected.
    #[must_use]
    pub fn new(stream: UnixStream) -> Self {
        let (read, write) = split(stream);
        Self {
            reader: Mutex::new(FrameReader::new(read, Limits::FULL)),
            writer: Mutex::new(FrameWriter::new(write)),
        }
    }

    /// A link, and the end that its supervisor is to inherit.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = StdStream::pair()?;
        ours.set_nonblocking(true)?;
        Ok((Self::new(UnixStream::from_std(ours)?), theirs.into()))
    }

    /// To the supervisor that serves `folder`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` if there is none, or it is over.
    pub fn connect(folder: &Folder) -> io::Result<Self> {
        // Connecting to a unix socket waits only for a place in its queue, which is as long as there are
        // connections to this server.
        let stream = folder.with_socket(|path| StdStream::connect(path))?;
        stream.set_nonblocking(true)?;
        Ok(Self::new(UnixStream::from_std(stream)?))
    }

    /// Says who we are, and asks: `request` is whole frames. The answer is what comes after the welcome.
    ///
    /// # Errors
    /// The supervisor is gone, or is none.
    pub async fn ask(&self, request: Bytes) -> Result<Frame, ConnError> {
        let hello =
            ClientHeader::Hello(Hello { client: "rexec-server".into(), ..Hello::default() });
        let mut writer = self.writer.lock().await;
        writer.queue(&hello, b"")?;
        writer.queue_encoded(request).await?;
        writer.flush().await?;
        drop(writer);
        loop {
            let frame = self.next().await?.ok_or(ConnError::Truncated)?;
            if !matches!(frame.header()?, ServerHeader::Welcome(_)) {
                return Ok(frame);
            }
        }
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn send<H: Serialize>(&self, header: &H, body: &[u8]) -> Result<(), ConnError> {
        self.writer.lock().await.send(header, body).await
    }

    /// The next frame; none when the supervisor has closed the link. Heartbeats are passed over. Cancel
    /// safe.
    ///
    /// # Errors
    /// The supervisor was killed.
    pub async fn next(&self) -> Result<Option<Frame>, ConnError> {
        let mut reader = self.reader.lock().await;
        loop {
            match reader.next(None).await? {
                Some(frame) if matches!(frame.header()?, ServerHeader::Heartbeat) => {}
                other => return Ok(other),
            }
        }
    }

    /// The next frame if it is there already.
    pub async fn next_now(&self) -> Option<Frame> {
        let mut reader = self.reader.lock().await;
        loop {
            let next = tokio::select! {
                biased;
                next = reader.next(None) => next,
                () = std::future::ready(()) => return None,
            };
            match next {
                Ok(Some(frame)) if matches!(frame.header(), Ok(ServerHeader::Heartbeat)) => {}
                // The end is found again by the one who waits.
                next => return next.ok().flatten(),
            }
        }
    }
}
