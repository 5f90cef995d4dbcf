//! What a server writes into its journal of each run, and in which order.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Notify;
use tracing::error;

use super::clock::{self, millis};
use super::excerpt::Excerpt;
use super::journal::rules::{Commands, Digester, Rules, SYNC_INTERVAL, Surety};
use super::journal::{Accepted, Event, Journal, JournalError, Origin, Refused};
use super::request::Request;
use super::table::Key;
use super::throttle::Throttle;
use crate::exec::Mark;
use crate::proto::verdict::{Anchor, Verdict};
use crate::sys::mutex::lock;
use crate::sys::process::ProcessRef;

/// How many refusals a second have a line of their own; those beyond are counted.
pub const REFUSALS: u32 = 20;
/// Most characters that are written of what a client says about itself, or is told.
const NOTE_LIMIT: usize = 400;

/// The journal with what its next segment must begin with.
#[derive(Debug)]
pub struct Ledger {
    journal: Arc<Journal>,
    origin: Origin,
    digester: Digester,
    commands: Commands,
    surety: Surety,
    refusals: Throttle,
    /// What is logged of lines that cannot be written.
    failures: Throttle,
    /// Locked before the journal, so that a run's first and last line and its place here change together.
    open: Mutex<Open>,
    /// The last line that is known to be on the disk.
    synced: tokio::sync::Mutex<u64>,
    /// Called for each line.
    added: Notify,
}

/// Runs without a last line.
#[derive(Debug, Default)]
struct Open {
    /// What a reader of the next segment must know of those that are under way.
    under_way: HashMap<Key, Accepted>,
    /// Last lines that could not be written. Nothing is accepted before they are, so there are no more of them
    /// than there were runs under way.
    owed: VecDeque<Event>,
}

impl Ledger {
    /// A ledger over an open journal.
    #[must_use]
    pub fn new(journal: Journal, origin: Origin, digester: Digester, rules: &Rules) -> Self {
        Self {
            journal: Arc::new(journal),
            origin,
            digester,
            commands: rules.commands,
            surety: rules.surety,
            refusals: Throttle::new(REFUSALS),
            failures: Throttle::default(),
            open: Mutex::default(),
            synced: tokio::sync::Mutex::new(0),
            added: Notify::new(),
        }
    }

    /// Where this server is.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Calls `work` while no line is being written.
    pub fn while_nothing_is_written<T>(&self, work: impl FnOnce() -> T) -> T {
        self.journal.while_nothing_is_written(work)
    }

    /// A claim: from here on the run may be started.
    ///
    /// # Errors
    /// It cannot be written: nothing may be started.
    pub fn accepted(
        &self,
        key: &Key,
        request: &Request,
        (mark, uid): (Mark, Option<u32>),
    ) -> Result<(), JournalError> {
        let shows_text = self.commands == Commands::Text;
        let accepted = Accepted {
            run: key.id.to_string(),
            identity: key.identity.to_string(),
            boottime_ms: millis(clock::boottime()),
            mark: mark.to_string(),
            uid,
            command: shows_text.then(|| request.command()),
            asked: request.asked().filter(|_| shows_text),
            digest: self.digester.digest(request.terms.command_digest()),
            durable: request.is_durable(),
        };
        let mut open = self.open();
        self.told(self.settle(&mut open.owed))?;
        if self.journal.is_full()
            || (self.is_awaited_by(accepted.durable) && self.journal.is_doubtful())
        {
            self.rotate(&open.under_way);
        }
        let event = Event::Accepted(accepted);
        self.told(self.add(&event))?;
        if let Event::Accepted(accepted) = event {
            open.under_way.insert(key.clone(), accepted);
        }
        Ok(())
    }

    /// Returns when the line at `seq` is as surely on the disk as it must be before its command is started.
    ///
    /// # Errors
    /// The disk does not take it.
    pub async fn sure(&self, seq: u64, durable: bool) -> std::io::Result<()> {
        if !self.is_awaited_by(durable) {
            return Ok(());
        }
        let synced = self.synced(seq).await;
        if let Err(e) = &synced {
            self.tell(|| format!("the journal cannot be synced: {e}"));
        }
        synced
    }

    /// Whether the start of such a run waits for the disk.
    #[must_use]
    pub fn is_awaited_by(&self, durable: bool) -> bool {
        match self.surety {
            Surety::Always => true,
            Surety::Interval => durable,
            Surety::Never => false,
        }
    }

    /// As long as it is polled: sees to it that each line is on the disk within [`SYNC_INTERVAL`], where that is
    /// promised, and writes last lines that could not be written before.
    pub async fn keep(&self) {
        let mut failing = false;
        loop {
            self.added.notified().await;
            tokio::time::sleep(SYNC_INTERVAL).await;
            let done = self.flush().await;
            if let (Err(e), false) = (&done, failing) {
                self.tell(|| format!("the journal cannot be synced: {e}"));
            }
            failing = done.is_err();
            if failing {
                self.rotate(&self.open().under_way);
            }
        }
    }

