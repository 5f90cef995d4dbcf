//! All runs of one server: claiming, starting, finishing, forgetting.
//!
//! The order is the promise: claim the id, journal `accepted`, spawn, journal `running`, answer
//! `started`; and at the end journal `ended`, then show the verdict.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{
    Notify, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, Semaphore, TryAcquireError,
};
use tokio::time::Instant;
use tracing::error;

use super::answer::{Closed, Denied, Served, check_same};
use super::books::Books;
use super::credit::Budget;
use super::durable::{Durable, Keeping};
use super::entry::Entry;
use super::excerpt::Excerpt;
use super::judged::Judged;
use super::ledger::Ledger;
use super::place::{Counts, Judge, Place};
use super::request::Request;
use super::run::{Phase, Run};
use super::shares::Shares;
use super::spare::Spare;
use super::table::{Burial, Claim, Key, Table};
use super::throttle::Throttle;
use crate::exec::{BaseEnv, Scanner};
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::header::ServerHeader;
use crate::proto::id::RunId;
use crate::proto::verdict::{StopBy, Verdict};
use crate::sys::mutex::lock;
use crate::sys::pause;

/// So long an upgrade waits for a supervisor that is being started to answer: it is found again by
/// whoever takes over.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// So many ends of runs are put on the disk at one time.
const NOTED_AT_ONCE: usize = 4;

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

/// All runs of one server, or the one run of a supervisor.
#[derive(Debug)]
pub struct Host {
    pub(super) settings: Settings,
    pub(super) base_env: BaseEnv,
    pub(super) table: Table<Entry>,
    pub(super) books: Books,
    budget: Arc<Budget>,
    pub(super) scanner: Scanner,
    /// One for each run that may be under way; closed to new runs at shutdown.
    places: Arc<Semaphore>,
    /// What each identity has under way.
    pub(super) shares: Arc<Shares>,
    /// Runs under way that end with this process.
    pub(super) here: AtomicUsize,
    /// How many threads can run at a time.
    pub(super) processors: usize,
    /// One for each run that is started in a thread of its own, and waits for processors alone.
    pub(super) starting: Arc<Semaphore>,
    pub(super) idle: Notify,
    counts: Counts,
    /// Read while a run is being started; written while nothing new may be.
    gate: Arc<RwLock<()>>,
    /// Nothing new may be started while it is there.
    held: Mutex<Option<OwnedRwLockWriteGuard<()>>>,
    /// A durable run is over.
    pub(super) one_more: Notify,
    pub(super) spare: Spare,
    /// One for each end of a run that is being put on the disk.
    pub(super) noting: Semaphore,
    /// What is logged of durable runs that cannot be started, looked at or noted: a client may ask for them again and
    /// again.
    pub(super) troubles: Throttle,
    /// Where durable runs are kept; none in a supervisor.
    pub(super) keeping: Option<Keeping>,
}

impl Host {
    /// A host that writes down in `books` what happens, and knows what is in `table`.
    #[must_use]
    pub fn new(
        (mut settings, base_env): (Settings, BaseEnv),
        books: Books,
        table: Table<Entry>,
        scanner: Scanner,
        keeping: Option<Keeping>,
    ) -> Arc<Self> {
        settings.max_runs = settings.max_runs.min(Semaphore::MAX_PERMITS);
        // One run does not need to know, and its supervisor is waited for.
        let processors = match settings.max_runs {
            1 => 1,
            _ => std::thread::available_parallelism().map_or(1, NonZero::get),
        };
        Arc::new(Self {
            processors,
            starting: Arc::new(Semaphore::new(processors)),
            budget: Arc::new(Budget::new(settings.memory_budget)),
            places: Arc::new(Semaphore::new(settings.max_runs)),
            shares: Arc::default(),
            settings,
            base_env,
            table,
            books,
            scanner,
            here: AtomicUsize::new(0),
            idle: Notify::new(),
            counts: Counts::default(),
            gate: Arc::default(),
            held: Mutex::default(),
            one_more: Notify::new(),
            spare: Spare::default(),
            noting: Semaphore::new(NOTED_AT_ONCE),
            troubles: Throttle::default(),
            keeping,
        })
    }

    /// Starts a run or goes on with it. The owner is whoever asked last. What is to be started is judged by
    /// `judge`; going on with what was started is not, or a client would be told that nothing was.
    ///
    /// # Errors
    /// [`Denied`] says whether anything may have been started.
    pub async fn run(
        self: &Arc<Self>,
        identity: &Arc<str>,
        request: &Request,
        judge: &Judge<'_>,
    ) -> Result<Served, Denied> {
        let served = self.serve(identity, request, judge).await;
        self.counts.note(&served);
        served
    }

