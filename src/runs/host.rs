//! All runs of one server: claiming, starting, finishing, forgetting.
//!
//! The order is the promise: claim the id, journal `accepted`, spawn, journal `running`, answer
//! `started`; and at the end journal `ended`, then show the verdict.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{
    Notify, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, TryAcquireError,
};
use tokio::time::Instant;
use tracing::{error, warn};

use super::clock::{self, millis};
use super::credit::Budget;
use super::engine::{Engine, Terms};
use super::id::RunId;
use super::journal::{Accepted, Event, Journal, Origin};
use super::record::encode;
use super::request::Request;
use super::run::{Owner, Phase, Run};
use super::table::{Burial, Claim, KEEP, Key, Table};
use crate::exec::{self, BaseEnv, Mark, Scanner, SpawnError};
use crate::proto::code::Code;
use crate::proto::header::ServerHeader;
use crate::proto::verdict::{Anchor, StopBy, Verdict};
use crate::sys::pause;

/// What a server's operator decided about runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shell for command text.
    pub shell: PathBuf,
    /// Most runs at one time.
    pub max_runs: usize,
    /// Bytes of output and input that all runs may keep, beside each one's floor.
    pub memory_budget: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { shell: "/bin/sh".into(), max_runs: 1024, memory_budget: 256 << 20 }
    }
}

/// All runs of one server.
#[derive(Debug)]
pub struct Host {
    settings: Settings,
    base_env: BaseEnv,
    table: Table<Run>,
    journal: Journal,
    origin: Origin,
    budget: Arc<Budget>,
    scanner: Scanner,
    /// One for each run that may be under way; closed to new runs at shutdown.
    places: Arc<Semaphore>,
    /// What a reader of the next segment must know of the runs that are under way. Locked before the
    /// journal, so that a run's first and last line and its place here change together.
    open: Mutex<HashMap<Key, Accepted>>,
    idle: Notify,
    /// Read while a run is being started; written while nothing new may be.
    gate: Arc<RwLock<()>>,
    /// Nothing new may be started while it is there.
    held: Mutex<Option<OwnedRwLockWriteGuard<()>>>,
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
    /// Nothing was started and the id is free. Ask again when the host admits new runs.
    Held,
}

/// The answer to `close`.
#[derive(Debug)]
pub enum Closed {
    /// It never started and never will.
    NeverStarted,
    /// It is this run, which is now being stopped.
    Run(Owner),
    /// Nothing more is known.
    Lost(Code),
    /// The id cannot be buried: see the code.
    Refused(Code, String),
}