    /// Does at once what [`Self::keep`] would do within its interval.
    ///
    /// # Errors
    /// The disk does not take it.
    pub async fn flush(&self) -> std::io::Result<()> {
        // Not told again: it is tried each second.
        let _ = self.settle(&mut self.open().owed);
        match self.surety {
            Surety::Interval => self.synced(self.last_seq()).await,
            Surety::Always | Surety::Never => Ok(()),
        }
    }

    /// Returns when the line at `seq` is on the disk. Many who wait at once share one fdatasync(2).
    async fn synced(&self, seq: u64) -> std::io::Result<()> {
        let mut synced = self.synced.lock().await;
        if *synced >= seq {
            return Ok(());
        }
        let journal = Arc::clone(&self.journal);
        let sync = tokio::task::spawn_blocking(move || journal.sync());
        *synced = sync.await.map_err(std::io::Error::other)??;
        Ok(())
    }

    /// The place of the last line.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.journal.last_seq()
    }

    /// A run of an earlier server goes on.
    pub fn resumed(&self, key: &Key, accepted: Accepted) {
        self.open().under_way.insert(key.clone(), accepted);
    }

    /// The main process is there. If this line cannot be written that is logged: the run's mark stands in
    /// its claim.
    pub fn running(&self, key: &Key, process: ProcessRef) {
        self.note(&Event::Running {
            run: key.id.to_string(),
            identity: key.identity.to_string(),
            pid: process.pid.as_raw_nonzero().get().unsigned_abs(),
            start_time: process.start_time,
        });
    }

    /// A run's last line: how it ended.
    pub fn ended(&self, key: &Key, verdict: &Verdict, output: Option<Excerpt>) -> Option<Anchor> {
        let (identity, verdict) = (key.identity.to_string(), Box::new(verdict.clone()));
        self.note_last(key, Event::Ended { identity, verdict, output: output.map(Box::new) })
    }

    /// A run's last line: it was not started, and its id is free again.
    pub fn not_started(&self, key: &Key, code: &str) {
        let (run, identity) = (key.id.to_string(), key.identity.to_string());
        self.note_last(key, Event::NotStarted { run, identity, code: code.into() });
    }

    /// A run's last line: nobody knows how it ended.
    pub fn lost(&self, key: &Key, left_running: u32) {
        let (run, identity) = (key.id.to_string(), key.identity.to_string());
        self.note_last(key, Event::Lost { run, identity, left_running });
    }

    /// Somebody logged in.
    pub fn login(&self, identity: &str, from: &str, client: &str) {
        let client = client.chars().take(NOTE_LIMIT).collect();
        self.note(&Event::Login { identity: identity.into(), from: from.into(), client });
    }

    /// Somebody was not let in, or asked for what is not granted. A flood of that makes no flood of lines.
    pub fn refused(&self, identity: Option<&str>, from: &str, code: &str, text: &str) {
        let Some(others) = self.refusals.allow() else { return };
        self.note(&Event::Refused(Refused {
            identity: identity.map(str::to_owned),
            from: from.into(),
            code: code.into(),
            text: text.chars().take(NOTE_LIMIT).collect(),
            others,
        }));
    }

    /// An id was given up before it was used.
    pub fn buried(&self, key: &Key) {
        let (run, identity) = (key.id.to_string(), key.identity.to_string());
        self.note(&Event::Buried { run, identity });
    }

    /// How many runs have no last line.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open().under_way.len()
    }

    fn note_last(&self, key: &Key, event: Event) -> Option<Anchor> {
        let mut open = self.open();
        open.under_way.remove(key);
        let added = self.settle(&mut open.owed).and_then(|()| self.add(&event));
        let anchor = self.told(added).ok();
        if anchor.is_none() {
            open.owed.push_back(event);
        }
        anchor
    }

    fn settle(&self, owed: &mut VecDeque<Event>) -> Result<(), JournalError> {
        while let Some(event) = owed.front() {
            self.add(event)?;
            owed.pop_front();
        }
        Ok(())
    }

    /// Adds a line about something that has happened already: if it cannot be written, that is
    /// logged, and the run goes on.
    fn note(&self, event: &Event) {
        // Logging it is all that is done.
        let _ = self.told(self.add(event));
    }

    fn add(&self, event: &Event) -> Result<Anchor, JournalError> {
        let added = self.journal.add(event);
        self.added.notify_one();
        added
    }

    /// Logs an error, unless another one was logged just now: clients that try again and again would fill the
    /// disk all the more.
    fn told<T>(&self, done: Result<T, JournalError>) -> Result<T, JournalError> {
        if let Err(e) = &done {
            self.tell(|| e.to_string());
        }
        done
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(line) = self.failures.line(what) {
            error!("{line}");
        }
    }

    /// `open` stays locked until the line that follows is written, or it would be missing in the carried
    /// lines of the next segment.
    fn rotate(&self, open: &HashMap<Key, Accepted>) {
        let opened =
            Event::Opened(Origin { boottime_ms: millis(clock::boottime()), ..self.origin.clone() });
        let carried: Vec<_> =
            std::iter::once(opened).chain(open.values().cloned().map(Event::Accepted)).collect();
        if let Err(e) = self.journal.rotate(&carried) {
            self.tell(|| format!("the journal goes on in its old segment: {e}"));
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}
