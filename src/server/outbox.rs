//! What waits to be sent on one connection: answers first, then the frames of its run.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::batch::Batch;
use super::end::SessionEnd;
use super::serving::Serving;
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::header::ServerHeader;
use crate::sys::mutex::lock;

/// Most answers that wait for a client that asks but does not read.
pub const ANSWERS_LIMIT: usize = 64;

/// So long `started` waits for what else there is to say of a run: a short one is told in one packet, which wakes its
/// client once.
pub const STARTED_WAIT: Duration = Duration::from_millis(10);

/// What both loops of a session share.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<Pending>,
    called: Notify,
}

/// What waits to be sent. Debug does not show the answers: they quote what the client sent.
#[derive(Default)]
struct Pending {
    answers: Vec<Bytes>,
    run: Option<Current>,
    /// The writer holds a welcome that was not sent.
    greeting: bool,
    /// One of the answers is waited for.
    is_urgent: bool,
}

/// What is to be sent now.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) answers: Vec<Bytes>,
    pub(super) run: Option<Current>,
    /// There is something new that is waited for.
    pub(super) is_urgent: bool,
}

/// The run whose frames are being sent.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) serving: Arc<Serving>,
    /// Place of the last frame that was sent.
    pub(super) sent: u64,
    /// The verdict was sent; its confirmation is waited for.
    ended: bool,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("answers", &self.answers.len())
            .field("run", &self.run)
            .field("greeting", &self.greeting)
            .field("is_urgent", &self.is_urgent)
            .finish()
    }
}

impl Outbox {
    /// The outbox of a session whose writer holds the welcome: it is to be sent at once, but after the
    /// answer to a request that is there already.
    pub(super) fn greeting() -> Self {
        let outbox = Self::default();
        outbox.lock().greeting = true;
        outbox
    }

    /// An answer is on its way: a welcome may wait [`STARTED_WAIT`] for it.
    pub(super) fn expect(&self) {
        self.lock().greeting = false;
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        lock(&self.state)
    }

    /// Queues an answer.
    pub(super) fn answer(&self, header: &ServerHeader) -> Result<(), SessionEnd> {
        self.answer_with(header, b"")
    }

    /// Queues an answer with a body.
    pub(super) fn answer_with(&self, header: &ServerHeader, body: &[u8]) -> Result<(), SessionEnd> {
        self.queue(encoded(header, body)?, true)
    }

    /// Queues an answer that may wait [`STARTED_WAIT`] for more.
    pub(super) fn answer_soon(&self, header: &ServerHeader) -> Result<(), SessionEnd> {
        self.queue(encoded(header, b"")?, false)
    }

    fn queue(&self, frame: Bytes, is_urgent: bool) -> Result<(), SessionEnd> {
        let mut pending = self.lock();
        if pending.answers.len() >= ANSWERS_LIMIT {
            return Err(SessionEnd::word(
                Code::Flooded,
                "more was asked than was read of the answers",
            ));
        }
        pending.answers.push(frame);
        pending.is_urgent |= is_urgent;
        self.called.notify_one();
        Ok(())
    }

    /// Queues an answer that is encoded already.
    pub(super) fn answer_encoded(&self, frame: Bytes) -> Result<(), SessionEnd> {
        self.queue(frame, true)
    }

    /// Sends a run's frames after `after` from now on, behind the answers that wait.
    pub(super) fn follow(&self, serving: Serving, after: u64) {
        let serving = Arc::new(serving);
        self.lock().run = Some(Current { serving, sent: after, ended: false });
        self.called.notify_one();
    }

    /// The run that is being served.
    pub(super) fn serving(&self) -> Option<Arc<Serving>> {
        self.lock().run.as_ref().map(|run| Arc::clone(&run.serving))
    }

    /// Whether a run is under way whose verdict was not sent yet.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().run.as_ref().is_some_and(|run| !run.ended)
    }

    /// Lets go of the run.
    pub(super) fn leave(&self) {
        self.lock().run = None;
        // Whoever waits for the run's next frame holds it too.
        self.called.notify_one();
    }

    pub(super) fn take(&self) -> Taken {
        let mut pending = self.lock();
        let greeting = std::mem::take(&mut pending.greeting);
        let answers = std::mem::take(&mut pending.answers);
        Taken {
            // A welcome alone is; with an answer it goes as that does.
            is_urgent: std::mem::take(&mut pending.is_urgent) || (greeting && answers.is_empty()),
            answers,
            run: pending.run.clone(),
        }
    }

    /// Notes how far the record was sent, if it is still the same run's; and what serves it from now on.
    pub(super) fn sent(&self, current: &Current, batch: &Batch) {
        let mut pending = self.lock();
        let Some(run) = &mut pending.run else { return };
        if !Arc::ptr_eq(&run.serving, &current.serving) {
            return;
        }
        run.sent = batch.outgoing.last;
        // Nothing follows the verdict, but the run is asked whether there is more.
        run.ended |= batch.outgoing.ended;
        if batch.is_left
            && let Some(rest) = run.serving.without_supervisor()
        {
            run.serving = Arc::new(rest);
        }
        if batch.over {
            pending.run = None;
        }
    }

    /// Waits until there may be something to send.
    pub(super) async fn wait(&self, current: Option<&Current>) {
        match current {
            Some(run) => tokio::select! {
                () = self.called.notified() => {}
                () = run.serving.called() => {}
            },
            None => self.called.notified().await,
        }
    }
}

#[cfg(test)]
mod tests;
