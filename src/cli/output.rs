//! Where the client's output goes: the terminal or pipe it was given, a file, or memory.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use crate::client::{INLINE_LIMIT, Output};
use crate::proto::header::Stream;
use crate::proto::verdict::Verdict;
use crate::sys::fs::{folder_of, target_of};
use crate::sys::kept::is_kept;
use crate::sys::mutex::lock;
use crate::sys::poll::ready_now;

/// Most bytes of output that `--json` holds.
pub(super) const JSON_LIMIT: usize = 256 * 1024 * 1024;

/// Standard output and error, as this process was given them.
pub(super) struct Standard;

impl Output for Standard {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stderr => write_all(rustix::stdio::stderr(), bytes),
            Stream::Stdout | Stream::Both => write_all(rustix::stdio::stdout(), bytes),
        }
    }

    fn finish(&mut self, _: &Verdict) -> io::Result<()> {
        is_given_kept()
    }

    fn is_ready(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stderr => is_writable(rustix::stdio::stderr()),
            Stream::Stdout | Stream::Both => is_writable(rustix::stdio::stdout()),
        }
    }
}

/// Writes everything. The descriptor may have been made non-blocking by whoever shares it: then it
/// is waited for.
pub(super) fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&fd, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None).map(|_| ())?;
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Writes all that there is for standard output.
pub(super) fn print_all(bytes: &[u8]) -> io::Result<()> {
    write_all(rustix::stdio::stdout(), bytes)?;
    is_kept(rustix::stdio::stdout())
}

/// Whether what was written to standard output and error is kept, where they are files.
pub(super) fn is_given_kept() -> io::Result<()> {
    is_kept(rustix::stdio::stdout())?;
    is_kept(rustix::stdio::stderr())
        .map_err(|e| io::Error::new(e.kind(), format!("standard error: {e}")))
}

fn is_writable(fd: impl AsFd) -> bool {
    ready_now(&fd, PollFlags::OUT).is_ok_and(|ready| ready == PollFlags::OUT)
}

/// A file for stdout; stderr goes where it always goes.
pub(super) struct ToFile {
    file: File,
    path: PathBuf,
    /// Takes the name `path` when it is whole; none for what is no regular file, and stays what it
    /// is: a device, a pipe.
    unfinished: Option<Unfinished>,
}

/// The temporary name of a file that is not whole. A thread of the client's holds the
/// file, and the end of the process does not wait for that thread: so the name is shared.
#[derive(Clone)]
pub(super) struct Unfinished(Arc<Mutex<Option<TempPath>>>);

impl Unfinished {
    fn take(&self) -> Option<TempPath> {
        lock(&self.0).take()
    }

    /// Removes the file, if it was not renamed.
    pub(super) fn remove(&self) {
        drop(self.take());
    }
}

impl ToFile {
    /// Opens what `path` stands for. A link is followed: what it points to is replaced.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let path = target_of(path)?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => {
                let file = File::options().write(true).open(&path)?;
                Ok(Self { file, path, unfinished: None })
            }
            _ => {
                let (file, name) = temporary(&path)?.into_parts();
                let unfinished = Unfinished(Arc::new(Mutex::new(Some(name))));
                Ok(Self { file, path, unfinished: Some(unfinished) })
            }
        }
    }

    /// For whoever has to remove the file if it does not become whole.
    pub(super) fn unfinished(&self) -> Option<Unfinished> {
        self.unfinished.clone()
    }

    /// Which file it was.
    fn named(&self, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
    }
}

/// What this process was given as stdout or stderr is written to as it is: opened anew by its name it
/// would be another file, or the same one from its start.
pub(super) fn is_given(path: &Path, name: &str, number: &str) -> bool {
    [name, number].iter().any(|given| path == Path::new(given))
}

/// Whether this process's own stdout is meant.
pub(super) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-") || is_given(path, "/dev/stdout", "/dev/fd/1")
}

/// A file beside `path`, so that renaming it replaces `path` in one step, with the mode that a file
/// made by a redirection would have, or with that of the file that it replaces, and its owner.
pub(super) fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let before = fs::metadata(path).ok();
    let folder = folder_of(path);
    fs::metadata(folder)?;
    let made = tempfile::Builder::new()
        .prefix(".rexec-")
        // The umask is taken from what a new file has.
        .permissions(Permissions::from_mode(before.as_ref().map_or(0o666, |_| 0o600)))
        .tempfile_in(folder);
    // Without the temporary name, which nobody knows.
    let made = made.map_err(|e| io::Error::from(e.kind()))?;
    if let Some(before) = before {
        take_over(made.as_file(), &before)?;
    }
    Ok(made)
}

/// Gives a new file the owner, the group and the mode of one before it, as far as this account may. What only
/// the group of that one could do is not another group's to do.
fn take_over(file: &File, before: &Metadata) -> io::Result<()> {
    // Only root gives files away.
    let _ = fchown(file, Some(before.uid()), None);
    let _ = fchown(file, None, Some(before.gid()));
    let is_its_group = file.metadata()?.gid() == before.gid();
    let mode = before.mode() & if is_its_group { 0o777 } else { 0o707 };
    // A file system that knows no modes may refuse.
    let _ = file.set_permissions(Permissions::from_mode(mode));
    Ok(())
}

impl Output for ToFile {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stderr => Standard.write(stream, bytes),
            Stream::Stdout | Stream::Both => self.file.write_all(bytes).map_err(|e| self.named(&e)),
        }
    }

    /// What a stopped command has written is not whole, whichever way its pipe ended.
    fn finish(&mut self, verdict: &Verdict) -> io::Result<()> {
        is_kept(&self.file).map_err(|e| self.named(&e))?;
        let end = verdict.stdout.or(verdict.both);
        if verdict.stopped.is_none()
            && end.is_some_and(|end| !end.end.is_short())
            && let Some(name) = self.unfinished.as_ref().and_then(Unfinished::take)
        {
            name.persist(&self.path).map_err(|e| self.named(&e.error))?;
        }
        Ok(())
    }

    fn is_ready(&self, stream: Stream) -> bool {
        stream == Stream::Stderr && Standard.is_ready(stream)
    }
}

/// Both streams in memory, for `--json`.
#[derive(Clone, Default)]
pub(super) struct Kept(Arc<Mutex<[Vec<u8>; 2]>>);

impl Kept {
    /// What came: stdout, stderr.
    pub(super) fn take(&self) -> [Vec<u8>; 2] {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Output for Kept {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut kept = lock(&self.0);
        if kept.iter().map(Vec::len).sum::<usize>() + bytes.len() > JSON_LIMIT {
            let text =
                format!("--json holds at most {JSON_LIMIT} bytes of output; leave it out for more");
            return Err(io::Error::other(text));
        }
        kept[usize::from(stream == Stream::Stderr)].extend_from_slice(bytes);
        Ok(())
    }

    fn is_ready(&self, _: Stream) -> bool {
        true
    }
}

const _: () = assert!(INLINE_LIMIT <= 4096, "POSIX promises no more for a pipe that is writable");
