//! Which file to execute, and where. std would fork to search a changed PATH, so it is done here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, accessat, stat};
use rustix::io::Errno;

use super::not_started::NotStarted;

/// Whether the directory can be entered, told apart from a missing program: posix_spawn(3) answers
/// both with the same error.
fn check_cwd(cwd: &Path) -> Result<(), NotStarted> {
    let may_enter = |dir: &Path| accessat(CWD, dir, Access::EXEC_OK, AtFlags::EACCESS);
    // Only what is a directory has one of this name.
    if may_enter(&cwd.join(".")).is_ok() {
        return Ok(());
    }
    let is_dir = match stat(cwd) {
        Ok(found) => FileType::from_raw_mode(found.st_mode) == FileType::Directory,
        Err(Errno::NOENT) => return Err(NotStarted::CwdMissing(cwd.into())),
        Err(Errno::NOTDIR) => false,
        Err(Errno::ACCESS) => return Err(NotStarted::CwdPermission(cwd.into())),
        Err(e) => return Err(NotStarted::from_system(e.into())),
    };
    if !is_dir {
        return Err(NotStarted::CwdNotADirectory(cwd.into()));
    }
    may_enter(cwd).map_err(|_| NotStarted::CwdPermission(cwd.into()))
}

/// As with sshd(8): the home, and `/` where there is none that can be entered.
pub(super) fn working_directory(
    cwd: Option<&Path>,
    home: Option<&Path>,
) -> Result<PathBuf, NotStarted> {
    let root = Path::new("/");
    let home = home.filter(|home| check_cwd(home).is_ok()).unwrap_or(root);
    let Some(cwd) = cwd else { return Ok(home.into()) };
    if cwd.as_os_str().as_bytes().contains(&0) {
        return Err(NotStarted::NulByte);
    }
    if cwd.as_os_str().is_empty() {
        // Joined to the home it would be the home: not what an unset variable of the caller's meant.
        return Err(NotStarted::CwdMissing(cwd.into()));
    }
    let cwd = home.join(cwd);
    check_cwd(&cwd)?;
    Ok(cwd)
}

/// What a candidate is.
enum Candidate {
    Executable,
    Forbidden,
    Absent,
}

/// The file that execvp(3) would take, as an absolute path: a name with `/` belongs to the run's
/// own directory, an empty element of PATH is that directory, and "may not be executed" is
/// remembered over "not found".
pub(super) fn find(name: &OsStr, path: &OsStr, cwd: &Path) -> Result<PathBuf, NotStarted> {
    let missing = || NotStarted::ProgramNotFound(name.to_owned());
    if name.is_empty() {
        return Err(missing());
    }
    if name.as_bytes().contains(&b'/') {
        let file = cwd.join(name);
        return match candidate(&file) {
            Candidate::Executable => Ok(file),
            Candidate::Forbidden => Err(NotStarted::ProgramNotExecutable(file)),
            Candidate::Absent => Err(missing()),
        };
    }
    let mut forbidden = None;
    for element in path.as_bytes().split(|&b| b == b':') {
        // Joining an empty element gives the directory itself.
        let file = cwd.join(OsStr::from_bytes(element)).join(name);
        match candidate(&file) {
            Candidate::Executable => return Ok(file),
            Candidate::Forbidden => forbidden = forbidden.or(Some(file)),
            Candidate::Absent => {}
        }
    }
    Err(forbidden.map_or_else(missing, NotStarted::ProgramNotExecutable))
}

fn candidate(file: &Path) -> Candidate {
    match stat(file) {
        Err(Errno::ACCESS) => Candidate::Forbidden,
        Err(_) => Candidate::Absent,
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile => {
            Candidate::Forbidden
        }
        Ok(_) if accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok() => {
            Candidate::Executable
        }
        Ok(_) => Candidate::Forbidden,
    }
}
