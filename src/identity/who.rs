//! Who a peer is.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::Fingerprint;
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
