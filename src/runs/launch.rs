//! Starting the supervisor of a durable run.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

use super::answer::Denied;
use super::disk::Meta;
use super::disk::scan::running;
use super::durable::{Durable, Keeping, State, There, Wanted};
use super::host::Host;
use super::judged::Judged;
use super::link::Link;
use super::place::Place;
use super::ready::{Ready, no_place};
use super::request::{Imposed, Request};
use crate::conn::Frame;
use crate::proto::code::Code;
use crate::proto::header::ServerHeader;
use crate::sys::pause;

/// How long a run is given to end before another supervisor is started: a program that starts takes processors
/// from a run that is short.
const SPARE_AFTER: Duration = Duration::from_millis(5);

/// What a supervisor is told before its request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "supervise")]
pub struct Setup {
    /// The name of the run's folder.
    pub folder: String,
    /// Under which identity the run is claimed.
    pub identity: String,
    /// What its processes are to carry.
    pub mark: String,
    /// Most bytes of the record.
    pub record_limit: u64,
    /// The request, as the server has judged it.
    #[serde(default)]
    pub judged: Judged,
    /// What is run instead of what its request asks for.
    #[serde(default)]
    pub imposed: Imposed,
}

/// Why a supervisor gave no answer.
enum NoAnswer {
    /// It was never started.
    Launch(io::Error),
    /// It was, and is gone.
    Gone,
}

impl Host {
    /// Starts a durable run. It goes on if the caller goes away.
    pub(super) async fn launch(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        request: &Request,
        judged: Judged,
        place: Place,
    ) -> Result<There, Denied> {
        let (host, run, request) = (Arc::clone(self), Arc::clone(run), request.clone());
        let task = tokio::spawn(async move {
            let started = host.start_there(&run, &request, judged).await;
            host.settle_start(&run, &started, place);
            match started {
                Ok(answered) => {
                    let wanted = Wanted::of(&request);
                    if let Some(there) = host.answered(&run, answered, wanted).await {
                        return Ok(there);
                    }
                }
                // Its watcher finds out.
                Err(Denied::Lost(_)) => {}
                Err(denied) => return Err(denied),
            }
            host.go_on(&run, &request).await
        });
        // A panic there would be a bug; what became of the run is then found at the next start.
        task.await.unwrap_or(Err(Denied::Lost(Code::OutOfResources)))
    }

    async fn start_there(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        request: &Request,
        judged: Judged,
    ) -> Result<(Link, Frame), Denied> {
        let (Some(ledger), Some(keeping)) = (self.books.ledger(), &self.keeping) else {
            return Err(Denied::Refused(
                Code::Unsupported,
                "there are no durable runs here".into(),
            ));
        };
        let mark = self.books.accept(&run.key, request, judged.uid())?;
        pause::point("accepted");
        let meta = run.full_meta(mark, &judged, ledger.origin());
        let seq = ledger.last_seq();
        let judged = (judged, request.imposed().clone());
        // While the line goes to the disk a supervisor comes up and takes its place. It starts nothing
        // before it is asked to, which is when the line is there.
        let (synced, launched) = tokio::join!(
            ledger.sure(seq, true),
            self.launch_supervisor(run, meta, judged, keeping)
        );
        if synced.is_err() {
            drop(launched);
            self.not_started_there(run, Code::JournalFailed);
            let text = "the server cannot write its journal".into();
            return Err(Denied::Refused(Code::JournalFailed, text));
        }
        let answer = match launched {
            Ok(link) => ask_new(link, request).await,
            Err(e) => Err(NoAnswer::Launch(e)),
        };
        match answer {
            Ok((link, answer)) => self.first_answer(run, link, answer),
            Err(NoAnswer::Launch(e)) => {
                if let Some(line) =
                    self.troubles.line(|| format!("cannot start its supervisor: {e}"))
                {
                    error!(run = %run.key.id, "{line}");
                }
                self.not_started_there(run, Code::StartFailed);
                Err(Denied::NotStarted(Code::StartFailed, format!("no supervisor: {e}")))
            }
            // It may still hold the record for a moment, and may have come to the command's end.
            Err(NoAnswer::Gone) => Err(Denied::Lost(Code::SupervisorLost)),
        }
    }

