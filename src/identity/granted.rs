//! By what a peer is let in, from where, and what it may do then.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Certificate, Fingerprint, Identity, KeyOptions, PublicKey};

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