impl Host {
    /// The host of a server that has read what the one before it left.
    #[must_use]
    pub fn new(
        mut settings: Settings,
        (journal, origin, table): (Journal, Origin, Table<Run>),
        scanner: Scanner,
    ) -> Arc<Self> {
        settings.max_runs = settings.max_runs.min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            budget: Arc::new(Budget::new(settings.memory_budget)),
            places: Arc::new(Semaphore::new(settings.max_runs)),
            settings,
            base_env: BaseEnv::of_this_process(),
            table,
            journal,
            origin,
            scanner,
            open: Mutex::default(),
            idle: Notify::new(),
            gate: Arc::default(),
            held: Mutex::default(),
        })
    }

    /// Starts a run or goes on with it. The owner is whoever asked last.
    ///
    /// # Errors
    /// [`Denied`] says whether anything may have been started.
    pub async fn run(
        self: &Arc<Self>,
        identity: &Arc<str>,
        request: &Request,
    ) -> Result<(Owner, u32, bool), Denied> {
        let key = Key { identity: Arc::clone(identity), id: request.id.clone() };
        let pass = self.gate.try_read().ok();
        let mut place = None;
        let make = || {
            pass.as_ref().ok_or(Code::ShuttingDown)?;
            place = Some(self.place()?);
            let (terms, stdin) = (request.terms.clone(), request.has_stdin());
            Ok(Arc::new(Run::new(key.clone(), terms, stdin, &self.budget)))
        };
        match self.table.claim(&key, request.first_sent_ago, make) {
            Claim::New(run) => {
                self.start(&run, request, place).map(|(owner, pid)| (owner, pid, false))
            }
            Claim::Existing(run) => {
                drop(pass);
                attach(&run, request).await
            }
            Claim::Past(Code::Buried) => {
                Err(Denied::Refused(Code::Buried, "this id was given up".into()))
            }
            Claim::Past(code) => Err(Denied::Lost(code)),
            Claim::Full(full) => Err(Denied::Refused(Code::TooManyRuns, full.to_string())),
            Claim::Refused(_) if pass.is_none() => Err(Denied::Held),
            Claim::Refused(code) => Err(Denied::Refused(code, self.why_not(code))),
        }
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Code> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|e| match e {
            TryAcquireError::Closed => Code::ShuttingDown,
            TryAcquireError::NoPermits => Code::TooManyRuns,
        })
    }

    fn why_not(&self, code: Code) -> String {
        match code {
            Code::ShuttingDown => "the server is shutting down".into(),
            _ => format!("the server has {} runs already", self.settings.max_runs),
        }
    }

    fn start(
        self: &Arc<Self>,
        run: &Arc<Run>,
        request: &Request,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(Owner, u32), Denied> {
        let started = self.spawn(run, request, place);
        match &started {
            Ok((_, pid)) => run.set_phase(Phase::Running { pid: *pid }),
            Err(Denied::Lost(code)) => {
                self.table.end(&run.key, *code);
                run.set_phase(Phase::Lost { code: *code });
            }
            Err(Denied::Refused(code, text) | Denied::NotStarted(code, text)) => {
                self.table.release(&run.key);
                run.set_phase(Phase::NotStarted { code: *code, text: text.clone() });
            }
            // Said of a request that has no run.
            Err(Denied::Held) => {}
        }
        if started.is_err() {
            self.idle.notify_waiters();
        }
        started
    }

    /// `place` is given back when the run has ended, or was not started.
    fn spawn(
        self: &Arc<Self>,
        run: &Arc<Run>,
        request: &Request,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<(Owner, u32), Denied> {
        let mark = Mark::new().map_err(|e| {
            Denied::NotStarted(Code::OutOfResources, format!("no random numbers: {e}"))
        })?;
        self.accept(&run.key, request, mark)?;
        pause::point("accepted");
        let spec = request.spec(self.settings.shell.clone());
        let spawned = match exec::spawn(&spec, &self.base_env, run.key.id.as_str(), mark) {
            Ok(spawned) => spawned,
            Err(SpawnError::NotStarted(e)) => {
                return Err(self.not_started(&run.key, Code::from(&e), e.to_string()));
            }
            Err(SpawnError::Unfollowed(e)) => return Err(self.unfollowed(&run.key, &e)),
        };
        pause::point("spawned");
        let process = spawned.child.process();
        let pid = process.pid.as_raw_nonzero().get().unsigned_abs();
        let running = Event::Running {
            run: run.key.id.to_string(),
            identity: run.key.identity.to_string(),
            pid,
            start_time: process.start_time,
        };
        // The run is there, whether or not this line can be written: its mark stands in `accepted`.
        self.note(&running);
        pause::point("running");
        let owner = run.take_over();
        let terms = Terms {
            deadline: request.deadline(),
            grace: request.grace(),
            wait_eof: spec.wait_eof,
            merge: spec.merge,
        };
        let engine = Engine::new(Arc::clone(run), spawned, terms, self.scanner.clone());
        let (host, run) = (Arc::clone(self), Arc::clone(run));
        tokio::spawn(async move {
            let verdict = engine.drive().await;
            host.finish(&run, verdict);
            drop(place);
            host.idle.notify_waiters();
        });
        Ok((owner, pid))
    }

    fn accept(&self, key: &Key, request: &Request, mark: Mark) -> Result<(), Denied> {
        let accepted = Accepted {
            run: key.id.to_string(),
            identity: key.identity.to_string(),
            boottime_ms: millis(clock::boottime()),
            mark: mark.to_string(),
            command: request.command(),
            digest: request.terms.command_digest(),
        };
        let mut open = self.open();
        self.rotate_if_full(&open);
        self.journal.add(&Event::Accepted(accepted.clone())).map_err(|e| {
            error!("refusing a run: {e}");
            Denied::Refused(Code::JournalFailed, "the server cannot write its journal".into())
        })?;
        open.insert(key.clone(), accepted);
        Ok(())
    }

    /// Writes down a run's last line: it is no longer under way.
    fn note_last(&self, key: &Key, event: &Event) -> Option<Anchor> {
        let mut open = self.open();
        open.remove(key);
        self.note(event)
    }

    fn not_started(&self, key: &Key, code: Code, text: String) -> Denied {
        let (run, identity) = (key.id.to_string(), key.identity.to_string());
        self.note_last(key, &Event::NotStarted { run, identity, code: code.name().into() });
        Denied::NotStarted(code, text)
    }

    fn unfollowed(&self, key: &Key, why: &std::io::Error) -> Denied {
        error!(run = %key.id, "a run was started, could not be followed, and was killed: {why}");
        let (run, identity) = (key.id.to_string(), key.identity.to_string());
        self.note_last(key, &Event::Lost { run, identity, left_running: 0 });
        Denied::Lost(Code::OutOfResources)
    }

    fn finish(&self, run: &Arc<Run>, mut verdict: Verdict) {
        pause::point("ended");
        let event = Event::Ended {
            identity: run.key.identity.to_string(),
            verdict: Box::new(verdict.clone()),
        };
        verdict.journal = self.note_last(&run.key, &event);
        pause::point("journaled");
        match encode(&ServerHeader::Verdict(Box::new(verdict)), b"") {
            Ok(frame) => run.finish(frame),
            Err(e) => error!(run = %run.key.id, "the verdict cannot be encoded: {e}"),
        }
        self.trim();
    }

    /// Records that nobody has confirmed are kept for as many runs as may be under way; past that the
    /// oldest of those whose clients are gone is dropped before its time.
    fn trim(&self) {
        let most = self.settings.max_runs;
        if self.table.live_count() <= most + self.open().len() {
            return;
        }
        let mut abandoned: Vec<_> = self.table.all_live();
        abandoned.retain(|run| run.abandoned_since().is_some());
        abandoned.sort_by_key(|run| run.abandoned_since());
        let surplus = abandoned.len().saturating_sub(most);
        abandoned.iter().take(surplus).for_each(|run| self.table.end(&run.key, Code::Forgotten));
    }

    /// Adds a line about something that has happened already: if it cannot be written, that is
    /// logged, and the run goes on.
    fn note(&self, event: &Event) -> Option<Anchor> {
        self.journal.add(event).inspect_err(|e| error!("{e}")).ok()
    }

    /// Writes down that nobody knows how a run of an earlier server ended.
    pub fn note_lost(&self, run: String, identity: String, left_running: u32) {
        self.note(&Event::Lost { run, identity, left_running });
    }

    /// `open` stays locked until the line that follows is written, or it would be missing in the carried
    /// lines of the next segment.
    fn rotate_if_full(&self, open: &HashMap<Key, Accepted>) {
        if self.journal.is_full() {
            let opened = Event::Opened(Origin {
                boottime_ms: millis(clock::boottime()),
                ..self.origin.clone()
            });
            let carried: Vec<_> = std::iter::once(opened)
                .chain(open.values().cloned().map(Event::Accepted))
                .collect();
            if let Err(e) = self.journal.rotate(&carried) {
                warn!("the journal goes on in its old segment: {e}");
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, Accepted>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an id up for a client that does not know whether it was ever used.
    #[must_use]
    pub async fn close(&self, identity: &Arc<str>, id: &RunId, first_sent_ago: Duration) -> Closed {
        let key = Key { identity: Arc::clone(identity), id: id.clone() };
        match self.table.bury(&key, first_sent_ago) {
            Burial::Existing(run) => match run.known().await {
                Phase::NotStarted { .. } => Closed::NeverStarted,
                Phase::Lost { code } => Closed::Lost(code),
                Phase::Starting | Phase::Running { .. } => {
                    let owner = run.take_over();
                    run.stop(StopBy::Client);
                    Closed::Run(owner)
                }
            },
            Burial::Past(Code::Buried) => Closed::NeverStarted,
            Burial::Buried => {
                let (run, identity) = (key.id.to_string(), key.identity.to_string());
                self.note(&Event::Buried { run, identity });
                Closed::NeverStarted
            }
            Burial::Past(code) => Closed::Lost(code),
            Burial::Full(full) => Closed::Refused(Code::TooManyRuns, full.to_string()),
        }
    }

    /// The client has the verdict: the run's record is dropped, its id remembered for a while.
    pub fn confirmed(&self, run: &Run) {
        self.table.confirm(&run.key);
        self.idle.notify_waiters();
    }

    /// Forgets the records of runs that ended and whose clients did not come back for so long as the
    /// documentation says. Runs for as long as it is polled.
    pub async fn sweep(&self) {
        let mut tick = tokio::time::interval(KEEP / 20);
        loop {
            tick.tick().await;
            let now = Instant::now();
            for run in self.table.all_live() {
                if run.abandoned_since().is_some_and(|since| since + KEEP <= now) {
                    self.table.end(&run.key, Code::Forgotten);
                }
            }
        }
    }

    /// Starts nothing more.
    pub fn close_to_new(&self) {
        self.places.close();
        self.admit();
    }

    /// Starts nothing until [`Self::admit`]; what is asked for is answered [`Denied::Held`]. Returns when
    /// nothing is being started any more. Dropped before, it holds nothing.
    pub async fn hold(&self) {
        let held = Arc::clone(&self.gate).write_owned().await;
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    /// Starts runs again.
    pub fn admit(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Waits while new runs are held.
    pub async fn admits(&self) {
        drop(self.gate.read().await);
    }

    /// Calls `work` while no line of the journal is being written.
    pub fn while_nothing_is_written<T>(&self, work: impl FnOnce() -> T) -> T {
        self.journal.while_nothing_is_written(work)
    }

    /// Stops every run; at once means without time for its processes to finish.
    pub fn stop_all(&self, by: StopBy, at_once: bool) {
        for run in self.table.all_live() {
            run.stop(by);
            if at_once {
                run.hurry();
            }
        }
    }

    /// Waits until no client is left that has not confirmed its run's verdict. One that has been gone for
    /// `patience` will not come back in time; one that was just lost may be on its way.
    pub async fn all_confirmed(&self, patience: Duration) {
        loop {
            let changed = self.idle.notified();
            let is_gone = |since: Instant| since.elapsed() >= patience;
            if self.table.all_live().iter().all(|run| run.abandoned_since().is_some_and(is_gone)) {
                return;
            }
            changed.await;
        }
    }

    /// A connection has ended.
    pub fn left(&self) {
        self.idle.notify_waiters();
    }

    /// Waits until every run has its verdict.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.idle.notified();
            if self.places.available_permits() == self.settings.max_runs {
                return;
            }
            ended.await;
        }
    }
}

async fn attach(run: &Arc<Run>, request: &Request) -> Result<(Owner, u32, bool), Denied> {
    let differing = run.terms.differing(&request.terms);
    if !differing.is_empty() {
        let text =
            format!("run {} is another request: {} differ", run.key.id, differing.join(", "));
        return Err(Denied::Refused(Code::Conflict, text));
    }
    match run.known().await {
        Phase::Running { pid } => Ok((run.take_over(), pid, true)),
        Phase::NotStarted { code, text } => Err(Denied::NotStarted(code, text)),
        Phase::Lost { code } => Err(Denied::Lost(code)),
        Phase::Starting => Err(Denied::Lost(Code::ServerRestarted)),
    }
}
