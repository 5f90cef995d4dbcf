//! The files of reports: `--verdict`, and those of a batch.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::output::{is_given, is_stdout, temporary, write_all};
use super::status::Status;
use crate::sys::fs::{folder_of, target_of};
use crate::sys::kept::is_kept;

/// What a path stands for.
enum Place {
    /// What this process was given as stdout.
    Stdout,
    /// What it was given as stderr.
    Stderr,
    /// A device or a pipe, which is written to.
    Special(PathBuf),
    /// A regular file, or none yet: replaced in one step, also behind a link.
    File(PathBuf),
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        if is_stdout(path) {
            return Ok(Self::Stdout);
        }
        if is_given(path, "/dev/stderr", "/dev/fd/2") {
            return Ok(Self::Stderr);
        }
        let path = target_of(path)?;
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => Ok(Self::Special(path)),
            _ => Ok(Self::File(path)),
        }
    }
}

/// What could not be written.
#[derive(Debug)]
pub(super) struct Unwritten {
    /// What to say of it.
    pub(super) line: String,
    /// What it comes to.
    pub(super) status: Status,
}

impl Unwritten {
    /// Of what standard output did not take.
    pub(super) fn on_stdout(line: String, error: &io::Error) -> Self {
        // A pager that was left has read enough.
        let is_left = error.kind() == io::ErrorKind::BrokenPipe;
        Self { line, status: if is_left { Status::Closed } else { Status::Output } }
    }

    /// Of the report that an option asked for.
    pub(super) fn report(option: &str, path: &Path, error: &io::Error) -> Self {
        let line = format!("cannot write {option} {}: {error}", path.display());
        if is_stdout(path) {
            return Self::on_stdout(line, error);
        }
        Self { line, status: Status::Output }
    }
}

/// Of two answers to that, the one that counts: a reader that has left hides no failure.
pub(super) fn worse(one: Status, other: Status) -> Status {
    if other == Status::Closed && one == Status::Output { one } else { other }
}

/// Whether both stand for one regular file, or for the name of one: what is written last would replace what is written
/// first.
pub(super) fn are_one(one: &Path, other: &Path) -> bool {
    let name = |path| match Place::of(path) {
        Ok(Place::File(path)) => {
            let folder = fs::canonicalize(folder_of(&path)).ok()?;
            Some(folder.join(path.file_name()?))
        }
        _ => None,
    };
    name(one).is_some_and(|one| name(other) == Some(one))
}

/// Whether [`write`] will be able to, as far as that is known before there is something to write. Leaves
/// nothing behind.
pub(super) fn check(path: &Path) -> io::Result<()> {
    match Place::of(path)? {
        Place::Stdout | Place::Stderr => Ok(()),
        // Not opened: a pipe's reader would see its end.
        Place::Special(path) => Ok(accessat(CWD, &path, Access::WRITE_OK, AtFlags::EACCESS)?),
        Place::File(path) => tempfile::tempfile_in(folder_of(&path)).map(drop),
    }
}

/// Writes the report.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_by(path, |to| to.write_all(bytes))
}

/// Writes what `fill` writes. A file has its name when it is whole and on the disk, and until then the old one
/// stands.
pub(super) fn write_by(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    match Place::of(path)? {
        Place::Stdout => {
            fill(&mut Given(rustix::stdio::stdout()))?;
            is_kept(rustix::stdio::stdout())
        }
        Place::Stderr => fill(&mut Given(rustix::stdio::stderr())),
        Place::Special(path) => fill(&mut Given(File::options().write(true).open(path)?)),
        Place::File(path) => {
            let mut file = temporary(&path)?;
            fill(file.as_file_mut())?;
            file.as_file().sync_all()?;
            file.persist(&path).map_err(|e| e.error)?;
            File::open(folder_of(&path))?.sync_all()
        }
    }
}

/// A descriptor that may be shared: see [`write_all`].
struct Given<F>(F);

impl<F: AsFd> Write for Given<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write_all(&self.0, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
