//! Who a peer is, and what it may do.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Certificate, Fingerprint, KeyOptions, PublicKey};
use crate::sys::fs::is_own_or_root;

/// Who a peer is. Runs belong to one of these.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A program of this account on this machine: it holds the local identity's key, or came over a
    /// unix socket, where the kernel names its uid.
    Local {
        /// Whose program it is.
        uid: u32,
    },
    /// The holder of a key that is listed or certified.
    Key {
        /// The key; with a certificate the one that it is for.
        fingerprint: Fingerprint,
        /// What the list says after it, or the certificate's key id; for people, and no part of who it is.
        comment: String,
    },
}

impl Identity {
    /// Who comes from `uid` over a unix socket; none if that is neither this server's account nor root.
    #[must_use]
    pub fn of_unix_peer(uid: u32) -> Option<Self> {
        is_own_or_root(uid).then_some(Self::Local { uid })
    }

    /// What makes two of them the same.
    fn key(&self) -> Result<u32, &Fingerprint> {
        match self {
            Self::Local { uid } => Ok(*uid),
            Self::Key { fingerprint, .. } => Err(fingerprint),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// `local:1000` or `key:SHA256:…`: stable, so it may be stored.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid } => write!(f, "local:{uid}"),
            Self::Key { fingerprint, .. } => write!(f, "key:{fingerprint}"),
        }
    }
}

/// Somebody who is let in. What is granted counts for the moment at which it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Who it is.
    pub who: Identity,
    /// What the key's line, and its certificate, say it may do. Nothing is held back from a local program.
    pub options: Arc<KeyOptions>,
}

impl Granted {
    /// A program of this account, or of root, on this machine.
    #[must_use]
    pub fn local(uid: u32) -> Self {
        Self { who: Identity::Local { uid }, options: Arc::default() }
    }
}

/// Where a peer calls from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its address; none on a unix socket.
    pub address: Option<IpAddr>,
    /// Whether it is on this machine.
    pub loopback: bool,
}

/// A key that may be on a list.
#[derive(Debug, Clone)]
pub enum Sought {
    /// The key itself.
    Key(PublicKey),
    /// One of which nothing else is known.
    Named(Fingerprint),
}

impl Sought {
    /// What names it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Key(key) => key.fingerprint(),
            Self::Named(fingerprint) => *fingerprint,
        }
    }
}

/// By what a peer was let in: asked about again for each of its requests.
#[derive(Debug, Clone)]
pub enum Proven {
    /// The kernel's word on whose process it is, which does not change.
    Kernel,
    /// A key.
    Key(PublicKey),
    /// A certificate of a key.
    Certificate(Certificate),
}
