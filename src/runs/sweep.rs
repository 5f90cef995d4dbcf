//! Letting go of what is not to be kept: by the server at its start and from then on, and by
//! `rexec-server gc`, also while a server runs.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep};
use tracing::{info, warn};

use super::clock::Now;
use super::disk::{Folder, Outcome, Over};
use super::durable::{Durable, Keeping, State};
use super::entry::{Entry, Gone};
use super::host::Host;
use super::retention::{Going, Past, Retention};
use super::table::{KEEP, holder};
use crate::proto::code::Code;
use crate::sys::heap;
use crate::sys::mutex::lock;

/// How often there is a look for what is not to be kept, when nobody asks for one.
const EVERY: Duration = Duration::from_secs(30);
/// The shortest pause between two looks at the disk; it is also at least [`PAUSE_FACTOR`] times as long as the look took.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_FACTOR: u32 = 50;

/// What was, or would be, removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// Records.
    pub records: usize,
    /// Bytes of disk that they took.
    pub bytes: u64,
    /// Ids that are free again.
    pub ids: usize,
    /// What could not be removed.
    pub failed: usize,
    /// Why the first of them could not be.
    pub error: Option<io::Error>,
}

impl Removed {
    fn count<T>(&mut self, going: &Going<T>, removed: io::Result<()>) {
        match removed {
            Ok(()) => {
                self.records += usize::from(going.record.is_some());
                self.bytes += going.record.unwrap_or(0);
                self.ids += usize::from(going.id);
            }
            Err(e) => {
                self.failed += 1;
                self.error.get_or_insert(e);
            }
        }
    }

    fn log(&self) {
        let Self { records, bytes, ids, failed, error } = self;
        if *records > 0 || *ids > 0 {
            info!(records, bytes, ids, "retention: removed what is kept no longer");
        }
        if let Some(error) = error {
            warn!("retention: {failed} durable runs cannot be removed: {error}");
        }
    }
}

/// Removes from the folder `runs` what is not to be kept of the runs that are over; with `dry_run` only
/// says what that is. A server that runs on it may go on.
///
/// # Errors
/// The folder cannot be read.
pub fn collect(
    runs: &Path,
    boot: &str,
    retention: &Retention,
    dry_run: bool,
) -> io::Result<Removed> {
    let mut past = Vec::new();
    for entry in std::fs::read_dir(runs)? {
        past.extend(past_in(Folder::found(entry?.path()), boot));
    }
    let mut removed = Removed::default();
    for going in retention.plan(past, Now::read()) {
        let done = if dry_run { Ok(()) } else { remove(&going.run, going.id) };
        removed.count(&going, done);
    }
    Ok(removed)
}

/// The run in a folder, if it is over. What cannot be read is left alone: the next server speaks of it.
fn past_in(folder: Folder, boot: &str) -> Option<Past<Folder>> {
    let over = Over::open(&folder).ok()??;
    let ended = over.outcome().ok()?.noted().seen_from(boot);
    let record = over.record().ok()?.map(|size| size.kept);
    let identity = folder.meta().ok().flatten().map_or_else(String::new, |meta| meta.identity);
    Some(Past { run: folder, holder: holder(&identity).into(), ended, record })
}

fn remove(folder: &Folder, id: bool) -> io::Result<()> {
    match Over::open(folder)? {
        Some(over) if id => over.remove(),
        Some(over) => over.remove_record(),
        None => Ok(()),
    }
}

impl Host {
    /// Lets go of what is not to be kept, at once and again and again, and keeps the journal. Runs for as long
    /// as it is polled.
    pub async fn sweep(self: &Arc<Self>) {
        let journal = async {
            match self.books.ledger() {
                Some(ledger) => ledger.keep().await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(self.sweep_memory(), self.sweep_disk(), journal);
    }

    /// Puts the last lines of the journal on the disk.
    ///
    /// # Errors
    /// The disk does not take them.
    pub async fn flush(&self) -> io::Result<()> {
        match self.books.ledger() {
            Some(ledger) => ledger.flush().await,
            None => Ok(()),
        }
    }

    /// Forgets the records of runs that ended and whose clients did not come back within [`KEEP`], and gives back
    /// memory that is free.
    async fn sweep_memory(&self) {
        let mut tick = interval(EVERY);
        loop {
            tick.tick().await;
            let now = Instant::now();
            for run in self.runs_here() {
                if run.abandoned_since().is_some_and(|since| since + KEEP <= now) {
                    self.table.end(&run.key, Code::Forgotten);
                }
            }
            heap::give_back();
        }
    }

    /// Records that nobody has confirmed are kept for as many runs as may be under way; past that the
    /// oldest of those whose clients are gone is dropped before its time.
    pub(super) fn trim(&self) {
        let most = self.settings.max_runs;
        if self.table.passing_count() <= most + self.books.open_count() {
            return;
        }
        let surplus = surplus(self.runs_here(), |run| run.abandoned_since(), most);
        surplus.iter().for_each(|run| self.table.end(&run.key, Code::Forgotten));
    }

    async fn sweep_disk(self: &Arc<Self>) {
        let mut tick = interval(EVERY);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.one_more.notified() => {}
            }
            let began = Instant::now();
            let host = Arc::clone(self);
            // A panic there would be a bug, which the next look would meet again.
            let _ = tokio::task::spawn_blocking(move || host.retain().log()).await;
            sleep(PAUSE.max(began.elapsed() * PAUSE_FACTOR)).await;
        }
    }

