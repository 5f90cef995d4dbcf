//! What a logged-in client may ask, and the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{debug, info};

use super::end::SessionEnd;
use super::held::Held;
use super::outbox::Outbox;
use super::policy::{Allowed, Asked, Command, Forbidden, Rights, Whose};
use super::rights::{RightsNow, imposed};
use super::serving::{Order, Serving};
use super::users::Guest;
use super::waiting::{Answer, Waiting};
use crate::exec::Signal;
use crate::proto::code::Code;
use crate::proto::frame::{self, BODY_LIMIT, Decoded, Limits};
use crate::proto::header::{Attach, ClientHeader, Refusal, Refused, RunRequest, ServerHeader};
use crate::proto::listing::RunInfo;
use crate::proto::verdict::StopBy;
use crate::runs::answer::{Closed, Denied, Served};
use crate::runs::durable::There;
use crate::runs::entry::Entry;
use crate::runs::host::Host;
use crate::runs::id::RunId;
use crate::runs::request::Request;
use crate::runs::run::Run;
use crate::runs::shares::Usage;
use crate::runs::throttle::Throttle;

/// Most runs of one list: a client that has more asks for the newest.
pub const LIST_LIMIT: usize = 10_000;
/// One frame tells of as many runs as fit into so many bytes of JSON. Ten thousand of the longest, with a command
/// of 200 control characters, are then in less frames than may wait for a client.
const LIST_CHUNK: usize = BODY_LIMIT;

/// What the policy says of what is asked for, by the rights of the one who asks and by what the identity has
/// under way.
pub(super) type Judge =
    Arc<dyn Fn(&Asked<'_>, Rights, Usage) -> Result<Allowed, Forbidden> + Send + Sync>;

/// Whether the one who asks this may be asked for rights; the others are parts of what was granted.
fn is_judged(header: &ClientHeader) -> bool {
    !matches!(
        header,
        ClientHeader::Stdin(_)
            | ClientHeader::StdinEnd(_)
            | ClientHeader::Ack { .. }
            | ClientHeader::Pause
            | ClientHeader::Heartbeat
            | ClientHeader::Unknown
    )
}

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
    /// A request that waits for the end of an upgrade.
    pub(super) held: Option<Held>,
    /// A request that waits for a supervisor.
    pub(super) waiting: Waiting,
}

impl Requests {
    /// Does what one frame asks.
    pub(super) async fn handle(
        &mut self,
        header: ClientHeader,
        body: Bytes,
    ) -> Result<(), SessionEnd> {
        if self.waiting.is_before(&header) {
            return self.waiting.keep(header, body);
        }
        if is_judged(&header) {
            self.look_at_account().await;
        }
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

    /// The account, and the user's lists of keys, as they are now: what is judged next goes by them.
    async fn look_at_account(&mut self) {
        if let Some(guest) = &self.guest {
            guest.refresh_for_request().await;
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
        self.start(request, false).await
    }

    /// Asks again for what was held.
    pub(super) async fn go_on(&mut self) -> Result<(), SessionEnd> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let is_late = held.is_late();
        self.look_at_account().await;
        self.start(held.request, is_late).await
    }

    /// Whether a run is under way, or asked for.
    pub(super) fn is_busy(&self) -> bool {
        self.held.is_some() || self.waiting.is_waiting() || self.outbox.is_busy()
    }

    /// The client does not want what was held any more, or is not there.
    fn let_go(&mut self) -> Result<(), SessionEnd> {
        match self.held.take() {
            Some(_) => {
                self.refuse(Code::ShuttingDown, "the run was given up before it began".into())
            }
            None => Ok(()),
        }
    }

    async fn start(&mut self, mut request: Request, is_late: bool) -> Result<(), SessionEnd> {
        let Some(options) = self.rights.now() else {
            return self.may_not_run(&request, Forbidden::no_longer_in());
        };
        request.impose(imposed(&options));
        let rights = Rights::of(&options);
        let (host, identity) = (Arc::clone(&self.host), Arc::clone(&self.identity));
        let judge = Arc::clone(&self.judge);
        let asked = async move {
            let judge = |usage: Usage| match judge(&wanted(&request), rights, usage) {
                Ok(Allowed { judged, part }) => Ok((judged, part)),
                Err(Forbidden { code, text }) => Err((code, text)),
            };
            let served = host.run(&identity, &request, &judge).await;
            Answer::Run { request: Box::new(request), is_late, served }
        };
        self.ask(asked).await
    }

    /// Answers at once, or when the supervisor has.
    async fn ask(
        &mut self,
        asked: impl Future<Output = Answer> + Send + 'static,
    ) -> Result<(), SessionEnd> {
        match self.waiting.ask(asked).await {
            Some(answer) => self.answer(answer),
            None => Ok(()),
        }
    }

    /// Passes an answer on.
    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), SessionEnd> {
        match answer {
            Answer::Run { request, is_late, served } => self.started(*request, is_late, served),
            Answer::Attach { after, there: Ok(there), .. } => {
                self.follow_there(there, after);
                Ok(())
            }
            Answer::Attach { id, there: Err(denied), .. } => self.deny(&id, denied),
            Answer::Close { id, closed } => self.closed(&id, closed),
            Answer::Order { run, obeyed } => self.outbox.answer(&obeyed_or_not(run, obeyed)),
        }
    }

