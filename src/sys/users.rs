//! Accounts as the system's databases know them (passwd(5), group(5), shadow(5)), and becoming one.

#![expect(
    unsafe_code,
    reason = "getpwnam_r, getpwuid_r, getpwent, getgrnam_r, getgrouplist, getspnam_r and keyctl have no safe form"
)]

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::mutex::lock;
use super::process::{Terminal, give_up_terminal};

/// Bytes for the strings of one entry at first, and at most: some directories have entries of many kilobytes.
const BUFFER: (usize, usize) = (16 << 10, 1 << 20);
/// Most groups of an account (`NGROUPS_MAX` of Linux).
const GROUPS_LIMIT: usize = 65_536;

/// The shell of an account whose entry names none (passwd(5)).
pub const DEFAULT_SHELL: &str = "/bin/sh";

/// An account for which programs are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Its uid.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// All of its groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; empty if the entry names none.
    pub shell: PathBuf,
}

/// What passwd(5) says of this process's account, or of any uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: OsString,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; empty if the entry names none.
    pub shell: PathBuf,
}

/// What shadow(5) says of an account besides its password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shadow {
    /// The password field begins with `!`, as `usermod -L` has it. A `*` only means that there is no password.
    pub is_locked: bool,
    /// The day, counted from 1970, from which on the account is expired.
    pub expires: Option<u64>,
}

/// Calls one of the `get*_r` functions with ever larger buffers. None: there is no entry.
fn look<E, T>(
    ask: impl Fn(*mut E, &mut [libc::c_char], *mut *mut E) -> libc::c_int,
    read: impl FnOnce(&E) -> T,
) -> io::Result<Option<T>> {
    let mut size = BUFFER.0;
    loop {
        let mut entry = MaybeUninit::<E>::zeroed();
        let mut strings: Vec<libc::c_char> = vec![0; size];
        let mut found = ptr::null_mut();
        match ask(entry.as_mut_ptr(), &mut strings, &raw mut found) {
            libc::ERANGE if size < BUFFER.1 => size *= 2,
            // What the manual lists for "not found" besides 0, getpwnam(3).
            0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
            // SAFETY: a found entry is `entry`, filled; its strings lie in `strings`, which lives here.
            0 => return Ok(Some(read(unsafe { &*found }))),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A string of an entry; empty where there is none.
///
/// # Safety
/// `text` is null or a string that ends with NUL and outlives the result.
unsafe fn bytes<'a>(text: *const libc::c_char) -> &'a [u8] {
    // SAFETY: as the caller says.
    if text.is_null() { b"" } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
}

fn path(bytes: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(bytes)).to_owned()
}

/// The account of the effective uid; none if it has no entry, as in many containers.
#[must_use]
pub fn account() -> Option<Account> {
    account_of(rustix::process::geteuid().as_raw())
}

/// The account of this uid; none if it has no entry, or if the database does not answer.
#[must_use]
pub fn account_of(uid: u32) -> Option<Account> {
    let ask = |entry, strings: &mut [libc::c_char], found| {
        // SAFETY: all are writable, and the buffer's true length is given.
        unsafe { libc::getpwuid_r(uid, entry, strings.as_mut_ptr(), strings.len(), found) }
    };
    let read = |entry: &libc::passwd| {
        // SAFETY: strings of a found entry, which live as long as it is read.
        let [name, home, shell] =
            unsafe { [bytes(entry.pw_name), bytes(entry.pw_dir), bytes(entry.pw_shell)] };
        Account { name: OsStr::from_bytes(name).to_owned(), home: path(home), shell: path(shell) }
    };
    look(ask, read).ok().flatten()
}

/// The account of this name, letter by letter: a directory that does not tell upper case from lower would give one
/// account many names. None if there is none, or if its home or shell are no UTF-8.
///
/// # Errors
/// The database does not answer.
pub fn user(name: &str) -> io::Result<Option<User>> {
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    let ask = |entry, strings: &mut [libc::c_char], found| {
        // SAFETY: all are writable, and the buffer's true length is given.
        unsafe {
            libc::getpwnam_r(c_name.as_ptr(), entry, strings.as_mut_ptr(), strings.len(), found)
        }
    };
    let entry = look(ask, |entry: &libc::passwd| {
        // SAFETY: strings of a found entry, which live as long as it is read.
        let (home, shell) = unsafe { (bytes(entry.pw_dir), bytes(entry.pw_shell)) };
        // SAFETY: the same.
        let is_its_name = unsafe { bytes(entry.pw_name) } == name.as_bytes();
        is_its_name.then(|| (entry.pw_uid, entry.pw_gid, path(home), path(shell)))
    })?;
    let Some((uid, gid, home, shell)) = entry.flatten() else { return Ok(None) };
    if home.to_str().is_none() || shell.to_str().is_none() {
        return Ok(None);
    }
    let groups = groups(&c_name, gid)?;
    Ok(Some(User { name: name.to_owned(), uid, gid, groups, home, shell }))
}

/// The names of all accounts that are listed: a directory may know others, whom it tells only if it is asked for them.
#[must_use]
pub fn names() -> Vec<String> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    // SAFETY: the place in the list is the process's, and nobody else is there meanwhile.
    unsafe { libc::setpwent() };
    let next = || {
        // SAFETY: the same; an entry and its strings live until the next call.
        let name = unsafe { bytes(libc::getpwent().as_ref()?.pw_name) };
        Some(String::from_utf8_lossy(name).into_owned())
    };
    let names = std::iter::from_fn(next).collect();
    // SAFETY: the same.
    unsafe { libc::endpwent() };
    names
}

/// The gid of the group of this name; none if there is none.
///
/// # Errors
/// The database does not answer.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let ask = |entry, strings: &mut [libc::c_char], found| {
        // SAFETY: all are writable, and the buffer's true length is given.
        unsafe {
            libc::getgrnam_r(name.as_ptr(), entry, strings.as_mut_ptr(), strings.len(), found)
        }
    };
    look(ask, |entry: &libc::group| entry.gr_gid)
}

