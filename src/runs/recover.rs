//! Start-up and recovery, which are the same: reading what the last server of this instance wrote,
//! and answering for it.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::clock::{self, millis};
use super::disk::{Folder, Meta, Outcome};
use super::durable::{Durable, State};
use super::entry::{Entry, Gone};
use super::host::Host;
use super::journal::copy::Copier;
use super::journal::rules::{Digester, Rules};
use super::journal::{Accepted, Event, Journal, JournalError, Line, Origin};
use super::ledger::Ledger;
use super::table::{KEEP, Key, REMEMBER, Table};
use crate::exec::{Leftovers, Mark, Scanner, TERM_GRACE, stop_leftovers};
use crate::proto::code::Code;
use crate::proto::id::RunId;
use crate::proto::verdict::Anchor;
use crate::sys::process;

/// What was found, and the journal and the table to go on with.
#[derive(Debug)]
pub struct Recovered {
    /// Open, with a line that says so.
    pub ledger: Ledger,
    /// Knows every id that a client may still ask for.
    pub table: Table<Entry>,
    /// Runs without an end that were driven by the server before.
    pub unfinished: Vec<Unfinished>,
    /// Durable runs of which the journal knows no end.
    pub durable: Vec<Arc<Durable>>,
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

/// The last line of a run.
struct LastLine {
    /// What is said of it.
    code: Code,
    /// When it was accepted, milliseconds since boot; none if an earlier segment says that.
    accepted_ms: Option<u64>,
    /// That line.
    line: Anchor,
}

/// What the journal says.
#[derive(Default)]
struct Past {
    origin: Option<Origin>,
    /// When the segment begins, milliseconds since boot.
    begins_ms: Option<u64>,
    open: HashMap<(String, String), Unfinished>,
    ended: HashMap<(String, String), LastLine>,
}

/// Where this process is; in which folder is added when that is open.
///
/// # Errors
/// `/proc` does not tell.
pub fn origin() -> std::io::Result<Origin> {
    Ok(Origin {
        machine: process::machine_id(),
        boot: process::boot_id()?,
        pid_namespace: process::pid_namespace()?,
        folder: None,
        boottime_ms: millis(clock::boottime()),
        torn: 0,
    })
}

/// Reads the journal in `folder` and the durable runs in `runs`, and opens both for a server at `origin`.
///
/// # Errors
/// A [`JournalError`].
pub fn open(
    folder: &Path,
    runs: &Path,
    mut origin: Origin,
    (rules, digester): (&Rules, Digester),
) -> Result<Recovered, JournalError> {
    let mut past = Past::default();
    let (mut journal, torn) = Journal::open(folder, |line, place| past.take(line, place))?;
    let io = |error| JournalError::Io { path: runs.to_owned(), error };
    let found = found_in(runs).map_err(io)?;
    past.look_back(&found, &journal);
    if let Some(to) = &rules.copy {
        let copier = Copier::new(to.clone());
        let error = |error| JournalError::Io { path: to.socket().to_owned(), error };
        journal = journal.copied_by(copier.map_err(error)?);
    }
    if torn > 0 {
        warn!("the journal's last line was torn; its {torn} bytes were cut off");
    }
    origin.torn = torn;
    origin.folder = Some(place_of(folder)?);
    journal.add(&Event::Opened(origin.clone()))?;
    let same_boot = past.origin.as_ref().is_some_and(|o| o.is_same_place(&origin));
    let table = Table::new(past.memory_begins(same_boot && torn == 0));
    let ledger = Ledger::new(journal, origin, digester, rules);
    let durable = keep_durable(found, &table, &ledger, &mut past);
    past.give_up_unborn(runs, &ledger);
    for ((identity, run), open) in &past.open {
        let Some(key) = key_of(identity, run) else { continue };
        // Until its end is written, the next segment must tell of it too.
        ledger.resumed(&key, open.accepted.clone());
        table.inherit(key, Code::ServerRestarted);
    }
    if same_boot {
        let recent = millis(clock::boottime().saturating_sub(KEEP));
        for ((identity, run), last) in past.ended.iter().filter(|(_, last)| last.is_since(recent)) {
            let Some(key) = key_of(identity, run) else { continue };
            table.inherit(key, last.code);
        }
    }
    let unfinished =
        past.open.into_values().map(|run| Unfinished { here: same_boot, ..run }).collect();
    Ok(Recovered { ledger, table, unfinished, durable })
}

/// What tells a folder from its copies.
fn place_of(folder: &Path) -> Result<String, JournalError> {
    let found = std::fs::metadata(folder)
        .map_err(|error| JournalError::Io { path: folder.to_owned(), error })?;
    Ok(format!("{:x}:{:x}", found.dev(), found.ino()))
}

/// A durable run as its folder tells of it.
struct Found {
    folder: Folder,
    meta: Meta,
    /// None: the server before did not come to note it, or it goes on.
    outcome: Option<Outcome>,
}

/// Every durable run in `runs`.
fn found_in(runs: &Path) -> std::io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(runs)? {
        found.extend(found_at(Folder::found(entry?.path())));
    }
    Ok(found)
}

/// What a folder holds; none if it is no run, or was not finished when its server was killed.
fn found_at(folder: Folder) -> Option<Found> {
    let meta = match folder.meta() {
        Ok(Some(meta)) => meta,
        Ok(None) => {
            folder.remove();
            return None;
        }
        Err(e) => {
            warn!("{} is no durable run: {e}", folder.path().display());
            return None;
        }
    };
    // What it says stands in the record too.
    let outcome = folder.outcome().unwrap_or_else(|e| {
        warn!("how {} ended is looked for in its record: {e}", folder.path().display());
        None
    });
    Some(Found { folder, meta, outcome })
}