    fn started(
        &mut self,
        request: Request,
        is_late: bool,
        served: Result<Served, Denied>,
    ) -> Result<(), SessionEnd> {
        match served {
            Ok(Served::Later) if is_late => {
                let text = "the server is being upgraded and waits for other runs to end";
                self.refuse(Code::ShuttingDown, text.into())
            }
            Ok(Served::Later) => {
                self.held = Some(Held::new(request));
                Ok(())
            }
            Ok(Served::Here { owner, pid, attached }) => {
                debug!(run = %request.id, identity = %self.identity, pid, attached, "run");
                if request.after > owner.last()? {
                    return Err(no_such_frame());
                }
                let started = owner.started(pid, attached)?;
                self.outbox.answer(&ServerHeader::Started(started))?;
                let serving = Serving::here(owner, request.after, &self.host)?;
                self.outbox.follow(serving, request.after);
                Ok(())
            }
            Ok(Served::There(there)) => {
                debug!(run = %request.id, identity = %self.identity, "durable run");
                self.follow_there(there, request.after);
                Ok(())
            }
            Err(denied) => self.deny(&request.id, denied),
        }
    }

    /// The first request of a run is refused for good. To a later one that would be a lie: the run may
    /// have been started when the client was still let in.
    fn may_not_run(&self, request: &Request, why: Forbidden) -> Result<(), SessionEnd> {
        if request.first_sent_ago.is_zero() {
            return self.refuse(why.code, why.text);
        }
        Err(self.end_for(why))
    }

    fn end_for(&self, why: Forbidden) -> SessionEnd {
        self.note_refusal(why.code, &why.text);
        SessionEnd::word(why.code, why.text)
    }

    fn note_refusal(&self, code: Code, text: &str) {
        if let Some(ledger) = self.host.ledger() {
            ledger.refused(Some(&self.identity), &self.from, code.name(), text);
        }
    }

    /// What may be done now: the rights may have changed since the last request.
    fn judged(&self, asked: &Asked<'_>) -> Result<Allowed, Forbidden> {
        let options = self.rights.now().ok_or_else(Forbidden::no_longer_in)?;
        (self.judge)(asked, Rights::of(&options), Usage::default())
    }

    /// Whether this may be done; if not, that was answered.
    fn may(&self, asked: &Asked<'_>) -> Result<bool, SessionEnd> {
        match self.judged(asked) {
            Ok(_) => Ok(true),
            Err(Forbidden { code, text }) => self.refuse(code, text).map(|()| false),
        }
    }

