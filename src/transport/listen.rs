//! Taking connections: sockets are bound before there is a runtime, and served in one.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::bind_error::BindError;
use super::inherited::{Address, Inherited, Name, Socket as InheritedSocket};
use super::socket_file::{BACKLOG, SocketFile};
use super::stream::tune;
use super::{Endpoint, Host, ListenAddr, Stream, TlsFault, TlsServer};
use crate::identity::Channel;

#[cfg(test)]
mod tests;

/// Free ports tried until one is free for both families of `localhost:0`.
const FREE_PORT_TRIES: usize = 16;

/// A bound socket that takes connections already (the kernel keeps them), to be registered with a runtime.
#[derive(Debug)]
pub struct Bound {
    address: Endpoint,
    // The file goes before the socket: as long as it is there, it answers.
    file: Option<Arc<SocketFile>>,
    socket: BoundSocket,
    name: Name,
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(OwnedFd),
    Unix(OwnedFd),
}

/// Listens on an address: on both families for `localhost`, on every address of a name. To be called
/// before there are other threads: for a unix socket the process' umask is changed for a moment.
///
/// # Errors
/// [`BindError`]; then nothing is listened on.
pub fn bind(address: &ListenAddr) -> Result<Vec<Bound>, BindError> {
    claim_or_bind(address, &mut Inherited::default())
}

/// The same, with the sockets that were handed over where there are some for this address.
///
/// # Errors
/// [`BindError`]; then nothing is listened on.
pub fn claim_or_bind(
    address: &ListenAddr,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, BindError> {
    let endpoint = &address.0;
    match endpoint {
        Endpoint::Unix(path) => {
            let absolute = std::path::absolute(path).map_err(|e| BindError::new(endpoint, e))?;
            if let Some(socket) = inherited.take_unix(&absolute) {
                return Ok(vec![Bound::inherited(socket, endpoint.clone())?]);
            }
            let (file, socket) = SocketFile::bind(endpoint, &absolute)?;
            let (name, file) = (Name::Own(Some(file.id())), Some(Arc::new(file)));
            let socket = BoundSocket::Unix(socket.into());
            Ok(vec![Bound { address: endpoint.clone(), socket, file, name }])
        }
        Endpoint::Tcp { host: Host::Ip(ip), port } => {
            Ok(vec![bind_tcp(endpoint, SocketAddr::new(*ip, *port), inherited)?])
        }
        Endpoint::Tcp { host: Host::Localhost, port } => bind_localhost(endpoint, *port, inherited),
        Endpoint::Tcp { host: Host::Name(name), port } => {
            let resolve = |source| BindError::Resolve { endpoint: endpoint.clone(), source };
            let mut addresses: Vec<_> =
                (name.as_str(), *port).to_socket_addrs().map_err(resolve)?.collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses.into_iter().map(|a| bind_tcp(endpoint, a, inherited)).collect()
        }
    }
}

/// Listens on everything that was handed over and not claimed.
///
/// # Errors
/// [`BindError`].
pub fn claim_rest(inherited: Inherited) -> Result<Vec<Bound>, BindError> {
    let claim = |socket: InheritedSocket| {
        let endpoint = socket.address.endpoint();
        Bound::inherited(socket, endpoint)
    };
    inherited.rest().into_iter().map(claim).collect()
}

fn bind_tcp(
    endpoint: &Endpoint,
    address: SocketAddr,
    inherited: &mut Inherited,
) -> Result<Bound, BindError> {
    if let Some(socket) = inherited.take_tcp(address) {
        let endpoint = socket.address.endpoint();
        return Bound::inherited(socket, endpoint);
    }
    let bind = || {
        // std sets SO_REUSEADDR: a restart does not wait for old connections to time out.
        let socket = std::net::TcpListener::bind(address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let address = Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() };
        let socket = BoundSocket::Tcp(socket.into());
        Ok(Bound { address, socket, file: None, name: Name::Own(None) })
    };
    bind().map_err(|e| BindError::new(endpoint, e))
}

/// The same port on 127.0.0.1 and, on machines that have it, ::1.
fn bind_localhost(
    endpoint: &Endpoint,
    port: u16,
    inherited: &mut Inherited,
) -> Result<Vec<Bound>, BindError> {
    let mut tries = if port == 0 { FREE_PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let v4 = bind_tcp(endpoint, (Ipv4Addr::LOCALHOST, port).into(), inherited)?;
        let Endpoint::Tcp { port, .. } = v4.address else { return Ok(vec![v4]) };
        match bind_tcp(endpoint, (Ipv6Addr::LOCALHOST, port).into(), inherited) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(BindError::NotHere(_)) => return Ok(vec![v4]),
            Err(BindError::Io { source, .. }) if no_such_family(&source) => return Ok(vec![v4]),
            Err(BindError::InUse(_)) if tries > 0 => {}
            Err(e) => return Err(e),
        }
    }
}

fn no_such_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

impl Bound {
    fn inherited(socket: InheritedSocket, endpoint: Endpoint) -> Result<Self, BindError> {
        let nonblocking = rustix::io::ioctl_fionbio(&socket.fd, true);
        nonblocking.map_err(|e| BindError::new(&endpoint, e.into()))?;
        let InheritedSocket { fd, name, address } = socket;
        let (socket, file) = match (address, &name) {
            (Address::Tcp(_), _) => (BoundSocket::Tcp(fd), None),
            (Address::Unix(path), Name::Own(Some(id))) => {
                (BoundSocket::Unix(fd), Some(Arc::new(SocketFile::again(path, *id))))
            }
            (Address::Unix(_), _) => (BoundSocket::Unix(fd), None),
        };
        Ok(Self { address: endpoint, socket, file, name })
    }

