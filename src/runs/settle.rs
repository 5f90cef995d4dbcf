//! The end of a durable run, as its server finds out and writes it down.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::clock::Moment;
use super::disk::folder::Claim;
use super::disk::scan::{Scan, scan};
use super::disk::{Outcome, Writer};
use super::durable::{Durable, State, verdict_frame};
use super::host::Host;
use super::journal::Origin;
use super::link::{Link, RETRY};
use super::place::Place;
use crate::conn::Frame;
use crate::exec::{TERM_GRACE, stop_leftovers};
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::header::{Attach, ClientHeader, ServerHeader, ShowFrom};
use crate::proto::stored::StoredHeader;
use crate::proto::verdict::Verdict;
use crate::sys::mutex::lock;
use crate::sys::pause;
use crate::sys::shortage::is_shortage;

/// How long whoever has started a run is given to see its end.
const WATCH_AFTER: Duration = Duration::from_millis(50);

impl Host {
    /// Waits for the end of a run and writes it down, in a task of its own. `place` is that of a run that
    /// was just started: whoever has started it may see it to its end without another link.
    pub(super) fn watch(self: &Arc<Self>, run: Arc<Durable>, place: Option<Place>) {
        let host = Arc::clone(self);
        // One of a server before this one has no place, and counts as its identity's all the same.
        let share = place.is_none().then(|| self.shares.adopt(&run.key.identity));
        tokio::spawn(async move {
            if place.is_some() {
                let _ = timeout(WATCH_AFTER, run.over()).await;
            }
            while matches!(run.state(), State::Found | State::Live { .. }) {
                if let Some(verdict) = verdict_of(&run).await {
                    host.ended(&run, &verdict);
                    continue;
                }
                match host.resolve(&run).await {
                    Ok(true) => continue,
                    Ok(false) => run.goes_on(),
                    Err(e) => host.tell_of_shortage(&run, &e),
                }
                tokio::time::sleep(RETRY).await;
            }
            drop((place, share));
            host.left();
        });
    }

    /// A verdict has come from a supervisor: it is written down, once, before anybody is told.
    pub fn ended(self: &Arc<Self>, run: &Arc<Durable>, frame: &Frame) -> Option<Bytes> {
        let Ok(ServerHeader::Verdict(verdict)) = frame.header() else { return None };
        let size = run.folder.disk().ok().flatten().unwrap_or_default();
        let length = size.length.saturating_sub(frame.size() as u64);
        let outcome = self.note_ended(run, *verdict, length);
        match &*outcome {
            Outcome::Ended { verdict, .. } => verdict_frame(verdict).ok(),
            Outcome::Lost { .. } => None,
        }
    }

    /// Writes down how a run ended, unless that is done already.
    pub(super) fn note_ended(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        mut verdict: Verdict,
        length: u64,
    ) -> Arc<Outcome> {
        let _one = lock(&run.settling);
        if let State::Over(outcome) | State::Forgotten(outcome) = run.state() {
            return outcome;
        }
        let ledger = self.books.ledger();
        let write = || ledger.and_then(|l| l.ended(&run.key, &verdict, run.excerpt()));
        verdict.journal = run.journaled.or_else(write);
        pause::point("journaled");
        let noted = self.moment();
        self.over(run, Outcome::Ended { verdict: Box::new(verdict), length, noted })
    }

    fn moment(&self) -> Moment {
        Moment::now(self.books.ledger().map_or("", |ledger| &ledger.origin().boot))
    }

    fn over(self: &Arc<Self>, run: &Arc<Durable>, outcome: Outcome) -> Arc<Outcome> {
        let outcome = Arc::new(outcome);
        run.set_state(State::Over(Arc::clone(&outcome)));
        self.left();
        let host = Arc::clone(self);
        tokio::spawn(host.note(Arc::clone(run), Arc::clone(&outcome)));
        outcome
    }

    /// Puts the end of a run on the disk, in the order that keeps it true if the machine goes down in
    /// between: its journal line, all of its record, what sums it up. Nobody waits for that. Until it is done
    /// the next server finds the end in the record and the journal.
    async fn note(self: Arc<Self>, run: Arc<Durable>, outcome: Arc<Outcome>) {
        // A supervisor that was killed has left it.
        run.folder.remove_socket();
        let Ok(_turn) = self.noting.acquire().await else { return };
        if let Some(ledger) = self.books.ledger() {
            // What cannot be synced is told by whoever finds out, and the run is over all the same.
            let _ = ledger.sure(ledger.last_seq(), true).await;
        }
        let host = Arc::clone(&self);
        let noted = tokio::task::spawn_blocking(move || {
            if let Err(e) = run.note(&outcome)
                && let Some(line) = host.troubles.line(|| format!("cannot note how it ended: {e}"))
            {
                error!(run = %run.key.id, "{line}");
            }
            pause::point("noted");
        });
        // A panic there would be a bug.
        let _ = noted.await;
        self.one_more.notify_one();
    }

    fn tell_of_shortage(&self, run: &Durable, error: &io::Error) {
        let line = || format!("what becomes of it cannot be looked for now: {error}");
        if let Some(line) = self.troubles.line(line) {
            warn!(run = %run.key.id, "{line}");
        }
    }

