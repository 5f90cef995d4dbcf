//! A client's socket: who may be served, and when it has gone.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::Buf;
use rustix::event::PollFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::sockets::Pair;
use crate::sys::poll::ready_now;
use crate::transport::Accepted;

/// How often it is looked whether a client that has shut down its writing side is still there: no
/// event tells when it goes.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A client that is served.
#[derive(Debug)]
pub(super) enum Client {
    /// Over TCP, with the addresses of the other end's socket.
    Tcp(TcpStream, Pair),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stranger {
    #[error("it comes from another machine")]
    NotLocal,
    #[error("it was given up before it was looked at")]
    Gone,
    #[error(
        "its client runs as uid {0}, and only uid {1} is served; use rexec, which asks for a key"
    )]
    WrongUser(u32, u32),
    #[error("cannot tell whose it is: {0}")]
    Unknown(#[from] io::Error),
}

impl Client {
    /// Takes a connection if it is `uid`'s.
    pub(super) async fn admit(accepted: Accepted, uid: u32) -> Result<Self, Stranger> {
        match accepted {
            Accepted::Tcp(stream, from) => {
                let pair = Pair::new(from, stream.local_addr()?);
                if !pair.is_loopback() {
                    return Err(Stranger::NotLocal);
                }
                let holder = holder(pair).await?.ok_or(Stranger::Gone)?;
                // The socket that was found can be another than the one that connected here only if
                // that one's connection was reset before.
                if hung_up(&stream)? {
                    return Err(Stranger::Gone);
                }
                if holder != uid {
                    return Err(Stranger::WrongUser(holder, uid));
                }
                Ok(Self::Tcp(stream, pair))
            }
            Accepted::Unix(stream) => match stream.peer_cred()?.uid() {
                peer if peer == uid || peer == 0 => Ok(Self::Unix(stream)),
                peer => Err(Stranger::WrongUser(peer, uid)),
            },
        }
    }

    /// One read; 0 bytes when the client says no more. Cancel safe.
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream, _) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    /// Writes what the client has room for, all chunks of `bytes` in one call.
    pub(super) async fn write(&mut self, bytes: &mut impl Buf) -> io::Result<usize> {
        match self {
            Self::Tcp(stream, _) => stream.write_buf(bytes).await,
            Self::Unix(stream) => stream.write_buf(bytes).await,
        }
    }

    /// Waits until nobody is there any more to take a reply. Reads nothing: what the client has sent
    /// meanwhile is its next command.
    pub(super) async fn gone(&self) {
        // tokio has no interest in the end of reading alone. That in priority data has the end with it,
        // and no such data are asked for.
        let ended = match self {
            Self::Tcp(stream, _) => stream.ready(Interest::PRIORITY).await,
            Self::Unix(stream) => stream.ready(Interest::PRIORITY).await,
        };
        // An error means that the runtime is ending, and with it this.
        while ended.is_ok() && !self.is_gone().await {
            sleep(LOOK_EVERY).await;
        }
    }

    async fn is_gone(&self) -> bool {
        match self {
            // A close of a client that takes no more is not announced over TCP (RFC 9293, 3.6), but
            // its socket is then nobody's.
            Self::Tcp(stream, pair) => {
                matches!(hung_up(stream), Ok(true)) || matches!(holder(*pair).await, Ok(None))
            }
            Self::Unix(stream) => matches!(hung_up(stream), Ok(true)),
        }
    }
}

async fn holder(pair: Pair) -> io::Result<Option<u32>> {
    spawn_blocking(move || pair.holder()).await?
}

/// Whether a connection is over in both directions, by reset or because the other end is closed.
fn hung_up(socket: &impl AsFd) -> io::Result<bool> {
    Ok(ready_now(socket, PollFlags::empty())?.intersects(PollFlags::HUP | PollFlags::ERR))
}