    /// As [`Self::may`], where to refuse is to say that nothing was started: then the conversation ends.
    fn may_or_end(&self, asked: &Asked<'_>) -> Result<(), SessionEnd> {
        let judged = self.judged(asked);
        judged.map(drop).map_err(|why| self.end_for(why))
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

    fn refuse(&self, code: Code, text: String) -> Result<(), SessionEnd> {
        self.note_refusal(code, &text);
        let identity = &self.identity;
        if let Some(line) =
            self.refusals.line(|| format!("refused a request of {identity}: {text}"))
        {
            info!("{line}");
        }
        self.outbox.answer(&ServerHeader::Refused(Refused { code, text, key: None }))
    }

    fn lost(&self, id: &RunId, code: Code) -> Result<(), SessionEnd> {
        let refusal = Refusal { run: id.to_string(), code, text: code.clause() };
        self.outbox.answer(&ServerHeader::Lost(refusal))
    }

    /// The answer to `close` is the verdict: its client does not know of `started` there.
    fn follow_closed(&self, there: There) {
        let answer = there.answer.clone();
        let first = frame::decode(&answer, Limits::FULL);
        if !matches!(first, Ok(Decoded::Frame(frame)) if frame.kind == "started") {
            self.outbox.answer_encoded(answer);
        }
        self.outbox.follow(Serving::there(there, &self.host), 0);
    }

    fn follow_there(&self, there: There, after: u64) {
        self.outbox.answer_encoded(there.answer.clone());
        self.outbox.follow(Serving::there(there, &self.host), after);
    }

    fn stdin(&mut self, piece: &ClientHeader, body: &Bytes) -> Result<(), SessionEnd> {
        if !self.rights.may_go_on() {
            return Err(self.end_for(Forbidden::no_longer_in()));
        }
        let nothing = || SessionEnd::word(Code::BadFrame, "stdin without a run");
        let (serving, _) = self.outbox.serving().ok_or_else(nothing)?;
        serving.stdin(piece, body)
    }

    /// An order to the run of this connection, or to one that is named. One that crosses the run's end or
    /// its refusal is nobody's fault.
    async fn order(&mut self, order: Order, run: Option<String>) -> Result<(), SessionEnd> {
        if let Some(part) = run {
            return self.order_by_name(order, &part).await;
        }
        let Some((serving, _)) = self.outbox.serving() else { return Ok(()) };
        self.may_or_end(&Asked::Keep)?;
        match serving.order(order)? {
            Some(answer) => self.outbox.answer(&answer),
            None => Ok(()),
        }
    }

    async fn order_by_name(&mut self, order: Order, part: &str) -> Result<(), SessionEnd> {
        let asked = match order {
            Order::Signal(_) => Asked::Signal,
            Order::Cancel(_) => Asked::Stop,
        };
        let Some((kept, whose)) = self.find(part, asked)? else { return Ok(()) };
        let order = match order {
            Order::Cancel(said) => Order::Cancel(self.by_whom(whose, said)),
            signal @ Order::Signal(_) => signal,
        };
        let run = kept.id().to_string();
        let obeyed = match &*kept {
            Entry::Here(run) => match order {
                Order::Signal(signal) => run.signal(signal),
                Order::Cancel(Whose::Own) => run.stop(StopBy::Client),
                Order::Cancel(Whose::All) => run.stop(StopBy::Operator),
            },
            Entry::There(there) => {
                let (host, there) = (Arc::clone(&self.host), Arc::clone(there));
                let asked = async move {
                    let obeyed = host.order(&there, order.header(Some(&there.key.id))).await;
                    Answer::Order { run, obeyed }
                };
                return self.ask(asked).await;
            }
            Entry::Gone(_) => false,
        };
        self.outbox.answer(&obeyed_or_not(run, obeyed))
    }

    /// As whom a run is stopped: as the operator who may stop the runs of others if it is another's, or if a
    /// server says so to the run's supervisor, which knows it as its only identity's own.
    fn by_whom(&self, found: Whose, said: Whose) -> Whose {
        let is_operator = || self.judged(&Asked::Stop(Whose::All)).is_ok();
        if found == Whose::All || (said == Whose::All && is_operator()) {
            Whose::All
        } else {
            Whose::Own
        }
    }

    /// The one run that is meant, and whether it is an own one or, for an operator, another's. None if that was
    /// refused. Who is no operator is told the same of another's run as of none.
    fn find(
        &self,
        part: &str,
        asked: fn(Whose) -> Asked<'static>,
    ) -> Result<Option<(Arc<Entry>, Whose)>, SessionEnd> {
        if !self.may(&asked(Whose::Own))? {
            return Ok(None);
        }
        let own = self.host.find(Some(&self.identity), part).map(|kept| (kept, Whose::Own));
        let found = match own {
            Err((Code::NoSuchRun, _)) if self.judged(&asked(Whose::All)).is_ok() => {
                self.host.find(None, part).map(|kept| (kept, Whose::All))
            }
            own => own,
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err((code, text)) => self.refuse(code, text).map(|()| None),
        }
    }

    async fn attach(&mut self, attach: &Attach) -> Result<(), SessionEnd> {
        self.free_for_another()?;
        let Some((kept, _)) = self.find(&attach.run, Asked::Attach)? else { return Ok(()) };
        match &*kept {
            Entry::Here(run) => self.attach_here(run, attach),
            Entry::There(run) => {
                let (host, run) = (Arc::clone(&self.host), Arc::clone(run));
                let attach = attach.clone();
                let asked = async move {
                    let there = host.look(&run, &attach).await;
                    Answer::Attach { id: run.key.id.clone(), after: attach.after, there }
                };
                self.ask(asked).await
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
        let place = (attach.after, attach.from, attach.follow);
        let serving = Serving::seen(Arc::clone(run), None, place, &self.host)?;
        self.outbox.follow(serving, attach.after);
        Ok(())
    }

    async fn list(&mut self, limit: Option<u64>, all: bool) -> Result<(), SessionEnd> {
        if !self.may(&Asked::List(if all { Whose::All } else { Whose::Own }))? {
            return Ok(());
        }
        let limit = limit.map_or(LIST_LIMIT, |n| usize::try_from(n).unwrap_or(LIST_LIMIT));
        let (host, identity) = (Arc::clone(&self.host), Arc::clone(&self.identity));
        let (runs, total) =
            on_disk(move || host.list((!all).then_some(&identity), limit.min(LIST_LIMIT))).await?;
        let mut chunks = listing_chunks(&runs)?.into_iter().peekable();
        while let Some(body) = chunks.next() {
            let more = chunks.peek().is_some();
            self.outbox.answer_with(&ServerHeader::Runs { more, total: total as u64 }, &body)?;
        }
        Ok(())
    }

    async fn remove(&mut self, part: &str) -> Result<(), SessionEnd> {
        let Some((kept, _)) = self.find(part, Asked::Remove)? else { return Ok(()) };
        let (host, run) = (Arc::clone(&self.host), kept.id().to_string());
        match on_disk(move || host.remove(&kept)).await? {
            Ok(()) => self.outbox.answer(&ServerHeader::Done { run }),
            Err((code, text)) => self.refuse(code, text),
        }
    }

    fn detach(&self) -> Result<(), SessionEnd> {
        let Some((serving, _)) = self.outbox.serving() else { return Ok(()) };
        let Some(answer) = serving.detach()? else { return Ok(()) };
        if matches!(answer, ServerHeader::Detached { .. }) {
            self.outbox.leave();
        }
        self.outbox.answer(&answer)
    }

    fn ack(&self, seq: u64) -> Result<(), SessionEnd> {
        let Some((serving, sent)) = self.outbox.serving() else { return Ok(()) };
        if serving.ack(seq, sent)? && self.outbox.is_ended() {
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
        let asked = async move {
            let closed = host.close(&identity, &id, first_sent_ago).await;
            Answer::Close { id, closed }
        };
        self.ask(asked).await
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
                self.outbox.follow(Serving::here(owner, 0, &self.host)?, 0);
                Ok(())
            }
            Closed::There(there) => {
                self.follow_closed(there);
                Ok(())
            }
        }
    }
}

fn obeyed_or_not(run: String, obeyed: bool) -> ServerHeader {
    if obeyed { ServerHeader::Done { run } } else { ServerHeader::AlreadyEnded { run } }
}

/// Does what may have to wait for the disk.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SessionEnd> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| SessionEnd::word(Code::OutOfResources, e.to_string()))
}

/// The runs as arrays of JSON of at most [`LIST_CHUNK`] bytes, at least one.
fn listing_chunks(runs: &[RunInfo]) -> Result<Vec<Vec<u8>>, SessionEnd> {
    let mut chunks = Vec::new();
    let mut chunk = vec![b'['];
    for run in runs {
        let text = serde_json::to_vec(run)
            .map_err(|e| SessionEnd::word(Code::BadRequest, e.to_string()))?;
        if chunk.len() + text.len() + 2 > LIST_CHUNK {
            chunk.push(b']');
            chunks.push(std::mem::replace(&mut chunk, vec![b'[']));
        }
        if chunk.len() > 1 {
            chunk.push(b',');
        }
        chunk.extend(text);
    }
    chunk.push(b']');
    chunks.push(chunk);
    Ok(chunks)
}

fn signal_number(name: &str) -> Result<u8, SessionEnd> {
    let number = name.parse::<Signal>().ok().and_then(|s| u8::try_from(s.number()).ok());
    number.ok_or_else(|| SessionEnd::word(Code::BadRequest, "there is no such signal"))
}

/// Not `refused`, which would say that nothing was started.
fn no_such_frame() -> SessionEnd {
    SessionEnd::word(Code::BadFrame, "no such frame was made of this run")
}

/// What the policy is to judge.
fn wanted(request: &Request) -> Asked<'_> {
    Asked::Run(Command {
        form: request.form(),
        words: request.words(),
        cwd: request.cwd(),
        env: request.env_names(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::digest::Digest;
    use crate::proto::listing::RunState;
    use crate::runs::clock::timestamp;
    use crate::runs::id::ID_LIMIT;
    use crate::server::ANSWERS_LIMIT;

    /// A run of which everything that is listed is as long as it may be.
    fn longest() -> RunInfo {
        let (size, hash) = (u64::MAX, Digest::of(b""));
        let end = json!({"size": size, "hash": hash, "end": "held"});
        let verdict = json!({
            "seq": size, "run": "x".repeat(ID_LIMIT), "end": {"signaled": {"signal": 64, "core_dumped": false}},
            "stopped": {"by": "client_lost", "after_ms": size}, "stdout": end, "stderr": end,
            "started": timestamp(), "elapsed_ms": size, "usage": {"user_ms": size, "system_ms": size},
            "containment": "cgroup", "left_running": u32::MAX, "stdin": {"size": size, "hash": hash},
            "journal": {"seq": size, "hash": hash},
        });
        RunInfo {
            run: "x".repeat(ID_LIMIT),
            identity: Some(format!("key:SHA256:{}", "x".repeat(43))),
            state: RunState::Running,
            durable: true,
            command: "\u{1}".repeat(200),
            accepted: timestamp(),
            age_s: size,
            bytes: size,
            disk: size,
            verdict: serde_json::from_value(verdict).unwrap(),
        }
    }

    #[test]
    fn the_longest_list_of_the_longest_runs_fits_into_frames_that_may_wait() {
        let runs = vec![longest(); LIST_LIMIT];
        let chunks = listing_chunks(&runs).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= BODY_LIMIT));
        assert!(chunks.len() <= ANSWERS_LIMIT / 2, "{}", chunks.len());
        let told: usize = chunks
            .iter()
            .map(|chunk| serde_json::from_slice::<Vec<RunInfo>>(chunk).unwrap().len())
            .sum();
        assert_eq!(told, LIST_LIMIT);
        assert_eq!(listing_chunks(&[]).unwrap(), [b"[]"]);
    }
}