    /// Finds out what became of a run whose supervisor does not answer. False if it lives.
    ///
    /// # Errors
    /// [`is_shortage`]: nothing can be found out now.
    async fn resolve(self: &Arc<Self>, run: &Arc<Durable>) -> io::Result<bool> {
        let (host, run_there) = (Arc::clone(self), Arc::clone(run));
        let looked = tokio::task::spawn_blocking(move || {
            let folder = &run_there.folder;
            Ok(match folder.claim()? {
                // One that has written its verdict takes no more links, and may live on for those who hold
                // the run's output.
                Claim::Taken => {
                    let found = folder.record()?.map(|record| scan(&record)).transpose()?;
                    found.filter(|found| found.verdict.is_some())
                }
                Claim::Ours(record) => {
                    let found = scan(record.file())?;
                    // What was set aside for the rest is given back.
                    record.file().set_len(record.file().metadata()?.len())?;
                    if found.claimed.is_none() && host.is_this_boot(&run_there)? {
                        // Who comes late finds the record claimed, and starts nothing.
                        let pid = std::process::id();
                        let header = StoredHeader::Claimed { pid, start: false };
                        let frame = encoded(&header, b"").map_err(io::Error::other)?;
                        Writer::new(record, u64::MAX).note(&frame)?;
                    }
                    Some(found)
                }
            })
        });
        let found: io::Result<Option<Scan>> =
            looked.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match found {
            Ok(None) => return Ok(false),
            Ok(Some(found)) => self.resolved(run, found).await?,
            Err(e) if is_shortage(&e) => return Err(e),
            Err(e) => {
                error!(run = %run.key.id, "cannot read its record: {e}");
                self.lost(run, &Scan::default()).await?;
            }
        }
        Ok(true)
    }

    async fn resolved(self: &Arc<Self>, run: &Arc<Durable>, found: Scan) -> io::Result<()> {
        let claimed = match found.claimed {
            Some(start) => start,
            None => !self.is_this_boot(run)?,
        };
        match (claimed, found.verdict) {
            (false, _) => {
                info!(run = %run.key.id, "never started: its supervisor did not come to it");
                self.not_started_there(run, Code::SupervisorLost);
                // The id of a run that is being started is released by whoever starts it: once, because it
                // may be claimed anew at once.
                if !matches!(run.state(), State::Starting) {
                    self.table.release(&run.key);
                }
                let text = "its supervisor was ended before it started anything".into();
                run.set_state(State::NotStarted { code: Code::StartFailed, text });
            }
            (true, Some(verdict)) => {
                self.note_ended(run, *verdict, found.length);
            }
            (true, None) => self.lost(run, &Scan { verdict: None, ..found }).await?,
        }
        Ok(())
    }

    /// A run has lost its supervisor: what is left of it is stopped, and its end is unknown.
    async fn lost(self: &Arc<Self>, run: &Arc<Durable>, found: &Scan) -> io::Result<()> {
        let start_time = found.running.map_or(0, |(_, start_time)| start_time);
        let left_running = match run.leftovers(start_time)? {
            Some(left) if self.is_here(run)? => {
                // For as long as that takes.
                run.goes_on();
                let stopped = stop_leftovers(&self.scanner, left, TERM_GRACE).await;
                stopped.map_or_else(
                    |e| {
                        warn!(run = %run.key.id, "cannot look for its processes: {e}");
                        0
                    },
                    |stopped| stopped.left_running,
                )
            }
            _ => 0,
        };
        let _one = lock(&run.settling);
        if matches!(run.state(), State::Over(_) | State::Forgotten(_)) {
            return Ok(());
        }
        warn!(run = %run.key.id, left_running, torn = found.torn, "lost: its supervisor is gone");
        if let (Some(ledger), None) = (self.books.ledger(), run.journaled) {
            ledger.lost(&run.key, left_running);
        }
        let (length, last, noted) = (found.length, found.last, self.moment());
        let code = Code::SupervisorLost;
        self.over(run, Outcome::Lost { code, left_running, length, last, noted });
        Ok(())
    }

    /// A record that a machine which went down has lost, or lost the beginning of, says nothing.
    fn is_this_boot(&self, run: &Durable) -> io::Result<bool> {
        self.is_from(run, |origin, here| origin.boot == here.boot)
    }

    /// Pids mean the same processes only within one boot and one pid namespace of one machine.
    fn is_here(&self, run: &Durable) -> io::Result<bool> {
        self.is_from(run, Origin::is_same_place)
    }

    fn is_from(
        &self,
        run: &Durable,
        is_same: impl FnOnce(&Origin, &Origin) -> bool,
    ) -> io::Result<bool> {
        let (meta, ledger) = (run.meta_there()?, self.books.ledger());
        Ok(meta.zip(ledger).is_some_and(|(meta, ledger)| is_same(&meta.origin, ledger.origin())))
    }
}

/// Waits for the verdict of a run that goes on. None if its supervisor does not give one.
async fn verdict_of(run: &Durable) -> Option<Frame> {
    let link = Link::connect(&run.folder).ok()?;
    // The socket of a dead one takes no link, and one that is stopped says nothing for now.
    run.goes_on();
    let attach =
        Attach { run: run.key.id.to_string(), after: 0, from: ShowFrom::Verdict, follow: true };
    let mut frame = link.ask(encoded(&ClientHeader::Attach(attach), b"").ok()?).await.ok()?;
    loop {
        if let Ok(ServerHeader::Verdict(_)) = frame.header() {
            return Some(frame);
        }
        frame = link.next().await.ok()??;
    }
}
