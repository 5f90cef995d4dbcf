//! Lists that grow by a line.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::{FsError, TrustedFile};

/// Adds a line to a file that nobody else may be able to change, and makes the file (0600) and its folders (0700)
/// if there are none. Of several who do it at once each line is whole.
///
/// # Errors
/// Others could change the file, or it cannot be written.
pub fn append_line(path: &Path, line: &str) -> Result<(), FsError> {
    match TrustedFile::open(path) {
        Ok(_) => {}
        Err(e) if e.is_missing() => {
            if let Some(folder) = path.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
                made.map_err(|e| FsError::io("make", folder, e))?;
            }
        }
        Err(e) => return Err(e),
    }
    let append = || {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o600).open(path)?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        // An editor may have left the last line without its end.
        let start = if last == [b'\n'] { "" } else { "\n" };
        file.write_all(format!("{start}{line}\n").as_bytes())?;
        file.sync_all()
    };
    append().map_err(|e| FsError::io("write", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_added_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("a/b/list");
        append_line(&path, "one").unwrap();
        append_line(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::write(&path, "no end").unwrap();
        append_line(&path, "three").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "no end\nthree\n");
        let mode = |path: &Path| {
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
        };
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    }

    #[test]
    fn a_file_that_others_can_change_gets_no_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("list");
        crate::sys::fs::atomic_write(&path, 0o666, b"").unwrap();
        assert!(matches!(append_line(&path, "one"), Err(FsError::Writable { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
