//! What a logged-in client may ask, and the answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::Shared;
use super::end::SessionEnd;
use super::held::Held;
use super::outbox::Outbox;
use crate::exec::Signal;
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, Refusal, Refused, RunRequest, ServerHeader};
use crate::runs::host::{Closed, Denied, Host};
use crate::runs::id::RunId;
use crate::runs::request::Request;
use crate::runs::run::{Owner, TakenOver};

/// Whether an identity is still let in: asked anew for each request.
pub(super) type StillIn = Box<dyn Fn() -> bool + Send + Sync>;

/// The requests of one connection.
pub(super) struct Requests {
    pub(super) host: Arc<Host>,
    pub(super) identity: Arc<str>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) still_in: StillIn,
    pub(super) shared: Arc<Shared>,
    /// The client was silent for longer than an id is remembered for: a request that was held back
    /// all that time may be a run that is over and forgotten.
    pub(super) is_stale: bool,
    /// A request that waits for the end of an upgrade.
    pub(super) held: Option<Held>,
}

impl Requests {
    /// Does what one frame asks.
    pub(super) async fn handle(
        &mut self,
        header: ClientHeader,
        body: Bytes,
    ) -> Result<(), SessionEnd> {
        match header {
            ClientHeader::Run(run) => self.run(*run, body).await,
            ClientHeader::Stdin(piece) => {
                let taken = self.owned("stdin")?.stdin(piece, &body)?;
                stdin_taken(taken)
            }
            ClientHeader::StdinEnd(piece) => {
                let taken = self.owned("stdin_end")?.stdin_end(piece)?;
                stdin_taken(taken)
            }
            ClientHeader::Ack { seq } => self.ack(seq),
            ClientHeader::Signal { signal } => self.signal(&signal),
            ClientHeader::Cancel if self.held.is_some() => self.let_go(),
            ClientHeader::Cancel => self.order(Owner::cancel),
            ClientHeader::Close { id, first_sent_ms_ago } => {
                self.close(&id, Duration::from_millis(first_sent_ms_ago)).await
            }
            ClientHeader::Detach => {
                let text = "only a durable run can be left alone, and this server has none";
                Err(SessionEnd::word(Code::Unsupported, text))
            }
            ClientHeader::Hello(_) => {
                Err(SessionEnd::word(Code::BadFrame, "hello was said already"))
            }
            ClientHeader::Pause | ClientHeader::Heartbeat | ClientHeader::Unknown => Ok(()),
        }
    }

