//! What a logged-in client may ask, and the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tracing::debug;

use super::end::SessionEnd;
use super::held::{Held, Holds, Wait};
use super::outbox::Outbox;
use super::policy::{Allowed, Asked, Forbidden, Rights, Whose};
use super::rights::{RightsNow, imposed};
use super::serving::{Order, Serving};
use super::showing::Showing;
use super::users::Guest;
use super::waiting::{Answer, Came, Heard, Looked, Of, Pending, Waiting, is_order};
use crate::proto::code::Code;
use crate::proto::frame::INTEGER_LIMIT;
use crate::proto::header::{Attach, ClientHeader, Refusal, RunRequest, ServerHeader};
use crate::proto::id::RunId;
use crate::runs::answer::{Closed, Denied, Served};
use crate::runs::durable::There;
use crate::runs::entry::Entry;
use crate::runs::host::Host;
use crate::runs::request::Request;
use crate::runs::run::Run;
use crate::runs::shares::Usage;
use crate::runs::throttle::Throttle;

mod holding;
mod judging;
mod listing;
mod orders;

pub(super) use judging::Judge;
use judging::wanted;
pub use listing::LIST_LIMIT;
use orders::{obeyed_or_not, signal_number};

/// How long an order to the run of its connection waits for a look at the account.
const ORDER_PATIENCE: Duration = Duration::from_millis(250);

/// The requests of one connection.
pub(super) struct Requests {
    pub(super) host: Arc<Host>,
    pub(super) identity: Arc<str>,
    /// Where it comes from, for people.
    pub(super) from: Arc<str>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) rights: RightsNow,
    pub(super) judge: Judge,
    /// The user whose runs these are; none: the server's own account.
    pub(super) guest: Option<Arc<Guest>>,
    /// What keeps lines about refusals to one a second.
    pub(super) refusals: Arc<Throttle>,
    /// The client was silent for longer than an id is remembered for: a request that was held back
    /// all that time may be a run that is over and forgotten.
    pub(super) is_stale: bool,
    pub(super) holds: Arc<Holds>,
    /// Whether this connection came over a socket that outlives the server.
    pub(super) is_managed: bool,
    /// A request that waits for the server that comes.
    pub(super) held: Option<Held>,
    /// A request that waits for a supervisor.
    pub(super) waiting: Waiting,
}

impl Requests {
    /// Does what one frame asks, now or when the account was looked at.
    pub(super) async fn handle(&mut self, heard: Heard) -> Result<(), SessionEnd> {
        let served = self.outbox.is_busy();
        if self.waiting.is_before(&heard.header, served) {
            return self.waiting.keep(heard);
        }
        let Some(guest) = self.to_be_looked_at(&heard) else { return self.obey(heard).await };
        if served && is_order(&heard.header) {
            // After that it goes by what is known.
            let look = guest.refresh_for_request(heard.at);
            let _ = timeout(ORDER_PATIENCE, look).await;
            return self.obey(heard).await;
        }
        if self.waiting.is_waiting() {
            return self.waiting.keep(heard);
        }
        self.waiting.look(async move {
            guest.refresh_for_request(heard.at).await;
            Looked::Heard(Box::new(heard))
        });
        Ok(())
    }

    async fn obey(&mut self, Heard { header, body, .. }: Heard) -> Result<(), SessionEnd> {
        match header {
            ClientHeader::Run(run) => self.run(*run, body).await,
            piece @ (ClientHeader::Stdin(_) | ClientHeader::StdinEnd(_)) => {
                self.stdin(&piece, &body)
            }
            ClientHeader::Ack { seq } => self.ack(seq),
            // What has not begun handles no signal: any of them is its end.
            ClientHeader::Cancel { run: None, .. } | ClientHeader::Signal { run: None, .. }
                if self.held.is_some() =>
            {
                self.let_go()
            }
            ClientHeader::Signal { signal, run } => {
                let order = Order::Signal(signal_number(&signal)?);
                self.order(order, run).await
            }
            ClientHeader::Cancel { run, as_operator } => {
                let whose = if as_operator { Whose::All } else { Whose::Own };
                self.order(Order::Cancel(whose), run).await
            }
            ClientHeader::Attach(attach) => self.attach(&attach).await,
            ClientHeader::List { limit, all } => self.list(limit, all).await,
            ClientHeader::Remove { run } => self.remove(&run).await,
            ClientHeader::Close { id, first_sent_ms_ago } => {
                self.close(&id, Duration::from_millis(first_sent_ms_ago)).await
            }
            ClientHeader::Detach => self.detach(),
            ClientHeader::Hello(_) => {
                Err(SessionEnd::word(Code::BadFrame, "hello was said already"))
            }
            ClientHeader::Pause | ClientHeader::Heartbeat | ClientHeader::Unknown => Ok(()),
        }
    }

    async fn run(&mut self, header: RunRequest, body: Bytes) -> Result<(), SessionEnd> {
        self.free_for_another()?;
        if self.is_stale {
            let text = "the connection was suspended for too long to start anything on it";
            return Err(SessionEnd::word(Code::PeerSilent, text));
        }
        let request = match Request::parse(header, body) {
            Ok(request) => request,
            Err(bad) => return self.refuse(bad.code, bad.text),
        };
        self.start(request, None).await
    }

