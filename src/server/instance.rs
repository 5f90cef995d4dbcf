//! The name under which a server keeps its journal, and the folder of that name.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use super::classic::ClassicAddr;
use super::left;
use super::running::LOCK_NAME;
use super::status;
use crate::sys::fs::{FsError, Lock, Locked, StateDir, lock_exclusive};
use crate::sys::listen_fds::Passed;
use crate::transport::{Endpoint, ListenAddr};

/// Most bytes of an instance's name.
pub const NAME_LIMIT: usize = 128;
/// The folder in the state folder that has a folder for each instance.
pub(super) const INSTANCES: &str = "instances";
/// The folder of the journal in an instance's.
pub(super) const JOURNAL: &str = "journal";
/// The folder of the durable runs in an instance's.
pub const RUNS: &str = "runs";
/// The folder among those of the runs where the next one's is prepared. A start removes it, with what a supervisor
/// that was killed while it waited has left.
pub(super) const READY: &str = "ready";
/// Most names that an error lists.
const LISTED: usize = 16;

/// Why a server cannot have a folder under its name.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The folder, or a file in it.
    #[error(transparent)]
    State(#[from] FsError),
    /// The name cannot be that of a folder.
    #[error(
        "{0:?} cannot be the name of an instance: give --name with up to {NAME_LIMIT} characters, no / and no \
         dot in front"
    )]
    Name(String),
    /// Another server has it.
    #[error("another server uses the name {0:?} already: stop it, or give this one another --name")]
    Taken(String),
    /// The instance's folder cannot be locked.
    #[error("cannot lock the folder of {0:?}: {1}")]
    Lock(String, io::Error),
}

/// Why it is not clear which journal is meant.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// There is none.
    #[error("no server has been started in {}; REXEC_STATE_DIR names another state folder", .0.display())]
    None(PathBuf),
    /// There are several.
    #[error("there are several servers; give --name with one of: {0}")]
    Several(Names),
    /// None runs now.
    #[error("no server runs in {}", .0.display())]
    Down(PathBuf),
    /// None has this name.
    #[error("there is no server of the name {0:?}; there are: {1}")]
    Unknown(String, Names),
    /// The folder of the instances cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Names of instances, with commas between them.
#[derive(Debug)]
pub struct Names(Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..self.0.len().min(LISTED)].join(", "))?;
        match self.0.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The folder of an instance's journal in the state folder `state`; without a name, of the only one that
/// has a journal. Nothing is made.
///
/// # Errors
/// [`FindError`].
pub fn find_journal(state: &Path, name: Option<&str>) -> Result<PathBuf, FindError> {
    Ok(find_instance(state, name)?.join(JOURNAL))
}

/// The folder of an instance in the state folder `state`; without a name, of the only one that there is.
/// Nothing is made.
///
/// # Errors
/// [`FindError`].
pub fn find_instance(state: &Path, name: Option<&str>) -> Result<PathBuf, FindError> {
    let (instances, names) = all_in(state)?;
    match name {
        Some(name) => named(&instances, name, names),
        None => only_one(&instances, names),
    }
}

/// The same of a server that runs; without a name, of the only one that does, however many did before.
///
/// # Errors
/// [`FindError`].
pub fn find_running(state: &Path, name: Option<&str>) -> Result<PathBuf, FindError> {
    let (instances, mut names) = all_in(state)?;
    let Some(name) = name else {
        names.retain(|name| status::is_served(&instances.join(name)));
        if names.is_empty() {
            return Err(FindError::Down(instances));
        }
        return only_one(&instances, names);
    };
    let found = named(&instances, name, names)?;
    if status::is_served(&found) { Ok(found) } else { Err(FindError::Down(found)) }
}

/// Every instance that there is, and where.
fn all_in(state: &Path) -> Result<(PathBuf, Vec<String>), FindError> {
    let instances = state.join(INSTANCES);
    let mut names = instances_in(&instances)
        .map_err(|error| FindError::Io { path: instances.clone(), error })?;
    if names.is_empty() {
        return Err(FindError::None(instances));
    }
    names.sort_unstable();
    Ok((instances, names))
}

fn named(instances: &Path, name: &str, names: Vec<String>) -> Result<PathBuf, FindError> {
    if names.iter().any(|n| n == name) {
        Ok(instances.join(name))
    } else {
        Err(FindError::Unknown(name.to_owned(), Names(names)))
    }
}

