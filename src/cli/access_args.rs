//! What is decided about who is let in: for the server, and for checking it.

use std::path::{Path, PathBuf};

use crate::identity::{AccessFiles, Permits, Source};
use crate::server::System;
use crate::server::users::{KEYS_FOLDER, is_name};

/// In front of the name of a group.
const GROUP: char = '@';

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

    /// System mode: serve these users, by name, instead of this account (which has to be root): `rexec
    /// USER@HOST:PORT`. Their keys are in /etc/rexec/authorized_keys/USER and ~/.config/rexec/authorized_keys;
    /// root is one of them only if it is named. @GROUP: the members of a group, but for root; repeatable
    #[arg(long, value_name = "USER,@GROUP,...", value_delimiter = ',', value_parser = user)]
    pub(super) users: Vec<String>,

    /// With --users: ~/.ssh/authorized_keys counts too, whatever sshd_config says of it
    #[arg(long)]
    pub(super) use_ssh_keys: bool,
}

/// A user, or a group behind `@`.
fn user(text: &str) -> Result<String, String> {
    match is_name(text.strip_prefix(GROUP).unwrap_or(text)) {
        true => Ok(text.to_owned()),
        false => Err("this is not the name of a user, nor @ and that of a group".into()),
    }
}

/// For whom root keeps a list.
fn listed_users() -> Vec<String> {
    let entries = std::fs::read_dir(KEYS_FOLDER).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|n| is_name(n))
        .collect()
}

impl AccessArgs {
    /// The same, and the lists that root keeps for the users of a server in system mode.
    pub(super) fn all_files(&self) -> AccessFiles {
        let mut files = self.files();
        let of_user = |user| Source { path: Path::new(KEYS_FOLDER).join(user), required: false };
        files.keys.extend(self.known_users().into_iter().map(of_user));
        files
    }

    /// The users who are served by their names, and if groups are served those for whom root keeps a list.
    pub(super) fn known_users(&self) -> Vec<String> {
        let (mut users, groups) = self.served();
        if !groups.is_empty() {
            users.extend(listed_users());
        }
        users.sort();
        users.dedup();
        users
    }

    /// What is decided about system mode, if it is that.
    pub(super) fn system(&self) -> Result<Option<System>, String> {
        match (self.users.is_empty(), self.use_ssh_keys) {
            (true, true) => {
                Err("--use-ssh-keys is for the users of a server: give --users too".into())
            }
            (true, false) => Ok(None),
            (false, ssh_keys) => {
                let (users, groups) = self.served();
                Ok(Some(System { users, groups, ssh_keys }))
            }
        }
    }

    /// The users and the groups.
    fn served(&self) -> (Vec<String>, Vec<String>) {
        let (groups, users): (Vec<_>, Vec<_>) =
            self.users.iter().partition(|name| name.starts_with(GROUP));
        let name = |group: &String| group[GROUP.len_utf8()..].to_owned();
        (users.into_iter().cloned().collect(), groups.into_iter().map(name).collect())
    }

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
