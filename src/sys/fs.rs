//! Files that others must not read, write, replace or see half-written.
//!
//! A path is trusted only if every folder on it belongs to this user or root and nobody else can
//! write to it (sticky folders such as `/tmp` excepted: there nobody else can rename or remove what
//! is ours). A file is judged by its open handle, never by its name.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::listen_fds::Slots;

mod append;
mod state;
mod target;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod walk;

pub use append::append_line;
pub use state::{StateDir, home_dir, open_state_dir, state_dir_path};
pub use target::{folder_of, target_of};

/// Permission bits that let others, or the group, read, write or execute.
const ANY_OTHER: u32 = 0o077;
/// Permission bits that let others, or the group, write.
const OTHER_WRITE: u32 = 0o022;

/// Why a file or folder cannot be used. The text names the path and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Neither `HOME` nor the system names a folder.
    #[error("HOME is {0}; set it, or set REXEC_STATE_DIR to an absolute path")]
    NoHome(&'static str),
    /// A variable that must hold an absolute path does not.
    #[error("{var}={} is not an absolute path", path.display())]
    Relative {
        /// The variable's name.
        var: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// Somebody else owns it.
    #[error("{} belongs to uid {owner} but this process is uid {euid}", path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        euid: u32,
    },
    /// The state folder, or a folder above it, is somebody else's.
    #[error("{0}; set REXEC_STATE_DIR to a folder of your own or use sudo -H")]
    StateOwner(#[source] Box<Self>),
    /// The state folder, or one above it, cannot be made or opened.
    #[error("{0}; REXEC_STATE_DIR names another state folder")]
    StatePlace(#[source] Box<Self>),
    /// Others could change it.
    #[error("{0} can be written by others (mode {mode:04o}); run: chmod go-w {0}", path.display())]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A secret that others can read.
    #[error("{0} can be used by others (mode {mode:04o}); run: chmod go-rwx {0}", path.display())]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A state folder that is open to others and has something in it, so that closing it may break another use.
    #[error(
        "{0} is open to others (mode {mode:04o}) and not empty; run chmod 700 {0} if it is rexec's alone, \
         else set REXEC_STATE_DIR to another folder",
        path.display()
    )]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A state folder that even its owner may not fully use, with something in it.
    #[error("{0} cannot be used by its owner (mode {mode:04o}); run: chmod 700 {0}", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Something else stands where a folder is needed.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// A pipe, device, socket or folder where a regular file is needed.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Symbolic links that lead in a circle.
    #[error("{} has more than {} symbolic links on its way", .0.display(), walk::LINK_LIMIT)]
    Links(PathBuf),
    /// More than the reader takes.
    #[error("{} is over the limit of {limit} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Most bytes it may have.
        limit: usize,
    },
    /// Not the plain name of one file.
    #[error("{0:?} is not the name of a file in a folder")]
    Name(OsString),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: `open`, `read`, ...
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl FsError {
    fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether there simply is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Who may have touched a file that is about to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// A secret: nobody else may read or write it.
    Private,
    /// Public, but it decides something: nobody else may write it.
    Unaltered,
}

