//! What a server's frames do to the state of a run.

use super::{Leave, LegEnd, Started, State};
use crate::client::error::{Error, OutputError};
use crate::conn::Frame;
use crate::proto::code::Code;
use crate::proto::digest::Algorithm;
use crate::proto::frame::{FrameError, INTEGER_LIMIT};
use crate::proto::header::{self, ServerHeader, Stream};
use crate::proto::id::RunId;
use crate::proto::verdict::Verdict;

impl State {
    /// One frame of the server's. The leg's end, if it brings that.
    pub(in crate::client) fn take(&mut self, frame: Frame) -> Result<Option<LegEnd>, FrameError> {
        let header = frame.header_by(ServerHeader::read)?;
        if self.has_end() && is_of_record(&header) {
            self.failure.get_or_insert(OutputError::AfterVerdict);
            return Ok(self.finished());
        }
        let leg = match header {
            ServerHeader::Started(started) => self.take_started(&started)?,
            ServerHeader::Output(output) => {
                if self.in_order(output.seq)? && !self.has_hole {
                    self.handed_on = output.seq;
                    let taken = self.sink.piece(output, frame);
                    self.unless_taken(taken)?;
                }
                None
            }
            ServerHeader::Mark(mark) => {
                self.in_order(mark.seq)?;
                None
            }
            ServerHeader::Verdict(verdict) => self.take_verdict(verdict)?,
            ServerHeader::Detached { run } => Some(self.detached(run)),
            ServerHeader::SoFar { run, .. } if run != self.id => Some(another_run()),
            ServerHeader::SoFar { seq, .. } => self.take_so_far(seq)?,
            ServerHeader::Gap { from, to } => {
                self.take_gap(from, to)?;
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
            ServerHeader::Refused(refused) => Some(self.refused(refused.code, refused.text)),
            ServerHeader::NotStarted(refusal) => Some(self.refused(refusal.code, refusal.text)),
            ServerHeader::NeverStarted { .. } => Some(self.never_started()),
            ServerHeader::Lost(refusal) => {
                self.lost = Some(self.unknown(refusal.text, refusal.code));
                None
            }
            ServerHeader::Error { code: Code::TakenOver, text } => Some(self.taken_over(text)),
            ServerHeader::Error { code: Code::ShuttingDown, text } => Some(self.sent_on(text)),
            ServerHeader::Error { code: code @ Code::NotAuthorized, text } => {
                Some(LegEnd::done(Err(self.not_let_in(code, text))))
            }
            ServerHeader::Error { code, text } => {
                Some(LegEnd::Broken(format!("{}: {text}", code.name())))
            }
            ServerHeader::Welcome(_)
            | ServerHeader::Done { .. }
            | ServerHeader::Runs { .. }
            | ServerHeader::AlreadyEnded { .. }
            | ServerHeader::Heartbeat
            | ServerHeader::Unknown => None,
        };
        Ok(leg.or_else(|| self.finished()))
    }

    /// Frames that do not come, which some have asked for.
    fn take_gap(&mut self, from: u64, to: u64) -> Result<(), FrameError> {
        // A place that no header may hold is none.
        self.received = self.received.max(to.min(INTEGER_LIMIT));
        if self.role.is_late() {
            return Ok(());
        }
        self.passed_over(OutputError::Gap { from, to })
    }

    /// The end of all that there is. What is not there by then does not come.
    fn take_so_far(&mut self, seq: u64) -> Result<Option<LegEnd>, FrameError> {
        if !self.only_looks() || !self.is_started() {
            return Ok(Some(LegEnd::Broken(
                "the server showed a record that was not asked for".into(),
            )));
        }
        if seq != self.received {
            self.passed_over(OutputError::Order { expected: self.received + 1, got: seq })?;
        }
        self.so_far = Some(self.handed_on);
        Ok(None)
    }

    /// Grows with all that a connection brings.
    pub(in crate::client) fn progress(&self) -> (u64, u64) {
        (self.received, self.stdin.confirmed())
    }

    fn take_started(&mut self, started: &header::Started) -> Result<Option<LegEnd>, FrameError> {
        if self.is_started() {
            // Each time all of the input that is kept would be sent again.
            return Ok(Some(LegEnd::Broken("the run has started a second time".into())));
        }
        if self.only_looks() && !self.was_started() && is_meant(&started.run, &self.id) {
            self.id.clone_from(&started.run);
        }
        if started.run != self.id {
            return Ok(Some(another_run()));
        }
        self.started = Started::Here;
        if !self.agree(Algorithm::from_name(&started.hash)) {
            let text = "the server uses another digest than was agreed on".into();
            return Ok(Some(LegEnd::done(Err(self.unknown(text, Code::Unsupported)))));
        }
        if self.only_looks() {
            return self.go_on(started.attached);
        }
        match self.stdin.resume(started) {
            Some(frames) => self.outgoing.send_encoded(frames?),
            None => {
                let text = "the server does not have the standard input that it confirmed".into();
                return Ok(Some(LegEnd::done(Err(self.unknown(text, Code::Corrupt)))));
            }
        }
        if !started.attached && self.is_left_with_its_start() {
            return Ok(Some(LegEnd::done(Err(Error::Detached { run: self.id.clone() }))));
        }
        self.go_on(started.attached)
    }

    /// Whether there is nothing to be said to a run that is new: its request has said that it is left.
    fn is_left_with_its_start(&self) -> bool {
        self.leave == Leave::WhenSent && self.stdin.is_sent() && self.pending.is_empty()
    }

    /// Takes what the server says about its digests. False if it is unknown here, or not what it was.
    fn agree(&mut self, algorithm: Option<Algorithm>) -> bool {
        let Some(algorithm) = algorithm else { return false };
        if self.agreed.is_none() {
            self.agreed = Some(algorithm);
            self.sink.go_by(algorithm);
            self.stdin.go_by(algorithm);
        }
        self.agreed == Some(algorithm)
    }

    /// The run goes on without this client, if that was its wish.
    fn detached(&self, run: String) -> LegEnd {
        if run != self.id {
            return another_run();
        }
        match self.leave {
            Leave::Said => LegEnd::done(Err(Error::Detached { run })),
            Leave::Stay | Leave::WhenSent | Leave::Now => {
                LegEnd::Broken("the server let a run go on alone that was not left".into())
            }
        }
    }

    fn go_on(&mut self, attached: bool) -> Result<Option<LegEnd>, FrameError> {
        for control in self.pending.take(attached) {
            self.ask(control)?;
        }
        self.leave_if_due()?;
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
        self.passed_over(OutputError::Order { expected, got: seq })?;
        Ok(false)
    }

    /// Frames are missing. Who has given the run up does not wait for them, but does not call the rest whole.
    fn passed_over(&mut self, failure: OutputError) -> Result<(), FrameError> {
        if self.is_given_up() {
            self.has_hole = true;
            return Ok(());
        }
        self.cancel_for(failure)
    }

    fn unless_taken(&mut self, taken: Result<(), OutputError>) -> Result<(), FrameError> {
        match taken {
            Ok(()) => self.sink_moved(),
            Err(e) => self.cancel_for(e),
        }
    }

    fn take_verdict(&mut self, verdict: Box<Verdict>) -> Result<Option<LegEnd>, FrameError> {
        if verdict.run != self.id {
            return Ok(Some(another_run()));
        }
        self.note_failure();
        // The answer to `close` comes without `started`.
        if !self.agree(Algorithm::from_member(verdict.hash.as_deref())) {
            self.failure.get_or_insert(OutputError::Altered(Stream::Both));
        }
        // Who has given the run up waits for no more output.
        if self.failure.is_some() || (self.is_given_up() && !self.is_whole(&verdict)) {
            if verdict.stopped.is_none() {
                self.failure.get_or_insert(OutputError::GivenUp);
            }
            self.outgoing.confirm(verdict.seq);
            return Ok(Some(self.end(*verdict)));
        }
        if self.in_order(verdict.seq)? {
            self.verdict = Some(verdict.clone());
            let taken = self.sink.finish(verdict);
            self.unless_taken(taken)?;
        }
        Ok(None)
    }

    /// Whether everything before the verdict is here and written.
    fn is_whole(&self, verdict: &Verdict) -> bool {
        let is_cut = verdict.streams().any(|stream| stream.end.is_short());
        let written = !self.has_hole && self.sink.written() + 1 >= verdict.seq;
        written && verdict.seq == self.received + 1 && !is_cut
    }

    pub(super) fn end(&mut self, verdict: Verdict) -> LegEnd {
        LegEnd::done(match self.failure.take() {
            Some(error) => Err(Error::Output { error, verdict: Some(Box::new(verdict)) }),
            None if verdict.stopped.is_none() && self.sink.written() < verdict.seq => {
                let error = OutputError::GivenUp;
                Err(Error::Output { error, verdict: Some(Box::new(verdict)) })
            }
            None => Ok(verdict),
        })
    }

    /// The end, once the last word is here and everything before it was written; or, of who only looks, once
    /// something is wrong with the output.
    pub(in crate::client) fn finished(&mut self) -> Option<LegEnd> {
        let waits_for_nothing = self.failure.is_some() || self.cancelled.is_some();
        if (waits_for_nothing || self.sink.written() >= self.handed_on)
            && let Some(lost) = self.lost.take()
        {
            return Some(LegEnd::done(Err(lost)));
        }
        if self.verdict.is_none()
            && self.only_looks()
            && let Some(error) = self.failure.take()
        {
            // There is no use in seeing more of it, and nobody knows how long it goes on.
            return Some(LegEnd::done(Err(Error::Output { error, verdict: None })));
        }
        if self.so_far.is_some_and(|seq| self.sink.written() >= seq) {
            return Some(LegEnd::done(Err(Error::Detached { run: self.id.clone() })));
        }
        let seq = self.verdict.as_ref()?.seq;
        if self.failure.is_none() && self.sink.written() < seq {
            return None;
        }
        let verdict = self.verdict.take()?;
        Some(self.end(*verdict))
    }
}

/// Whether an id is one that has this part.
fn is_meant(id: &str, part: &str) -> bool {
    id.contains(part) && RunId::new(id).is_ok()
}

fn another_run() -> LegEnd {
    LegEnd::Broken("the server answered for another run".into())
}

/// Whether the frame has a place in the run's record, or stands for some that have.
fn is_of_record(header: &ServerHeader) -> bool {
    matches!(
        header,
        ServerHeader::Output(_)
            | ServerHeader::Mark(_)
            | ServerHeader::Gap { .. }
            | ServerHeader::Verdict(_)
    )
}
