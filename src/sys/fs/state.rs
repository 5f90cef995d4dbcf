//! The folder in which rexec keeps keys, journals and sockets.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::walk::Walk;
use super::{ANY_OTHER, FsError, Trust, check_file, euid, mode_of, open_to_read, read_whole};
use crate::sys::users::account;

/// A folder that is this user's alone (mode 0700), held open.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    fd: OwnedFd,
}

/// Opens rexec's state folder, making it if need be: `REXEC_STATE_DIR`, else `$XDG_STATE_HOME/rexec`,
/// else `~/.local/state/rexec`. Relative values of `XDG_STATE_HOME` are ignored, as the XDG Base
/// Directory Specification asks; empty variables count as unset.
///
/// # Errors
/// Which folder on the way is not safe and what to do, or that there is no home.
pub fn open_state_dir() -> Result<StateDir, FsError> {
    StateDir::open(&state_dir_path()?).map_err(|e| match e {
        FsError::Io { .. } => FsError::StatePlace(Box::new(e)),
        e => e,
    })
}

/// Where [`open_state_dir`] looks, for who only wants to read there: nothing is made or judged.
///
/// # Errors
/// There is no home, or a variable that names the folder is no absolute path.
pub fn state_dir_path() -> Result<PathBuf, FsError> {
    state_path(|name| std::env::var_os(name), account_home)
}

/// The user's home: `HOME`, and where that is unset or empty (a service, a container) what passwd(5)
/// says of the account.
///
/// # Errors
/// There is neither, or it is not an absolute path.
pub fn home_dir() -> Result<PathBuf, FsError> {
    home(std::env::var_os("HOME"), account_home)
}

fn account_home() -> Option<PathBuf> {
    account().map(|account| account.home).filter(|home| home.is_absolute())
}

fn home(
    var: Option<OsString>,
    account_home: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, FsError> {
    let named = var.filter(|v| !v.is_empty()).map(PathBuf::from);
    match named.or_else(account_home) {
        None => Err(FsError::NoHome("not set, and the system knows no home of this account")),
        Some(path) if path.is_absolute() => Ok(path),
        Some(_) => Err(FsError::NoHome("not an absolute path")),
    }
}

pub(super) fn state_path(
    var: impl Fn(&str) -> Option<OsString>,
    account_home: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, FsError> {
    let get = |name| var(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    match (get("REXEC_STATE_DIR"), get("XDG_STATE_HOME")) {
        (Some(path), _) if path.is_absolute() => Ok(path),
        (Some(path), _) => Err(FsError::Relative { var: "REXEC_STATE_DIR", path }),
        (None, Some(path)) if path.is_absolute() => Ok(path.join("rexec")),
        (None, _) => Ok(home(var("HOME"), account_home)?.join(".local/state/rexec")),
    }
}

impl StateDir {
    /// Opens the folder `path`, making it if need be.
    ///
    /// # Errors
    /// A folder on the way is another's or can be written by others; this one is not this user's
    /// own; it is open to others, or locked for its owner, and already in use for something.
    pub fn open(path: &Path) -> Result<Self, FsError> {
        Self::open_as(path, euid()).map_err(|e| match e {
            FsError::Owner { .. } => FsError::StateOwner(Box::new(e)),
            e => e,
        })
    }

    pub(super) fn open_as(path: &Path, euid: u32) -> Result<Self, FsError> {
        let walk = Walk::to_folder(path, euid)?;
        Self::own(walk.dir(), path, euid)
    }

    /// Opens the folder `name` in this one, making it if need be.
    ///
    /// # Errors
    /// `name` is not a plain name, or what it names is not a folder of this user alone.
    pub fn subdir(&self, name: &str) -> Result<Self, FsError> {
        let path = self.file(name)?;
        match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(FsError::io("make", &path, e)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(dir) => Self::own(dir.as_fd(), &path, euid()),
            Err(Errno::NOTDIR | Errno::LOOP) => Err(FsError::NotAFolder(path)),
            Err(e) => Err(FsError::io("open", &path, e)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file `name` in it.
    ///
    /// # Errors
    /// `name` is not the plain name of one file.
    pub fn file(&self, name: &str) -> Result<PathBuf, FsError> {
        let mut parts = Path::new(name).components();
        match (parts.next(), parts.next()) {
            (Some(Component::Normal(part)), None) if part == name => Ok(self.path.join(name)),
            _ => Err(FsError::Name(name.into())),
        }
    }

    /// Reads the secret `name`, of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`read_private`](super::read_private); a symbolic link is refused too.
    pub fn read_private(&self, name: &str, limit: usize) -> Result<Zeroizing<Vec<u8>>, FsError> {
        let path = self.file(name)?;
        let mut file = open_to_read(self.as_fd(), Path::new(name), OFlags::NOFOLLOW)
            .map_err(|e| FsError::io("open", &path, e))?;
        check_file(&file, &path, Trust::Private, euid())?;
        read_whole(&mut file, &path, limit)
    }

    /// Opens the file `name` for writing at its end, making it (mode 0600) if need be. Each write
    /// goes to the end whoever else writes (`O_APPEND`); children do not inherit it.
    ///
    /// # Errors
    /// It cannot be opened, is a link or no regular file, or others can use it.
    pub fn open_append(&self, name: &str) -> Result<File, FsError> {
        let path = self.file(name)?;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::APPEND
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|e| FsError::io("open", &path, e))?;
        check_file(&file, &path, Trust::Private, euid())?;
        Ok(file)
    }

    /// Takes an open folder for our own: it must belong to `euid` and be, or become, private.
    fn own(dir: BorrowedFd<'_>, path: &Path, euid: u32) -> Result<Self, FsError> {
        let io = |action| move |e: Errno| FsError::io(action, path, e);
        let stat = rustix::fs::fstat(dir).map_err(io("examine"))?;
        if stat.st_uid != euid {
            let path = path.to_owned();
            return Err(FsError::Owner { path, owner: stat.st_uid, euid });
        }
        if !is_private(&stat) {
            make_private(dir, path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, ".", flags, Mode::empty()).map_err(io("open"))?;
        Ok(Self { path: path.to_owned(), fd })
    }
}

fn is_private(stat: &Stat) -> bool {
    mode_of(stat) & (ANY_OTHER | 0o700) == 0o700
}

/// Makes an empty folder private. One with something in it may be somebody's `/tmp` or home, or was
/// locked on purpose.
fn make_private(dir: BorrowedFd<'_>, path: &Path) -> Result<(), FsError> {
    let io = |action| move |e: Errno| FsError::io(action, path, e);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let list = rustix::fs::openat(dir, ".", flags, Mode::empty()).map_err(io("open"))?;
    let mut names = rustix::fs::Dir::new(list).map_err(io("read"))?;
    let empty =
        !names.any(|entry| entry.is_ok_and(|e| !matches!(e.file_name().to_bytes(), b"." | b"..")));
    // Looked at last: another process that closed it and put the first file there is as good.
    let stat = rustix::fs::fstat(dir).map_err(io("examine"))?;
    if empty {
        return rustix::fs::chmodat(dir, ".", Mode::RWXU, rustix::fs::AtFlags::empty())
            .map_err(io("change the mode of"));
    }
    if is_private(&stat) {
        return Ok(());
    }
    let (path, mode) = (path.to_owned(), mode_of(&stat));
    if mode & ANY_OTHER == 0 {
        return Err(FsError::Locked { path, mode });
    }
    Err(FsError::Shared { path, mode })
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
