//! What an answer that is no verdict says of a run that may have been asked for before.

use super::super::connection::NoWelcome;
use super::super::error::Error;
use super::{Leave, LegEnd, Role, State, StdinSender};
use crate::proto::code::Code;

impl State {
    /// Nothing was started by this request. An earlier one may still arrive and start it, unless its id
    /// is another run's, which lasts longer than the network holds anything back.
    pub(super) fn refused(&mut self, code: Code, text: String) -> LegEnd {
        if self.is_started() {
            return LegEnd::Broken(format!("the run was refused although it had started: {text}"));
        }
        if self.only_looks() {
            return LegEnd::done(Err(NoWelcome::refusal(code, text)));
        }
        if self.was_started() || self.closing {
            return LegEnd::done(Err(self.unknown(text, code)));
        }
        let error = NoWelcome::refusal(code, text);
        if self.unanswered == 0 || matches!(error, Error::Conflict { .. }) {
            return LegEnd::done(Err(error));
        }
        self.doubted = Some(error);
        LegEnd::Doubted
    }

    /// The server leaves. Of a run that it has not begun that is all there is to know.
    pub(super) fn sent_on(&self, text: String) -> LegEnd {
        if self.only_looks() || self.was_started() || self.closing {
            return LegEnd::Broken(text);
        }
        LegEnd::SentOn(text)
    }

    /// Whether the caller wants an end of what has not begun.
    pub(in crate::client) fn is_to_be_ended(&self) -> bool {
        self.is_given_up() || !self.pending.is_empty()
    }

    /// The answer to `close`: what was sent earlier can start nothing any more.
    pub(super) fn never_started(&mut self) -> LegEnd {
        if self.was_started() {
            let text = "the server says that the run was never started, although it had started";
            return LegEnd::Broken(text.into());
        }
        LegEnd::done(Err(self.doubted.take().unwrap_or(Error::Interrupted)))
    }

    /// Whether the run is to be stopped, so that its output need not be whole.
    pub(in crate::client) fn is_given_up(&self) -> bool {
        !self.only_looks() && (self.cancelled.is_some() || self.doubted.is_some())
    }

    /// By this client's own late request, perhaps: then another try takes the run back. If not, the record
    /// of a durable run can still be seen.
    pub(super) fn taken_over(&mut self, text: String) -> LegEnd {
        if self.unanswered > 0 {
            self.unanswered -= 1;
            return LegEnd::Broken(text);
        }
        let may_look = self.role == Role::Owner { durable: true };
        if may_look && self.leave == Leave::Stay && !self.is_given_up() {
            self.role = Role::Viewer { late: false };
            // The rest of the input is for the other one to send.
            self.stdin = StdinSender::new(false);
            return LegEnd::Broken(text);
        }
        LegEnd::done(Err(self.unknown(text, Code::TakenOver)))
    }

    /// Whether an earlier connection may have started the run.
    pub(in crate::client) fn may_be_started(&self) -> bool {
        self.was_started() || self.unanswered > 0
    }

    /// The server refuses this client. Whether the run was started earlier is another question.
    pub(in crate::client) fn not_let_in(&self, code: Code, text: String) -> Error {
        if self.may_be_started() {
            self.unknown(text, code)
        } else {
            NoWelcome::refusal(code, text)
        }
    }

    pub(super) fn unknown(&self, text: String, code: Code) -> Error {
        Error::Unknown { run: self.id.clone(), text, code: Some(code) }
    }
}
