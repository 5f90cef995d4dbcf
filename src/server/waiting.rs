//! A request that waits for the answer of a supervisor, which may be stopped, or of a user's folders, which may be on
//! a file server that is gone: its client is read on.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Instant;

use bytes::Bytes;

use super::end::SessionEnd;
use super::held::{Held, Wait};
use crate::proto::code::Code;
use crate::proto::header::ClientHeader;
use crate::proto::id::RunId;
use crate::runs::answer::{Closed, Denied, Served};
use crate::runs::credit::INPUT;
use crate::runs::durable::There;
use crate::runs::record::FRAME_COST;
use crate::runs::request::Request;

/// Most bytes that wait for a supervisor on one connection: more than a client has credit for.
pub const BEHIND_LIMIT: usize = 2 * INPUT.largest;

/// What was asked, and the answer.
pub(super) enum Answer {
    Run { request: Box<Request>, wait: Option<Wait>, served: Result<Served, Denied> },
    Attach { id: RunId, after: u64, there: Result<There, Denied> },
    Close { id: RunId, closed: Closed },
    Order { run: String, obeyed: bool },
}

/// For the sake of what the account was looked at; it has not been done yet.
pub(super) enum Looked {
    Heard(Box<Heard>),
    Held(Box<Held>),
}

/// What was waited for.
pub(super) enum Came {
    Answer(Answer),
    Looked(Looked),
}

/// A frame from the client.
pub(super) struct Heard {
    /// When it came.
    pub(super) at: Instant,
    pub(super) header: ClientHeader,
    pub(super) body: Bytes,
    /// Bytes of the whole frame: its header may be nearly all of it.
    pub(super) size: usize,
}

/// What is waited for. Boxed by whoever makes it: it is large, and a session has room for one at any time.
pub(super) type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Whose answer is waited for.
pub(super) enum Of {
    /// That of a run that is to be started, or gone on with.
    Run(Pending<Answer>),
    Supervisor(Pending<Answer>),
    /// The user's folders.
    Home(Pending<Looked>),
}

/// The request that waits, and what came behind it. Debug is not derived: that may hold secrets.
#[derive(Default)]
pub(super) struct Waiting {
    pending: Option<Of>,
    behind: VecDeque<Heard>,
    bytes: usize,
}

impl Waiting {
    /// The answer, if it is there without waiting; otherwise it is waited for.
    pub(super) async fn ask(
        &mut self,
        mut pending: Pending<Answer>,
        of: fn(Pending<Answer>) -> Of,
    ) -> Option<Answer> {
        tokio::select! {
            biased;
            answer = &mut pending => return Some(answer),
            () = std::future::ready(()) => {}
        }
        self.pending = Some(of(pending));
        None
    }

    /// Waits for a look at the account.
    pub(super) fn look(&mut self, look: impl Future<Output = Looked> + Send + 'static) {
        self.pending = Some(Of::Home(Box::pin(look)));
    }

    /// The answer to what waits, once. Cancel safe.
    pub(super) async fn came(&mut self) -> Came {
        let came = match &mut self.pending {
            None => std::future::pending().await,
            Some(Of::Run(pending) | Of::Supervisor(pending)) => Came::Answer(pending.await),
            Some(Of::Home(pending)) => Came::Looked(pending.await),
        };
        self.pending = None;
        came
    }

    /// Whether a request waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this has to wait for its turn. What concerns no run does not; nor, while only the user's folders do
    /// not answer, what concerns the run that is `served`.
    pub(super) fn is_before(&self, header: &ClientHeader, served: bool) -> bool {
        use ClientHeader as H;
        let is_of_home = matches!(self.pending, Some(Of::Home(_)));
        if is_of_home && (matches!(header, H::Ack { .. }) || (served && is_order(header))) {
            return false;
        }
        let own = matches!(
            header,
            H::Hello(_) | H::List { .. } | H::Remove { .. } | H::Pause | H::Heartbeat | H::Unknown
        );
        self.is_waiting() && !own
    }

    /// Keeps what came behind.
    pub(super) fn keep(&mut self, heard: Heard) -> Result<(), SessionEnd> {
        self.bytes += heard.size + FRAME_COST;
        if self.bytes > BEHIND_LIMIT {
            return Err(flooded());
        }
        self.behind.push_back(heard);
        Ok(())
    }

