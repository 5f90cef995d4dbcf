//! Where the facts about a run are written down before they are acted on: a server has its journal, a
//! supervisor the record of its one run.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tracing::error;

use super::answer::Denied;
use super::credit::Budget;
use super::disk::writer::JOURNAL_RESERVE;
use super::disk::{Folder, Writer, is_full};
use super::excerpt::Excerpt;
use super::ledger::Ledger;
use super::request::Request;
use super::run::Run;
use super::store::Store;
use super::table::Key;
use crate::exec::Mark;
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::stored::StoredHeader;
use crate::proto::verdict::{Anchor, Received, Verdict};
use crate::sys::mutex::lock;
use crate::sys::pause;
use crate::sys::process::ProcessRef;

/// Who writes down what happens to runs.
#[derive(Debug)]
pub enum Books {
    /// A server, for all of its runs.
    Server(Box<Ledger>),
    /// A supervisor, for the run that it has claimed.
    Supervisor {
        /// The run's folder.
        folder: Folder,
        /// What the server has written down for the run's processes.
        mark: Mark,
        /// The record, until the run is there.
        writer: Mutex<Option<Writer>>,
    },
}

impl Books {
    /// Where the next run's record goes. A record on disk is claimed here: from then on the command may
    /// have been started.
    ///
    /// # Errors
    /// Why there is to be no other run: a supervisor has one, and its record must be writable.
    pub fn store(&self, budget: &Arc<Budget>) -> Result<Store, (Code, String)> {
        let Self::Supervisor { writer, .. } = self else { return Ok(Store::memory(budget)) };
        let writer = lock(writer).take();
        let (Some(mut writer), Some(claimed)) = (writer, claimed(true)) else {
            return Err((Code::ShuttingDown, "a supervisor has one run".into()));
        };
        writer.note(&claimed).map_err(|e| {
            error!("the record cannot be written: {e}");
            (Code::OutOfResources, format!("its record cannot be written: {}", why_not(&e)))
        })?;
        pause::point("claimed");
        Ok(Store::Disk(writer))
    }

    /// The claim, before anything is started: by this user, or none, this process's own. What the run's processes
    /// are to carry.
    ///
    /// # Errors
    /// [`Denied`]: nothing may be started.
    pub fn accept(&self, key: &Key, request: &Request, uid: Option<u32>) -> Result<Mark, Denied> {
        match self {
            Self::Server(ledger) => {
                let mark = Mark::new().map_err(|e| {
                    Denied::NotStarted(Code::OutOfResources, format!("no random numbers: {e}"))
                })?;
                ledger.accepted(key, request, (mark, uid)).map_err(|_| Denied::no_journal())?;
                Ok(mark)
            }
            Self::Supervisor { mark, .. } => Ok(*mark),
        }
    }

    /// The main process is there.
    pub fn running(&self, run: &Run, process: ProcessRef) {
        match self {
            Self::Server(ledger) => ledger.running(&run.key, process),
            Self::Supervisor { .. } => {
                let pid = process.pid.as_raw_nonzero().get().unsigned_abs();
                let header = StoredHeader::Running { pid, start_time: process.start_time };
                // A header of two numbers is within the limits.
                if let Ok(frame) = encoded(&header, b"") {
                    run.note(&frame);
                }
            }
        }
    }

    /// The run was not started.
    pub fn not_started(&self, run: &Run, code: Code) {
        match self {
            Self::Server(ledger) => ledger.not_started(&run.key, code.name()),
            Self::Supervisor { .. } => {
                if let Some(frame) = claimed(false) {
                    run.note(&frame);
                }
            }
        }
    }

    /// The run was started and nobody can say how it ended.
    pub fn lost(&self, key: &Key) {
        if let Self::Server(ledger) = self {
            ledger.lost(key, 0);
        }
    }

    /// The run has ended.
    pub fn ended(
        &self,
        run: &Run,
        verdict: &mut Verdict,
        output: Option<Excerpt>,
    ) -> Option<Anchor> {
        match self {
            Self::Server(ledger) => ledger.ended(&run.key, verdict, output),
            Self::Supervisor { .. } => {
                let (size, hash) = run.stdin_received();
                verdict.stdin = Some(Received { size, hash });
                None
            }
        }
    }

    /// How many runs have no last line.
    #[must_use]
    pub fn open_count(&self) -> usize {
        match self {
            Self::Server(ledger) => ledger.open_count(),
            Self::Supervisor { .. } => 1,
        }
    }

    /// The journal; a supervisor has none.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        match self {
            Self::Server(ledger) => Some(ledger),
            Self::Supervisor { .. } => None,
        }
    }

    /// The record of the supervisor's run, to be read.
    ///
    /// # Errors
    /// What the system says.
    pub fn record(&self) -> io::Result<Option<File>> {
        match self {
            Self::Server(_) => Ok(None),
            Self::Supervisor { folder, .. } => folder.record(),
        }
    }
}

fn why_not(error: &io::Error) -> String {
    if is_full(error) {
        format!("the disk is full ({} MiB of it stay free for the journal)", JOURNAL_RESERVE >> 20)
    } else {
        error.to_string()
    }
}

/// A header of a number and a flag is within the limits.
fn claimed(start: bool) -> Option<Bytes> {
    encoded(&StoredHeader::Claimed { pid: std::process::id(), start }, b"").ok()
}