fn groups(name: &CStr, gid: u32) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the list is writable for `count` entries.
        let done =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if done >= 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        if groups.len() >= GROUPS_LIMIT {
            return Err(io::Error::other("it is in too many groups"));
        }
        groups.resize((groups.len() * 2).max(count).min(GROUPS_LIMIT), 0);
    }
}

/// What shadow(5) says of the account of this name; none if it has no entry there. Only root can ask.
///
/// # Errors
/// The database does not answer.
pub fn shadow(name: &str) -> io::Result<Option<Shadow>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let ask = |entry, strings: &mut [libc::c_char], found| {
        // SAFETY: all are writable, and the buffer's true length is given.
        unsafe {
            libc::getspnam_r(name.as_ptr(), entry, strings.as_mut_ptr(), strings.len(), found)
        }
    };
    look(ask, |entry: &libc::spwd| Shadow {
        // SAFETY: a string of a found entry, which lives as long as it is read.
        is_locked: unsafe { bytes(entry.sp_pwdp) }.starts_with(b"!"),
        // Below 0: there is none.
        expires: u64::try_from(entry.sp_expire).ok(),
    })
}

/// What of becoming a user failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// setgroups(2).
    Groups,
    /// The controlling terminal, which could not be given up.
    Terminal,
    /// keyctl(2).
    Keyring,
    /// setresgid(2).
    Gid,
    /// setresuid(2).
    Uid,
    /// A look at what came of it: something is not the user's, or there is a way back.
    Verify,
}

impl User {
    /// Its login shell, or the usual one.
    #[must_use]
    pub fn login_shell(&self) -> &Path {
        let named = Some(&*self.shell).filter(|shell| !shell.as_os_str().is_empty());
        named.unwrap_or(Path::new(DEFAULT_SHELL))
    }

