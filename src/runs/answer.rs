//! What a host answers to a request: what serves it, or why nothing does.

use super::durable::There;
use super::owner::Owner;
use super::request::{Request, Terms};
use crate::proto::code::Code;
use crate::proto::id::RunId;

/// A request that is served.
#[derive(Debug)]
pub enum Served {
    /// By a run of this process.
    Here {
        /// The connection's hold on it.
        owner: Owner,
        /// Its main process.
        pid: u32,
        /// It was there before.
        attached: bool,
    },
    /// By a supervisor, or by the record that it left.
    There(There),
    /// Not now: the id is free. To be asked again when the host admits new runs; if it is closed to them for good,
    /// another one.
    Later,
}

/// The answer to a request that is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Nothing was started and the id is free.
    Refused(Code, String),
    /// Nothing was started and the id is free: the command itself cannot be started.
    NotStarted(Code, String),
    /// It may have been started; nothing more is known.
    Lost(Code),
}

impl Denied {
    pub(super) fn no_journal() -> Self {
        Self::Refused(Code::JournalFailed, "the server cannot write its journal".into())
    }
}

/// The answer to `close`.
#[derive(Debug)]
pub enum Closed {
    /// It never started and never will.
    NeverStarted,
    /// It is this run, which is now being stopped.
    Run(Owner),
    /// It is this durable run, which is now being stopped.
    There(There),
    /// Nothing more is known.
    Lost(Code),
    /// The id cannot be buried: see the code.
    Refused(Code, String),
}

/// Whether an id that is taken stands for this request.
pub(super) fn check_same(id: &RunId, terms: &Terms, request: &Request) -> Result<(), Denied> {
    let differing = terms.differing(&request.terms);
    if differing.is_empty() {
        return Ok(());
    }
    let text =
        format!("run {id} stands for another request; they differ in: {}", differing.join(", "));
    Err(Denied::Refused(Code::Conflict, text))
}