    /// Whether a run is under way, or asked for.
    pub(super) fn is_busy(&self) -> bool {
        self.held.is_some() || self.waiting.is_waiting() || self.outbox.is_busy()
    }

    async fn start(&mut self, mut request: Request, wait: Option<Wait>) -> Result<(), SessionEnd> {
        let Some(options) = self.rights.now() else {
            return self.may_not_run(&request, Forbidden::no_longer_in());
        };
        request.impose(imposed(&options));
        let rights = Rights::of(&options);
        let (host, identity) = (Arc::clone(&self.host), Arc::clone(&self.identity));
        let judge = Arc::clone(&self.judge);
        let asked = Box::pin(async move {
            let judge = |usage: Usage| match judge(&wanted(&request), rights, usage) {
                Ok(Allowed { judged, part }) => Ok((judged, part)),
                Err(Forbidden { code, text }) => Err((code, text)),
            };
            let served = host.run(&identity, &request, &judge).await;
            Answer::Run { request: Box::new(request), wait, served }
        });
        self.ask(asked, Of::Run).await
    }

    /// Answers at once, or when there is an answer.
    async fn ask(
        &mut self,
        asked: Pending<Answer>,
        of: fn(Pending<Answer>) -> Of,
    ) -> Result<(), SessionEnd> {
        match self.waiting.ask(asked, of).await {
            Some(answer) => self.answer(answer),
            None => {
                self.outbox.expect();
                Ok(())
            }
        }
    }

    /// Does what waited for an answer, or passes it on.
    pub(super) async fn take_up(&mut self, came: Came) -> Result<(), SessionEnd> {
        match came {
            Came::Answer(answer) => self.answer(answer),
            Came::Looked(Looked::Heard(heard)) => self.obey(*heard).await,
            Came::Looked(Looked::Held(held)) => self.start_held(*held).await,
        }
    }

    fn answer(&mut self, answer: Answer) -> Result<(), SessionEnd> {
        match answer {
            Answer::Run { request, wait, served } => self.started(*request, wait, served),
            Answer::Attach { after, there: Ok(there), .. } => self.follow_there(there, after),
            Answer::Attach { id, there: Err(denied), .. } => self.deny(&id, denied),
            Answer::Close { id, closed } => self.closed(&id, closed),
            Answer::Order { run, obeyed } => self.outbox.answer(&obeyed_or_not(run, obeyed)),
        }
    }

    fn started(
        &mut self,
        request: Request,
        wait: Option<Wait>,
        served: Result<Served, Denied>,
    ) -> Result<(), SessionEnd> {
        match served {
            Ok(Served::Later) => self.hold(request, wait),
            Ok(Served::Here { owner, pid, attached }) => {
                debug!(run = %request.id, identity = %self.identity, pid, attached, "run");
                if request.after > owner.last()? {
                    return Err(no_such_frame());
                }
                let started = ServerHeader::Started(owner.started(pid, attached)?);
                // It is waited for by those who have input to send, or leave the run.
                if attached || request.has_stdin() || request.is_kept() {
                    self.outbox.answer(&started)?;
                } else {
                    self.outbox.answer_soon(&started)?;
                }
                let serving = Serving::here(owner, &self.host)?;
                self.outbox.follow(serving, request.after);
                Ok(())
            }
            Ok(Served::There(there)) => {
                debug!(run = %request.id, identity = %self.identity, "durable run");
                self.follow_there(there, request.after)
            }
            Err(denied) => self.deny(&request.id, denied),
        }
    }

    fn deny(&self, id: &RunId, denied: Denied) -> Result<(), SessionEnd> {
        match denied {
            Denied::Refused(code, text) => self.refuse(code, text),
            Denied::NotStarted(code, text) => {
                let refusal = Refusal { run: id.to_string(), code, text };
                self.outbox.answer(&ServerHeader::NotStarted(refusal))
            }
            Denied::Lost(code) => self.lost(id, code),
        }
    }

    fn lost(&self, id: &RunId, code: Code) -> Result<(), SessionEnd> {
        let refusal = Refusal { run: id.to_string(), code, text: code.clause() };
        self.outbox.answer(&ServerHeader::Lost(refusal))
    }

    fn follow_there(&self, there: There, after: u64) -> Result<(), SessionEnd> {
        self.outbox.answer_encoded(there.answer.clone())?;
        self.show(there, after);
        Ok(())
    }

    /// The answer to `close` is the verdict: its client does not know of `started` there.
    fn follow_closed(&self, there: There) -> Result<(), SessionEnd> {
        if there.shown.is_none() {
            self.outbox.answer_encoded(there.answer.clone())?;
        }
        self.show(there, 0);
        Ok(())
    }

    fn show(&self, there: There, after: u64) {
        let There { run, shown, .. } = there;
        if let Some(shown) = shown {
            let serving = Serving::Shown(Showing::new(run, shown, &self.host));
            self.outbox.follow(serving, after);
        }
    }

