//! The file of a unix socket: only its owner may connect, a dead server's is replaced, ours is removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use super::{BindError, Endpoint};
use crate::sys::fs::{Lock, Locked, euid, lock_exclusive};
use crate::sys::mutex::lock;

/// Connections to any socket, be it in a file or not, that the kernel completes ahead of `accept` (`listen(2)`); Linux takes the smaller of
/// this and `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 1024;
/// How long another server's start in the same folder is waited for; it takes a millisecond, so whoever has the lock
/// for longer is none.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Pause between two looks at the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// The umask belongs to the whole process: two changes must not mix.
static UMASK: Mutex<()> = Mutex::new(());

/// A socket's file, removed on drop if it still is the one that was made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    dev_ino: (u64, u64),
}

impl SocketFile {
    /// The file of a socket that was handed over, if it still is the one that was made.
    pub(super) fn again(path: PathBuf, dev_ino: (u64, u64)) -> Self {
        Self { path, dev_ino }
    }

    /// Its device and inode.
    pub(super) fn id(&self) -> (u64, u64) {
        self.dev_ino
    }

    /// Binds `path`, which is absolute, and listens, in the place of a dead server's socket if there is one.
    pub(super) fn bind(
        endpoint: &Endpoint,
        path: &Path,
    ) -> Result<(Self, UnixListener), BindError> {
        let io = |e: io::Error| BindError::new(endpoint, e);
        let folder = path.parent().unwrap_or(Path::new("/"));
        // A socket that is bound but does not listen yet looks dead: one start at a time.
        let _lock = lock_folder(folder).map_err(io)?;
        let listener = match bind_private(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                remove_dead(endpoint, path)?;
                bind_private(path).map_err(io)?
            }
            other => other.map_err(io)?,
        };
        let file = Self::made(path.to_owned()).map_err(io)?;
        rustix::net::listen(&listener, BACKLOG).map_err(|e| io(e.into()))?;
        listener.set_nonblocking(true).map_err(io)?;
        Ok((file, listener))
    }

    fn made(path: PathBuf) -> io::Result<Self> {
        let meta = path.symlink_metadata()?;
        let file = Self { path, dev_ino: (meta.dev(), meta.ino()) };
        // The umask has kept others out from the start; this is the usual mode of such a file.
        std::fs::set_permissions(&file.path, std::fs::Permissions::from_mode(0o600))?;
        Ok(file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |m: std::fs::Metadata| (m.dev(), m.ino()) == self.dev_ino;
        if self.path.symlink_metadata().is_ok_and(ours) {
            // Nobody is left to tell; a leftover is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds so that nobody else can ever connect. The umask is 0077, not 0177: a folder that another
/// thread makes in this moment stays usable.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let _one = lock(&UMASK);
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    bound
}

/// `flock(2)` on the folder itself leaves no lock file behind. Whoever can read the folder can lock it for as long as
/// they like, and is not to keep a server from starting: none then.
fn lock_folder(folder: &Path) -> io::Result<Option<Lock>> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match lock_exclusive(File::open(folder)?) {
            Ok(lock) => return Ok(Some(lock)),
            Err(Locked::Io(e)) => return Err(e),
            Err(Locked::Held) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(Locked::Held) => return Ok(None),
        }
    }
}

fn remove_dead(endpoint: &Endpoint, path: &Path) -> Result<(), BindError> {
    let io = |e: io::Error| BindError::new(endpoint, e);
    let meta = path.symlink_metadata().map_err(io)?;
    let ours = meta.uid() == euid() || euid() == 0;
    // A regular file refuses a connection as a dead socket does: look before asking.
    if !meta.file_type().is_socket() || !ours {
        return Err(BindError::NotOurs(path.to_owned()));
    }
    if answers(path).map_err(io)? {
        return Err(BindError::InUse(endpoint.clone()));
    }
    std::fs::remove_file(path).map_err(io)
}

/// Whether somebody listens. Does not wait: a server with a full backlog is alive.
fn answers(path: &Path) -> io::Result<bool> {
    let probe = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::ioctl_fionbio(&probe, true)?;
    let refused = rustix::net::connect(&probe, &SocketAddrUnix::new(path)?);
    Ok(refused != Err(Errno::CONNREFUSED))
}
