//! `--log-dir`: each stream of each step of each host in a file of its own.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::proto::header::Stream;
use crate::sys::kept::is_kept;

/// A folder of logs. Only this account can read what this program writes there, also where others can write to the
/// folder.
pub(super) struct Logs {
    dir: PathBuf,
    /// Whether secrets stay in it, and every byte is as it came.
    pub(super) raw: bool,
}

impl Logs {
    /// Makes the folder, if it is not there.
    pub(super) fn create(dir: &Path, raw: bool) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: fs::canonicalize(dir)?, raw })
    }

    /// A new file for a stream: `DIR/HOST/STEP.stdout`.
    pub(super) fn open(&self, host: &str, step: usize, stream: Stream) -> io::Result<Log> {
        let dir = self.dir.join(file_name(host));
        let name = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
            Stream::Both => "both",
        };
        let path = dir.join(format!("{}.{name}", step + 1));
        let open = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            new_file(&path)
        };
        let file = open().map_err(|e| named(&path, &e))?;
        Ok(Log { path, file })
    }
}

/// The log of one stream.
pub(super) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).map_err(|e| named(&self.path, &e))
    }

    /// Whether it has all that was written to it.
    pub(super) fn is_kept(&self) -> io::Result<()> {
        is_kept(&self.file).map_err(|e| named(&self.path, &e))
    }
}

/// A file in the place of what was there: that may be another's, or lead elsewhere, or be a pipe that nobody reads.
fn new_file(path: &Path) -> io::Result<File> {
    let open = || File::options().write(true).create_new(true).mode(0o600).open(path);
    match open() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            open()
        }
        opened => opened,
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// A host's name as one of a file: what could be a path, or hide the file, is written as `%2F`.
fn file_name(host: &str) -> String {
    let mut name = String::with_capacity(host.len());
    for (at, byte) in host.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b':' | b'[' | b']')
            || (byte == b'.' && at > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_host_is_named_out_of_the_folder() {
        assert_eq!(file_name("web01:8080"), "web01:8080");
        assert_eq!(file_name(".."), "%2E.");
        assert_eq!(file_name("unix:/a/../b%"), "unix:%2Fa%2F..%2Fb%25");
    }
}
