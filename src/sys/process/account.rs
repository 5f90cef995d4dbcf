//! Accounts.

use std::ffi::{CStr, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

/// Bytes for the strings of one passwd entry; an entry that needs more is treated as absent.
const PASSWD_BUFFER: usize = 16_384;

/// The account of this process, as getpwuid(3) knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; empty if the entry names none.
    pub shell: PathBuf,
}

/// The account of the effective uid; none if it has no entry, as in many containers.
#[must_use]
pub fn account() -> Option<Account> {
    account_of(rustix::process::geteuid().as_raw())
}

/// The account of this uid; none if it has no entry.
#[must_use]
pub fn account_of(uid: u32) -> Option<Account> {
    let mut entry = MaybeUninit::<libc::passwd>::zeroed();
    let mut strings = vec![0; PASSWD_BUFFER];
    let mut found = ptr::null_mut();
    // SAFETY: all three are writable; the buffer's true length is given.
    let failed = unsafe {
        libc::getpwuid_r(
            uid,
            entry.as_mut_ptr(),
            strings.as_mut_ptr(),
            strings.len(),
            &raw mut found,
        )
    };
    if failed != 0 || found.is_null() {
        return None;
    }
    // SAFETY: a found entry is filled, and its strings are NUL-terminated and lie in `strings`,
    // which outlives this block.
    let text = |p: *const libc::c_char| unsafe { CStr::from_ptr(p) }.to_bytes();
    // SAFETY: as above.
    let entry = unsafe { entry.assume_init() };
    Some(Account {
        name: OsStr::from_bytes(text(entry.pw_name)).to_owned(),
        home: Path::new(OsStr::from_bytes(text(entry.pw_dir))).to_owned(),
        shell: Path::new(OsStr::from_bytes(text(entry.pw_shell))).to_owned(),
    })
}
