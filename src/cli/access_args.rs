//! What is decided about who is let in: for the server, and for checking it.

use std::path::{Path, PathBuf};

use crate::identity::{AccessFiles, Permits, Source};

/// Who is let in.
#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// Let in the keys of FILE (as OpenSSH writes it), besides this account on this machine; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) authorized_keys: Vec<PathBuf>,

    /// Honour environment="NAME=value" before a key; without this such a line lets nobody in
    #[arg(long)]
    pub(super) permit_user_environment: bool,
}

impl AccessArgs {
    /// The files, each of which has to be there.
    pub(super) fn files(&self) -> AccessFiles {
        let required = |path: &PathBuf| Source { path: Path::to_owned(path), required: true };
        AccessFiles {
            keys: self.authorized_keys.iter().map(required).collect(),
            permits: Permits { environment: self.permit_user_environment },
        }
    }
}
