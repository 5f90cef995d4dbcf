//! Everything about a run that outlives a connection.

mod doubt;
mod outgoing;
mod pending;
mod taken;

use bytes::Bytes;
use tokio::time::Instant;

use self::outgoing::Outgoing;
use self::pending::Pending;
use super::control::{CANCEL_WAIT, Control};
use super::error::{Error, OutputError};
use super::sink::Sink;
use super::stdin::StdinSender;
use crate::proto::digest::{Algorithm, Running};
use crate::proto::frame::FrameError;
use crate::proto::header::ClientHeader;
use crate::proto::verdict::Verdict;

/// How a run's time on one connection ended.
pub(super) enum LegEnd {
    /// With its last word.
    Final(Box<Result<Verdict, Error>>),
    /// Too early.
    Broken(String),
    /// With the word of a server that leaves without having begun the run.
    SentOn(String),
    /// With a refusal, while an earlier request may still arrive: `close` comes next, on this connection.
    Doubted,
}

/// What this client is to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It has asked for it. The record of a durable one can be seen by others too.
    Owner { durable: bool },
    /// The same, and it leaves the run without its output.
    Starter,
    /// It only looks, from the record's start or later.
    Viewer { late: bool },
}

impl Role {
    /// Whether it has not asked for the record from its start.
    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Starter | Self::Viewer { late: true })
    }
}

/// When the server has answered `started`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Started {
    /// Never yet.
    Never,
    /// On an earlier connection.
    Earlier,
    /// On this one.
    Here,
}

/// Everything about a run that outlives a connection.
pub(super) struct State {
    pub(super) id: String,
    /// Place of the last frame that came in order.
    pub(super) received: u64,
    role: Role,
    started: Started,
    /// By what the run's digests are made; none until the server has said it.
    agreed: Option<Algorithm>,
    /// Earlier connections on which the request was sent and not answered: it may still arrive there, and
    /// takes the run over.
    pub(super) unanswered: u32,
    pub(super) sink: Sink,
    pub(super) stdin: StdinSender,
    /// The caller wants the run stopped: until when the answer is waited for.
    pub(super) cancelled: Option<Instant>,
    /// What is wrong with the output, or the input, here.
    pub(super) failure: Option<OutputError>,
    /// Asked before there was an answer.
    pending: Pending,
    /// The run was refused while an earlier request might still arrive. True once that is shut out.
    pub(super) doubted: Option<Error>,
    /// What was asked on this connection was `close`.
    pub(super) closing: bool,
    /// Place of the last frame that was given to be written.
    handed_on: u64,
    /// The same, of all that there is of a record that is not followed.
    so_far: Option<u64>,
    /// The caller wants to leave the run: when its input is sent, or at once.
    leave: Leave,
    /// Frames are missing, which nobody waits for: the run had been given up.
    has_hole: bool,
    outgoing: Outgoing,
    verdict: Option<Box<Verdict>>,
    /// That nobody knows how the run ended.
    lost: Option<Error>,
}

/// Whether the caller wants the run to go on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// Not now.
    Stay,
    /// Once all of the standard input was sent.
    WhenSent,
    /// At once.
    Now,
    /// It was said on this connection.
    Said,
}

impl LegEnd {
    pub(super) fn done(end: Result<Verdict, Error>) -> Self {
        Self::Final(Box::new(end))
    }
}

impl State {
    pub(super) fn new(
        id: String,
        role: Role,
        leave: Leave,
        sink: Sink,
        stdin: StdinSender,
    ) -> Self {
        Self {
            id,
            received: 0,
            role,
            started: Started::Never,
            agreed: None,
            unanswered: 0,
            sink,
            stdin,
            cancelled: None,
            failure: None,
            pending: Pending::default(),
            doubted: None,
            closing: false,
            handed_on: 0,
            so_far: None,
            leave,
            has_hole: false,
            outgoing: Outgoing::default(),
            verdict: None,
            lost: None,
        }
    }

