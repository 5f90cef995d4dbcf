//! The server's connection to the supervisor of a durable run: the same protocol as a client's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::Serialize;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::disk::Folder;
use crate::conn::{ConnError, Frame, FrameReader, FrameWriter};
use crate::proto::frame::Limits;
use crate::proto::header::{ClientHeader, Hello, ServerHeader};

/// How long until a supervisor that lives and does not take the link is asked again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// So many bytes may wait in a link: a large frame and the next one, so that who writes it does not wait for
/// its reader in the middle. The kernel gives what `net.core.wmem_max` allows (socket(7)).
const IN_FLIGHT: usize = 512 * 1024;

/// Lets as much wait in what is sent here as a link has room for.
pub fn widen(socket: impl AsFd) {
    // With less it is slower, and no different.
    let _ = net::sockopt::set_socket_send_buffer_size(socket, IN_FLIGHT);
}

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
        widen(&theirs);
        Ok((Self::new(UnixStream::from_std(ours)?), theirs.into()))
    }

    /// To the supervisor that serves `folder`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` if there is none, or it is over; `WouldBlock` if so many wait for it
    /// already that there is no place in its queue.
    pub fn connect(folder: &Folder) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let open = File::open(folder.path())?.into();
        net::connect(&socket, &SocketAddrUnix::new(Folder::at(&open).socket())?)?;
        Ok(Self::new(UnixStream::from_std(StdStream::from(socket))?))
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

    /// Sends a frame that is encoded already.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub async fn pass_on(&self, frame: Bytes) -> Result<(), ConnError> {
        let mut writer = self.writer.lock().await;
        writer.queue_encoded(frame).await?;
        writer.flush().await
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

    /// Whether something has come, be it the end.
    pub async fn has_news(&self) -> bool {
        let mut reader = self.reader.lock().await;
        tokio::select! {
            biased;
            _ = reader.next(None) => true,
            () = std::future::ready(()) => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Or one stopped supervisor that many ask for would stop the server, thread by thread.
    #[tokio::test]
    async fn a_supervisor_whose_queue_is_full_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::found(dir.path().to_owned());
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddrUnix::new(folder.socket()).unwrap()).unwrap();
        net::listen(&socket, 1).unwrap();
        let links: Vec<_> = (0..8).map(|_| Link::connect(&folder)).collect();
        assert!(links[0].is_ok());
        let full = links[7].as_ref().unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
