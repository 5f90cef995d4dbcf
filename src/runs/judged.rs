//! What may be run of a request, and within what: the operator's word on it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::request::Request;
use crate::exec::Limits;
use crate::exec::spec::{Program, Spec};
use crate::sys::users::User;

/// A request that may be run, as it was judged. Its terms stay the client's own: the id stands for what
/// was asked, not for what was made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// What is run.
    pub how: How,
    /// Within what.
    pub ceilings: Ceilings,
    /// As whom; none: as this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<Arc<User>>,
    /// In which folder it has a control group of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Arc<Path>>,
}

/// What is run of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// What was asked for.
    #[default]
    AsAsked,
    /// Its words, by no shell: text is split as a shell would split it that expands nothing. The program is
    /// looked up in the server's own PATH, whatever the client sends.
    Argv,
    /// What the line of the key says, whatever was asked for.
    Forced,
}

/// What a run may take. None: no more than the machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceilings {
    /// How long it may take before it is stopped.
    pub deadline: Option<Duration>,
    /// Most bytes that it may write, both streams together, before it is stopped.
    pub output: Option<u64>,
    /// So many bytes of its output are written into the journal.
    #[serde(default)]
    pub excerpt: Option<u64>,
    /// Where it starts if the client names no folder.
    pub folder: Option<PathBuf>,
    /// What the kernel holds its processes to.
    pub limits: Limits,
}

impl Ceilings {
    /// The lower of each; of the folders the first, and of the excerpts the longest.
    #[must_use]
    pub fn lower(&self, other: &Self) -> Self {
        Self {
            deadline: lower(self.deadline, other.deadline),
            output: lower(self.output, other.output),
            excerpt: self.excerpt.max(other.excerpt),
            folder: self.folder.clone().or_else(|| other.folder.clone()),
            limits: Limits {
                memory: lower(self.limits.memory, other.limits.memory),
                cpu: lower(self.limits.cpu, other.limits.cpu),
                processes: lower(self.limits.processes, other.limits.processes),
                // The higher number is the lower priority.
                nice: self.limits.nice.max(other.limits.nice),
            },
        }
    }
}

fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The words of a text that no shell will read; none if a quote stays open, or if it is no UTF-8.
#[must_use]
pub fn split(text: &[u8]) -> Option<Vec<String>> {
    shlex::split(std::str::from_utf8(text).ok()?)
}

impl Judged {
    /// The uid of the user it is run as; none: this process's own.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        self.user.as_ref().map(|user| user.uid)
    }

    /// What to execute; a shell's text goes to the user's own shell, or where there is none to `shell`.
    #[must_use]
    pub fn spec(&self, request: &Request, shell: PathBuf) -> Spec {
        let own = self.user.as_ref().map(|user| user.login_shell().to_owned());
        let mut spec = request.spec(own.unwrap_or(shell));
        spec.user.clone_from(&self.user);
        if self.how == How::Argv {
            spec.own_path = true;
            if let Program::Shell { text, .. } = &spec.program {
                let words = split(text.as_bytes()).unwrap_or_default();
                let words = words.into_iter().map(OsString::from).collect();
                spec.program = Program::Argv { words };
            }
        }
        spec.cwd = spec.cwd.or_else(|| self.ceilings.folder.clone());
        spec.limits = self.ceilings.limits;
        spec.cgroup.clone_from(&self.cgroup);
        spec
    }
}