    /// Whether this client has no part in the run but to see it.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self.role, Role::Viewer { .. })
    }

    /// Whether the server has answered `started` on this connection.
    pub(super) fn is_started(&self) -> bool {
        self.started == Started::Here
    }

    /// Whether it has on this or on an earlier one.
    pub(super) fn was_started(&self) -> bool {
        self.started != Started::Never
    }

    /// The connection is gone. Whether the request was answered on it or not, the next one is to find out.
    pub(super) fn lose_connection(&mut self) {
        if self.is_started() {
            self.started = Started::Earlier;
        }
    }

    /// Does what the caller asks, or keeps it until there is a run to ask it of.
    pub(super) fn control(&mut self, control: Control) -> Result<(), FrameError> {
        let cancels = matches!(control, Control::Cancel);
        if matches!(control, Control::Detach) {
            self.leave = Leave::Now;
            return self.leave_if_due();
        }
        if cancels {
            self.cancelled.get_or_insert_with(|| Instant::now() + CANCEL_WAIT);
        }
        if self.is_started() {
            return self.ask(control);
        }
        // Nobody is there to be told of a pause, and later it is over.
        if !matches!(control, Control::Pause { .. }) {
            self.pending.push(control);
        }
        Ok(())
    }

    /// Says `detach`, if that is wanted and can be said.
    pub(super) fn leave_if_due(&mut self) -> Result<(), FrameError> {
        let due = match self.leave {
            Leave::Now => self.is_started(),
            Leave::WhenSent => self.is_started() && self.stdin.is_sent(),
            Leave::Stay | Leave::Said => false,
        };
        if due {
            self.leave = Leave::Said;
            self.outgoing.send(&ClientHeader::Detach)?;
        }
        Ok(())
    }

    fn ask(&mut self, control: Control) -> Result<(), FrameError> {
        let run = self.only_looks().then(|| self.id.clone());
        let header = frame_of(&control, run);
        match control {
            Control::Signal(_) => self.outgoing.signal(control, &header),
            Control::Pause { told } => self.outgoing.pause(told, &header),
            Control::Cancel | Control::Detach => self.outgoing.send(&header),
        }
    }

    /// The last word, if there is one to be had without the server.
    pub(super) fn last_word(&mut self) -> Option<LegEnd> {
        if let Some(end) = self.finished() {
            return Some(end);
        }
        self.cancelled?;
        let verdict = self.verdict.take()?;
        Some(self.end(*verdict))
    }

    /// The last word of a run that was cancelled, when the time for an answer is over.
    pub(super) fn last_word_now(&mut self) -> LegEnd {
        self.last_word().unwrap_or_else(|| LegEnd::done(Err(self.no_answer())))
    }

    /// The last word of a run that was cancelled, when no answer came.
    pub(super) fn no_answer(&self) -> Error {
        let why = self.failure.as_ref().map(|failure| format!("{failure}; ")).unwrap_or_default();
        let text = format!("{why}it was cancelled, and the server did not say how it ended");
        Error::Unknown { run: self.id.clone(), text, code: None }
    }

    /// How many bytes of the input to read now. None before `started`: only that says where the input goes
    /// on, and what was read before is then sent again.
    pub(super) fn stdin_wanted(&self) -> Option<usize> {
        self.stdin.wanted().filter(|_| self.is_started())
    }

    /// Notes what the sink could not do, when there is no server to tell.
    pub(super) fn note_failure(&mut self) {
        self.failure = self.failure.take().or_else(|| self.sink.failure());
    }

    /// Whether the last word is here and only the writing goes on.
    pub(super) fn has_end(&self) -> bool {
        self.verdict.is_some() || self.lost.is_some()
    }

    /// What a broken connection did not take is said anew on the next one. A signal that it may have taken
    /// is not: it would come twice.
    pub(super) fn start_leg(&mut self) {
        if self.leave == Leave::Said {
            self.leave = Leave::Now;
        }
        self.pending.start_over(self.outgoing.start_over());
    }

    /// Sends bytes of the standard input; none: its end.
    pub(super) fn send_input(&mut self, bytes: Bytes) -> Result<(), FrameError> {
        match self.stdin.take(bytes) {
            Some(frames) => self.outgoing.send_encoded(frames?),
            None => self.cancelled_input(),
        }
        self.leave_if_due()
    }

    /// Everything that is to be written now. A server that keeps the request waiting for the one that comes next gives
    /// it back to whoever wants an end of it.
    pub(super) fn outgoing(&mut self) -> Result<Vec<u8>, FrameError> {
        if !self.is_started() && !self.closing && !self.only_looks() {
            for control in self.pending.say(!self.was_started()) {
                self.outgoing.send(&frame_of(&control, None))?;
            }
        }
        self.outgoing.take()
    }

    /// That was written.
    pub(super) fn sent(&mut self) {
        self.outgoing.sent();
    }

    /// The input is not the one that the run was started with: this client has no part in it.
    fn cancelled_input(&mut self) {
        self.failure.get_or_insert(OutputError::OtherInput);
    }

    /// The end of a client whose input is not the run's.
    pub(super) fn input_refused(&mut self) -> Option<LegEnd> {
        let is_other = matches!(self.failure, Some(OutputError::OtherInput));
        is_other.then(|| LegEnd::done(Err(self.other_input())))
    }

    /// That the run has another standard input than this client.
    pub(super) fn other_input(&self) -> Error {
        let text = format!("run {} was started with another standard input", self.id);
        Error::Conflict { text }
    }

    /// A digest as those of the run's streams are made.
    pub(super) fn hasher(&self) -> Running {
        Running::by(self.agreed.unwrap_or(Algorithm::Sha256))
    }

    pub(super) fn cancel_for(&mut self, failure: OutputError) -> Result<(), FrameError> {
        if self.failure.is_some() {
            return Ok(());
        }
        self.failure = Some(failure);
        // What is wrong here is no reason to stop a run in which this client has no part.
        if self.only_looks() { Ok(()) } else { self.control(Control::Cancel) }
    }

    /// Confirms what was written, and cancels when something could not be.
    pub(super) fn sink_moved(&mut self) -> Result<(), FrameError> {
        if let Some(failure) = self.sink.failure() {
            return self.cancel_for(failure);
        }
        let (written, cost) = (self.sink.written(), self.sink.cost_written());
        self.outgoing.written(written, cost, self.sink.is_idle());
        Ok(())
    }
}

fn frame_of(control: &Control, run: Option<String>) -> ClientHeader {
    match control {
        Control::Signal(signal) => ClientHeader::Signal { signal: signal.clone(), run },
        Control::Cancel => ClientHeader::Cancel { run, as_operator: false },
        Control::Detach => ClientHeader::Detach,
        Control::Pause { .. } => ClientHeader::Pause,
    }
}
