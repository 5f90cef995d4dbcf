//! Mounts that nobody sees but the programs that are started among them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::server::{line_of, under};

/// A mount namespace (mount_namespaces(7)), and the process that holds it: it ends with its stdin too.
pub(crate) struct Mounts(Child);

impl Mounts {
    /// What `script` mounts; `$1` in it is `place`. None if it fails: it is not permitted here.
    pub(crate) fn by(script: &str, place: &Path) -> Option<Self> {
        Self::made(Command::new("unshare").arg("-m"), script, place)
    }

    /// The same, among those that are here.
    pub(crate) fn more(&self, script: &str, place: &Path) -> Option<Self> {
        let holder = self.holder().to_string();
        Self::made(Command::new("nsenter").args(["-m", "-t", &holder]), script, place)
    }

    fn made(command: &mut Command, script: &str, place: &Path) -> Option<Self> {
        command.args(["sh", "-c", &format!("{script} && echo ready && exec cat"), "sh"]);
        command.arg(place).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut mounts = Self(command.spawn().unwrap());
        (line_of(&mut mounts.0) == "ready").then_some(mounts)
    }

    /// Has a program started among them.
    pub(crate) fn show(&self, command: &mut Command) {
        under(&["nsenter", "-m", "-t", &self.holder().to_string()])(command);
    }

    /// The process that holds them.
    pub(crate) fn holder(&self) -> u32 {
        self.0.id()
    }

    /// Where this process finds what is there at an absolute path.
    pub(crate) fn seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder()));
        root.join(path.strip_prefix("/").unwrap())
    }

    /// Nothing but the programs among them holds them any more.
    pub(crate) fn let_go(&mut self) {
        // It may be over already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.let_go();
    }
}
