//! The folder of one durable run: who it is, its record, its outcome and its supervisor's socket.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::size::Size;
use crate::exec::Mark;
use crate::proto::code::Code;
use crate::proto::digest::Digest;
use crate::proto::verdict::Verdict;
use crate::runs::clock::Moment;
use crate::runs::journal::Origin;
use crate::runs::request::Terms;
use crate::runs::table::Key;
use crate::sys::fs::{Lock, Locked, lock_exclusive};

pub(super) const META: &str = "meta.json";
pub(super) const OUTCOME: &str = "outcome.json";
pub(super) const RECORD: &str = "record";
const SOCKET: &str = "socket";
pub(super) const LOG: &str = "log";
/// Most bytes of `meta.json` and `outcome.json`, which hold a command of
/// [`TEXT_LIMIT`](crate::runs::journal::TEXT_LIMIT) at most.
const JSON_LIMIT: u64 = 256 * 1024;
/// Bytes that they mostly have, which are read at once.
const JSON_USUAL: usize = 4096;

/// What a durable run is. No value of its environment is here, nor its input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// The id.
    pub run: String,
    /// Under which identity.
    pub identity: String,
    /// What its processes carry in their environment.
    pub mark: String,
    /// The user it is run as; none: the server's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// So many bytes of its output are to be in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<u64>,
    /// The command's words, shortened.
    pub command: String,
    /// What is compared when the id comes again.
    pub terms: Terms,
    /// When it was accepted, RFC 3339.
    pub accepted: String,
    /// Where and when it was accepted.
    pub origin: Origin,
}

/// How a durable run ended, as the journal has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// With a verdict.
    Ended {
        /// How, with its place in the journal.
        verdict: Box<Verdict>,
        /// Bytes of the record before the verdict.
        length: u64,
        /// When this was written down.
        noted: Moment,
    },
    /// Nobody knows how.
    Lost {
        /// Why.
        code: Code,
        /// Processes of it that could not be stopped.
        left_running: u32,
        /// Bytes of the record that are whole.
        length: u64,
        /// Place of the last whole frame.
        last: u64,
        /// When this was written down.
        noted: Moment,
    },
}

impl Outcome {
    /// When it was written down: the end of the run, as far as its server knows.
    #[must_use]
    pub fn noted(&self) -> &Moment {
        match self {
            Self::Ended { noted, .. } | Self::Lost { noted, .. } => noted,
        }
    }
}

/// Who may write a record.
#[derive(Debug)]
pub enum Claim {
    /// Nobody has written it: it is ours as long as the file is open.
    Ours(Lock),
    /// Somebody writes it.
    Taken,
}

