//! What each host is to do, one after the other.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::client::Command;

/// One command, and what becomes of the steps behind it.
#[derive(Debug, Clone)]
pub struct Step {
    /// What people call it.
    pub name: String,
    /// What is run. Its id is replaced by one for each host and attempt.
    pub command: Command,
    /// Whether the next step is run when this one does not end well.
    pub on_error: OnError,
    /// How often it is tried again; none: as [`super::Options::retries`] says.
    pub retries: Option<u32>,
    /// What is tried again.
    pub retry_on: RetryOn,
}

/// What becomes of a host's next steps when one does not end well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// They are not started.
    #[default]
    Stop,
    /// They are run all the same, unless the host is out of reach.
    Continue,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// Reaching the host: nothing was started, so nothing runs twice.
    #[default]
    Connection,
    /// Also a command that failed, was killed or met its deadline: it runs again, from its start.
    Failure,
}

/// What became of a step of a host in an earlier batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Before {
    /// Nothing that counts: it is run.
    #[default]
    Nothing,
    /// It ended well: it is not run again.
    Ok,
    /// It was asked for, and nobody knows how it ended: it is asked for again under the same id.
    Asked {
        /// The run's id.
        run: String,
        /// When it was first sent. What no clock can have shown yet counts as long ago.
        first_sent: SystemTime,
    },
}

impl Step {
    /// A step that ends its host's batch when it fails.
    #[must_use]
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        Self {
            name: name.into(),
            command,
            on_error: OnError::Stop,
            retries: None,
            retry_on: RetryOn::Connection,
        }
    }
}