    async fn run(&mut self, header: RunRequest, body: Bytes) -> Result<(), SessionEnd> {
        if self.is_busy() {
            return Err(SessionEnd::word(Code::BadFrame, "a run is under way on this connection"));
        }
        self.outbox.leave();
        if self.is_stale {
            let text = "the connection was suspended for too long to start anything on it";
            return Err(SessionEnd::word(Code::PeerSilent, text));
        }
        if !(self.still_in)() {
            return self.no_longer_in(&header);
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
        self.start(held.request, is_late).await
    }

    /// Whether a run is under way, or asked for.
    pub(super) fn is_busy(&self) -> bool {
        self.held.is_some() || self.outbox.is_busy()
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

    async fn start(&mut self, request: Request, is_late: bool) -> Result<(), SessionEnd> {
        match self.host.run(&self.identity, &request).await {
            Err(Denied::Held) if is_late => {
                let text = "the server is being upgraded and waits for other runs to end";
                self.refuse(Code::ShuttingDown, text.into())
            }
            Err(Denied::Held) => {
                self.held = Some(Held::new(request));
                Ok(())
            }
            Ok((owner, pid, attached)) => {
                debug!(run = %request.id, identity = %self.identity, pid, attached, "run");
                if request.after > owner.last()? {
                    // Not `refused`, which would say that nothing was started.
                    let text = "no such frame was made of this run";
                    return Err(SessionEnd::word(Code::BadFrame, text));
                }
                let started = owner.started(pid, attached)?;
                self.outbox.answer(&ServerHeader::Started(started))?;
                self.outbox.follow(owner, request.after);
                Ok(())
            }
            Err(denied) => self.deny(&request.id, denied),
        }
    }

    /// The first request of a run is refused for good. To a later one that would be a lie: the run may
    /// have been started when the client was still let in.
    fn no_longer_in(&self, header: &RunRequest) -> Result<(), SessionEnd> {
        let text = "this key is no longer authorized";
        match header.first_sent_ms_ago {
            0 => self.refuse(Code::NotAuthorized, text.into()),
            _ => Err(SessionEnd::word(Code::NotAuthorized, text)),
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
            // Whoever asks keeps it.
            Denied::Held => Ok(()),
        }
    }

    fn refuse(&self, code: Code, text: String) -> Result<(), SessionEnd> {
        let identity = &self.identity;
        self.shared.about_peers(|| format!("refused a request of {identity}: {text}"));
        self.outbox.answer(&ServerHeader::Refused(Refused { code, text, key: None }))
    }

    fn lost(&self, id: &RunId, code: Code) -> Result<(), SessionEnd> {
        let refusal = Refusal { run: id.to_string(), code, text: code.meaning().into() };
        self.outbox.answer(&ServerHeader::Lost(refusal))
    }

    /// The run of a frame that nobody sends without one.
    fn owned(&self, frame: &str) -> Result<Arc<Owner>, SessionEnd> {
        let nothing = || SessionEnd::word(Code::BadFrame, format!("{frame} without a run"));
        self.outbox.owner().ok_or_else(nothing)
    }

    /// An order to a run. One that crosses the run's end or its refusal is nobody's fault.
    fn order(
        &self,
        give: impl FnOnce(&Owner) -> Result<bool, TakenOver>,
    ) -> Result<(), SessionEnd> {
        let Some(owner) = self.outbox.owner() else { return Ok(()) };
        if give(&owner)? {
            return Ok(());
        }
        self.outbox.answer(&ServerHeader::AlreadyEnded { run: owner.run().key.id.to_string() })
    }

    fn ack(&self, seq: u64) -> Result<(), SessionEnd> {
        let Some(owner) = self.outbox.owner() else { return Ok(()) };
        match owner.ack(seq)? {
            Ok(true) => {
                self.host.confirmed(owner.run());
                self.outbox.leave();
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(ahead) => Err(SessionEnd::word(Code::BadFrame, ahead.to_string())),
        }
    }

    fn signal(&self, name: &str) -> Result<(), SessionEnd> {
        let Some(signal) = name.parse::<Signal>().ok().and_then(|s| u8::try_from(s.number()).ok())
        else {
            return Err(SessionEnd::word(Code::BadRequest, "there is no such signal"));
        };
        self.order(|owner| owner.signal(signal))
    }

    async fn close(&mut self, id: &str, first_sent_ago: Duration) -> Result<(), SessionEnd> {
        if self.is_busy() {
            return Err(SessionEnd::word(Code::BadFrame, "a run is under way on this connection"));
        }
        self.outbox.leave();
        let Ok(id) = RunId::new(id) else {
            return self.refuse(Code::BadRequest, "there is no such id".into());
        };
        match self.host.close(&self.identity, &id, first_sent_ago).await {
            Closed::NeverStarted => {
                self.outbox.answer(&ServerHeader::NeverStarted { run: id.to_string() })
            }
            Closed::Lost(code) => self.lost(&id, code),
            Closed::Refused(code, text) => self.refuse(code, text),
            Closed::Run(owner) => {
                owner.discard_output()?;
                self.outbox.follow(owner, 0);
                Ok(())
            }
        }
    }
}

fn stdin_taken(taken: Result<(), crate::runs::stdin::StdinError>) -> Result<(), SessionEnd> {
    taken.map_err(|e| SessionEnd::word(Code::Corrupt, e.to_string()))
}