fn only_one(instances: &Path, names: Vec<String>) -> Result<PathBuf, FindError> {
    match &*names {
        [name] => Ok(instances.join(name)),
        _ => Err(FindError::Several(Names(names))),
    }
}

/// The names of the instances that have a journal.
fn instances_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string();
        names.extend(name.ok().filter(|_| entry.path().join(JOURNAL).is_dir()));
    }
    Ok(names)
}

/// An instance's name, fit for a folder's.
#[derive(Debug)]
pub(super) struct Name {
    text: String,
    /// It stands for any port, as an address with port 0 does: many servers may start under it.
    any_port: bool,
}

impl Name {
    /// The one that was given, or one made from the first address.
    pub(super) fn new(
        given: Option<String>,
        listen: &[ListenAddr],
        classic: &[ClassicAddr],
    ) -> Result<Self, InstanceError> {
        let first = listen.first().or_else(|| classic.first().map(|c| &c.address));
        let name = match (given, first) {
            (Some(text), _) => Self { text, any_port: false },
            (None, Some(ListenAddr(address))) => Self {
                text: address.to_string().replace('/', "_"),
                any_port: matches!(address, Endpoint::Tcp { port: 0, .. }),
            },
            (None, None) => Self { text: String::new(), any_port: false },
        };
        let allowed = |c: char| !c.is_control() && c != '/';
        let fits = (1..=NAME_LIMIT).contains(&name.text.len()) && !name.text.starts_with('.');
        if fits && name.text.chars().all(allowed) {
            Ok(name)
        } else {
            Err(InstanceError::Name(name.text))
        }
    }

    /// The folder, and the lock that keeps it this server's: the one that was handed over by the server that
    /// became this one, if it is under this name. If the name stands for any port and others
    /// have it, the first of `NAME~2`, `NAME~3`, ... that nobody has: the next start under it goes on with
    /// its journal, so that what a crash left running is stopped. Every name that is passed over is
    /// a living server's, so this ends.
    pub(super) fn open(
        &self,
        instances: &StateDir,
        handed: Option<File>,
    ) -> Result<(StateDir, Lock), InstanceError> {
        if let Some(opened) = handed.and_then(|lock| self.again(instances, lock)) {
            return Ok(opened);
        }
        let is_taken = |e: &InstanceError| matches!(e, InstanceError::Taken(_));
        if !self.any_port {
            let what = format_args!("the name {:?}", self.text);
            return left::get(what, is_taken, || open(instances, &self.text));
        }
        let mut opened = open(instances, &self.text);
        let mut number = 2_u64;
        while opened.as_ref().is_err_and(is_taken) {
            opened = open(instances, &format!("{}~{number}", self.text));
            number += 1;
        }
        opened
    }

    /// The folder that the server before this one had, with its lock, which nobody else can have had
    /// meanwhile. None if it was another instance's.
    fn again(&self, instances: &StateDir, lock: File) -> Option<(StateDir, Lock)> {
        let name = folder_of(&lock)?;
        let is_ours = name == self.text
            || self.any_port && name.strip_prefix(&self.text).is_some_and(|n| n.starts_with('~'));
        let instance = instances.subdir(&name).ok().filter(|_| is_ours)?;
        let (there, here) = (instance.open_append("lock").ok()?.metadata(), lock.metadata());
        let id = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        if there.ok().map(id)? != here.ok().map(id)? {
            return None;
        }
        Some((instance, lock_exclusive(lock).ok()?))
    }
}

/// The lock of an instance among what was handed over, and the rest.
pub(super) fn split(passed: Vec<Passed>) -> (Option<File>, Vec<Passed>) {
    let (mut lock, sockets): (Vec<_>, _) =
        passed.into_iter().partition(|passed| passed.name == LOCK_NAME);
    (lock.pop().map(|passed| File::from(passed.fd)), sockets)
}

/// The name of the folder in which an open file is.
fn folder_of(file: &File) -> Option<String> {
    use std::os::fd::AsRawFd as _;
    let path: PathBuf = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some(path.parent()?.file_name()?.to_str()?.to_owned())
}

fn open(instances: &StateDir, name: &str) -> Result<(StateDir, Lock), InstanceError> {
    let instance = instances.subdir(name)?;
    let lock = lock_exclusive(instance.open_append("lock")?).map_err(|e| match e {
        Locked::Held => InstanceError::Taken(name.to_owned()),
        Locked::Io(e) => InstanceError::Lock(name.to_owned(), e),
    })?;
    Ok((instance, lock))
}