impl Found {
    fn name(&self) -> (String, String) {
        (self.meta.identity.clone(), self.meta.run.clone())
    }

    fn into_run(self, journaled: Option<Anchor>) -> Option<Arc<Durable>> {
        let key = key_of(&self.meta.identity, &self.meta.run)?;
        let state = match self.outcome {
            Some(outcome) => State::Over(Arc::new(outcome)),
            None => State::Found,
        };
        Some(Arc::new(Durable::found(key, self.folder, self.meta, state, journaled)))
    }
}

/// Puts every durable run into the table; those that may go on are returned.
fn keep_durable(
    found: Vec<Found>,
    table: &Table<Entry>,
    ledger: &Ledger,
    past: &mut Past,
) -> Vec<Arc<Durable>> {
    let mut going_on = Vec::new();
    for found in found {
        let name = found.name();
        let journaled = past.ended.remove(&name).map(|last| last.line);
        let Some(run) = found.into_run(journaled) else { continue };
        if let Some(open) = past.open.remove(&name) {
            ledger.resumed(&run.key, open.accepted);
        }
        if matches!(run.state(), State::Found) {
            going_on.push(Arc::clone(&run));
        }
        table.keep(run.key.clone(), Arc::new(kept(run, &ledger.origin().boot)));
    }
    going_on
}

/// Of a run whose record is no longer there, only the id is kept in mind.
fn kept(run: Arc<Durable>, boot: &str) -> Entry {
    match run.state() {
        State::Over(outcome) if matches!(run.folder.disk(), Ok(None)) => {
            Entry::Gone(Gone { key: run.key.clone(), ended: outcome.noted().seen_from(boot) })
        }
        _ => Entry::There(run),
    }
}

fn key_of(identity: &str, run: &str) -> Option<Key> {
    Some(Key { identity: identity.into(), id: RunId::new(run).ok()? })
}

impl LastLine {
    fn is_since(&self, ms: u64) -> bool {
        self.accepted_ms.is_none_or(|accepted| accepted >= ms)
    }
}

impl Past {
    fn take(&mut self, line: Line, place: Anchor) {
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
                // Of a run before this one with the same id.
                self.ended.remove(&key);
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
            Event::Ended { identity, verdict, .. } => {
                self.end((identity, verdict.run), place, Code::Forgotten);
            }
            Event::Login { .. } | Event::Refused(_) => {}
            Event::Lost { run, identity, .. } => {
                self.end((identity, run), place, Code::Forgotten);
            }
            // It was never used: who asks again is not to be in doubt.
            Event::Buried { run, identity } => self.end((identity, run), place, Code::Buried),
        }
    }

    /// Of a run that seems to go on, and of which the newest segment knows nothing, an earlier one tells the end.
    fn look_back(&mut self, found: &[Found], journal: &Journal) {
        let unknown = |run: &&Found| {
            let name = run.name();
            run.outcome.is_none()
                && !self.open.contains_key(&name)
                && !self.ended.contains_key(&name)
        };
        let sought = found.iter().filter(unknown);
        let sought = sought.map(|run| (run.name(), run.meta.mark.clone())).collect();
        let ended =
            |(name, line)| (name, LastLine { code: Code::Forgotten, accepted_ms: None, line });
        self.ended.extend(journal.ends_before(sought).into_iter().map(ended));
    }

    /// A durable run gets its folder after its claim and before its supervisor: one without a folder was
    /// not started. But a machine that went down may have lost the folder, or what it says; then the run
    /// stays among those whose end is lost.
    fn give_up_unborn(&mut self, runs: &Path, ledger: &Ledger) {
        if !self.origin.as_ref().is_some_and(|o| o.is_same_boot(ledger.origin())) {
            return;
        }
        self.open.retain(|(identity, run), open| {
            let Some(key) = key_of(identity, run) else { return true };
            let unborn = open.accepted.durable && !Folder::of(runs, &key).path().exists();
            if unborn {
                ledger.not_started(&key, Code::SupervisorLost.name());
            }
            !unborn
        });
    }

    fn end(&mut self, key: (String, String), line: Anchor, code: Code) {
        let accepted_ms = self.open.remove(&key).map(|open| open.accepted.boottime_ms);
        self.ended.insert(key, LastLine { code, accepted_ms, line });
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
        let Accepted { run, identity, mark, uid, .. } = self.accepted;
        let Some(key) = key_of(&identity, &run) else { return };
        let left_running = match Mark::from_hex(mark.as_bytes()) {
            Some(mark) if self.here => {
                let left = Leftovers { mark, uid, not_before: self.start_time };
                let stopped = stop_leftovers(&scanner, left, TERM_GRACE).await;
                stopped.map_or_else(|e| unseen(&run, &e), |stopped| stopped.left_running)
            }
            _ => 0,
        };
        info!(run, left_running, "lost: the server was restarted while it ran");
        if let Some(ledger) = host.books.ledger() {
            ledger.lost(&key, left_running);
        }
    }
}

fn unseen(run: &str, error: &std::io::Error) -> u32 {
    warn!(run, "cannot look for its processes: {error}");
    0
}

/// Settles every unfinished run, all at once: one look at the processes serves them all. The durable
/// ones are watched to their ends from here on.
pub async fn settle(
    (unfinished, durable): (Vec<Unfinished>, Vec<Arc<Durable>>),
    host: &Arc<Host>,
    scanner: &Scanner,
) {
    durable.into_iter().for_each(|run| host.watch(run, None));
    let mut all = tokio::task::JoinSet::new();
    for run in unfinished {
        all.spawn(run.settle(Arc::clone(host), scanner.clone()));
    }
    while all.join_next().await.is_some() {}
}