    /// Drops what came behind but for orders to the run that is waited for, and leave to go on alone. Whether there
    /// are any for one that is begun.
    pub(super) fn keep_orders(&mut self) -> bool {
        self.behind.retain(|heard| is_order(&heard.header) || heard.header == ClientHeader::Detach);
        matches!(self.pending, Some(Of::Run(_))) && !self.behind.is_empty()
    }

    /// What came behind, when it is its turn.
    pub(super) fn next(&mut self) -> Option<Heard> {
        if self.is_waiting() {
            return None;
        }
        let heard = self.behind.pop_front()?;
        self.bytes -= heard.size + FRAME_COST;
        Some(heard)
    }
}

/// Whether it is an order to the run of its connection.
pub(super) fn is_order(header: &ClientHeader) -> bool {
    matches!(
        header,
        ClientHeader::Cancel { run: None, .. } | ClientHeader::Signal { run: None, .. }
    )
}

/// The client sends what it has no credit for.
pub(super) fn flooded() -> SessionEnd {
    SessionEnd::word(Code::Flooded, "more was sent than the run's supervisor takes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(header: ClientHeader, body: Bytes) -> Heard {
        Heard { at: Instant::now(), header, size: body.len(), body }
    }

    #[test]
    fn while_a_home_does_not_answer_the_run_that_is_served_is_still_acknowledged_and_ordered() {
        use ClientHeader as H;
        let mut waiting = Waiting::default();
        waiting.look(std::future::pending());
        let cancel = |run| H::Cancel { run, as_operator: false };
        let signal = |run| H::Signal { signal: "TERM".into(), run };
        assert!(!waiting.is_before(&H::Ack { seq: 1 }, true));
        for order in [cancel(None), signal(None)] {
            assert!(!waiting.is_before(&order, true));
            // What it is for waits to be started.
            assert!(waiting.is_before(&order, false));
        }
        for order in [cancel(Some("x".into())), signal(Some("x".into())), H::Detach] {
            assert!(waiting.is_before(&order, true));
        }
    }

    #[tokio::test]
    async fn of_what_came_behind_orders_to_the_run_outlive_the_client() {
        use ClientHeader as H;
        let cancel = |run| H::Cancel { run, as_operator: false };
        let all = [H::Ack { seq: 1 }, cancel(None), cancel(Some("x".into())), H::Detach];
        // What waits for a home was not begun, and who only looks at a run has no say in it.
        for of in [None, Some(Of::Supervisor as fn(_) -> _), Some(Of::Run)] {
            let mut waiting = Waiting::default();
            match of {
                None => waiting.look(std::future::pending()),
                Some(of) => {
                    assert!(waiting.ask(Box::pin(std::future::pending()), of).await.is_none());
                }
            }
            for header in all.clone() {
                waiting.keep(heard(header, Bytes::new())).unwrap();
            }
            let is_run = matches!(waiting.pending, Some(Of::Run(_)));
            assert_eq!(waiting.keep_orders(), is_run);
            let kept: Vec<_> = waiting.behind.iter().map(|heard| &heard.header).collect();
            assert_eq!(kept, [&all[1], &all[3]]);
            waiting.behind.clear();
            assert!(!waiting.keep_orders());
        }
    }

    #[tokio::test]
    async fn what_came_behind_has_its_turn_after_the_answer_and_is_bounded() {
        let mut waiting = Waiting::default();
        let answer = || Answer::Order { run: "a".into(), obeyed: true };
        assert!(waiting.ask(Box::pin(async move { answer() }), Of::Supervisor).await.is_some());
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let asked = async move {
            let _ = told.await;
            answer()
        };
        assert!(waiting.ask(Box::pin(asked), Of::Supervisor).await.is_none());
        let cancel = ClientHeader::Cancel { run: None, as_operator: false };
        assert!(waiting.is_before(&cancel, true));
        assert!(!waiting.is_before(&ClientHeader::Heartbeat, true));
        waiting.keep(heard(cancel.clone(), Bytes::new())).unwrap();
        let most = Bytes::from(vec![0; BEHIND_LIMIT - 2 * FRAME_COST]);
        waiting.keep(heard(ClientHeader::Detach, most)).unwrap();
        assert!(waiting.keep(heard(ClientHeader::Detach, Bytes::new())).is_err());
        assert!(waiting.next().is_none());
        tell.send(()).unwrap();
        waiting.came().await;
        assert_eq!(waiting.next().map(|heard| heard.header), Some(cancel));
        assert!(waiting.next().is_some() && waiting.next().is_none());
    }
}
