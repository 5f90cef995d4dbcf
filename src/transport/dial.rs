//! Reaching a server. No byte of a request is sent here: every error means "not reached".

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

use super::stream::{Cork, Socket, tune};
use super::tls::{self, ClientFault};
use super::{Endpoint, Host, HostKeyCheck, HostKeyError, Stream, TlsFault};
use crate::identity::{Channel, PublicKey};
use crate::sys::fs::is_own_or_root;

#[cfg(test)]
mod tests;

/// An address that did not answer, and why.
#[derive(Debug)]
pub struct Tried {
    /// The address.
    pub address: SocketAddr,
    /// What happened.
    pub error: io::Error,
}

/// What was tried; the address only where it says more than what was asked for.
struct List<'a>(&'a Endpoint, &'a [Tried]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = self.0.to_string();
        for (i, Tried { address, error }) in self.1.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            if address.to_string() == asked {
                write!(f, "{comma}{error}")?;
                continue;
            }
            write!(f, "{comma}{address}: {error}")?;
        }
        Ok(())
    }
}

/// Why a server was not reached. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The resolver does not know the name.
    #[error("cannot find the address of {endpoint}: {source}")]
    Resolve {
        /// What was asked for.
        endpoint: Endpoint,
        /// Its answer.
        source: io::Error,
    },
    /// No address of the server answers.
    #[error("cannot reach {endpoint} ({}); is rexec-server running there?", List(endpoint, tried))]
    Unreachable {
        /// What was asked for.
        endpoint: Endpoint,
        /// Every address tried.
        tried: Vec<Tried>,
    },
    /// Nobody listens on the unix socket, or it cannot be used.
    #[error("cannot reach unix:{} ({source}); is rexec-server running there?", path.display())]
    Unix {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The server behind the unix socket is another user's.
    #[error("unix:{} is served by uid {uid}, which is neither this account nor root", path.display())]
    WrongUser {
        /// The socket's path.
        path: PathBuf,
        /// Whose process listens there.
        uid: u32,
    },
    /// Something answers, but not as a server of this protocol does.
    #[error("something else than rexec answers on {endpoint}: {fault}")]
    NotRexec {
        /// What was asked for.
        endpoint: Endpoint,
        /// How it differs.
        fault: TlsFault,
    },
    /// Closed or broken before TLS was ready.
    #[error("{endpoint}: {fault}")]
    Broken {
        /// What was asked for.
        endpoint: Endpoint,
        /// What happened.
        fault: TlsFault,
    },
    /// The server's key was not accepted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The connection was lost before the server had let this client in.
    #[error("cannot log in to {endpoint}: {why}")]
    NoLogin {
        /// What was asked for.
        endpoint: Endpoint,
        /// What happened.
        why: String,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer in time while {stage}")]
    Timeout {
        /// What was asked for.
        endpoint: Endpoint,
        /// What was waited for.
        stage: &'static str,
    },
}

/// A connection to the right server, on which the login can begin.
#[derive(Debug)]
pub struct ClientStream {
    /// The bytes.
    pub stream: Stream,
    /// What TLS agreed on; none over a unix socket.
    pub channel: Option<Channel>,
    /// Keeps its last bytes back: those of the handshake until it is pulled out.
    pub cork: Cork,
}

/// Reaches a server until `deadline`: every address of its name in turn, each with its share of the time
/// left. `check` judges the host key, or over a unix socket the kernel tells whose server it is.
///
/// # Errors
/// [`DialError`]; no byte of a request was sent.
pub async fn connect(
    endpoint: &Endpoint,
    deadline: Instant,
    check: Arc<dyn HostKeyCheck>,
) -> Result<ClientStream, DialError> {
    let late = |stage| DialError::Timeout { endpoint: endpoint.clone(), stage };
    let (host, port) = match endpoint {
        Endpoint::Tcp { host, port } => (host, *port),
        Endpoint::Unix(path) => {
            let done = timeout_at(deadline, connect_unix(path)).await;
            return done.map_err(|_| late("connecting"))?;
        }
    };
    let addresses = timeout_at(deadline, resolve(host, port))
        .await
        .map_err(|_| late("looking up its address"))?
        .map_err(|source| DialError::Resolve { endpoint: endpoint.clone(), source })?;
    let socket = match connect_any(&addresses, deadline).await {
        Ok(socket) => socket,
        Err(tried) => {
            // What would be in the way with a server too is told first.
            check.prepare()?;
            return Err(DialError::Unreachable { endpoint: endpoint.clone(), tried });
        }
    };
    tune(&socket);
    let (socket, cork) = Socket::with_cork(socket);
    let mut handshake = std::pin::pin!(tls::client(socket, endpoint, Arc::clone(&check)));
    let handshake = async {
        // What is sent before the first wait is to be answered. The rest may leave with the request.
        tokio::select! {
            biased;
            done = &mut handshake => return done,
            () = std::future::ready(()) => cork.put_in(),
        }
        check.prepare().map_err(ClientFault::HostKey)?;
        handshake.await
    };
    let (stream, channel) = timeout_at(deadline, handshake)
        .await
        .map_err(|_| late("setting up TLS"))?
        .map_err(|fault| explain(endpoint, fault))?;
    Ok(ClientStream { stream, channel: Some(channel), cork })
}

/// Believes everybody, for those who only want to look at the key.
#[derive(Default)]
struct Anybody(OnceLock<PublicKey>);

impl HostKeyCheck for Anybody {
    fn check(&self, _: &Endpoint, key: &PublicKey) -> Result<(), HostKeyError> {
        // A server shows one key.
        let _ = self.0.set(key.clone());
        Ok(())
    }
}

/// The key that a server shows and proves, without a login. Whether it is the right one is not known. None
/// over a unix socket, where there is none.
///
/// # Errors
/// A [`DialError`].
pub async fn host_key(
    endpoint: &Endpoint,
    deadline: Instant,
) -> Result<Option<PublicKey>, DialError> {
    let anybody = Arc::new(Anybody::default());
    connect(endpoint, deadline, Arc::clone(&anybody) as _).await?;
    Ok(anybody.0.get().cloned())
}

fn explain(endpoint: &Endpoint, fault: ClientFault) -> DialError {
    let endpoint = endpoint.clone();
    match fault {
        ClientFault::HostKey(e) => DialError::HostKey(e),
        ClientFault::Tls(fault @ (TlsFault::Closed | TlsFault::Io(_))) => {
            DialError::Broken { endpoint, fault }
        }
        ClientFault::Tls(fault) => DialError::NotRexec { endpoint, fault },
    }
}

async fn connect_unix(path: &Path) -> Result<ClientStream, DialError> {
    let unix = |source| DialError::Unix { path: path.to_owned(), source };
    let socket = UnixStream::connect(path).await.map_err(unix)?;
    let uid = socket.peer_cred().map_err(unix)?.uid();
    if !is_own_or_root(uid) {
        return Err(DialError::WrongUser { path: path.to_owned(), uid });
    }
    Ok(ClientStream { stream: socket.into(), channel: None, cork: Cork::default() })
}

async fn resolve(host: &Host, port: u16) -> io::Result<Vec<SocketAddr>> {
    match host {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Localhost => {
            Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()])
        }
        Host::Name(name) => Ok(tokio::net::lookup_host((name.as_str(), port)).await?.collect()),
    }
}

async fn connect_any(addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Vec<Tried>> {
    let mut tried = Vec::new();
    for (i, &address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let until = now + share(deadline.saturating_duration_since(now), addresses.len() - i);
        let error = match timeout_at(until, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        };
        tried.push(Tried { address, error });
    }
    Err(tried)
}

/// What one of `addresses` gets of the time that is left.
fn share(left: Duration, addresses: usize) -> Duration {
    left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)
}
