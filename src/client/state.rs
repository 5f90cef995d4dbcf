//! Everything about a run that outlives a connection, and what each of the server's frames does to it.

use tokio::time::Instant;

use super::connection::NoWelcome;
use super::control::{CANCEL_WAIT, Control};
use super::error::{Error, OutputError};
use super::sink::Sink;
use super::stdin::StdinSender;
use crate::conn::Frame;
use crate::proto::code::Code;
use crate::proto::frame::{self, FrameError};
use crate::proto::header::{ClientHeader, Refusal, ServerHeader, Started};
use crate::proto::verdict::{StreamEndKind, Verdict};

/// Bytes that are written between two confirmations while more is waiting.
const ACK_EVERY: usize = 128 * 1024;

/// How a run's time on one connection ended.
pub(super) enum Leg {
    /// With its last word.
    Final(Box<Result<Verdict, Error>>),
    /// Too early.
    Broken(String),
}

/// Everything about a run that outlives a connection.
pub(super) struct State {
    pub(super) id: String,
    /// Place of the last frame that came in order.
    pub(super) received: u64,
    /// The server has answered `started`.
    pub(super) started: bool,
    pub(super) sink: Sink,
    pub(super) stdin: StdinSender,
    /// The caller wants the run stopped: until when the answer is waited for.
    pub(super) cancelled: Option<Instant>,
    /// What is wrong with the output, or the input, here.
    pub(super) failure: Option<OutputError>,
    /// Asked while there was no connection.
    pub(super) pending: Vec<Control>,
    /// Frames to be written.
    pub(super) queue: Vec<u8>,
    acked: u64,
    unacked: usize,
    verdict: Option<Box<Verdict>>,
}

impl Leg {
    pub(super) fn done(end: Result<Verdict, Error>) -> Self {
        Self::Final(Box::new(end))
    }
}

impl State {
    pub(super) fn new(id: String, sink: Sink, stdin: StdinSender) -> Self {
        Self {
            id,
            received: 0,
            started: false,
            sink,
            stdin,
            cancelled: None,
            failure: None,
            pending: Vec::new(),
            queue: Vec::new(),
            acked: 0,
            unacked: 0,
            verdict: None,
        }
    }

    /// Does what the caller asks, or keeps it until there is a run to ask it of.
    pub(super) fn control(&mut self, control: Control) -> Result<(), FrameError> {
        if control == Control::Cancel {
            self.cancelled.get_or_insert_with(|| Instant::now() + CANCEL_WAIT);
        }
        if self.started {
            return self.send(&frame_of(control));
        }
        self.pending.push(control);
        Ok(())
    }

    /// The last word, if there is one to be had without the server.
    pub(super) fn last_word(&mut self) -> Option<Leg> {
        if let Some(leg) = self.finished() {
            return Some(leg);
        }
        self.cancelled?;
        let verdict = self.verdict.take()?;
        Some(self.give_up(*verdict))
    }

    /// The last word of a run that was cancelled, when no answer came.
    pub(super) fn no_answer(&self) -> Error {
        let text = "it was cancelled, and the server did not say how it ended".into();
        Error::Unknown { run: self.id.clone(), text, code: None }
    }

    /// How many bytes of the input to read now. None before `started`: only that says where the input goes
    /// on, and what was read before is then sent again.
    pub(super) fn stdin_wanted(&self) -> Option<usize> {
        self.stdin.wanted().filter(|_| self.started)
    }

    /// Notes what the sink could not do, when there is no server to tell.
    pub(super) fn note_failure(&mut self) {
        self.failure = self.failure.take().or_else(|| self.sink.failure());
    }

    /// Whether the verdict is here and only the writing goes on.
    pub(super) fn has_verdict(&self) -> bool {
        self.verdict.is_some()
    }

    /// What a broken connection did not take is said anew on the next one.
    pub(super) fn start_leg(&mut self) {
        self.queue.clear();
        self.acked = 0;
    }

    fn send(&mut self, header: &ClientHeader) -> Result<(), FrameError> {
        frame::encode(header, b"", &mut self.queue)
    }

    pub(super) fn cancel_for(&mut self, failure: OutputError) -> Result<(), FrameError> {
        if self.failure.is_some() {
            return Ok(());
        }
        self.failure = Some(failure);
        self.control(Control::Cancel)
    }

