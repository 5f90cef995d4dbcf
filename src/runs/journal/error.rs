//! Why the journal cannot be used.

use std::io;
use std::path::PathBuf;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system's word on one of its files.
    #[error("the journal {}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line that is whole is not what was written.
    #[error("the journal {}, line {line}: {what}; move the file away to start a new journal", .path.display())]
    Broken {
        /// The segment.
        path: PathBuf,
        /// The line in it, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}
