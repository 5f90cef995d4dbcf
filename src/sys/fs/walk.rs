//! Going down a path, one checked folder at a time.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{FsError, OTHER_WRITE, file_type, mode_of};

/// Most symbolic links on one way; Linux' own limit (`path_resolution(7)`).
pub(super) const LINK_LIMIT: usize = 40;

const STICKY: u32 = 0o1000;

/// A folder may be passed by who may search it, and need not be readable.
const SEARCH: OFlags = OFlags::PATH;

/// Where the walk stands: a checked folder, and the names still to go.
pub(super) struct Walk {
    dir: OwnedFd,
    at: PathBuf,
    todo: Vec<OsString>,
    links: usize,
    euid: u32,
    /// Whether missing folders are made.
    create: bool,
}

impl Walk {
    /// Goes to the folder `path`, making what is missing with mode 0700.
    pub(super) fn to_folder(path: &Path, euid: u32) -> Result<Self, FsError> {
        let mut walk = Self::start(path, euid, true)?;
        while let Some(name) = walk.todo.pop() {
            walk.enter(&name)?;
        }
        Ok(walk)
    }

    /// Goes to the folder that holds the file `path` and gives the file's name in it, links resolved.
    pub(super) fn to_file(path: &Path, euid: u32) -> Result<(Self, OsString), FsError> {
        let mut walk = Self::start(path, euid, false)?;
        while let Some(name) = walk.todo.pop() {
            if !walk.todo.is_empty() {
                walk.enter(&name)?;
            } else if !walk.follow(&name)? {
                return Ok((walk, name));
            }
        }
        Err(FsError::NotAFile(path.to_owned()))
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    fn start(path: &Path, euid: u32, create: bool) -> Result<Self, FsError> {
        let path = std::path::absolute(path).map_err(|e| FsError::io("find", path, e))?;
        let dir = open_root()?;
        let mut walk =
            Self { dir, at: PathBuf::from("/"), todo: Vec::new(), links: 0, euid, create };
        walk.check()?;
        walk.push(&path);
        Ok(walk)
    }

    fn push(&mut self, path: &Path) {
        let names = path.components().filter(|c| !matches!(c, Component::RootDir));
        let at = self.todo.len();
        self.todo.extend(names.map(|c| c.as_os_str().to_owned()));
        self.todo[at..].reverse();
    }

    fn enter(&mut self, name: &OsStr) -> Result<(), FsError> {
        let flags = SEARCH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let here = self.at.join(name);
        match rustix::fs::openat(&self.dir, name, flags, Mode::empty()) {
            Ok(dir) => {
                self.dir = dir;
                if name == ".." {
                    self.at.pop();
                } else if name != "." {
                    self.at = here;
                }
                self.check()
            }
            Err(Errno::NOENT) if self.create => self.make(name),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                if self.follow(name)? {
                    Ok(())
                } else {
                    Err(FsError::NotAFolder(here))
                }
            }
            Err(e) => Err(FsError::io("open", &here, e)),
        }
    }

    /// Makes a folder and has it entered next. Another who makes it first is as good.
    fn make(&mut self, name: &OsStr) -> Result<(), FsError> {
        let here = self.at.join(name);
        match rustix::fs::mkdirat(&self.dir, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(FsError::io("make", &here, e)),
        }
        // A dangling link is "missing" and "there" at once: it counts against the limit.
        self.count_link(&here)?;
        self.todo.push(name.to_owned());
        Ok(())
    }

    /// If `name` is a symbolic link, puts its target on the way. Followed only if it is ours or
    /// root's: whoever owns a link in a sticky folder chooses where it leads.
    fn follow(&mut self, name: &OsStr) -> Result<bool, FsError> {
        let here = self.at.join(name);
        let stat = rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| FsError::io("examine", &here, e))?;
        if file_type(&stat) != FileType::Symlink {
            return Ok(false);
        }
        if stat.st_uid != self.euid && stat.st_uid != 0 {
            return Err(FsError::Owner { path: here, owner: stat.st_uid, euid: self.euid });
        }
        self.count_link(&here)?;
        let target = rustix::fs::readlinkat(&self.dir, name, Vec::new())
            .map_err(|e| FsError::io("read the link", &here, e))?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.dir = open_root()?;
            self.at = PathBuf::from("/");
        }
        self.push(&target);
        Ok(true)
    }

    fn count_link(&mut self, here: &Path) -> Result<(), FsError> {
        self.links += 1;
        if self.links > LINK_LIMIT { Err(FsError::Links(here.to_owned())) } else { Ok(()) }
    }

    fn check(&self) -> Result<(), FsError> {
        let stat = rustix::fs::fstat(&self.dir).map_err(|e| FsError::io("examine", &self.at, e))?;
        let (path, mode) = (self.at.clone(), mode_of(&stat));
        if stat.st_uid != self.euid && stat.st_uid != 0 {
            return Err(FsError::Owner { path, owner: stat.st_uid, euid: self.euid });
        }
        if mode & OTHER_WRITE != 0 && mode & STICKY == 0 {
            return Err(FsError::Writable { path, mode });
        }
        Ok(())
    }
}

fn open_root() -> Result<OwnedFd, FsError> {
    let flags = SEARCH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/", flags, Mode::empty()).map_err(|e| FsError::io("open", Path::new("/"), e))
}