    /// One frame of the server's. The leg's end, if it brings that.
    pub(super) fn take(&mut self, frame: Frame) -> Result<Option<Leg>, FrameError> {
        let leg = match frame.header::<ServerHeader>()? {
            ServerHeader::Started(started) => self.take_started(&started)?,
            ServerHeader::Output(output) => {
                if self.in_order(output.seq)? {
                    self.unacked += frame.body.len();
                    let taken = self.sink.piece(output, frame.body);
                    self.unless_taken(taken)?;
                }
                None
            }
            ServerHeader::Mark(mark) => {
                self.in_order(mark.seq)?;
                None
            }
            ServerHeader::Verdict(verdict) => self.take_verdict(verdict)?,
            ServerHeader::Gap { from, to } => {
                // Who has given a run up is not sent its output.
                if self.cancelled.is_none() {
                    self.received = to;
                    self.cancel_for(OutputError::Gap { from, to })?;
                }
                None
            }
            ServerHeader::Grant(grant) => {
                self.stdin.grant(grant);
                None
            }
            ServerHeader::StdinClosed => {
                self.stdin.close();
                None
            }
            ServerHeader::Refused(refused) => {
                Some(Leg::done(Err(NoWelcome::refusal(refused.code, refused.text))))
            }
            ServerHeader::NotStarted(refusal) => {
                let Refusal { code, text, .. } = refusal;
                Some(Leg::done(Err(Error::Refused { code, text })))
            }
            ServerHeader::NeverStarted { .. } => Some(Leg::done(Err(Error::Interrupted))),
            ServerHeader::Lost(refusal) => {
                Some(Leg::done(Err(self.unknown(refusal.text, refusal.code))))
            }
            ServerHeader::Error { code: code @ Code::TakenOver, text } => {
                Some(Leg::done(Err(self.unknown(text, code))))
            }
            ServerHeader::Error { code, text } => {
                Some(Leg::Broken(format!("{}: {text}", code.name())))
            }
            ServerHeader::Welcome(_)
            | ServerHeader::AlreadyEnded { .. }
            | ServerHeader::Heartbeat
            | ServerHeader::Unknown => None,
        };
        Ok(leg)
    }

    fn unknown(&self, text: String, code: Code) -> Error {
        Error::Unknown { run: self.id.clone(), text, code: Some(code) }
    }

    fn take_started(&mut self, started: &Started) -> Result<Option<Leg>, FrameError> {
        if started.run != self.id {
            return Ok(Some(Leg::Broken("the server answered for another run".into())));
        }
        self.started = true;
        match self.stdin.resume(started) {
            Some(frames) => self.queue.extend(frames?),
            None => {
                let text = "the server does not have the standard input that it confirmed".into();
                return Ok(Some(Leg::done(Err(self.unknown(text, Code::Corrupt)))));
            }
        }
        for control in std::mem::take(&mut self.pending) {
            self.send(&frame_of(control))?;
        }
        // The confirmations of an earlier connection may be lost, and the server waits for them once
        // its window is full.
        self.sink_moved()?;
        Ok(None)
    }

    fn in_order(&mut self, seq: u64) -> Result<bool, FrameError> {
        let expected = self.received + 1;
        if seq == expected {
            self.received = seq;
            return Ok(true);
        }
        self.cancel_for(OutputError::Order { expected, got: seq })?;
        Ok(false)
    }

    fn unless_taken(&mut self, taken: Result<(), OutputError>) -> Result<(), FrameError> {
        match taken {
            Ok(()) => self.sink_moved(),
            Err(e) => self.cancel_for(e),
        }
    }

    fn take_verdict(&mut self, verdict: Box<Verdict>) -> Result<Option<Leg>, FrameError> {
        if verdict.run != self.id {
            return Ok(Some(Leg::Broken("the server sent another run's verdict".into())));
        }
        self.note_failure();
        // Who has cancelled waits for no more output.
        if self.failure.is_some() || (self.cancelled.is_some() && !self.is_whole(&verdict)) {
            self.send(&ClientHeader::Ack { seq: verdict.seq })?;
            return Ok(Some(self.give_up(*verdict)));
        }
        if self.in_order(verdict.seq)? {
            self.verdict = Some(verdict.clone());
            let taken = self.sink.finish(verdict);
            self.unless_taken(taken)?;
        }
        Ok(self.finished())
    }

    /// Whether everything before the verdict is here and written.
    fn is_whole(&self, verdict: &Verdict) -> bool {
        let ends = [verdict.stdout, verdict.stderr, verdict.both];
        let is_cut = ends.iter().flatten().any(|end| end.end == StreamEndKind::Cut);
        verdict.seq == self.received + 1 && self.sink.is_idle() && !is_cut
    }

    /// The end without the output that was not written. A verdict that names no stop would pass for a
    /// success.
    fn give_up(&mut self, verdict: Verdict) -> Leg {
        if self.failure.is_none() && verdict.stopped.is_none() {
            self.failure = Some(OutputError::GivenUp);
        }
        self.end(verdict)
    }

    fn end(&mut self, verdict: Verdict) -> Leg {
        Leg::done(match self.failure.take() {
            Some(error) => Err(Error::Output { error, verdict: Some(Box::new(verdict)) }),
            None => Ok(verdict),
        })
    }

    /// The end, once the verdict is here and everything before it was written.
    pub(super) fn finished(&mut self) -> Option<Leg> {
        let seq = self.verdict.as_ref()?.seq;
        if self.failure.is_none() && self.sink.written() < seq {
            return None;
        }
        let verdict = self.verdict.take()?;
        Some(self.end(*verdict))
    }

    /// Confirms what was written, and cancels when something could not be.
    pub(super) fn sink_moved(&mut self) -> Result<(), FrameError> {
        if let Some(failure) = self.sink.failure() {
            return self.cancel_for(failure);
        }
        let written = self.sink.written();
        let worth_it = self.unacked >= ACK_EVERY || self.sink.is_idle();
        if written > self.acked && worth_it {
            (self.acked, self.unacked) = (written, 0);
            self.send(&ClientHeader::Ack { seq: written })?;
        }
        Ok(())
    }
}

fn frame_of(control: Control) -> ClientHeader {
    match control {
        Control::Signal(signal) => ClientHeader::Signal { signal },
        Control::Cancel => ClientHeader::Cancel,
        Control::Pause => ClientHeader::Pause,
    }
}