    fn stdin(&mut self, piece: &ClientHeader, body: &Bytes) -> Result<(), SessionEnd> {
        if !self.rights.may_go_on() {
            return Err(self.end_for(Forbidden::no_longer_in()));
        }
        let nothing = || SessionEnd::word(Code::BadFrame, "stdin without a run");
        let serving = self.outbox.serving().ok_or_else(nothing)?;
        serving.stdin(piece, body)
    }

    async fn attach(&mut self, attach: &Attach) -> Result<(), SessionEnd> {
        self.free_for_another()?;
        if attach.after >= INTEGER_LIMIT {
            return self.refuse(Code::BadRequest, "numbers stay below 2^53".into());
        }
        let Some((kept, _)) = self.find(&attach.run, Asked::Attach)? else { return Ok(()) };
        match &*kept {
            Entry::Here(run) => self.attach_here(run, attach),
            Entry::There(run) => {
                let (host, run) = (Arc::clone(&self.host), Arc::clone(run));
                let attach = attach.clone();
                let asked = Box::pin(async move {
                    let there = host.look(&run, &attach).await;
                    Answer::Attach { id: run.key.id.clone(), after: attach.after, there }
                });
                self.ask(asked, Of::Supervisor).await
            }
            Entry::Gone(gone) => self.lost(&gone.key.id, Code::Forgotten),
        }
    }

    fn attach_here(&self, run: &Arc<Run>, attach: &Attach) -> Result<(), SessionEnd> {
        let Some(progress) = run.progress().map(|p| *p.borrow()) else {
            let text = "the run is not durable: its output is for its own client only".into();
            return self.refuse(Code::NotDurable, text);
        };
        if attach.after > progress.last {
            return Err(no_such_frame());
        }
        self.outbox.answer(&ServerHeader::Started(run.seen_started()))?;
        let serving = Serving::told(run, None, &self.host)?;
        self.outbox.follow(serving, attach.after);
        Ok(())
    }

    async fn remove(&mut self, part: &str) -> Result<(), SessionEnd> {
        let Some((kept, _)) = self.find(part, Asked::Remove)? else { return Ok(()) };
        kept.looked_for().await;
        let (host, run) = (Arc::clone(&self.host), kept.id().to_string());
        match on_disk(move || host.remove(&kept)).await? {
            Ok(()) => self.outbox.answer(&ServerHeader::Done { run }),
            Err((code, text)) => self.refuse(code, text),
        }
    }

    fn detach(&self) -> Result<(), SessionEnd> {
        let Some(serving) = self.outbox.serving() else { return Ok(()) };
        let Some(answer) = serving.detach()? else { return Ok(()) };
        if matches!(answer, ServerHeader::Detached { .. }) {
            self.outbox.leave();
        }
        self.outbox.answer(&answer)
    }

    fn ack(&self, seq: u64) -> Result<(), SessionEnd> {
        let Some(serving) = self.outbox.serving() else { return Ok(()) };
        if serving.ack(seq)? {
            if let Some(owner) = serving.owner() {
                self.host.confirmed(owner.run());
            }
            self.outbox.leave();
        }
        Ok(())
    }

    /// One request at a time.
    fn free_for_another(&self) -> Result<(), SessionEnd> {
        if self.is_busy() {
            return Err(SessionEnd::word(Code::BadFrame, "a run is under way on this connection"));
        }
        self.outbox.leave();
        Ok(())
    }

    async fn close(&mut self, id: &str, first_sent_ago: Duration) -> Result<(), SessionEnd> {
        self.free_for_another()?;
        let Ok(id) = RunId::new(id) else {
            return self.refuse(Code::BadRequest, "there is no such id".into());
        };
        self.may_or_end(&Asked::Keep)?;
        let (host, identity) = (Arc::clone(&self.host), Arc::clone(&self.identity));
        let asked = Box::pin(async move {
            let closed = host.close(&identity, &id, first_sent_ago).await;
            Answer::Close { id, closed }
        });
        self.ask(asked, Of::Supervisor).await
    }

    fn closed(&self, id: &RunId, closed: Closed) -> Result<(), SessionEnd> {
        match closed {
            Closed::NeverStarted => {
                self.outbox.answer(&ServerHeader::NeverStarted { run: id.to_string() })
            }
            Closed::Lost(code) => self.lost(id, code),
            Closed::Refused(code, text) => self.refuse(code, text),
            Closed::Run(owner) => {
                owner.discard_output()?;
                if owner.run().progress().is_some() {
                    // A supervisor's server knows what to make of it.
                    self.outbox.answer(&ServerHeader::Started(owner.started(0, true)?))?;
                }
                self.outbox.follow(Serving::here(owner, &self.host)?, 0);
                Ok(())
            }
            Closed::There(there) => self.follow_closed(there),
        }
    }
}

/// Not `refused`, which would say that nothing was started.
fn no_such_frame() -> SessionEnd {
    SessionEnd::word(Code::BadFrame, "no such frame was made of this run")
}

/// Does what may have to wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SessionEnd> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| SessionEnd::word(Code::OutOfResources, e.to_string()))
}
