//! What a batch is to do.

use std::collections::HashSet;
use std::time::Duration;

use super::{Host, Step};
use crate::client::{RECONNECT_TIMEOUT, UsageError};

/// Hosts that are worked on at once, unless the caller says otherwise.
pub const AT_ONCE: usize = 32;
/// How often reaching a host is tried again, unless the caller says otherwise.
pub const RETRIES: u32 = 2;

/// How a batch is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Hosts that are worked on at once; at least 1.
    pub at_once: usize,
    /// So many hosts make a round, and the next round begins when all of one have ended; none: one round.
    pub serial: Option<usize>,
    /// When more hosts than this have failed, no further host is begun.
    pub max_failures: Option<usize>,
    /// The first step that does not end well stops everything.
    pub fail_fast: bool,
    /// How long the batch may take before everything is stopped.
    pub deadline: Option<Duration>,
    /// How often reaching a host is tried again.
    pub retries: u32,
    /// How long a host that was lost in the middle of a run is looked for.
    pub reconnect_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            at_once: AT_ONCE,
            serial: None,
            max_failures: None,
            fail_fast: false,
            deadline: None,
            retries: RETRIES,
            reconnect_timeout: RECONNECT_TIMEOUT,
        }
    }
}

/// Hosts × steps.
#[derive(Clone)]
pub struct Batch {
    /// Where to run.
    pub hosts: Vec<Host>,
    /// What to run on each, in order.
    pub steps: Vec<Step>,
    /// How.
    pub options: Options,
}

/// Why a batch is not begun. Nothing was run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There is no host.
    #[error("there is no host to run on")]
    NoHosts,
    /// There is no step.
    #[error("there is nothing to run")]
    NoSteps,
    /// A host would get everything twice.
    #[error("{0} is listed twice")]
    Twice(String),
    /// A step cannot be asked for.
    #[error("step {0}: {1}")]
    Step(String, UsageError),
    /// No host could ever be begun.
    #[error("a batch needs room for at least one host")]
    NoRoom,
}

impl Batch {
    /// Whether it can be run.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn check(&self) -> Result<(), BatchError> {
        let mut names = HashSet::new();
        if self.hosts.is_empty() {
            return Err(BatchError::NoHosts);
        }
        if self.steps.is_empty() {
            return Err(BatchError::NoSteps);
        }
        if self.options.at_once == 0 || self.options.serial == Some(0) {
            return Err(BatchError::NoRoom);
        }
        if let Some(twice) = self.hosts.iter().find(|host| !names.insert(&host.name)) {
            return Err(BatchError::Twice(twice.name.clone()));
        }
        for step in &self.steps {
            step.command
                .request(false, false)
                .map_err(|e| BatchError::Step(step.name.clone(), e))?;
        }
        Ok(())
    }
}