/// The folder of one durable run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of a run below `runs`. Its name is made from a digest: an identity may hold any
    /// character, and is longer than a name may be.
    #[must_use]
    pub fn of(runs: &Path, key: &Key) -> Self {
        let digest = Digest::of(format!("{}\0{}", key.identity, key.id).as_bytes()).to_string();
        Self(runs.join(&digest[..32]))
    }

    /// A folder that was found.
    #[must_use]
    pub fn found(path: PathBuf) -> Self {
        Self(path)
    }

    /// The folder that is open there, whatever it is called by now: in a path that is short enough for a socket's
    /// address (108 bytes, unix(7)), and good for as long as the descriptor is open.
    #[must_use]
    pub fn at(open: &OwnedFd) -> Self {
        Self(format!("/proc/self/fd/{}", open.as_raw_fd()).into())
    }

    /// Its name below the folder of all runs.
    #[must_use]
    pub fn name(&self) -> String {
        self.0.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a folder below `ready` for a run that is still to come.
    ///
    /// # Errors
    /// What the system says, for example that the disk is full.
    pub fn prepare(ready: &Path) -> io::Result<Self> {
        // Not by number: what is left of an earlier one may be removed late.
        let path = ready.join(Mark::new()?.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Makes a folder that was prepared the one of `run`, with what that is: from then on the run has one.
    ///
    /// # Errors
    /// What the system says, for example that the disk is full.
    pub fn become_that_of(&self, run: &Self, meta: &Meta) -> io::Result<()> {
        // Nobody looks for it here.
        write_new(&self.0.join(META), meta, |_| Ok(()))?;
        let taken = [io::ErrorKind::AlreadyExists, io::ErrorKind::DirectoryNotEmpty];
        match fs::rename(&self.0, &run.0) {
            // What could not be removed.
            Err(e) if taken.contains(&e.kind()) && run.meta()?.is_none() => {
                run.remove();
                fs::rename(&self.0, &run.0)
            }
            renamed => renamed,
        }
    }

    /// Removes the folder and all that is in it. What cannot be removed is found at the next start.
    ///
    /// What the run is goes first: a supervisor that comes late and finds no record makes one, locks it, and
    /// looks for that before it starts anything.
    pub fn remove(&self) {
        let removed = match fs::remove_file(self.0.join(META)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => fs::remove_dir_all(&self.0),
        };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }

    /// What the run is; none if the folder was not finished.
    ///
    /// # Errors
    /// What the system says.
    pub fn meta(&self) -> io::Result<Option<Meta>> {
        self.read(META)
    }

    /// How it ended; none if the journal does not have it yet. What a machine that went down has left of it
    /// is none either, as long as the record is there to tell.
    ///
    /// # Errors
    /// What the system says.
    pub fn outcome(&self) -> io::Result<Option<Outcome>> {
        let torn = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
        match self.read(OUTCOME) {
            Err(e) if torn.contains(&e.kind()) && self.record()?.is_some() => Ok(None),
            read => read,
        }
    }

    /// Notes how the run ended, on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn set_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        put_json(&self.0, OUTCOME, outcome, File::sync_data)
    }

    /// The record, to be written: locked for as long as it is open.
    ///
    /// # Errors
    /// What the system says.
    pub fn claim(&self) -> io::Result<Claim> {
        let open = OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
        match lock_exclusive(open.open(self.0.join(RECORD))?) {
            Ok(lock) => Ok(Claim::Ours(lock)),
            Err(Locked::Held) => Ok(Claim::Taken),
            Err(Locked::Io(e)) => Err(e),
        }
    }

    /// The record, to be read; none if it is no longer kept.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self) -> io::Result<Option<File>> {
        match File::open(self.0.join(RECORD)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// How large the record is; none if it is not kept.
    ///
    /// # Errors
    /// What the system says.
    pub fn disk(&self) -> io::Result<Option<Size>> {
        match rustix::fs::stat(self.0.join(RECORD)) {
            Err(Errno::NOENT) => Ok(None),
            found => Ok(Some(found?.into())),
        }
    }

    /// A file for what the supervisor has to complain of.
    ///
    /// # Errors
    /// What the system says.
    pub fn log(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.0.join(LOG))
    }

    /// The socket's path: short enough for an address only by [`Self::at`].
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join(SOCKET)
    }

    /// Removes the socket.
    pub fn remove_socket(&self) {
        // A socket that nobody listens on says the same.
        let _ = fs::remove_file(self.socket());
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> io::Result<Option<T>> {
        match File::open(self.0.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => read_json(&opened?).map(Some),
        }
    }
}

/// Puts a value into a file that is whole whenever it is there.
///
/// # Errors
/// What the system says; what was there before is untouched.
pub fn write_json(folder: &Path, name: &str, value: &impl Serialize) -> io::Result<()> {
    put_json(folder, name, value, |_| Ok(()))
}

fn put_json(
    folder: &Path,
    name: &str,
    value: &impl Serialize,
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.new"));
    write_new(&unfinished, value, settle)?;
    fs::rename(&unfinished, folder.join(name))
}

fn write_new(
    path: &Path,
    value: &impl Serialize,
    settle: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    settle(&file)
}

/// A value that [`write_json`] has written.
///
/// # Errors
/// What the system says, or `InvalidData` or `UnexpectedEof` if it is something else.
pub fn read_json<T: for<'a> Deserialize<'a>>(file: &File) -> io::Result<T> {
    let mut bytes = Vec::with_capacity(JSON_USUAL);
    file.take(JSON_LIMIT).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What a supervisor does before it starts anything: whether it would.
    fn would_start(folder: &Folder) -> io::Result<bool> {
        let Claim::Ours(record) = folder.claim()? else { return Ok(false) };
        Ok(record.file().metadata()?.len() == 0 && folder.meta()?.is_some())
    }

    #[test]
    fn a_supervisor_that_comes_while_its_run_is_given_up_starts_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::found(dir.path().join("run"));
        for _ in 0..300 {
            Folder::prepare(dir.path()).unwrap().become_that_of(&folder, &meta()).unwrap();
            fs::write(folder.path().join(RECORD), "given up").unwrap();
            thread::scope(|scope| {
                let late = scope.spawn(|| {
                    // The folder is gone in the end, or has no more than what is made here.
                    while folder.meta().unwrap().is_some() {
                        assert!(!would_start(&folder).unwrap_or(false));
                    }
                    assert!(!would_start(&folder).unwrap_or(false));
                });
                folder.remove();
                late.join().unwrap();
            });
        }
    }

    #[test]
    fn a_run_has_its_folder_when_all_of_it_is_there() {
        let (ready, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let run = Folder::found(runs.path().join("run"));
        let prepared = Folder::prepare(ready.path()).unwrap();
        let Claim::Ours(_record) = prepared.claim().unwrap() else { panic!("locked") };
        assert!(run.meta().unwrap().is_none());
        prepared.become_that_of(&run, &meta()).unwrap();
        assert_eq!(run.meta().unwrap(), Some(meta()));
        assert!(matches!(run.claim().unwrap(), Claim::Taken), "the record went with it");
        assert_eq!(fs::read_dir(ready.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_left_of_a_run_that_was_given_up_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let run = Folder::found(dir.path().join("run"));
        let prepare = || Folder::prepare(dir.path()).unwrap();
        fs::create_dir(run.path()).unwrap();
        drop(run.claim().unwrap());
        prepare().become_that_of(&run, &meta()).unwrap();
        assert!(run.record().unwrap().is_none());
        let kind = prepare().become_that_of(&run, &meta()).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::DirectoryNotEmpty);
    }

    fn meta() -> Meta {
        let header = serde_json::from_str(r#"{"id": "a", "form": "shell", "words": 1}"#).unwrap();
        let body = bytes::Bytes::from_static(b"true\0");
        let request = crate::runs::request::Request::parse(header, body).unwrap();
        Meta {
            run: "a".into(),
            identity: "local:0".into(),
            mark: String::new(),
            uid: None,
            excerpt: None,
            command: request.command(),
            terms: request.terms,
            accepted: String::new(),
            origin: Origin::default(),
        }
    }
}
