//! What to run.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::limits::Limits;
use crate::sys::users::User;

/// Longest text that can be passed as one word, without its NUL: `MAX_ARG_STRLEN` of execve(2), 32
/// pages. Kernels with larger pages take more; the limit here is the same on all machines.
pub const TEXT_LIMIT: usize = 131_071;

/// What to execute.
#[derive(Clone, PartialEq, Eq)]
pub enum Program {
    /// `shell -c text`.
    Shell {
        /// Absolute path of the shell.
        shell: PathBuf,
        /// What the shell reads; at most [`TEXT_LIMIT`] bytes.
        text: OsString,
    },
    /// The shell reads its commands from stdin, which is a pipe whatever [`Spec::stdin`] says.
    Script {
        /// Absolute path of the shell.
        shell: PathBuf,
    },
    /// A program and its arguments, exactly, with no shell between.
    Argv {
        /// The first is looked up in the run's own PATH.
        words: Vec<OsString>,
    },
}

/// One run. Debug shows neither the command nor values of variables: both may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    /// What to execute.
    pub program: Program,
    /// What the client sent; goes over the base, the last of a name counts.
    pub env: Vec<(OsString, OsString)>,
    /// Where to execute it, from the account's home if it is relative; there if none.
    pub cwd: Option<PathBuf>,
    /// One pipe for stdout and stderr, so that their order is exact.
    pub merge: bool,
    /// stdin is a pipe; `/dev/null` otherwise.
    pub stdin: bool,
    /// The run's output ends when nobody holds its pipes, as ssh has it.
    pub wait_eof: bool,
    /// The program is looked up in the server's PATH, whatever the run's own is.
    pub own_path: bool,
    /// What the kernel is to hold it to.
    pub limits: Limits,
    /// Where it has a control group of its own; none: it is in this process's.
    pub cgroup: Option<Arc<Path>>,
    /// As whom; none: as this process. Only root can be another, and a login shell of the user's is the
    /// caller's to choose.
    pub user: Option<Arc<User>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell { shell, text } => {
                write!(f, "Shell({}, {} bytes)", shell.display(), text.len())
            }
            Self::Script { shell } => write!(f, "Script({})", shell.display()),
            Self::Argv { words } => write!(f, "Argv({} words)", words.len()),
        }
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("program", &self.program)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("merge", &self.merge)
            .field("stdin", &self.stdin)
            .field("wait_eof", &self.wait_eof)
            .field("own_path", &self.own_path)
            .field("limits", &self.limits)
            .field("cgroup", &self.cgroup)
            .field("user", &self.user.as_ref().map(|user| &user.name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_where_it_is_run_and_no_secret() {
        let spec = Spec {
            program: Program::Shell { shell: "/bin/sh".into(), text: "hunter2".into() },
            env: vec![("TOKEN".into(), "hunter2".into())],
            cwd: None,
            merge: false,
            stdin: false,
            wait_eof: false,
            own_path: false,
            limits: Limits::default(),
            cgroup: Some(Path::new("/sys/fs/cgroup/rexec").into()),
            user: None,
        };
        let shown = format!("{spec:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("TOKEN") && shown.contains("/sys/fs/cgroup/rexec"), "{shown}");
    }
}
