//! Reaching a durable run: through its supervisor, or through the record that is left of it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use super::answer::{Closed, Denied, check_same};
use super::disk::{Outcome, View};
use super::durable::{Durable, Shown, State, There, Wanted};
use super::host::Host;
use super::link::{Link, RETRY};
use super::request::Request;
use crate::conn::Frame;
use crate::proto::code::Code;
use crate::proto::frame::{Decoded, Limits, decode, encoded};
use crate::proto::header::{Attach, ClientHeader, ServerHeader};
use crate::proto::stored::Grown;

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
        self.reach(run, asked, Wanted::of(request)).await
    }

    /// Looks at a run.
    ///
    /// # Errors
    /// [`Denied`]: there is nothing to be seen of it.
    pub async fn look(&self, run: &Arc<Durable>, attach: &Attach) -> Result<There, Denied> {
        let wanted = Attach { run: run.key.id.to_string(), ..attach.clone() };
        let asked = encoded(&ClientHeader::Attach(wanted), b"")
            .map_err(|e| Denied::Refused(Code::BadRequest, e.to_string()))?;
        let Attach { after, from, follow, .. } = *attach;
        self.reach(run, asked, Wanted { after, from, follow }).await
    }

    /// Gives a run up.
    pub(super) async fn close_there(&self, run: &Arc<Durable>) -> Closed {
        let id = run.key.id.to_string();
        let Ok(asked) = encoded(&ClientHeader::Close { id, first_sent_ms_ago: 0 }, b"") else {
            return Closed::Lost(Code::SupervisorLost);
        };
        match self.reach(run, asked, Wanted::END).await {
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
        wanted: Wanted,
    ) -> Result<There, Denied> {
        loop {
            match run.known().await {
                State::NotStarted { code, text } => return Err(Denied::NotStarted(code, text)),
                State::Over(outcome) => return self.left_of(run, &outcome, wanted),
                State::Forgotten(_) => return Err(Denied::Lost(Code::Forgotten)),
                State::Starting | State::Found | State::Live { .. } => {}
            }
            if let Ok(link) = Link::connect(&run.folder)
                && let Ok(answer) = link.ask(asked.clone()).await
                && let Some(there) = self.answered(run, (link, answer), wanted).await
            {
                return Ok(there);
            }
            // Its watcher sees the same, and finds out.
            tokio::select! {
                () = run.over() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// What a supervisor's answer leads to. None if it is gone meanwhile.
    pub(super) async fn answered(
        &self,
        run: &Arc<Durable>,
        (link, answer): (Link, Frame),
        wanted: Wanted,
    ) -> Option<There> {
        let mut shown = None;
        if let Ok(ServerHeader::Started(_)) = answer.header() {
            let told: Grown = link.next().await.ok()??.header().ok()?;
            let file = run.folder.record().ok()??;
            let view = Arc::new(View::new(file, told, (wanted.after, wanted.from)));
            shown = Some(Shown { view, link: Some(Arc::new(link)), follow: wanted.follow });
        }
        Some(There { run: Arc::clone(run), answer: answer.encoded(), shown })
    }

    /// Asks a run's supervisor something that has one answer. None if the run is over.
    pub(super) async fn ask(&self, run: &Arc<Durable>, asked: Bytes) -> Option<ServerHeader> {
        let there = self.reach(run, asked, Wanted::END).await.ok()?;
        match (&there.shown, decode(&there.answer, Limits::FULL)) {
            (None, Ok(Decoded::Frame(frame))) => serde_json::from_slice(frame.header).ok(),
            _ => None,
        }
    }

    fn left_of(
        &self,
        run: &Arc<Durable>,
        outcome: &Arc<Outcome>,
        wanted: Wanted,
    ) -> Result<There, Denied> {
        match run.left(outcome, wanted) {
            Ok(Some((started, shown))) => {
                let answer = encoded(&ServerHeader::Started(started), b"")
                    .map_err(|e| Denied::Refused(Code::BadRequest, e.to_string()))?;
                Ok(There { run: Arc::clone(run), answer, shown: Some(shown) })
            }
            Ok(None) => {
                self.found_gone(run);
                Err(Denied::Lost(Code::Forgotten))
            }
            Err(e) => {
                if let Some(line) = self.troubles.line(|| format!("cannot read its record: {e}")) {
                    error!(run = %run.key.id, "{line}");
                }
                Err(Denied::Lost(Code::OutOfResources))
            }
        }
    }
}
