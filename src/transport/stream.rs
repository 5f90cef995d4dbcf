//! One stream type for both kinds of socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// Silence after which the kernel asks whether the other machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection on which both sides know what to think of each other: TLS over TCP, or a unix socket.
#[derive(Debug)]
pub struct Stream(Inner);

#[derive(Debug)]
enum Inner {
    /// Boxed: the state of TLS is a thousand bytes and a stream is moved about.
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self(Inner::Tls(Box::new(stream)))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self(Inner::Unix(stream))
    }
}

/// Calls the same method of whichever stream it is.
macro_rules! each {
    ($self:ident, $method:ident, $($argument:expr),*) => {
        match &mut $self.get_mut().0 {
            Inner::Tls(stream) => Pin::new(stream).$method($($argument),*),
            Inner::Unix(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, poll_write_vectored, cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, poll_shutdown, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.0 {
            Inner::Tls(stream) => stream.is_write_vectored(),
            Inner::Unix(stream) => stream.is_write_vectored(),
        }
    }
}

/// Keeps the last bytes of a TCP connection back, so that they leave in one packet with what comes next,
/// and the other side wakes up once for both. The kernel keeps them for 200 ms at most, and sends them
/// when the connection is closed (`TCP_CORK`, tcp(7)).
#[derive(Debug, Default)]
pub struct Cork {
    /// The connection's socket. None on a unix socket, where nothing is kept back, or without a
    /// descriptor for it: then there are more packets, and nothing else is different.
    socket: Option<OwnedFd>,
    is_in: bool,
}

impl Cork {
    pub(super) fn of(socket: &TcpStream) -> Self {
        Self { socket: socket.as_fd().try_clone_to_owned().ok(), is_in: false }
    }

    /// Keeps back what is written from now on.
    pub fn put_in(&mut self) {
        self.set(true);
    }

    /// Sends what was kept back.
    pub fn pull_out(&mut self) {
        self.set(false);
    }

    fn set(&mut self, is_in: bool) {
        #[cfg(target_os = "linux")]
        if let Some(socket) = self.socket.as_ref().filter(|_| self.is_in != is_in) {
            // A socket that refuses was reset: the next read says so.
            let _ = rustix::net::sockopt::set_tcp_cork(socket, is_in);
        }
        self.is_in = is_in;
    }
}

/// Sends small frames at once, and has the kernel notice a machine that went away. A socket that
/// refuses is one that was reset already: the next read says so.
pub(super) fn tune(socket: &impl AsFd) {
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
    let _ = rustix::net::sockopt::set_socket_keepalive(socket, true);
    #[cfg(not(target_os = "openbsd"))]
    let _ = rustix::net::sockopt::set_tcp_keepidle(socket, KEEPALIVE);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection, and its other end, which never waits.
    async fn pair() -> (TcpStream, Cork, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&ours);
        let theirs = listener.accept().unwrap().0;
        let cork = Cork::of(&ours);
        (ours, cork, theirs)
    }

    #[tokio::test]
    async fn a_cork_keeps_back_what_is_written_until_it_is_out() {
        let (mut ours, mut cork, mut theirs) = pair().await;
        theirs.set_nonblocking(true).unwrap();
        let mut kept = 0;
        for _ in 0..20 {
            cork.put_in();
            ours.write_all(b"a").await.unwrap();
            // Not if this thread stood still for 200 ms.
            kept += u32::from(theirs.read(&mut [0; 2]).is_err());
            cork.pull_out();
            while theirs.peek(&mut [0]).is_ok() {
                let _ = theirs.read(&mut [0; 2]);
            }
        }
        assert!(kept >= 10, "{kept} of 20");
    }

    #[tokio::test]
    async fn what_a_cork_keeps_back_comes_by_itself_or_with_the_end() {
        let (mut ours, mut cork, mut theirs) = pair().await;
        cork.put_in();
        ours.write_all(b"by itself").await.unwrap();
        theirs.read_exact(&mut [0; 9]).unwrap();
        ours.write_all(b"with the end").await.unwrap();
        drop((ours, cork));
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "with the end");
    }
}
