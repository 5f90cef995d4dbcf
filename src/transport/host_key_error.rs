//! Why a host key is not accepted.

use std::path::{Path, PathBuf};

use super::Endpoint;
use crate::identity::{Fingerprint, KeyError, PublicKey};
use crate::sys::fs::FsError;

/// A host key that nobody has spoken of.
#[derive(Debug)]
pub struct UnknownHost {
    /// The address asked for.
    pub endpoint: Endpoint,
    /// The key shown.
    pub key: PublicKey,
    /// The line that would make it known.
    pub line: String,
    /// The file to add it to: the last one that was asked.
    pub file: Option<PathBuf>,
    /// Empty, or the lines of the files that were not understood, to be put at the end of the text.
    pub left_out: String,
}

/// Why a server is not to be talked to. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// Nobody has said whose key it is.
    #[error(
        "the host key of {endpoint} is not known: {}. If the server prints the same fingerprint, {}add this \
         line to {}: {line}{left_out}",
        .0.key.fingerprint(),
        make_folder(.0.file.as_deref()),
        .0.file.as_ref().map_or_else(|| "a known_hosts file".to_owned(), |f| f.display().to_string()),
        endpoint = .0.endpoint,
        line = .0.line,
        left_out = .0.left_out,
    )]
    Unknown(Box<UnknownHost>),
    /// It is another key than before: someone may be in between.
    #[error(
        "the host key of {endpoint} is {}, but line {line} of {} says {listed}. Somebody may be listening \
         in; if the server has a new key, replace that line",
        key.fingerprint(),
        file.display()
    )]
    Changed {
        /// The address asked for.
        endpoint: Endpoint,
        /// The key shown.
        key: PublicKey,
        /// The key expected.
        listed: Fingerprint,
        /// The file that says so.
        file: Box<Path>,
        /// Its line, from 1.
        line: usize,
    },
    /// The key is marked as one that must not be used again.
    #[error("the host key of {endpoint} ({shown}) is revoked by line {line} of {}", file.display())]
    Revoked {
        /// The address asked for.
        endpoint: Endpoint,
        /// The key shown.
        shown: Fingerprint,
        /// The file that says so.
        file: Box<Path>,
        /// Its line, from 1.
        line: usize,
    },
    /// Not the key that the caller asked for.
    #[error("the host key of {endpoint} is {shown}, which is not the one asked for")]
    NotPinned {
        /// The address asked for.
        endpoint: Endpoint,
        /// The key shown.
        shown: Fingerprint,
    },
    /// On this machine, but not a server of this account.
    #[error(
        "another user or program answers on {endpoint}: its host key is {shown}, this account's is {own}; \
         give --host-key {shown} if that is the server you mean{}",
        if *is_to_be_believed { " (--accept-new is for other machines)" } else { "" }
    )]
    NotOwn {
        /// The address asked for.
        endpoint: Endpoint,
        /// The key shown.
        shown: Fingerprint,
        /// The key of a server of this account.
        own: Fingerprint,
        /// Whether any new host was to be believed, which does not go for this machine.
        is_to_be_believed: bool,
    },
    /// The key was accepted, and cannot be remembered.
    #[error("the host key cannot be added to the known hosts: {0}; --host-key accepts it for once")]
    Remember(#[source] FsError),
    /// This account's own keys cannot be read, so its server would not be known.
    #[error(transparent)]
    Own(#[from] KeyError),
    /// A file of known hosts cannot be read, so nothing is known of what it says.
    #[error("the known hosts cannot be read: {0}")]
    File(#[from] FsError),
}

/// What to do first where even the folder of `file` is missing.
fn make_folder(file: Option<&Path>) -> String {
    let folder = file.and_then(Path::parent).filter(|f| !f.as_os_str().is_empty() && !f.exists());
    folder.map_or_else(String::new, |folder| format!("run mkdir -p {} and ", folder.display()))
}
