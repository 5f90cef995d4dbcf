//! Why a verb of `rexec-server` that looks at what a server has left in its state folder does nothing.

use std::io;
use std::path::PathBuf;

use super::{SERVER, complain, unprinted};
use crate::runs::journal::JournalError;
use crate::server::FindError;
use crate::sys::fs::FsError;

/// Exit status: wrong usage, or what is asked for cannot be read.
const TROUBLE: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(transparent)]
    State(#[from] FsError),
    #[error(transparent)]
    Find(#[from] FindError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("there is not one line of a journal in {}", .0.display())]
    Empty(PathBuf),
    #[error("/proc does not tell which boot this is: {0}")]
    Boot(io::Error),
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("cannot ask the server in {}: {error}", path.display())]
    Ask { path: PathBuf, error: io::Error },
    #[error("cannot write to standard output: {0}")]
    Print(#[from] io::Error),
}

impl Trouble {
    /// Says it on stderr; the exit status.
    pub(super) fn tell(&self) -> u8 {
        if let Self::Print(error) = self {
            return unprinted(SERVER, error);
        }
        complain(SERVER, &self.to_string());
        TROUBLE
    }
}