    fn retain(&self) -> Removed {
        let mut removed = Removed::default();
        let (Some(keeping), Some(ledger)) = (&self.keeping, self.books.ledger()) else {
            return removed;
        };
        let boot = &ledger.origin().boot;
        let past = self.table.all_live().into_iter().filter_map(|kept| self.past(kept, boot));
        for going in keeping.retention.plan(past.collect(), Now::read()) {
            let done = self.let_go(&going.run, going.id, keeping);
            removed.count(&going, done);
        }
        removed
    }

    fn past(&self, kept: Arc<Entry>, boot: &str) -> Option<Past<Arc<Entry>>> {
        let (key, ended, record) = match &*kept {
            Entry::Here(_) => return None,
            Entry::Gone(gone) => (&gone.key, gone.ended, None),
            Entry::There(run) => {
                let State::Over(outcome) = run.state() else { return None };
                let record = run.folder.disk().ok()?.map(|size| size.kept);
                if record.is_none() {
                    self.found_gone(run);
                }
                (&run.key, outcome.noted().seen_from(boot), record)
            }
        };
        let holder = holder(&key.identity).into();
        Some(Past { run: kept, holder, ended, record })
    }

    fn let_go(&self, kept: &Entry, id: bool, keeping: &Keeping) -> io::Result<()> {
        match kept {
            Entry::There(run) if !id => return self.forget(run),
            Entry::There(run) => {
                self.forget(run)?;
                remove(&run.folder, id)?;
                self.table.release(&run.key);
            }
            Entry::Gone(gone) => {
                remove(&Folder::of(&keeping.runs, &gone.key), id)?;
                self.table.release(&gone.key);
            }
            Entry::Here(_) => {}
        }
        Ok(())
    }

    /// Removes the record of a run; its id stays taken. What goes on is left alone.
    pub(super) fn forget(&self, run: &Arc<Durable>) -> io::Result<()> {
        let _one = lock(&run.noting);
        let State::Over(outcome) = run.state() else { return Ok(()) };
        // It could not be written when the disk was full, or is about to be.
        if run.folder.outcome()?.is_none() {
            run.folder.set_outcome(&outcome)?;
        }
        remove(&run.folder, false)?;
        self.gone(run, &outcome);
        Ok(())
    }

    /// Its record was found to be no longer there. By now it may be forgotten, and its id another run's.
    pub(super) fn found_gone(&self, run: &Durable) {
        let _one = lock(&run.noting);
        if let State::Over(outcome) = run.state() {
            self.gone(run, &outcome);
        }
    }

    /// Its record is no longer there: only its id is kept in mind. `noting` is held.
    fn gone(&self, run: &Durable, outcome: &Arc<Outcome>) {
        let boot = self.books.ledger().map_or("", |ledger| &ledger.origin().boot);
        let gone = Gone { key: run.key.clone(), ended: outcome.noted().seen_from(boot) };
        self.table.keep(run.key.clone(), Arc::new(Entry::Gone(gone)));
        run.set_state(State::Forgotten(Arc::clone(outcome)));
    }
}

/// The abandoned ones that are more than `most`, the oldest first. Each is asked once: the answer changes as clients come
/// and go, and keys that change may make a sort panic.
fn surplus<T>(
    runs: Vec<T>,
    abandoned_since: impl Fn(&T) -> Option<Instant>,
    most: usize,
) -> Vec<T> {
    let abandoned = runs.into_iter().filter_map(|run| Some((abandoned_since(&run)?, run)));
    let mut abandoned: Vec<_> = abandoned.collect();
    abandoned.sort_by_key(|(since, _)| *since);
    let surplus = abandoned.len().saturating_sub(most);
    abandoned.into_iter().take(surplus).map(|(_, run)| run).collect()
}

#[cfg(test)]
mod tests;
