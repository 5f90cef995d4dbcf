//! What is decided about who is let in: for the server, and for checking it.

use std::path::{Path, PathBuf};

use crate::identity::{AccessFiles, Permits, Source};

/// Who is let in.
#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// Let in the keys of FILE (as OpenSSH writes it), besides this account on this machine; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) authorized_keys: Vec<PathBuf>,

    /// Let in certificates that a key of FILE has signed for this account, by its name; repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) trusted_user_ca: Vec<PathBuf>,

    /// Let in nobody whose key or certificate is listed in FILE: keys, SHA256:..., serial: N, id: KEY-ID;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) revoked_keys: Vec<PathBuf>,

    /// Honour environment="NAME=value" before a key; without this such a line lets nobody in
    #[arg(long)]
    pub(super) permit_user_environment: bool,
}

impl AccessArgs {
    /// The files, each of which has to be there.
    pub(super) fn files(&self) -> AccessFiles {
        let required = |path: &PathBuf| Source { path: Path::to_owned(path), required: true };
        let all = |paths: &[PathBuf]| paths.iter().map(required).collect();
        AccessFiles {
            keys: all(&self.authorized_keys),
            permits: Permits { environment: self.permit_user_environment },
            authorities: all(&self.trusted_user_ca),
            revoked: all(&self.revoked_keys),
        }
    }
}
