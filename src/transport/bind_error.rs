//! Why an address cannot be listened on.

use std::io;
use std::path::PathBuf;

use super::Endpoint;

/// Why an address cannot be listened on. Says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("{0} is in use: another server listens there; stop it or choose another address")]
    InUse(Endpoint),
    /// A port below 1024, or a folder that may not be written.
    #[error("no permission to listen on {0}; choose a port from 1024 up, or a folder of your own")]
    Denied(Endpoint),
    /// Not an address of this machine.
    #[error("{0} is not an address of this machine; listen on one of its own, or on 0.0.0.0")]
    NotHere(Endpoint),
    /// The resolver does not know the name.
    #[error(
        "cannot listen on {endpoint}: the name has no address here ({source}); give an address of this machine, \
         such as 127.0.0.1, or 0.0.0.0 for all"
    )]
    Resolve {
        /// What was asked for.
        endpoint: Endpoint,
        /// Its answer.
        source: io::Error,
    },
    /// A file that is no socket, or another user's socket, stands in the way.
    #[error("{} is not a socket of ours; remove it or choose another path", .0.display())]
    NotOurs(PathBuf),
    /// Something else.
    #[error("cannot listen on {endpoint}: {source}")]
    Io {
        /// What was asked for.
        endpoint: Endpoint,
        /// The system's answer.
        source: io::Error,
    },
}

impl BindError {
    pub(super) fn new(endpoint: &Endpoint, source: io::Error) -> Self {
        let endpoint = endpoint.clone();
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse(endpoint),
            io::ErrorKind::PermissionDenied => Self::Denied(endpoint),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(endpoint),
            _ => Self::Io { endpoint, source },
        }
    }
}
