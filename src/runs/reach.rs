//! Reaching a durable run: through its supervisor, or through the record that is left of it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use super::answer::{Closed, Denied, check_same};
use super::disk::Outcome;
use super::durable::{Durable, Source, State, There};
use super::entry::Entry;
use super::host::Host;
use super::link::{Link, RETRY};
use super::record::encode;
use super::request::Request;
use crate::proto::code::Code;
use crate::proto::frame::{Decoded, Limits, decode};
use crate::proto::header::{Attach, ClientHeader, ServerHeader, ShowFrom};

impl Host {
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
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Asks a run's supervisor something that has one answer. None if the run is over.
    pub(super) async fn ask(&self, run: &Arc<Durable>, asked: Bytes) -> Option<ServerHeader> {
        let there = self.reach(run, asked, (0, ShowFrom::Verdict)).await.ok()?;
        match (&there.source, decode(&there.answer, Limits::FULL)) {
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
        let there = |kept: &Arc<Entry>| match &**kept {
            Entry::There(run) => Some(Arc::clone(run)),
            Entry::Here(_) | Entry::Gone(_) => None,
        };
        self.table.all_live().iter().filter_map(there).collect()
    }
}
