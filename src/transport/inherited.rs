//! Listening sockets that were handed over at start, and are listened on in the place of new ones.

use std::net::SocketAddr;
use std::os::fd::{OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType, sockopt};

use super::{Endpoint, Host, ListenAddr};
use crate::sys::listen_fds::Passed;

/// The name under which a server hands a socket over to itself that it has made. A unix socket's has
/// device and inode of its file behind it: `rexec-own.66.1234`.
const OWN: &str = "rexec-own";

/// Why a socket that was handed over cannot be listened on. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// A file, a pipe, a datagram socket, or a connection.
    #[error(
        "descriptor {number} ({name:?}), handed over in LISTEN_FDS, is no listening stream socket: in a .socket unit \
         use ListenStream= and Accept=no"
    )]
    NotListening {
        /// Its number.
        number: RawFd,
        /// From `LISTEN_FDNAMES`.
        name: String,
    },
    /// Neither TCP nor a unix socket with a path.
    #[error(
        "descriptor {number} ({name:?}), handed over in LISTEN_FDS, listens neither on TCP nor on a path: in a \
         .socket unit use ListenStream=127.0.0.1:8080 or ListenStream=/path"
    )]
    Family {
        /// Its number.
        number: RawFd,
        /// From `LISTEN_FDNAMES`.
        name: String,
    },
    /// There are `--listen` addresses, and it is none of them.
    #[error(
        "a socket on {0} was handed over in LISTEN_FDS, and no --listen names it: add --listen {0}, or give no \
         --listen at all to listen on whatever is handed over"
    )]
    Unnamed(Endpoint),
}

/// Sockets that were handed over and that nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
    /// Ports that are asked for by number: none of them is just any port.
    named_ports: Vec<u16>,
}

/// A listening socket that was handed over.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) fd: OwnedFd,
    pub(super) name: Name,
    pub(super) address: Address,
}

/// Where it listens.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// Who has made a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// This server, or the one that became it. Device and inode of a unix socket's file.
    Own(Option<(u64, u64)>),
    /// A service manager, which calls it so and looks after its file.
    Manager(String),
}

impl Name {
    fn read(name: String) -> Self {
        let file = |file: &str| {
            let (dev, ino) = file.strip_prefix('.')?.split_once('.')?;
            Some((dev.parse().ok()?, ino.parse().ok()?))
        };
        match name.strip_prefix(OWN) {
            Some("") => Self::Own(None),
            Some(rest) => file(rest).map_or(Self::Manager(name), |file| Self::Own(Some(file))),
            None => Self::Manager(name),
        }
    }
}

/// As in `LISTEN_FDNAMES`.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own(None) => f.write_str(OWN),
            Self::Own(Some((dev, ino))) => write!(f, "{OWN}.{dev}.{ino}"),
            Self::Manager(name) => f.write_str(name),
        }
    }
}

impl Address {
    pub(super) fn endpoint(&self) -> Endpoint {
        match self {
            Self::Tcp(address) => {
                Endpoint::Tcp { host: Host::Ip(address.ip()), port: address.port() }
            }
            Self::Unix(path) => Endpoint::Unix(path.clone()),
        }
    }
}

impl Inherited {
    /// Looks at what was handed over; `wanted` are all addresses that sockets will be claimed for.
    ///
    /// # Errors
    /// One of them cannot be listened on.
    pub fn new<'a>(
        passed: Vec<Passed>,
        wanted: impl IntoIterator<Item = &'a ListenAddr>,
    ) -> Result<Self, InheritError> {
        let port = |wanted: &ListenAddr| match wanted.0 {
            Endpoint::Tcp { port, .. } => Some(port),
            Endpoint::Unix(_) => None,
        };
        let sockets = passed.into_iter().map(Socket::look).collect::<Result<_, _>>()?;
        Ok(Self { sockets, named_ports: wanted.into_iter().filter_map(port).collect() })
    }

    /// The socket on this address. For port 0 one that this server had chosen the port of: those of
    /// several are handed over in the order in which they are asked for.
    pub(super) fn take_tcp(&mut self, wanted: SocketAddr) -> Option<Socket> {
        let is_wanted = |socket: &Socket| match (&socket.address, &socket.name) {
            (Address::Tcp(is), _) if wanted.port() != 0 => *is == wanted,
            (Address::Tcp(is), Name::Own(_)) => {
                is.ip() == wanted.ip() && !self.named_ports.contains(&is.port())
            }
            _ => false,
        };
        let at = self.sockets.iter().position(is_wanted)?;
        Some(self.sockets.remove(at))
    }

    /// The socket on this path, which is absolute.
    pub(super) fn take_unix(&mut self, wanted: &Path) -> Option<Socket> {
        let is_wanted =
            |socket: &Socket| matches!(&socket.address, Address::Unix(path) if path == wanted);
        let at = self.sockets.iter().position(is_wanted)?;
        Some(self.sockets.remove(at))
    }

    /// What nobody has claimed, if nothing was asked for by address.
    pub(super) fn rest(self) -> Vec<Socket> {
        self.sockets
    }

    /// Whether everything that a service manager handed over was claimed. What this server had made
    /// itself may be claimed no more, as when a name has one address less now: it is closed.
    ///
    /// # Errors
    /// [`InheritError::Unnamed`].
    pub fn all_claimed(self) -> Result<(), InheritError> {
        let left = self.sockets.iter().find(|socket| matches!(socket.name, Name::Manager(_)));
        left.map_or(Ok(()), |socket| Err(InheritError::Unnamed(socket.address.endpoint())))
    }
}

impl Socket {
    fn look(passed: Passed) -> Result<Self, InheritError> {
        let Passed { number, name, fd } = passed;
        let listens = sockopt::socket_type(&fd) == Ok(SocketType::STREAM)
            && sockopt::socket_acceptconn(&fd) == Ok(true);
        if !listens {
            return Err(InheritError::NotListening { number, name });
        }
        let Some(address) = address_of(&fd) else {
            return Err(InheritError::Family { number, name });
        };
        Ok(Self { fd, name: Name::read(name), address })
    }
}

fn address_of(fd: &OwnedFd) -> Option<Address> {
    let address = rustix::net::getsockname(fd).ok()?;
    match address.address_family() {
        AddressFamily::INET | AddressFamily::INET6 => {
            Some(Address::Tcp(SocketAddr::try_from(address).ok()?))
        }
        AddressFamily::UNIX => {
            let address = rustix::net::SocketAddrUnix::try_from(address).ok()?;
            let path = PathBuf::from(std::ffi::OsString::from(address.path()?.to_str().ok()?));
            Some(Address::Unix(std::path::absolute(path).ok()?))
        }
        _ => None,
    }
}
