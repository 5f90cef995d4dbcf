//! Starting the supervisor of a durable run, and watching it to its end.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{error, info, warn};

use super::clock::{self, Moment};
use super::disk::folder::Claim;
use super::disk::scan::{Scan, scan};
use super::disk::{Meta, Outcome, Writer};
use super::durable::{Durable, Keeping, Source, State, There, lock, verdict_frame};
use super::host::{Closed, Denied, Host, Kept, check_same};
use super::link::Link;
use super::record::encode;
use super::request::Request;
use crate::conn::Frame;
use crate::exec::{Mark, TERM_GRACE, stop_leftovers};
use crate::proto::code::Code;
use crate::proto::frame::{Decoded, Limits};
use crate::proto::header::{Attach, ClientHeader, ServerHeader, ShowFrom};
use crate::proto::stored::StoredHeader;
use crate::proto::verdict::Verdict;
use crate::sys::pause;
use crate::sys::process::{self, Pid, ProcessRef};

/// The argument by which this program is a supervisor.
pub const SUPERVISE: &str = "supervise";
/// A supervisor that lives and does not take the link is asked again after so long.
const LINK_PAUSE: Duration = Duration::from_millis(100);

/// What a supervisor is told before its request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename = "supervise")]
pub struct Setup {
    /// Under which identity the run is claimed.
    pub identity: String,
    /// What its processes are to carry.
    pub mark: String,
    /// Most bytes of the record.
    pub record_limit: u64,
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
        place: OwnedSemaphorePermit,
    ) -> Result<There, Denied> {
        let (host, run, request) = (Arc::clone(self), Arc::clone(run), request.clone());
        let task = tokio::spawn(async move {
            let started = host.start_there(&run, &request).await;
            host.settle_start(&run, &started, place);
            match started {
                Ok((link, answer)) => {
                    let (answer, source) = (answer.encoded(), Source::Link(Arc::new(link)));
                    Ok(There { run, answer, source })
                }
                // Its watcher finds out.
                Err(Denied::Lost(_)) => host.go_on(&run, &request).await,
                Err(denied) => Err(denied),
            }
        });
        // A panic there would be a bug; what became of the run is then found at the next start.
        task.await.unwrap_or(Err(Denied::Lost(Code::OutOfResources)))
    }

    async fn start_there(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        request: &Request,
    ) -> Result<(Link, Frame), Denied> {
        let (Some(ledger), Some(keeping)) = (self.books.ledger(), &self.keeping) else {
            return Err(Denied::Refused(
                Code::Unsupported,
                "there are no durable runs here".into(),
            ));
        };
        let mark = self.books.accept(&run.key, request)?;
        pause::point("accepted");
        let meta = run.full_meta(mark, ledger.origin());
        let seq = ledger.last_seq();
        // A process takes as long to come up as a line to reach the disk. It starts nothing before it is
        // told what, which is when both are there.
        let (synced, launched) =
            tokio::join!(ledger.sure(seq, true), async { launch_supervisor(run, &meta, keeping) });
        if let Err(e) = synced {
            error!("the journal cannot be synced: {e}");
            ledger.not_started(&run.key, Code::JournalFailed.name());
            run.folder.remove();
            let text = "the server cannot write its journal".into();
            return Err(Denied::Refused(Code::JournalFailed, text));
        }
        let since = clock::boottime();
        let answer = match launched {
            Ok(link) => self.ask_new(link, run, request, (keeping.record_limit, mark)).await,
            Err(e) => Err(NoAnswer::Launch(e)),
        };
        match answer {
            Ok((link, answer)) => self.first_answer(run, link, answer, since),
            Err(NoAnswer::Launch(e)) => {
                error!(run = %run.key.id, "cannot start its supervisor: {e}");
                ledger.not_started(&run.key, Code::StartFailed.name());
                run.folder.remove();
                Err(Denied::NotStarted(Code::StartFailed, format!("no supervisor: {e}")))
            }
            // It may still hold the record for a moment, and may have come to the command's end.
            Err(NoAnswer::Gone) => Err(Denied::Lost(Code::SupervisorLost)),
        }
    }

    async fn ask_new(
        &self,
        link: Link,
        run: &Durable,
        request: &Request,
        (record_limit, mark): (u64, Mark),
    ) -> Result<(Link, Frame), NoAnswer> {
        let request = request.encoded(true).map_err(|e| NoAnswer::Launch(io::Error::other(e)))?;
        pause::point("launched");
        let (identity, mark) = (run.key.identity.to_string(), mark.to_string());
        let setup = Setup { identity, mark, record_limit };
        let shell = self.settings.shell.as_os_str().as_bytes();
        let asked = async {
            link.send(&setup, shell).await?;
            link.ask(request).await
        };
        match asked.await {
            Ok(answer) => Ok((link, answer)),
            Err(_) => Err(NoAnswer::Gone),
        }
    }

    fn first_answer(
        &self,
        run: &Durable,
        link: Link,
        answer: Frame,
        since: Duration,
    ) -> Result<(Link, Frame), Denied> {
        let ledger = self.books.ledger();
        match answer.header() {
            Ok(ServerHeader::Started(started)) => {
                let pid = i32::try_from(started.pid).ok().and_then(Pid::from_raw);
                let process = pid.and_then(|pid| ProcessRef::of_child(pid, since).ok());
                if let (Some(ledger), Some(process)) = (ledger, process) {
                    ledger.running(&run.key, process);
                }
                pause::point("running");
                run.set_state(State::Live { pid: started.pid });
                Ok((link, answer))
            }
            Ok(ServerHeader::NotStarted(refusal)) => {
                if let Some(ledger) = ledger {
                    ledger.not_started(&run.key, refusal.code.name());
                }
                run.folder.remove();
                Err(Denied::NotStarted(refusal.code, refusal.text))
            }
            Ok(ServerHeader::Refused(refused)) => {
                if let Some(ledger) = ledger {
                    ledger.not_started(&run.key, refused.code.name());
                }
                run.folder.remove();
                Err(Denied::Refused(refused.code, refused.text))
            }
            _ => Err(Denied::Lost(Code::SupervisorLost)),
        }
    }

    /// Tells those who wait what came of the start, and has the run watched.
    fn settle_start(
        self: &Arc<Self>,
        run: &Arc<Durable>,
        started: &Result<(Link, Frame), Denied>,
        place: OwnedSemaphorePermit,
    ) {
        match started {
            Ok(_) => self.watch(Arc::clone(run), Some(place)),
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

    /// Waits for the end of a run and writes it down, in a task of its own.
    pub(super) fn watch(self: &Arc<Self>, run: Arc<Durable>, place: Option<OwnedSemaphorePermit>) {
        let host = Arc::clone(self);
        tokio::spawn(async move {
            while matches!(run.state(), State::Live { .. }) {
                if let Some(verdict) = verdict_of(&run).await {
                    host.ended(&run, &verdict);
                } else if !host.resolve(&run).await {
                    tokio::time::sleep(LINK_PAUSE).await;
                }
            }
            drop(place);
            host.left();
        });
    }

    /// A verdict has come from a supervisor: it is written down, once, before anybody is told.
    pub fn ended(&self, run: &Durable, frame: &Frame) -> Option<Bytes> {
        let Ok(ServerHeader::Verdict(verdict)) = frame.header() else { return None };
        let length = run.folder.record().ok().flatten().and_then(|file| file.metadata().ok());
        let length = length.map_or(0, |m| m.len().saturating_sub(frame.size() as u64));
        let outcome = self.note_ended(run, *verdict, length);
        match &*outcome {
            Outcome::Ended { verdict, .. } => verdict_frame(verdict).ok(),
            Outcome::Lost { .. } => None,
        }
    }

    /// Writes down how a run ended, unless that is done already.
    pub(super) fn note_ended(
        &self,
        run: &Durable,
        mut verdict: Verdict,
        length: u64,
    ) -> Arc<Outcome> {
        let _one = lock(&run.settling);
        if let State::Over(outcome) | State::Forgotten(outcome) = run.state() {
            return outcome;
        }
        if !run.is_journaled {
            verdict.journal = self.books.ledger().and_then(|l| l.ended(&run.key, &verdict));
        }
        pause::point("journaled");
        let noted = self.moment();
        self.over(run, Outcome::Ended { verdict: Box::new(verdict), length, noted })
    }

    fn moment(&self) -> Moment {
        Moment::now(self.books.ledger().map_or("", |ledger| &ledger.origin().boot))
    }

    fn over(&self, run: &Durable, outcome: Outcome) -> Arc<Outcome> {
        if let Err(e) = run.folder.set_outcome(&outcome) {
            // The journal has it; the next server finds the record without it and notes it anew.
            error!(run = %run.key.id, "cannot note how it ended: {e}");
        }
        // A supervisor that was killed has left it.
        run.folder.remove_socket();
        pause::point("noted");
        let outcome = Arc::new(outcome);
        run.set_state(State::Over(Arc::clone(&outcome)));
        self.one_more.notify_one();
        self.left();
        outcome
    }

    /// Finds out what became of a run whose supervisor does not answer. False if it lives.
    pub(super) async fn resolve(self: &Arc<Self>, run: &Arc<Durable>) -> bool {
        let (folder, is_this_boot) = (run.folder.clone(), self.is_this_boot(run));
        let looked = tokio::task::spawn_blocking(move || {
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
                    if found.claimed.is_none() && is_this_boot {
                        // Who comes late finds the record claimed, and starts nothing.
                        let pid = std::process::id();
                        let header = StoredHeader::Claimed { pid, start: false };
                        let frame = encode(&header, b"").map_err(io::Error::other)?;
                        Writer::new(record, u64::MAX).note(&frame)?;
                    }
                    Some(found)
                }
            })
        });
        let found: io::Result<Option<Scan>> =
            looked.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        match found {
            Ok(None) => return false,
            Ok(Some(found)) => self.resolved(run, found).await,
            Err(e) => {
                error!(run = %run.key.id, "cannot read its record: {e}");
                self.lost(run, &Scan::default()).await;
            }
        }
        true
    }

    async fn resolved(self: &Arc<Self>, run: &Arc<Durable>, found: Scan) {
        let claimed = found.claimed.unwrap_or(!self.is_this_boot(run));
        match (claimed, found.verdict) {
            (false, _) => {
                info!(run = %run.key.id, "never started: its supervisor did not come to it");
                if let Some(ledger) = self.books.ledger() {
                    ledger.not_started(&run.key, Code::SupervisorLost.name());
                }
                run.folder.remove();
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
            (true, None) => self.lost(run, &Scan { verdict: None, ..found }).await,
        }
    }

    /// A run has lost its supervisor: what is left of it is stopped, and its end is unknown.
    async fn lost(&self, run: &Durable, found: &Scan) {
        let start_time = found.running.map_or(0, |(_, start_time)| start_time);
        let left_running = match run.mark() {
            Some(mark) if self.is_here(run) => {
                let stopped = stop_leftovers(&self.scanner, mark, start_time, TERM_GRACE).await;
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
            return;
        }
        warn!(run = %run.key.id, left_running, torn = found.torn, "lost: its supervisor is gone");
        if let (Some(ledger), false) = (self.books.ledger(), run.is_journaled) {
            ledger.lost(&run.key, left_running);
        }
        let (length, last, noted) = (found.length, found.last, self.moment());
        let code = Code::SupervisorLost;
        self.over(run, Outcome::Lost { code, left_running, length, last, noted });
    }

    /// A record that a machine which went down has lost, or lost the beginning of, says nothing.
    fn is_this_boot(&self, run: &Durable) -> bool {
        let meta = run.folder.meta().ok().flatten();
        let (Some(meta), Some(ledger)) = (meta, self.books.ledger()) else { return false };
        meta.origin.boot == ledger.origin().boot
    }

    /// Pids mean the same processes only within one boot and one pid namespace of one machine.
    fn is_here(&self, run: &Durable) -> bool {
        let meta = run.folder.meta().ok().flatten();
        let (Some(meta), Some(ledger)) = (meta, self.books.ledger()) else { return false };
        meta.origin.is_same_place(ledger.origin())
    }

    /// Goes on with a run that is there.
    pub(super) async fn go_on(
        &self,
        run: &Arc<Durable>,
        request: &Request,
    ) -> Result<There, Denied> {
        check_same(&run.key.id, &run.meta.terms, request)?;
        let asked =
            request.encoded(false).map_err(|e| Denied::Refused(Code::BadRequest, e.to_string()))?;
        self.reach(run, asked, (request.after, ShowFrom::Start)).await
    }

    /// Looks at a run.
    ///
    /// # Errors
    /// [`Denied`]: there is nothing to be seen of it.
    pub async fn look(&self, run: &Arc<Durable>, attach: &Attach) -> Result<There, Denied> {
        let wanted = Attach { run: run.key.id.to_string(), ..attach.clone() };
        let asked = encode(&ClientHeader::Attach(wanted), b"")
            .map_err(|e| Denied::Refused(Code::BadRequest, e.to_string()))?;
        self.reach(run, asked, (attach.after, attach.from)).await
    }

    /// Gives a run up.
    pub(super) async fn close_there(&self, run: &Arc<Durable>) -> Closed {
        let id = run.key.id.to_string();
        let Ok(asked) = encode(&ClientHeader::Close { id, first_sent_ms_ago: 0 }, b"") else {
            return Closed::Lost(Code::SupervisorLost);
        };
        match self.reach(run, asked, (0, ShowFrom::Verdict)).await {
            Ok(there) => Closed::There(there),
            Err(Denied::NotStarted(..)) => Closed::NeverStarted,
            Err(Denied::Lost(code)) => Closed::Lost(code),
            Err(Denied::Refused(code, text)) => Closed::Refused(code, text),
        }
    }

    /// Asks a run's supervisor, or the record that it left.
    async fn reach(
        &self,
        run: &Arc<Durable>,
        asked: Bytes,
        place: (u64, ShowFrom),
    ) -> Result<There, Denied> {
        loop {
            match run.known().await {
                State::NotStarted { code, text } => return Err(Denied::NotStarted(code, text)),
                State::Over(outcome) => return self.left_of(run, &outcome, place),
                State::Forgotten(_) => return Err(Denied::Lost(Code::Forgotten)),
                State::Starting | State::Live { .. } => {}
            }
            if let Ok(link) = Link::connect(&run.folder)
                && let Ok(answer) = link.ask(asked.clone()).await
            {
                let (run, answer) = (Arc::clone(run), answer.encoded());
                return Ok(There { run, answer, source: Source::Link(Arc::new(link)) });
            }
            // Its watcher sees the same, and finds out.
            tokio::select! {
                () = run.over() => {}
                () = tokio::time::sleep(LINK_PAUSE) => {}
            }
        }
    }

    /// Asks a run's supervisor something that has one answer. None if the run is over.
    pub(super) async fn ask(&self, run: &Arc<Durable>, asked: Bytes) -> Option<ServerHeader> {
        let there = self.reach(run, asked, (0, ShowFrom::Verdict)).await.ok()?;
        match (&there.source, crate::proto::frame::decode(&there.answer, Limits::FULL)) {
            (Source::Link(_), Ok(Decoded::Frame(frame))) => {
                serde_json::from_slice(frame.header).ok()
            }
            _ => None,
        }
    }

    fn left_of(
        &self,
        run: &Arc<Durable>,
        outcome: &Arc<Outcome>,
        place: (u64, ShowFrom),
    ) -> Result<There, Denied> {
        match run.left(outcome, place) {
            Ok(Some((started, view))) => {
                let answer = encode(&ServerHeader::Started(started), b"")
                    .map_err(|e| Denied::Refused(Code::BadRequest, e.to_string()))?;
                Ok(There { run: Arc::clone(run), answer, source: Source::Record(view) })
            }
            Ok(None) => {
                self.gone(run, outcome);
                Err(Denied::Lost(Code::Forgotten))
            }
            Err(e) => {
                error!(run = %run.key.id, "cannot read its record: {e}");
                Err(Denied::Lost(Code::OutOfResources))
            }
        }
    }

    /// The durable runs of this host.
    #[must_use]
    pub fn durables(&self) -> Vec<Arc<Durable>> {
        let there = |kept: &Arc<Kept>| match &**kept {
            Kept::There(run) => Some(Arc::clone(run)),
            Kept::Here(_) | Kept::Gone(_) => None,
        };
        self.table.all_live().iter().filter_map(there).collect()
    }
}

/// Waits for the verdict of a run that goes on. None if its supervisor does not give one.
async fn verdict_of(run: &Durable) -> Option<Frame> {
    let link = Link::connect(&run.folder).ok()?;
    let attach =
        Attach { run: run.key.id.to_string(), after: 0, from: ShowFrom::Verdict, follow: true };
    let mut frame = link.ask(encode(&ClientHeader::Attach(attach), b"").ok()?).await.ok()?;
    loop {
        if let Ok(ServerHeader::Verdict(_)) = frame.header() {
            return Some(frame);
        }
        frame = link.next().await.ok()??;
    }
}

/// Makes the folder of a run and starts its supervisor, which waits at its end of the link.
fn launch_supervisor(run: &Durable, meta: &Meta, keeping: &Keeping) -> io::Result<Link> {
    run.folder.make()?;
    let (link, theirs) = Link::pair()?;
    start_supervisor(run, keeping, theirs)?;
    run.folder.set_meta(meta)?;
    Ok(link)
}

/// Starts the supervisor of a run with `link` as its standard input. It will leave this process's session,
/// which a leader of a process group cannot.
fn start_supervisor(run: &Durable, keeping: &Keeping, link: OwnedFd) -> io::Result<()> {
    // By descriptor: the program that is running, also when its file has been replaced.
    let program = format!("/proc/self/fd/{}", keeping.program.as_raw_fd());
    let mut command = Command::new(program);
    command.arg0("rexec-server").arg(SUPERVISE).arg(OsStr::new(run.folder.path()));
    command.stdin(Stdio::from(link)).stdout(Stdio::null()).stderr(run.folder.log()?);
    let pid = process::spawn(&mut command)?;
    drop(command);
    match pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(process::watch) {
        Ok(ended) => {
            tokio::spawn(async move {
                // Whatever goes wrong leaves a stranger, which `adopt` reaps.
                if ended.readable().await.is_err() || process::reap(pid).is_err() {
                    process::disown(pid);
                }
            });
        }
        Err(e) => {
            warn!("a supervisor is not watched: {e}");
            process::disown(pid);
        }
    }
    Ok(())
}
