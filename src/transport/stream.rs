//! One stream type for both kinds of socket.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
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
    Tls(Box<TlsStream<Socket>>),
    Unix(UnixStream),
}

impl From<TlsStream<Socket>> for Stream {
    fn from(stream: TlsStream<Socket>) -> Self {
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

/// A TCP connection, and what says whether more will follow what is written to it.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    /// A client has one.
    cork: Option<Cork>,
}

impl Socket {
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// A socket, and what keeps its last bytes back.
    pub(super) fn with_cork(tcp: TcpStream) -> (Self, Cork) {
        let cork = Cork::default();
        (Self { tcp, cork: Some(cork.clone()) }, cork)
    }

    /// Writes what is to leave with what is written next.
    fn poll_write_more(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
        let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
        let send = || Ok(sendmsg(&self.tcp, bufs, &mut SendAncillaryBuffer::default(), flags)?);
        loop {
            std::task::ready!(self.tcp.poll_write_ready(cx))?;
            match self.tcp.try_io(Interest::WRITABLE, send) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                sent => return Poll::Ready(sent),
            }
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, cork: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.cork.as_ref().is_some_and(Cork::is_in) {
            return self.poll_write_more(cx, bufs);
        }
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

/// Keeps the last bytes of a TCP connection back, so that they leave in one packet with what is written next, and the
/// other side wakes up once for both (`MSG_MORE`, send(2)). The kernel keeps them for 200 ms at most, and sends them when
/// the connection is closed. On a unix socket nothing is kept back: then there are
/// more packets, and nothing else is different.
#[derive(Debug, Clone, Default)]
pub struct Cork(Arc<AtomicBool>);

impl Cork {
    /// Keeps back what is written from now on.
    pub fn put_in(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Keeps back no more of what is written from now on, with the first of which goes what was kept back.
    pub fn pull_out(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    fn is_in(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends small frames at once, and has the kernel notice a machine that went away. A socket that
/// refuses is one that was reset already: the next read says so.
pub(super) fn tune(socket: &impl AsFd) {
    let _ = rustix::net::sockopt::set_tcp_nodelay(socket, true);
    let _ = rustix::net::sockopt::set_socket_keepalive(socket, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(socket, KEEPALIVE);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A connection, and its other end.
    async fn pair() -> (Socket, Cork, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tune(&ours);
        let (ours, cork) = Socket::with_cork(ours);
        (ours, cork, listener.accept().unwrap().0)
    }

    #[tokio::test]
    async fn a_cork_keeps_back_what_is_written_until_more_is_written_without_it() {
        let (mut ours, cork, mut theirs) = pair().await;
        let (mut kept, mut read) = (0, [0; 3]);
        for _ in 0..20 {
            cork.put_in();
            ours.write_all(b"a").await.unwrap();
            theirs.set_nonblocking(true).unwrap();
            // Not if this thread stood still for 200 ms.
            kept += u32::from(theirs.peek(&mut read).is_err());
            theirs.set_nonblocking(false).unwrap();
            cork.pull_out();
            ours.write_all(b"bc").await.unwrap();
            theirs.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"abc");
        }
        assert!(kept >= 10, "{kept} of 20");
    }

    #[tokio::test]
    async fn what_a_cork_keeps_back_comes_by_itself_or_with_the_end() {
        let (mut ours, cork, mut theirs) = pair().await;
        cork.put_in();
        ours.write_all(b"by itself").await.unwrap();
        theirs.read_exact(&mut [0; 9]).unwrap();
        ours.write_all(b"with the end").await.unwrap();
        drop(ours);
        let mut rest = String::new();
        theirs.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "with the end");
    }

    #[tokio::test]
    async fn more_than_a_socket_takes_gets_through_a_cork_that_is_in() {
        let (mut ours, cork, mut theirs) = pair().await;
        cork.put_in();
        let much: Vec<u8> = (0..8 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let reading = std::thread::spawn(move || {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).map(|_| read)
        });
        ours.write_all(&much).await.unwrap();
        drop(ours);
        assert!(reading.join().unwrap().unwrap() == much);
    }
}