fn mode_of(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The effective user id of this process.
#[must_use]
pub fn euid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether what belongs to `uid` is as good as this process' own: it is, or it is root's.
#[must_use]
pub fn is_own_or_root(uid: u32) -> bool {
    uid == 0 || uid == euid()
}

fn check_file(file: &File, path: &Path, trust: Trust, euid: u32) -> Result<Stat, FsError> {
    let stat = rustix::fs::fstat(file).map_err(|e| FsError::io("examine", path, e))?;
    let (path, mode) = (path.to_owned(), mode_of(&stat));
    if file_type(&stat) != FileType::RegularFile {
        return Err(FsError::NotAFile(path));
    }
    if stat.st_uid != euid && stat.st_uid != 0 {
        return Err(FsError::Owner { path, owner: stat.st_uid, euid });
    }
    match trust {
        Trust::Private if mode & ANY_OTHER != 0 => Err(FsError::Readable { path, mode }),
        Trust::Unaltered if mode & OTHER_WRITE != 0 => Err(FsError::Writable { path, mode }),
        Trust::Private | Trust::Unaltered => Ok(stat),
    }
}

/// Opens for reading without being caught by a pipe that nobody writes to.
fn open_to_read(dir: BorrowedFd<'_>, name: &Path, more: OFlags) -> rustix::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map(File::from)
}

/// The whole file in one allocation, so that no copy of a secret is left behind by a growing buffer.
fn read_whole(file: &mut File, path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FsError> {
    let mut bytes = Zeroizing::default();
    read_into(&mut bytes, file, path, limit)?;
    Ok(bytes)
}

/// The whole file, in the one allocation that an empty buffer is given here.
fn read_into(
    bytes: &mut Vec<u8>,
    file: &mut File,
    path: &Path,
    limit: usize,
) -> Result<(), FsError> {
    let size = file.metadata().map_err(|e| FsError::io("examine", path, e))?.len();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let too_long = || FsError::TooLong { path: path.to_owned(), limit };
    if size > limit {
        return Err(too_long());
    }
    bytes.reserve_exact(size + 1);
    file.take(limit as u64 + 1).read_to_end(bytes).map_err(|e| FsError::io("read", path, e))?;
    if bytes.len() > limit { Err(too_long()) } else { Ok(()) }
}

/// Reads a secret, such as a private key, of at most `limit` bytes.
///
/// # Errors
/// It belongs to neither this user nor root, others can read it, it is no regular file, too long,
/// or cannot be read.
pub fn read_private(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, FsError> {
    let mut file = open_to_read(rustix::fs::CWD, path, OFlags::empty())
        .map_err(|e| FsError::io("open", path, e))?;
    check_file(&file, path, Trust::Private, euid())?;
    read_whole(&mut file, path, limit)
}

/// Reads text that decides nothing, such as a public key, of at most `limit` bytes, whoever can change it.
///
/// # Errors
/// It is no regular file, too long, no UTF-8, or cannot be read.
pub fn read_public(path: &Path, limit: usize) -> Result<String, FsError> {
    let mut file = open_to_read(rustix::fs::CWD, path, OFlags::empty())
        .map_err(|e| FsError::io("open", path, e))?;
    let stat = rustix::fs::fstat(&file).map_err(|e| FsError::io("examine", path, e))?;
    if file_type(&stat) != FileType::RegularFile {
        return Err(FsError::NotAFile(path.to_owned()));
    }
    let bytes = read_whole(&mut file, path, limit)?;
    let text = std::str::from_utf8(&bytes).map_err(io::Error::other);
    Ok(text.map_err(|e| FsError::io("read", path, e))?.to_owned())
}

/// A file that decides who is let in, opened and found to be nobody else's work.
#[derive(Debug)]
pub struct TrustedFile {
    file: File,
    path: PathBuf,
    version: Version,
}

/// Changes whenever a file's content, permissions or identity do, as far as the clock of the file
/// system is fine enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    dev_ino: (u64, u64),
    len: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Version {
    /// Seconds since 1970 at which the file was last changed in any way.
    #[must_use]
    pub fn changed_at(&self) -> i64 {
        self.ctime.0.max(self.mtime.0)
    }
}

impl TrustedFile {
    /// Opens `path`, whose folders and itself nobody but this user and root may be able to change
    /// (as sshd's `StrictModes`).
    ///
    /// # Errors
    /// Which folder or file is open to whom, or that it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        use std::os::unix::fs::MetadataExt as _;
        let (walk, name) = walk::Walk::to_file(path, euid())?;
        let file = open_to_read(walk.dir(), Path::new(&name), OFlags::NOFOLLOW)
            .map_err(|e| FsError::io("open", path, e))?;
        check_file(&file, path, Trust::Unaltered, euid())?;
        let meta = file.metadata().map_err(|e| FsError::io("examine", path, e))?;
        let version = Version {
            dev_ino: (meta.dev(), meta.ino()),
            len: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        };
        Ok(Self { file, path: path.to_owned(), version })
    }

    /// What to compare with an earlier opening.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The content as text, at most `limit` bytes; what is not UTF-8 becomes U+FFFD.
    ///
    /// # Errors
    /// [`FsError::TooLong`] or a failed read.
    pub fn read(mut self, limit: usize) -> Result<String, FsError> {
        // Such a list may be long, and is no secret to be wiped.
        let mut bytes = Vec::new();
        read_into(&mut bytes, &mut self.file, &self.path, limit)?;
        let text = String::from_utf8(bytes);
        Ok(text.unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }
}

/// A whole, synced file under a random name. That name is removed on drop; by then the file may have another one.
/// Because it is random, what a crash leaves behind is never in anybody's way.
struct Temp<'a> {
    dir: BorrowedFd<'a>,
    name: String,
}

impl<'a> Temp<'a> {
    fn write(dir: BorrowedFd<'a>, mode: u32, bytes: &[u8]) -> io::Result<Self> {
        let name = random_name()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR)?;
        let temp = Self { dir, name };
        let mut file = File::from(fd);
        file.write_all(bytes)?;
        rustix::fs::fchmod(&file, Mode::from_bits_truncate(mode as _))?;
        file.sync_all()?;
        Ok(temp)
    }

    /// Gives it its name if that is free. `false`: it is not.
    fn link(&self, name: &Path) -> io::Result<bool> {
        let temp = &self.name;
        match rustix::fs::linkat(self.dir, temp, self.dir, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(Errno::PERM | Errno::OPNOTSUPP) => rename_if_free(self.dir, temp, name),
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        // A leftover harms nobody, and the caller has an error of its own to tell.
        let _ = rustix::fs::unlinkat(self.dir, &self.name, AtFlags::empty());
    }
}

/// For file systems without hard links.
fn rename_if_free(dir: BorrowedFd<'_>, temp: &str, name: &Path) -> io::Result<bool> {
    match rustix::fs::renameat_with(dir, temp, dir, name, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok(format!(".{:016x}.tmp", u64::from_ne_bytes(bytes)))
}

/// Makes the file `name` in `dir` with all of `bytes`, unless there is one. Of many who try at once
/// exactly one gets `true`, and nobody ever sees a part of the file, on a full disk neither. When
/// this returns, the file is on the disk.
///
/// # Errors
/// It could not be written; nothing is left behind.
pub fn create_once(dir: &StateDir, name: &str, mode: u32, bytes: &[u8]) -> Result<bool, FsError> {
    let path = dir.file(name)?;
    let make = || {
        let made = Temp::write(dir.as_fd(), mode, bytes)?.link(Path::new(name))?;
        rustix::fs::fsync(dir)?;
        io::Result::Ok(made)
    };
    make().map_err(|e| FsError::io("write", &path, e))
}

/// An exclusive `flock(2)`; given back when dropped and when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// The locked file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Puts it where it can be handed over to the program that this process becomes.
    ///
    /// # Errors
    /// As [`Slots::place`].
    pub fn place(&mut self, slots: &mut Slots) -> io::Result<bool> {
        let mut fd = OwnedFd::from(self.file.try_clone()?);
        let placed = slots.place(&mut fd)?;
        self.file = fd.into();
        Ok(placed)
    }
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum Locked {
    /// Another process holds it.
    #[error("another process holds the lock")]
    Held,
    /// The file system cannot lock.
    #[error("cannot lock: {0}")]
    Io(#[from] io::Error),
}

/// Locks `file` or says at once that another holds it. Two handles of one process exclude each other too.
///
/// # Errors
/// [`Locked`].
pub fn lock_exclusive(file: File) -> Result<Lock, Locked> {
    loop {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { file }),
            Err(Errno::WOULDBLOCK) => return Err(Locked::Held),
            Err(Errno::INTR) => {}
            Err(e) => return Err(Locked::Io(e.into())),
        }
    }
}