    async fn serve(
        self: &Arc<Self>,
        identity: &Arc<str>,
        request: &Request,
        judge: &Judge<'_>,
    ) -> Result<Served, Denied> {
        let key = Key { identity: Arc::clone(identity), id: request.id.clone() };
        let pass = Arc::clone(&self.gate).try_read_owned().ok();
        let (mut place, mut why_not) = (None, String::new());
        let make = || {
            pass.as_ref().ok_or(Code::ShuttingDown)?;
            let made = self.place(identity, judge).and_then(|free| {
                place = Some(free);
                self.make(&key, request).map(Arc::new)
            });
            made.map_err(|(code, text)| {
                why_not = text;
                code
            })
        };
        let claim = self.table.claim(&key, request.first_sent_ago, make);
        match claim {
            Claim::New(kept) => self.start_new(&kept, request, place, pass).await,
            Claim::Existing(kept) => {
                drop(pass);
                self.go_on_with(&kept, request).await
            }
            Claim::Past(Code::Buried) => {
                Err(Denied::Refused(Code::Buried, "this id was given up".into()))
            }
            Claim::Past(code) => Err(Denied::Lost(code)),
            Claim::Full(full) => Err(Denied::Refused(Code::TooManyRuns, full.to_string())),
            Claim::Refused(_) if pass.is_none() => Ok(Served::Later),
            Claim::Refused(Code::ShuttingDown) if self.is_closed_to_new() => Ok(Served::Later),
            Claim::Refused(Code::OutOfResources) => {
                Err(Denied::NotStarted(Code::OutOfResources, why_not))
            }
            Claim::Refused(code) => Err(Denied::Refused(code, why_not)),
        }
    }

    /// Starts what was just claimed.
    async fn start_new(
        self: &Arc<Self>,
        kept: &Entry,
        request: &Request,
        place: Option<(Place, Judged)>,
        pass: Option<OwnedRwLockReadGuard<()>>,
    ) -> Result<Served, Denied> {
        match (kept, place) {
            (Entry::Here(run), Some((place, judged))) => {
                let (owner, pid) = self.start(run, request, judged, (place, pass)).await?;
                Ok(Served::Here { owner, pid, attached: false })
            }
            (Entry::There(durable), Some((place, judged))) => {
                // In a box, as all that durable runs alone need: the rest of this future is for every run.
                let mut launched = Box::pin(self.launch(durable, request, judged, place));
                let in_time = tokio::time::timeout(START_PATIENCE, &mut launched).await;
                drop(pass);
                match in_time {
                    Ok(launched) => launched.map(Served::There),
                    Err(_) => launched.await.map(Served::There),
                }
            }
            // A place is taken before anything is made, and nothing is made that is gone.
            (Entry::Gone(_), _) | (_, None) => Err(Denied::Lost(Code::OutOfResources)),
        }
    }

    async fn go_on_with(&self, kept: &Entry, request: &Request) -> Result<Served, Denied> {
        match kept {
            Entry::Here(run) => attach(run, request).await,
            Entry::There(durable) => {
                Box::pin(self.go_on(durable, request)).await.map(Served::There)
            }
            Entry::Gone(_) => Err(Denied::Lost(Code::Forgotten)),
        }
    }

    fn make(&self, key: &Key, request: &Request) -> Result<Entry, (Code, String)> {
        match (request.is_durable(), &self.keeping, &self.books) {
            (true, Some(keeping), _) => {
                return Ok(Entry::There(Arc::new(Durable::new(key, request, keeping))));
            }
            (true, None, Books::Server(_)) => {
                return Err((Code::Unsupported, "this server keeps no durable runs".into()));
            }
            _ => {}
        }
        let store = self.books.store(&self.budget)?;
        let run = Run::new(key.clone(), request, &self.budget, store);
        Ok(Entry::Here(Arc::new(run)))
    }

