//! Lists that grow by a line.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::{FsError, Lock, Locked, TrustedFile, lock_exclusive};

/// So long one waits for its turn: whoever has it reads a file and adds a line.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Adds a line to a file that nobody else may be able to change, and makes the file (0600) and its folders (0700)
/// if there are none. Several who do it at once take turns; in its turn each looks whether the line `is_due`.
/// Whether it was.
///
/// # Errors
/// What `is_due` says, or that others could change the file, or that it cannot be written.
pub fn append_line<E: From<FsError>>(
    path: &Path,
    line: &str,
    is_due: impl FnOnce() -> Result<bool, E>,
) -> Result<bool, E> {
    let mut file = open(path)?;
    let written = |e| FsError::io("write", path, e);
    let _turn = in_turn(&file).map_err(written)?;
    let is_due = is_due()?;
    if is_due {
        append(&mut file, line).map_err(written)?;
    }
    Ok(is_due)
}

fn open(path: &Path) -> Result<File, FsError> {
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
    let mut options = OpenOptions::new();
    let opened = options.read(true).append(true).create(true).mode(0o600).open(path);
    opened.map_err(|e| FsError::io("write", path, e))
}

/// Waits for the others, for as long as [`PATIENCE`].
fn in_turn(file: &File) -> io::Result<Lock> {
    lock_within(file, PATIENCE).map_err(|e| match e {
        Locked::Io(e) => e,
        Locked::Held => io::Error::new(io::ErrorKind::TimedOut, "another keeps it locked"),
    })
}

/// Locks `file`, and waits so long, in this thread, for others that hold it.
fn lock_within(file: &File, patience: Duration) -> Result<Lock, Locked> {
    let late = Instant::now() + patience;
    loop {
        match lock_exclusive(file.try_clone().map_err(Locked::Io)?) {
            Err(Locked::Held) if Instant::now() < late => thread::sleep(LOOK_EVERY),
            done => return done,
        }
    }
}

fn append(file: &mut File, line: &str) -> io::Result<()> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    // An editor may have left the last line without its end.
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(path: &Path, line: &str) -> Result<bool, FsError> {
        append_line(path, line, || Ok(true))
    }

    #[test]
    fn of_many_who_would_add_one_line_the_first_does() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("list");
        let add = || {
            let is_due =
                || Ok::<_, FsError>(std::fs::metadata(&path).is_ok_and(|found| found.len() == 0));
            append_line(&path, "one", is_due).unwrap()
        };
        let added = thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(add)).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|one| *one).count()
        });
        assert_eq!((added, std::fs::read_to_string(&path).unwrap()), (1, "one\n".into()));
    }

    #[test]
    fn a_lock_is_waited_for_as_long_as_was_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let held = lock_exclusive(open()).unwrap();
        assert!(matches!(lock_within(&open(), Duration::ZERO), Err(Locked::Held)));
        let begun = Instant::now();
        assert!(matches!(lock_within(&open(), LOOK_EVERY), Err(Locked::Held)));
        assert!(begun.elapsed() >= LOOK_EVERY);
        thread::scope(|scope| {
            let waits = scope.spawn(|| lock_within(&open(), PATIENCE * 6));
            drop(held);
            assert!(waits.join().unwrap().is_ok());
        });
    }

    #[test]
    fn lines_are_added_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("a/b/list");
        add(&path, "one").unwrap();
        add(&path, "two").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        std::fs::write(&path, "no end").unwrap();
        add(&path, "three").unwrap();
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
        crate::sys::fs::testing::put(&path, 0o666, b"");
        assert!(matches!(add(&path, "one"), Err(FsError::Writable { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }
}
