//! A request that waits for the answer of a supervisor, which may be stopped: its client is read on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use super::end::SessionEnd;
use crate::proto::code::Code;
use crate::proto::header::ClientHeader;
use crate::runs::answer::{Closed, Denied, Served};
use crate::runs::credit::INPUT;
use crate::runs::durable::There;
use crate::runs::id::RunId;
use crate::runs::record::FRAME_COST;
use crate::runs::request::Request;

/// Most bytes that wait for a supervisor on one connection: more than a client has credit for.
pub const BEHIND_LIMIT: usize = 2 * INPUT.largest;

/// What was asked, and the answer.
pub(super) enum Answer {
    Run { request: Box<Request>, is_late: bool, served: Result<Served, Denied> },
    Attach { id: RunId, after: u64, there: Result<There, Denied> },
    Close { id: RunId, closed: Closed },
    Order { run: String, obeyed: bool },
}

type Pending = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The request that waits, and what came behind it. Debug is not derived: that may hold secrets.
#[derive(Default)]
pub(super) struct Waiting {
    pending: Option<Pending>,
    behind: VecDeque<(ClientHeader, Bytes)>,
    bytes: usize,
}

impl Waiting {
    /// The answer, if it is there without waiting; otherwise it is waited for.
    pub(super) async fn ask(
        &mut self,
        asked: impl Future<Output = Answer> + Send + 'static,
    ) -> Option<Answer> {
        let mut pending: Pending = Box::pin(asked);
        tokio::select! {
            biased;
            answer = &mut pending => return Some(answer),
            () = std::future::ready(()) => {}
        }
        self.pending = Some(pending);
        None
    }

    /// The answer to what waits, once. Cancel safe.
    pub(super) async fn answer(&mut self) -> Answer {
        let Some(pending) = &mut self.pending else { return std::future::pending().await };
        let answer = pending.await;
        self.pending = None;
        answer
    }

    /// Whether a request waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this has to wait for its turn. What concerns no run does not.
    pub(super) fn is_before(&self, header: &ClientHeader) -> bool {
        use ClientHeader as H;
        let own = matches!(
            header,
            H::Hello(_) | H::List { .. } | H::Remove { .. } | H::Pause | H::Heartbeat | H::Unknown
        );
        self.is_waiting() && !own
    }

    /// Keeps what came behind.
    pub(super) fn keep(&mut self, header: ClientHeader, body: Bytes) -> Result<(), SessionEnd> {
        self.bytes += body.len() + FRAME_COST;
        if self.bytes > BEHIND_LIMIT {
            return Err(flooded());
        }
        self.behind.push_back((header, body));
        Ok(())
    }

    /// What came behind, when it is its turn.
    pub(super) fn next(&mut self) -> Option<(ClientHeader, Bytes)> {
        if self.is_waiting() {
            return None;
        }
        let (header, body) = self.behind.pop_front()?;
        self.bytes -= body.len() + FRAME_COST;
        Some((header, body))
    }
}

/// The client sends what it has no credit for.
pub(super) fn flooded() -> SessionEnd {
    SessionEnd::word(Code::Flooded, "more was sent than the run's supervisor takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_came_behind_has_its_turn_after_the_answer_and_is_bounded() {
        let mut waiting = Waiting::default();
        let answer = || Answer::Order { run: "a".into(), obeyed: true };
        assert!(waiting.ask(async move { answer() }).await.is_some());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let asked = async move {
            let _ = told.await;
            answer()
        };
        assert!(waiting.ask(asked).await.is_none());
        let cancel = ClientHeader::Cancel { run: None, as_operator: false };
        assert!(waiting.is_before(&cancel) && !waiting.is_before(&ClientHeader::Heartbeat));
        waiting.keep(cancel.clone(), Bytes::new()).unwrap();
        let most = Bytes::from(vec![0; BEHIND_LIMIT - 2 * FRAME_COST]);
        waiting.keep(ClientHeader::Detach, most).unwrap();
        assert!(waiting.keep(ClientHeader::Detach, Bytes::new()).is_err());
        assert!(waiting.next().is_none());
        tell.send(()).unwrap();
        waiting.answer().await;
        assert_eq!(waiting.next().map(|(header, _)| header), Some(cancel));
        assert!(waiting.next().is_some() && waiting.next().is_none());
    }
}