    /// Makes this process the user's for good: groups, gid, uid, in this order, and then a look whether that is
    /// what it has, and whether it can go back. Terminal and keys of the login that has started the server are left
    /// before. To be called while there is one thread: the kernel keeps these for each thread.
    ///
    /// # Errors
    /// Where it failed. The process is then neither the one nor the other, and has to end.
    pub fn become_it(&self) -> Result<(), (Stage, io::Error)> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        let groups: Vec<Gid> = self.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        let at = |stage| move |e: Errno| (stage, io::Error::from(e));
        rustix::thread::set_thread_groups(&groups).map_err(at(Stage::Groups))?;
        // Who has it can type into it (TIOCSTI), for root's shell to read.
        if give_up_terminal() == Terminal::Kept {
            return Err((Stage::Terminal, Errno::PERM.into()));
        }
        leave_session_keyring().map_err(|e| (Stage::Keyring, e))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Stage::Gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Stage::Uid))?;
        let is_for_good = || uid.is_root() || !can_go_back();
        if !self.is_this_process() || !is_for_good() {
            return Err((Stage::Verify, Errno::PERM.into()));
        }
        link_user_keyring();
        Ok(())
    }

    fn is_this_process(&self) -> bool {
        use rustix::process::{getegid, geteuid, getgid, getgroups, getuid};
        let sorted = |mut groups: Vec<u32>| {
            groups.sort_unstable();
            groups.dedup();
            groups
        };
        let groups = getgroups().map(|all| all.into_iter().map(Gid::as_raw).collect());
        [getuid().as_raw(), geteuid().as_raw()] == [self.uid; 2]
            && [getgid().as_raw(), getegid().as_raw()] == [self.gid; 2]
            && groups.is_ok_and(|groups| sorted(groups) == sorted(self.groups.clone()))
    }
}

/// Takes an empty session keyring in the place of that of the server (session-keyring(7)): whoever has one may use the
/// keys in it, root's and those that commands of other users have put there. Made by root, it counts for no limit of the
/// user's.
fn leave_session_keyring() -> io::Result<()> {
    let nameless = ptr::null::<libc::c_char>();
    // SAFETY: the call reads nothing where no name is given.
    if unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nameless) } >= 0
    {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match Errno::from_io_error(&error) {
        // A kernel or a sandbox without keys, for the user's commands as well.
        Some(Errno::NOSYS | Errno::PERM) => Ok(()),
        _ => Err(error),
    }
}

/// Has the user's own keys found in the new session, as pam_keyinit(8) does; without them it has none.
fn link_user_keyring() {
    let (own, session) = (libc::KEY_SPEC_USER_KEYRING, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: takes numbers, and touches no memory.
    unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_LINK, own, session) };
}

/// A saved uid or a capability that is left would let it.
fn can_go_back() -> bool {
    let root = (Uid::ROOT, Gid::ROOT);
    rustix::thread::set_thread_res_uid(root.0, root.0, root.0).is_ok()
        || rustix::thread::set_thread_groups(&[root.1]).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_the_one_of_this_uid() {
        let Some(account) = account() else { return };
        let passwd = std::process::Command::new("/usr/bin/id").arg("-un").output().unwrap();
        assert_eq!(account.name.as_bytes(), passwd.stdout.trim_ascii());
        assert!(account.home.is_absolute());
    }

    #[test]
    fn root_has_an_account() {
        let root = user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0) && root.home.is_absolute());
        assert_eq!(group("root").unwrap(), Some(0));
        let account = account_of(0).unwrap();
        assert_eq!(
            (account.name, account.home, account.shell),
            ("root".into(), root.home, root.shell)
        );
    }

    #[test]
    fn a_name_that_is_none_has_none() {
        for name in ["no-such-user-here", "", "a\0b"] {
            assert_eq!(user(name).unwrap(), None, "{name:?}");
            assert_eq!(shadow(name).unwrap_or_default(), None, "{name:?}");
            assert_eq!(group(name).unwrap(), None, "{name:?}");
        }
    }

    #[test]
    fn becoming_somebody_else_is_only_for_root() {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let nobody = User {
            name: "nobody".into(),
            uid: 65_534,
            gid: 65_534,
            groups: vec![65_534],
            home: "/".into(),
            shell: PathBuf::new(),
        };
        assert_eq!(nobody.become_it().unwrap_err().0, Stage::Groups);
    }
}