    fn place(
        &self,
        identity: &Arc<str>,
        judge: &Judge<'_>,
    ) -> Result<(Place, Judged), (Code, String)> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|e| match e {
            TryAcquireError::Closed => {
                (Code::ShuttingDown, "the server is shutting down".to_owned())
            }
            TryAcquireError::NoPermits => {
                let most = self.settings.max_runs;
                (Code::TooManyRuns, format!("the server has {most} runs already"))
            }
        })?;
        let (judged, share) = self.shares.take(identity, judge)?;
        Ok((Place::new(permit, share), judged))
    }

    pub(super) fn finish(&self, run: &Arc<Run>, mut verdict: Verdict, output: Option<Excerpt>) {
        pause::point("ended");
        self.counts.output.fetch_add(verdict.output_bytes(), Ordering::Relaxed);
        verdict.journal = self.books.ended(run, &mut verdict, output);
        pause::point("journaled");
        match encoded(&ServerHeader::Verdict(Box::new(verdict)), b"") {
            Ok(frame) => run.finish(frame),
            Err(e) => error!(run = %run.key.id, "the verdict cannot be encoded: {e}"),
        }
        self.trim();
    }

    /// Every run of this process.
    pub(super) fn runs_here(&self) -> Vec<Arc<Run>> {
        let here = |kept: &Arc<Entry>| match &**kept {
            Entry::Here(run) => Some(Arc::clone(run)),
            Entry::There(_) | Entry::Gone(_) => None,
        };
        self.table.all_live().iter().filter_map(here).collect()
    }

    /// Whether whatever has not ended is still being started.
    #[must_use]
    pub fn is_only_starting(&self) -> bool {
        let starting = self.runs_here().iter().filter(|run| run.is_starting()).count();
        starting == self.here.load(Ordering::Relaxed)
    }

    /// Where a server writes down what happens.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.books.ledger()
    }

    /// What has happened to runs since the start.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many runs are under way, durable ones that this server has started among them.
    #[must_use]
    pub fn running(&self) -> usize {
        self.settings.max_runs - self.places.available_permits()
    }

    /// Bytes of the memory budget that are in use.
    #[must_use]
    pub fn budget_used(&self) -> u64 {
        let budget = i64::try_from(self.settings.memory_budget).unwrap_or(i64::MAX);
        u64::try_from(budget.saturating_sub(self.budget.left())).unwrap_or(0)
    }

    /// Gives an id up for a client that does not know whether it was ever used.
    #[must_use]
    pub async fn close(&self, identity: &Arc<str>, id: &RunId, first_sent_ago: Duration) -> Closed {
        let key = Key { identity: Arc::clone(identity), id: id.clone() };
        match self.table.bury(&key, first_sent_ago) {
            Burial::Existing(kept) => match &*kept {
                Entry::Here(run) => close_here(run).await,
                Entry::There(durable) => self.close_there(durable).await,
                Entry::Gone(_) => Closed::Lost(Code::Forgotten),
            },
            Burial::Past(Code::Buried) => Closed::NeverStarted,
            Burial::Buried => {
                if let Some(ledger) = self.books.ledger() {
                    ledger.buried(&key);
                }
                Closed::NeverStarted
            }
            Burial::Past(code) => Closed::Lost(code),
            Burial::Full(full) => Closed::Refused(Code::TooManyRuns, full.to_string()),
        }
    }

    /// The client has the verdict: a record in memory is dropped, its id remembered for a while.
    pub fn confirmed(&self, run: &Run) {
        pause::point("confirmed");
        if run.progress().is_none() {
            self.table.confirm(&run.key);
        }
        self.idle.notify_waiters();
    }

    /// Starts nothing more; what is asked for is answered [`Served::Later`].
    pub fn close_to_new(&self) {
        self.places.close();
        self.admit();
    }

    /// Whether nothing more is started, for good.
    #[must_use]
    pub fn is_closed_to_new(&self) -> bool {
        self.places.is_closed()
    }

    /// Starts nothing until [`Self::admit`]; what is asked for is answered [`Served::Later`]. Returns when
    /// nothing is being started any more. Dropped before, it holds nothing.
    pub async fn hold(&self) {
        let held = Arc::clone(&self.gate).write_owned().await;
        *lock(&self.held) = Some(held);
    }

    /// Starts runs again.
    pub fn admit(&self) {
        *lock(&self.held) = None;
    }

    /// Waits while new runs are held.
    pub async fn admits(&self) {
        drop(self.gate.read().await);
    }

    /// Calls `work` while no line of the journal is being written.
    pub fn while_nothing_is_written<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.books.ledger() {
            Some(ledger) => ledger.while_nothing_is_written(work),
            None => work(),
        }
    }

    /// Stops every run that ends with this process; at once means without time for its processes to finish.
    pub fn stop_all(&self, by: StopBy, at_once: bool) {
        for run in self.runs_here() {
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
            if self.runs_here().iter().all(|run| run.abandoned_since().is_some_and(is_gone)) {
                return;
            }
            changed.await;
        }
    }

    /// A connection has ended.
    pub fn left(&self) {
        self.idle.notify_waiters();
    }

    /// Waits until every run that ends with this process has its verdict.
    pub async fn all_ended(&self) {
        loop {
            let ended = self.idle.notified();
            if self.here.load(Ordering::Relaxed) == 0 {
                return;
            }
            ended.await;
        }
    }
}

async fn close_here(run: &Arc<Run>) -> Closed {
    match run.known().await {
        Phase::NotStarted { .. } => Closed::NeverStarted,
        Phase::Lost { code } => Closed::Lost(code),
        Phase::Starting | Phase::Running { .. } => {
            let owner = run.take_over();
            run.stop(StopBy::Client);
            Closed::Run(owner)
        }
    }
}

async fn attach(run: &Arc<Run>, request: &Request) -> Result<Served, Denied> {
    check_same(&run.key.id, &run.terms, request)?;
    match run.known().await {
        Phase::Running { pid } => Ok(Served::Here { owner: run.take_over(), pid, attached: true }),
        Phase::NotStarted { code, text } => Err(Denied::NotStarted(code, text)),
        Phase::Lost { code } => Err(Denied::Lost(code)),
        Phase::Starting => Err(Denied::Lost(Code::ServerRestarted)),
    }
}
