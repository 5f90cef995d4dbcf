//! Whether what is asked for may be done, and how it is refused.

use std::sync::Arc;

use tracing::info;

use super::Requests;
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, Refused, ServerHeader};
use crate::runs::entry::Entry;
use crate::runs::request::Request;
use crate::runs::shares::Usage;
use crate::server::end::SessionEnd;
use crate::server::policy::{Allowed, Asked, Command, Forbidden, Rights, Whose};
use crate::server::users::Guest;
use crate::server::waiting::Heard;

/// What the policy says of what is asked for, by the rights of the one who asks and by what the identity has
/// under way.
pub(in crate::server) type Judge =
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

impl Requests {
    /// Whose account and lists of keys have to be looked at anew before this is done: it is judged by them.
    pub(super) fn to_be_looked_at(&self, heard: &Heard) -> Option<Arc<Guest>> {
        let guest = self.guest.as_ref()?;
        let is_input = matches!(heard.header, ClientHeader::Stdin(_) | ClientHeader::StdinEnd(_));
        let is_asked = is_judged(&heard.header) || (is_input && self.rights.is_due());
        (is_asked && !guest.is_fresh(heard.at)).then(|| Arc::clone(guest))
    }

    /// The first request of a run is refused for good. To a later one that would be a lie: the run may
    /// have been started when the client was still let in.
    pub(super) fn may_not_run(&self, request: &Request, why: Forbidden) -> Result<(), SessionEnd> {
        if request.first_sent_ago.is_zero() {
            return self.refuse(why.code, why.text);
        }
        Err(self.end_for(why))
    }

    pub(super) fn end_for(&self, why: Forbidden) -> SessionEnd {
        self.note_refusal(why.code, &why.text);
        SessionEnd::word(why.code, why.text)
    }

    pub(super) fn note_refusal(&self, code: Code, text: &str) {
        if let Some(ledger) = self.host.ledger() {
            ledger.refused(Some(&self.identity), &self.from, code.name(), text);
        }
    }

    /// What may be done now: the rights may have changed since the last request.
    pub(super) fn judged(&self, asked: &Asked<'_>) -> Result<Allowed, Forbidden> {
        let options = self.rights.now().ok_or_else(Forbidden::no_longer_in)?;
        (self.judge)(asked, Rights::of(&options), Usage::default())
    }

    /// Whether this may be done; if not, that was answered.
    pub(super) fn may(&self, asked: &Asked<'_>) -> Result<bool, SessionEnd> {
        match self.judged(asked) {
            Ok(_) => Ok(true),
            Err(Forbidden { code, text }) => self.refuse(code, text).map(|()| false),
        }
    }

    /// As [`Self::may`], where to refuse is to say that nothing was started: then the conversation ends.
    pub(super) fn may_or_end(&self, asked: &Asked<'_>) -> Result<(), SessionEnd> {
        let judged = self.judged(asked);
        judged.map(drop).map_err(|why| self.end_for(why))
    }

    pub(super) fn refuse(&self, code: Code, text: String) -> Result<(), SessionEnd> {
        self.note_refusal(code, &text);
        let identity = &self.identity;
        if let Some(line) =
            self.refusals.line(|| format!("refused a request of {identity}: {text}"))
        {
            info!("{line}");
        }
        self.outbox.answer(&ServerHeader::Refused(Refused { code, text, key: None }))
    }

    /// As whom a run is stopped: as the operator who may stop the runs of others if it is another's, or if a
    /// server says so to the run's supervisor, which knows it as its only identity's own.
    pub(super) fn by_whom(&self, found: Whose, said: Whose) -> Whose {
        let is_operator = || self.judged(&Asked::Stop(Whose::All)).is_ok();
        if found == Whose::All || (said == Whose::All && is_operator()) {
            Whose::All
        } else {
            Whose::Own
        }
    }

    /// The one run that is meant, and whether it is an own one or, for an operator, another's. None if that was
    /// refused. Who is no operator is told the same of another's run as of none.
    pub(super) fn find(
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
}

/// What the policy is to judge.
pub(super) fn wanted(request: &Request) -> Asked<'_> {
    Asked::Run(Command {
        form: request.form(),
        words: request.words(),
        cwd: request.cwd(),
        env: request.env_names(),
    })
}
