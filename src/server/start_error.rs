//! Why a server cannot start.

use std::path::PathBuf;
use std::{fmt, io};

use super::classic;
use super::instance::InstanceError;
use super::users;
use crate::exec::{GroupsError, NotStarted};
use crate::identity::{KeyError, LineError, Role};
use crate::runs::journal::JournalError;
use crate::sys::fs::FsError;
use crate::transport::{BindError, Endpoint, InheritError, ListenAddr};

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder, or a file in it.
    #[error(transparent)]
    State(#[from] FsError),
    /// A key of the server's own.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The host key is no key for TLS.
    #[error("the host key cannot be used for TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A socket that was handed over.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The tutorial's clients cannot be served there, or by this account.
    #[error(transparent)]
    Classic(#[from] classic::StartError),
    /// Only root can be another user.
    #[error("--users are other accounts than this one, and only root can run commands as another")]
    NotRoot,
    /// Root, and with it whoever can edit the policy of a user.
    #[error(
        "--authorized-keys lets keys in as no user in particular: in system mode the keys of each user are in \
             {}/USER",
        users::KEYS_FOLDER
    )]
    KeysOfNobody,
    /// They would pass by the policy.
    #[error(
        "--classic serves programs of this account without asking who they are, and rule {0:?} of the policy is for \
         them: leave one of the two out"
    )]
    ClassicUnderPolicy(String),
    /// The journal of this instance.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file that says who is let in cannot be read. A server that is under way, or takes over from one, goes on
    /// and lets nobody of it in.
    #[error("cannot read {option} {}: {error}", path.display())]
    Access {
        /// What names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        error: FsError,
    },
    /// A line of a revocation list is not understood: it may be the one that counts.
    #[error("{option} {}: {error}", path.display(), option = Role::Revoked.option())]
    Revoked {
        /// The file.
        path: PathBuf,
        /// The line.
        error: LineError,
    },
    /// Others could reach it and nobody would be let in.
    #[error(
        "{0} can be reached from other machines, but no key is authorized: give --authorized-keys FILE, or \
         listen on 127.0.0.1"
    )]
    NobodyAuthorized(Endpoint),
    /// The same, although files of keys were named.
    #[error(
        "{address} can be reached from other machines, but {} lets no key in: add a line such as those in \
         ~/.ssh/*.pub, of type ssh-ed25519, or listen on 127.0.0.1",
        List(files)
    )]
    NoKeys {
        /// Where others could reach it.
        address: Endpoint,
        /// What was searched for keys.
        files: Vec<PathBuf>,
    },
    /// The folder for control groups.
    #[error("--cgroup: {0}")]
    Cgroup(#[from] GroupsError),
    /// The shell cannot be run.
    #[error("--shell {}: {reason}; give the path of a shell, such as /bin/sh", shell.display())]
    Shell {
        /// What was asked for.
        shell: PathBuf,
        /// Why not.
        reason: NotStarted,
    },
    /// The folder of this instance.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// `/proc` does not tell where this process is.
    #[error("/proc does not tell where this is: {0}")]
    Origin(io::Error),
    /// The system refuses a thread or a watch on a socket.
    #[error("cannot start: {0}")]
    System(io::Error),
}

impl StartError {
    /// Why a server that listens there does not start, if these files let in no more than so many keys.
    #[must_use]
    pub fn nobody_let_in(listen: &[ListenAddr], files: Vec<PathBuf>, keys: usize) -> Option<Self> {
        let ListenAddr(address) = listen.iter().find(|address| !address.0.is_local())?;
        match (keys, files.is_empty()) {
            (0, true) => Some(Self::NobodyAuthorized(address.clone())),
            (0, false) => Some(Self::NoKeys { address: address.clone(), files }),
            _ => None,
        }
    }
}

/// Paths with commas between them.
struct List<'a>(&'a [PathBuf]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, path.display())?;
        }
        Ok(())
    }
}
