//! Throw-away accounts of this machine, which only root can make.

use std::fs::File;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where root keeps the lists of keys.
const LISTS: &str = "/etc/rexec/authorized_keys";

/// The programs that change accounts wait seconds for each other, and not for ever: those of all tests of this machine
/// have their turn here.
const TURN: &str = "rexec-test-accounts";

/// An account with a home, gone with the value.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) home: PathBuf,
}

impl User {
    /// With these further options of useradd(8). None, and a line that says so, if this process is not root.
    pub(crate) fn with(options: &[&str]) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("left out: only root can make another user");
            return None;
        }
        // Other tests may run on this machine, or may have been killed there.
        let random = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let name = format!("rexec-{}", &random[..18]);
        let words = [&["-m", "-p", "*", "-s", "/bin/sh"], options, &[&*name]].concat();
        change("useradd", &words);
        let uid = Command::new("id").args(["-u", &name]).output().unwrap().stdout;
        let uid = String::from_utf8(uid).unwrap().trim().parse().unwrap();
        let home = PathBuf::from(format!("/home/{name}"));
        Some(Self { name, uid, home })
    }

    pub(crate) fn new() -> Option<Self> {
        Self::with(&[])
    }

    /// Changes the account as usermod(8) does.
    pub(crate) fn change(&self, options: &[&str]) {
        change("usermod", &[options, &[&*self.name]].concat());
    }

    /// The list of keys that root keeps for it.
    pub(crate) fn roots_list(&self) -> PathBuf {
        Path::new(LISTS).join(&self.name)
    }

    pub(crate) fn list_as_root(&self, line: &str) {
        std::fs::create_dir_all(LISTS).unwrap();
        std::fs::write(self.roots_list(), line).unwrap();
    }

    /// Its own list.
    pub(crate) fn own_list(&self) -> PathBuf {
        self.home.join(".config/rexec/authorized_keys")
    }

    /// Writes a file below its home, which is its own, as are the folders on the way.
    pub(crate) fn write(&self, path: &Path, text: &str) {
        let below = path.strip_prefix(&self.home).unwrap();
        let mut folder = self.home.clone();
        for name in below.parent().unwrap() {
            folder.push(name);
            if !folder.exists() {
                std::fs::create_dir(&folder).unwrap();
                self.own(&folder, 0o700);
            }
        }
        std::fs::write(path, text).unwrap();
        self.own(path, 0o600);
    }

    pub(crate) fn own(&self, path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        chown(path, Some(self.uid), Some(self.uid)).unwrap();
    }
}

/// Until it is dropped nobody else changes accounts.
fn alone() -> File {
    let mut options = File::options();
    let lock = options.create(true).append(true).open(std::env::temp_dir().join(TURN)).unwrap();
    lock.lock().unwrap();
    lock
}

fn change(program: &str, words: &[&str]) {
    let _alone = alone();
    let done = Command::new(program).args(words).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.roots_list());
        let _alone = alone();
        // It says that there is no mail.
        let _ = Command::new("userdel").args(["-rf", &self.name]).output();
    }
}
