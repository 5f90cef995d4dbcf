//! What the kernel holds the processes of a run to.

use serde::{Deserialize, Serialize};

/// Limits that a run's first process takes on before it executes the command, and hands on to all that it
/// starts. None: as the server has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of address space of each process (`RLIMIT_AS`, setrlimit(2)).
    pub memory: Option<u64>,
    /// Seconds of processor time of each process (`RLIMIT_CPU`): SIGXCPU, and SIGKILL a second later.
    pub cpu: Option<u64>,
    /// Processes and threads that the account may have while this run starts another (`RLIMIT_NPROC`): those
    /// of the account count, not those of the run, and root is not held to it.
    pub processes: Option<u64>,
    /// Added to the niceness (nice(2)), 0 to 19.
    pub nice: Option<u8>,
}

impl Limits {
    /// Whether there is nothing to take on.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What of holding a run to its limits failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The run's control group.
    Cgroup,
    /// `RLIMIT_AS`.
    Memory,
    /// `RLIMIT_CPU`.
    Cpu,
    /// `RLIMIT_NPROC`.
    Processes,
    /// nice(2).
    Nice,
}