    /// Gives a run a supervisor with its folder, and tells it of the run.
    async fn launch_supervisor(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        meta: Meta,
        (judged, imposed): (Judged, Imposed),
        keeping: &Keeping,
    ) -> io::Result<Link> {
        let waited = self.spare.take().await;
        let is_taken = waited.is_some();
        let Ready { link, folder, .. } = match waited {
            Some(ready) => ready,
            None => self.start_another().await?,
        };
        let (identity, mark) = (meta.identity.clone(), meta.mark.clone());
        let its_own = run.folder.clone();
        // In a thread that may wait for the disk: what could not be removed there before may be much.
        let settle_in = move || {
            let settled = folder.become_that_of(&its_own, &meta);
            settled.map_err(|e| no_place(folder.path(), &e))
        };
        spawn_blocking(settle_in).await.unwrap_or_else(|e| Err(io::Error::other(e)))?;
        pause::point("launched");
        let (folder, record_limit) = (run.folder.name(), keeping.record_limit);
        let setup = Setup { folder, identity, mark, record_limit, judged, imposed };
        // One that is gone is noticed when it is asked.
        let _ = link.send(&setup, self.settings.shell.as_os_str().as_bytes()).await;
        self.prepare_another(Arc::clone(run), is_taken);
        Ok(link)
    }

    /// Starts a supervisor in a thread that may wait: for the disk, and until the new program runs, which on busy
    /// processors is long (vfork(2)).
    async fn start_another(self: &Arc<Self>) -> io::Result<Ready> {
        let turn = Arc::clone(&self.starting).acquire_owned().await;
        let host = Arc::clone(self);
        let start = move || {
            let _turn = turn;
            let Some(keeping) = &host.keeping else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            Ready::start(keeping)
        };
        spawn_blocking(start).await.unwrap_or_else(|e| Err(io::Error::other(e)))
    }

    /// Has a supervisor ready for the next run, if there is none: once `run` is over or has had its time, which begins
    /// when its own supervisor is there.
    fn prepare_another(self: &Arc<Self>, run: Arc<Durable>, is_there: bool) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            if !is_there {
                run.known().await;
            }
            let _ = timeout(SPARE_AFTER, run.over()).await;
            drop(run);
            let Some(vacancy) = host.spare.vacancy() else { return };
            if host.is_closed_to_new() {
                return;
            }
            match host.start_another().await {
                Ok(ready) => vacancy.fill(ready),
                Err(e) => {
                    let line = host.troubles.line(|| format!("no supervisor is kept ready: {e}"));
                    line.into_iter().for_each(|line| warn!("{line}"));
                }
            }
        });
    }

    fn first_answer(
        &self,
        run: &Durable,
        link: Link,
        answer: Frame,
    ) -> Result<(Link, Frame), Denied> {
        match answer.header() {
            Ok(ServerHeader::Started(started)) => {
                // Of a short one the process may be gone by now.
                let record = run.folder.record().ok().flatten();
                let process = record.and_then(|record| running(&record).ok().flatten());
                if let (Some(ledger), Some(process)) = (self.books.ledger(), process) {
                    ledger.running(&run.key, process);
                }
                pause::point("running");
                run.set_state(State::Live { pid: started.pid });
                Ok((link, answer))
            }
            Ok(ServerHeader::NotStarted(refusal)) => {
                self.not_started_there(run, refusal.code);
                Err(Denied::NotStarted(refusal.code, refusal.text))
            }
            Ok(ServerHeader::Refused(refused)) => {
                self.not_started_there(run, refused.code);
                Err(Denied::Refused(refused.code, refused.text))
            }
            _ => Err(Denied::Lost(Code::SupervisorLost)),
        }
    }

    /// Nothing was started. First its folder goes: a run that is accepted and has none was not started, and the
    /// next server says so if this one does not come to it. The other way round it would be said twice.
    pub(super) fn not_started_there(&self, run: &Durable, code: Code) {
        run.folder.remove();
        pause::point("unborn");
        if let Some(ledger) = self.books.ledger() {
            ledger.not_started(&run.key, code.name());
        }
    }

    /// Tells those who wait what came of the start, and has the run watched.
    fn settle_start(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        started: &Result<(Link, Frame), Denied>,
        place: Place,
    ) {
        match started {
            Ok(_) => {
                self.counts().started.fetch_add(1, Ordering::Relaxed);
                self.watch(Arc::clone(run), Some(place));
            }
            Err(Denied::Refused(code, text) | Denied::NotStarted(code, text)) => {
                self.table.release(&run.key);
                run.set_state(State::NotStarted { code: *code, text: text.clone() });
            }
            Err(Denied::Lost(_)) if matches!(run.state(), State::Starting) => {
                // It claimed the record and says nothing that is understood: it is watched to its end.
                run.set_state(State::Live { pid: 0 });
                self.watch(Arc::clone(run), Some(place));
            }
            Err(Denied::Lost(_)) => {}
        }
    }
}

async fn ask_new(link: Link, request: &Request) -> Result<(Link, Frame), NoAnswer> {
    let request = request.encoded(true).map_err(|e| NoAnswer::Launch(io::Error::other(e)))?;
    match link.ask(request).await {
        Ok(answer) => Ok((link, answer)),
        Err(_) => Err(NoAnswer::Gone),
    }
}