    /// Where it listens: with the port that the system chose.
    #[must_use]
    pub fn address(&self) -> &Endpoint {
        &self.address
    }

    /// Whether the socket is a service manager's, and so outlives this process: whoever comes when that is gone
    /// waits there for the next one.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        matches!(self.name, Name::Manager(_))
    }

    /// Refuses whoever comes from now on. Where that is a service manager's they wait for the next server.
    pub fn refuse(&self) {
        let (BoundSocket::Tcp(socket) | BoundSocket::Unix(socket)) = &self.socket;
        if !self.is_managed() {
            // One that does not listen any more refuses already.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }

    /// The socket, to be placed where it can be handed over.
    pub fn socket_mut(&mut self) -> &mut OwnedFd {
        match &mut self.socket {
            BoundSocket::Tcp(socket) | BoundSocket::Unix(socket) => socket,
        }
    }

    /// The socket, and the name under which it is to be handed over.
    #[must_use]
    pub fn handed(&self) -> (BorrowedFd<'_>, String) {
        let (BoundSocket::Tcp(socket) | BoundSocket::Unix(socket)) = &self.socket;
        (socket.as_fd(), self.name.to_string())
    }

    /// Has the current runtime wait for connections. They also wait here when nobody does, as long as
    /// this is kept.
    ///
    /// # Errors
    /// The system refuses to watch the socket.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O.
    pub fn register(&self) -> io::Result<Listener> {
        let socket = match &self.socket {
            BoundSocket::Tcp(socket) => {
                // What is accepted has what the listening socket has (tcp(7)): nothing is set for each connection.
                tune(socket);
                Socket::Tcp(tokio::net::TcpListener::from_std(socket.try_clone()?.into())?)
            }
            BoundSocket::Unix(socket) => {
                Socket::Unix(tokio::net::UnixListener::from_std(socket.try_clone()?.into())?)
            }
        };
        let (file, is_managed) = (self.file.clone(), self.is_managed());
        Ok(Listener { address: self.address.clone(), _file: file, socket, is_managed })
    }
}

/// A socket that hands out connections. The file of a unix socket is removed with the last of these and
/// of its [`Bound`], unless a service manager has made it.
#[derive(Debug)]
pub struct Listener {
    address: Endpoint,
    _file: Option<Arc<SocketFile>>,
    socket: Socket,
    is_managed: bool,
}

#[derive(Debug)]
enum Socket {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Endpoint {
        &self.address
    }

    /// As [`Bound::is_managed`].
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.is_managed
    }

    /// The next connection, of which nothing was read yet. Cancel safe: a connection is not lost when
    /// the future is dropped.
    ///
    /// # Errors
    /// What `accept(2)` says. Most errors concern one connection or a passing shortage; the caller
    /// goes on after a pause.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                Ok(Accepted::Tcp(stream, from))
            }
            Socket::Unix(socket) => Ok(Accepted::Unix(socket.accept().await?.0)),
        }
    }
}

/// A connection from somebody who has not said or proved anything.
#[derive(Debug)]
pub enum Accepted {
    /// Over TCP, from this address; TLS comes next.
    Tcp(tokio::net::TcpStream, SocketAddr),
    /// Over a unix socket.
    Unix(tokio::net::UnixStream),
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// TCP.
    Tcp {
        /// The other end.
        address: SocketAddr,
        /// Whether it is on this machine.
        loopback: bool,
    },
    /// A unix socket: the kernel's word, which the caller judges.
    Unix {
        /// Whose process connected.
        uid: u32,
        /// Its process id, where the system tells.
        pid: Option<i32>,
    },
}

impl Peer {
    fn tcp(address: SocketAddr) -> Self {
        Self::Tcp { address, loopback: is_loopback(address.ip()) }
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Unix { .. } | Self::Tcp { loopback: true, .. })
    }

    /// The address of its machine; none on a unix socket.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { address, .. } => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp { address, .. } => write!(f, "{address}"),
            Self::Unix { uid, pid: Some(pid) } => write!(f, "uid {uid} (process {pid})"),
            Self::Unix { uid, pid: None } => write!(f, "uid {uid}"),
        }
    }
}

/// On a socket for both families, 127.0.0.1 shows as ::ffff:127.0.0.1.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Why a connection did not become a stream.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TLS failed.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The kernel does not say whose process it is.
    #[error("cannot tell whose process connected: {0}")]
    NoCredentials(io::Error),
}

/// A connection on which the login can begin.
#[derive(Debug)]
pub struct ServerStream {
    /// The bytes.
    pub stream: Stream,
    /// Who is at the other end, as far as the network can tell.
    pub peer: Peer,
    /// What TLS agreed on; none over a unix socket.
    pub channel: Option<Channel>,
}

impl Accepted {
    /// The other end's address, for limits and logs; none over a unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(_, address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// TLS, or the kernel's word on whose process the peer is. Has no deadline of its own and waits for
    /// the peer: run it in a task of its own, under one. Dropping the future closes the connection.
    ///
    /// # Errors
    /// [`HandshakeError`]; the connection is closed.
    pub async fn secure(self, server: &TlsServer) -> Result<ServerStream, HandshakeError> {
        match self {
            Self::Tcp(socket, address) => {
                let (stream, channel) = server.accept(socket).await?;
                let peer = Peer::tcp(address);
                Ok(ServerStream { stream, peer, channel: Some(channel) })
            }
            Self::Unix(socket) => {
                let peer = socket.peer_cred().map_err(HandshakeError::NoCredentials)?;
                let peer = Peer::Unix { uid: peer.uid(), pid: peer.pid() };
                Ok(ServerStream { stream: socket.into(), peer, channel: None })
            }
        }
    }
}
