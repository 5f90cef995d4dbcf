//! Where the client's output goes: the terminal or pipe it was given, a file, or memory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use crate::client::{INLINE_LIMIT, Output};
use crate::proto::header::Stream;
use crate::proto::verdict::{StreamEndKind, Verdict};

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

fn is_writable(fd: impl AsFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    matches!(poll(&mut fds, Some(&now)), Ok(1)) && fds[0].revents() == PollFlags::OUT
}

/// A file for stdout; stderr goes where it always goes.
pub(super) struct ToFile {
    file: File,
    /// The name that it takes when it is whole; none for what is no regular file, and stays what it
    /// is: a device, a pipe.
    rename: Option<(Unfinished, PathBuf)>,
}

/// The temporary name of a file that is not whole. A thread of the client's holds the
/// file, and the end of the process does not wait for that thread: so the name is shared.
#[derive(Clone)]
pub(super) struct Unfinished(Arc<Mutex<Option<TempPath>>>);

impl Unfinished {
    fn take(&self) -> Option<TempPath> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Removes the file, if it was not renamed.
    pub(super) fn remove(&self) {
        drop(self.take());
    }
}

impl ToFile {
    /// Opens what `path` stands for. A link is followed: what it points to is replaced.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => {
                Ok(Self { file: File::options().write(true).open(&path)?, rename: None })
            }
            _ => {
                let (file, name) = temporary(&path)?.into_parts();
                let unfinished = Unfinished(Arc::new(Mutex::new(Some(name))));
                Ok(Self { file, rename: Some((unfinished, path)) })
            }
        }
    }

    /// For whoever has to remove the file if it does not become whole.
    pub(super) fn unfinished(&self) -> Option<Unfinished> {
        self.rename.as_ref().map(|(unfinished, _)| unfinished.clone())
    }
}

/// A file beside `path`, so that renaming it replaces `path` in one step, with the mode that a file
/// made by a redirection would have.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = fs::metadata(path).map_or(0o666, |found| found.permissions().mode() & 0o777);
    tempfile::Builder::new()
        .prefix(".rexec-")
        .permissions(fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
}

impl Output for ToFile {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stderr => Standard.write(stream, bytes),
            Stream::Stdout | Stream::Both => self.file.write_all(bytes),
        }
    }

    /// What a stopped command has written is not whole, whichever way its pipe ended.
    fn finish(&mut self, verdict: &Verdict) -> io::Result<()> {
        let end = verdict.stdout.or(verdict.both);
        if verdict.stopped.is_none()
            && end.is_some_and(|end| end.end != StreamEndKind::Cut)
            && let Some((unfinished, path)) = &self.rename
            && let Some(name) = unfinished.take()
        {
            name.persist(path).map_err(|e| e.error)?;
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
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Output for Kept {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.iter().map(Vec::len).sum::<usize>() + bytes.len() > JSON_LIMIT {
            let text =
                format!("--json holds at most {JSON_LIMIT} bytes of output; use -o FILE for more");
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
