//! Starting a run of this process: the claim is written down, then the command is started.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tokio::sync::OwnedRwLockReadGuard;
use tracing::error;

use super::answer::Denied;
use super::engine::{Bounds, Engine};
use super::host::Host;
use super::judged::Judged;
use super::owner::Owner;
use super::place::Place;
use super::request::Request;
use super::run::{Phase, Run};
use super::table::Key;
use crate::exec::{self, BaseEnv, Mark, SpawnError};
use crate::proto::code::Code;
use crate::sys::pause;

/// Whether folder and program are looked for elsewhere than where the server's own are: that file system may not answer.
fn may_wait(request: &Request, judged: &Judged) -> bool {
    judged.user.is_some() || judged.ceilings.folder.is_some() || request.names_a_place()
}

/// One of the runs that end with this process, from its claim to its end: a server that stops waits for it.
struct Here(Arc<Host>);

impl Here {
    fn new(host: &Arc<Host>) -> Self {
        host.here.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(host))
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.here.fetch_sub(1, Ordering::Relaxed);
        self.0.idle.notify_waiters();
    }
}

/// Lets the tasks go first that are ready. Not `yield_now`, which has the runtime look for events before.
async fn behind_the_others() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Host {
    /// Starts a run that was claimed.
    pub(super) async fn start(
        self: &Arc<Self>,
        run: &Arc<Run>,
        request: &Request,
        judged: Judged,
        (place, pass): (Place, Option<OwnedRwLockReadGuard<()>>),
    ) -> Result<(Owner, u32), Denied> {
        let here = Here::new(self);
        let accepted = self.books.accept(&run.key, request, judged.uid());
        let is_awaited = self.books.ledger().is_some_and(|ledger| ledger.is_awaited_by(false));
        let aside = is_awaited || may_wait(request, &judged) || self.is_crowded();
        if accepted.is_err() || !aside {
            return self.begin(run, request, &judged, (accepted, place, here));
        }
        let (host, run, request) = (Arc::clone(self), Arc::clone(run), request.clone());
        // It goes on if the caller goes away: a claim must come to an end.
        let task = tokio::spawn(async move {
            let accepted = if is_awaited { host.surely(&run, accepted).await } else { accepted };
            let begun = host.begin_aside((run, request), judged, (accepted, place, here)).await;
            drop(pass);
            begun
        });
        // A panic there would be a bug; what became of the run is then found at the next start.
        task.await.unwrap_or(Err(Denied::Lost(Code::OutOfResources)))
    }

    /// Whether there is other work than this start for as long as it takes: its thread waits until the child has
    /// executed the program (vfork(2)), which on busy processors is as long as a short run.
    fn is_crowded(&self) -> bool {
        self.here.load(Ordering::Relaxed) > self.processors
    }

    /// Begins in a thread that may wait. There are as many as processors, beside those that may wait for a folder that
    /// does not answer, which is to hold up nobody else.
    async fn begin_aside(
        self: Arc<Self>,
        (run, request): (Arc<Run>, Request),
        judged: Judged,
        (accepted, place, here): (Result<Mark, Denied>, Place, Here),
    ) -> Result<(Owner, u32), Denied> {
        let turn = match may_wait(&request, &judged) {
            false => Arc::clone(&self.starting).acquire_owned().await.ok(),
            true => None,
        };
        let begin = move || {
            let begun = self.begin(&run, &request, &judged, (accepted, place, here));
            drop(turn);
            begun
        };
        let begun = tokio::task::spawn_blocking(begin).await;
        begun.unwrap_or(Err(Denied::Lost(Code::OutOfResources)))
    }

    /// Waits until the claim is on the disk.
    async fn surely(&self, run: &Run, accepted: Result<Mark, Denied>) -> Result<Mark, Denied> {
        let Some(ledger) = self.books.ledger() else { return accepted };
        if ledger.sure(ledger.last_seq(), false).await.is_err() {
            self.books.not_started(run, Code::JournalFailed);
            let text = "the server cannot write its journal".into();
            return Err(Denied::Refused(Code::JournalFailed, text));
        }
        accepted
    }

    fn begin(
        self: &Arc<Self>,
        run: &Arc<Run>,
        request: &Request,
        judged: &Judged,
        (accepted, place, here): (Result<Mark, Denied>, Place, Here),
    ) -> Result<(Owner, u32), Denied> {
        let started =
            accepted.and_then(|mark| self.spawn(run, request, judged, (mark, place, here)));
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
        }
        if started.is_err() {
            self.idle.notify_waiters();
        }
        started
    }

    /// `place` and `here` are given back when the run has ended, or was not started.
    fn spawn(
        self: &Arc<Self>,
        run: &Arc<Run>,
        request: &Request,
        judged: &Judged,
        (mark, place, here): (Mark, Place, Here),
    ) -> Result<(Owner, u32), Denied> {
        pause::point("accepted");
        let spec = judged.spec(request, self.settings.shell.clone());
        let of_user = spec.user.as_deref().map(BaseEnv::of_user);
        let base_env = of_user.as_ref().unwrap_or(&self.base_env);
        let spawned = match exec::spawn(&spec, base_env, run.key.id.as_str(), mark) {
            Ok(spawned) => spawned,
            Err(SpawnError::NotStarted(e)) => {
                self.books.not_started(run, Code::from(&e));
                return Err(Denied::NotStarted(Code::from(&e), e.to_string()));
            }
            Err(SpawnError::Unfollowed(e)) => return Err(self.unfollowed(&run.key, &e)),
        };
        pause::point("spawned");
        let process = spawned.child.process();
        self.books.running(run, process);
        pause::point("running");
        let owner = run.take_over();
        let bounds = Bounds {
            deadline: request.deadline(),
            ceiling: judged.ceilings.deadline,
            output: judged.ceilings.output,
            excerpt: judged.ceilings.excerpt,
            grace: request.grace(),
            wait_eof: spec.wait_eof,
            merge: spec.merge,
        };
        let mut engine = Engine::new(Arc::clone(run), spawned, bounds, self.scanner.clone());
        let (host, run) = (Arc::clone(self), Arc::clone(run));
        tokio::spawn(async move {
            let verdict = engine.drive().await;
            host.finish(&run, verdict, engine.excerpt());
            drop((place, here));
            // The verdict is sent before the main process is reaped, which takes the kernel a while.
            behind_the_others().await;
            drop(engine);
        });
        Ok((owner, process.pid.as_raw_nonzero().get().unsigned_abs()))
    }

    fn unfollowed(&self, key: &Key, why: &std::io::Error) -> Denied {
        error!(run = %key.id, "a run was started, could not be followed, and was killed: {why}");
        self.books.lost(key);
        Denied::Lost(Code::OutOfResources)
    }
}
