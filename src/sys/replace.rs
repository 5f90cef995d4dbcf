//! Becoming another program in place: `execve(2)`, with descriptors handed over as by a service manager.

#![expect(unsafe_code, reason = "std's exec changes this process even when it fails")]

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};

use super::listen_fds::FIRST;
use super::{process, signals};

/// Replaces this process by `program`, with the same id, environment and open standard streams, and
/// with `handed` open from [`FIRST`] up and told of in `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`
/// (sd_listen_fds(3)). All other threads are gone then, wherever they were; no child is being started.
///
/// Returns only if it failed, and why; then nothing has changed.
///
/// `handed` has to be where it is to be: `InvalidInput` otherwise.
pub fn replace(
    program: &Path,
    args: &[OsString],
    handed: &[(BorrowedFd<'_>, String)],
) -> io::Error {
    let placed = (FIRST..).zip(handed).all(|(number, (fd, _))| fd.as_raw_fd() == number);
    if !placed {
        return io::ErrorKind::InvalidInput.into();
    }
    let _nobody_starts = process::nobody_starts();
    signals::give_back();
    let result = inheritable(handed, FdFlags::empty())
        .and_then(|()| execve(program, args, environment(handed)));
    // They were close-on-exec before, and setting that does not fail.
    let _ = inheritable(handed, FdFlags::CLOEXEC);
    match result {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

fn inheritable(handed: &[(BorrowedFd<'_>, String)], flags: FdFlags) -> io::Result<()> {
    handed.iter().try_for_each(|(fd, _)| Ok(fcntl_setfd(fd.as_fd(), flags)?))
}

/// `NAME=VALUE`, as this process has them, and what tells of the descriptors.
fn environment(handed: &[(BorrowedFd<'_>, String)]) -> Vec<OsString> {
    let setting = |name: &OsStr, value: &OsStr| {
        let mut setting = name.to_owned();
        setting.push("=");
        setting.push(value);
        setting
    };
    let names: Vec<&str> = handed.iter().map(|(_, name)| name.as_str()).collect();
    let told = [
        ("LISTEN_PID", std::process::id().to_string()),
        ("LISTEN_FDS", handed.len().to_string()),
        ("LISTEN_FDNAMES", names.join(":")),
    ];
    let others = std::env::vars_os().filter(|(name, _)| told.iter().all(|(told, _)| name != told));
    let told = told.iter().map(|(name, value)| setting(name.as_ref(), value.as_ref()));
    others.map(|(name, value)| setting(&name, &value)).chain(told).collect()
}

fn execve(
    program: &Path,
    args: &[OsString],
    environment: Vec<OsString>,
) -> io::Result<std::convert::Infallible> {
    let text = |text: OsString| CString::new(text.into_vec()).map_err(io::Error::from);
    let program = text(program.as_os_str().to_owned())?;
    let args = args.iter().cloned().map(text).collect::<io::Result<Vec<_>>>()?;
    let environment = environment.into_iter().map(text).collect::<io::Result<Vec<_>>>()?;
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&args), pointers(&environment));
    // SAFETY: `program` and what the lists point to are NUL-terminated strings that live in this
    // function's variables, and the lists end with a null pointer.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// The program of this process by what it is, not by its name: its file may have been replaced.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// Where the program of this process is, by a path that leads to a newer one once it is replaced: as
/// it was called, with folders and PATH resolved but not links. If that is another file (a caller
/// may name a program as it likes), the path of the executable itself.
///
/// To be called at start, before anything is replaced or the working folder changed.
///
/// # Errors
/// `/proc` does not tell.
pub fn own_program(called: &OsStr) -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let is_this = |path: &PathBuf| same_file(path, Path::new(THIS_PROGRAM));
    let found = if called.as_bytes().contains(&b'/') {
        std::path::absolute(called).ok()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter_map(|folder| std::path::absolute(folder.join(called)).ok())
            .find(is_this)
    };
    Ok(found.filter(is_this).unwrap_or(this))
}

fn same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    matches!((id(a), id(b)), (Ok(a), Ok(b)) if a == b)
}
