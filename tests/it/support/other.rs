//! Another user of this machine. Only root can be one, so tests that need it are left out elsewhere.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::program;

/// A uid that owns nothing: `nobody`'s.
pub(crate) const UID: u32 = 65534;

/// A folder that another user can reach, with copies of the programs for it.
pub(crate) struct Other {
    dir: TempDir,
}

impl Other {
    /// None, and a line that says so, if this process cannot become another user.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("left out: only root can act as another user");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for program in [env!("CARGO_BIN_EXE_rexec"), env!("CARGO_BIN_EXE_rexec-server")] {
            let name = Path::new(program).file_name().unwrap();
            // On another file system it takes a copy.
            if std::fs::hard_link(program, dir.path().join(name)).is_err() {
                program::copied(Path::new(program), &dir.path().join(name));
            }
        }
        Some(Self { dir })
    }

    /// A path in the folder, which only root can write.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder of the other user's own.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        chown(&path, Some(UID), Some(UID)).unwrap();
        path
    }

    /// Has one of the programs run as the other user.
    pub(crate) fn become_it(&self, command: &mut Command) {
        let name = Path::new(command.get_program()).file_name().unwrap();
        let mut other = Command::new(self.path(name.to_str().unwrap()));
        other.args(command.get_args());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other.uid(UID).gid(UID).current_dir("/");
        *command = other;
    }
}
