//! Start-up and recovery, which are the same: reading what the last server of this instance wrote,
//! and answering for it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::clock::{self, millis};
use super::host::Host;
use super::id::RunId;
use super::journal::{Accepted, Event, Journal, JournalError, Line, Origin};
use super::run::Run;
use super::table::{KEEP, Key, REMEMBER, Table};
use crate::exec::{Mark, Scanner, TERM_GRACE, stop_leftovers};
use crate::proto::code::Code;
use crate::sys::process;

/// What was found, and the journal and the table to go on with.
#[derive(Debug)]
pub struct Recovered {
    /// Open, with a line that says so.
    pub journal: Journal,
    /// Knows every id that a client may still ask for.
    pub table: Table<Run>,
    /// Where this server is.
    pub origin: Origin,
    /// Runs without an end.
    pub unfinished: Vec<Unfinished>,
}

/// A run that was under way when its server went.
#[derive(Debug)]
pub struct Unfinished {
    accepted: Accepted,
    /// Start of its main process; 0 if it may not have come so far.
    start_time: u64,
    /// It ran here, so that its processes can be told from others.
    here: bool,
}

/// What the journal says.
#[derive(Default)]
struct Past {
    origin: Option<Origin>,
    /// When the segment begins, milliseconds since boot.
    begins_ms: Option<u64>,
    open: HashMap<(String, String), Unfinished>,
    over: HashMap<(String, String), u64>,
}

/// Where this process is.
///
/// # Errors
/// `/proc` does not tell.
pub fn origin() -> std::io::Result<Origin> {
    Ok(Origin {
        machine: process::machine_id(),
        boot: process::boot_id()?,
        pid_namespace: process::pid_namespace()?,
        boottime_ms: millis(clock::boottime()),
        torn: 0,
    })
}

/// Reads the journal in `folder` and opens it for a server at `origin`.
///
/// # Errors
/// A [`JournalError`].
pub fn open(folder: &Path, mut origin: Origin) -> Result<Recovered, JournalError> {
    let mut past = Past::default();
    let (journal, torn) = Journal::open(folder, |line| past.take(line))?;
    if torn > 0 {
        warn!("the journal's last line was torn; its {torn} bytes were cut off");
    }
    origin.torn = torn;
    journal.add(&Event::Opened(origin.clone()))?;
    let same_boot = past.origin.as_ref().is_some_and(|o| is_same_place(o, &origin));
    let table = Table::new(past.memory_begins(same_boot && torn == 0));
    for (identity, run) in past.open.keys() {
        inherit(&table, identity, run, Code::ServerRestarted);
    }
    if same_boot {
        let recent = millis(clock::boottime().saturating_sub(KEEP));
        for ((identity, run), _) in past.over.iter().filter(|(_, at)| **at >= recent) {
            inherit(&table, identity, run, Code::Forgotten);
        }
    }
    let unfinished =
        past.open.into_values().map(|run| Unfinished { here: same_boot, ..run }).collect();
    Ok(Recovered { journal, table, origin, unfinished })
}

/// Pids mean the same processes only within one boot and one pid namespace of one machine.
fn is_same_place(a: &Origin, b: &Origin) -> bool {
    (&a.machine, &a.boot, a.pid_namespace) == (&b.machine, &b.boot, b.pid_namespace)
}

fn inherit(table: &Table<Run>, identity: &str, run: &str, code: Code) {
    if let Ok(id) = RunId::new(run) {
        table.inherit(Key { identity: identity.into(), id }, code);
    }
}

impl Past {
    fn take(&mut self, line: Line) {
        match line.event {
            Event::Opened(origin) => {
                // A request may be on its way for a while before its age is judged, so one that was sent
                // a little after an earlier segment's end may still be told in that segment.
                let margin = if line.seq == 1 { 0 } else { millis(REMEMBER) };
                self.begins_ms.get_or_insert(origin.boottime_ms + margin);
                self.origin = Some(origin);
            }
            Event::Accepted(accepted) => {
                let key = (accepted.identity.clone(), accepted.run.clone());
                self.open.insert(key, Unfinished { accepted, start_time: 0, here: false });
            }
            Event::Running { run, identity, start_time, .. } => {
                if let Some(open) = self.open.get_mut(&(identity, run)) {
                    open.start_time = start_time;
                }
            }
            Event::NotStarted { run, identity, .. } => {
                self.open.remove(&(identity, run));
            }
            Event::Ended { identity, verdict } => self.end((identity, verdict.run)),
            Event::Lost { run, identity, .. } | Event::Buried { run, identity } => {
                self.end((identity, run));
            }
        }
    }

    fn end(&mut self, key: (String, String)) {
        let at = self.open.remove(&key).map_or(u64::MAX, |open| open.accepted.boottime_ms);
        self.over.insert(key, at);
    }

    /// Ids first sent before this may have been used without leaving a trace here.
    fn memory_begins(&self, whole: bool) -> Duration {
        match self.begins_ms {
            Some(first) if whole => Duration::from_millis(first),
            _ => clock::boottime(),
        }
    }
}

impl Unfinished {
    /// Stops what is left of the run, and writes down that its end is lost.
    async fn settle(self, host: Arc<Host>, scanner: Scanner) {
        let Accepted { run, identity, mark, .. } = self.accepted;
        let left_running = match Mark::from_hex(mark.as_bytes()) {
            Some(mark) if self.here => stop_leftovers(&scanner, mark, self.start_time, TERM_GRACE)
                .await
                .map_or_else(|e| unseen(&run, &e), |stopped| stopped.left_running),
            _ => 0,
        };
        info!(run, left_running, "lost: the server was restarted while it ran");
        host.note_lost(run, identity, left_running);
    }
}

fn unseen(run: &str, error: &std::io::Error) -> u32 {
    warn!(run, "cannot look for its processes: {error}");
    0
}

/// Settles every unfinished run, all at once: one look at the processes serves them all.
pub async fn settle(unfinished: Vec<Unfinished>, host: &Arc<Host>, scanner: &Scanner) {
    let mut all = tokio::task::JoinSet::new();
    for run in unfinished {
        all.spawn(run.settle(Arc::clone(host), scanner.clone()));
    }
    while all.join_next().await.is_some() {}
}
