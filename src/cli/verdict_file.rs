//! The file of `--verdict`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use super::output::{folder_of, is_given, is_stdout, write_all};
use crate::sys::fs::atomic_write;

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
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        match fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(Errno::ISDIR.into()),
            Ok(found) if !found.is_file() => Ok(Self::Special(path)),
            _ => Ok(Self::File(path)),
        }
    }
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
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let text = |e: io::Error| e.to_string();
    match Place::of(path).map_err(text)? {
        Place::Stdout => write_all(rustix::stdio::stdout(), bytes).map_err(text),
        Place::Stderr => write_all(rustix::stdio::stderr(), bytes).map_err(text),
        Place::Special(path) => File::options()
            .write(true)
            .open(path)
            .and_then(|file| write_all(&file, bytes))
            .map_err(text),
        Place::File(path) => atomic_write(&path, 0o644, bytes).map_err(|e| e.to_string()),
    }
}
