//! The batch: which host comes when, and the end for all.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::worker::{Counts, Worker};
use super::{Batch, BatchError, Cause, Event, Halter, How, Why};
use crate::sys::clock::until;

/// Events that may wait for the caller. With [`super::output::PIECE_LIMIT`] that bounds their memory.
const EVENTS_WAITING: usize = 64;

/// A batch that is under way. Dropping it gives it up: its runs are left to the servers, which stop them
/// when their client does not come back.
pub struct Running {
    events: mpsc::Receiver<Event>,
    halter: Halter,
    task: JoinHandle<()>,
    counts: Arc<Counts>,
    /// How many steps there are.
    steps: usize,
    /// Hosts with a step that was begun.
    begun: HashSet<usize>,
    /// Steps that have their verdict.
    ended: HashSet<(usize, usize)>,
    /// What comes next, before anything else.
    due: VecDeque<Event>,
    /// The host whose step is asked for when the caller comes back.
    asking: Option<usize>,
}

impl Batch {
    /// Starts it, within a tokio runtime.
    ///
    /// # Errors
    /// As [`Batch::check`]; nothing was run.
    pub fn start(self) -> Result<Running, BatchError> {
        self.check()?;
        let halter = Halter::new();
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let engine = Engine::new(Arc::new(self), sender, halter.clone());
        let (counts, steps) = (Arc::clone(&engine.counts), engine.batch.steps.len());
        let task = tokio::spawn(engine.run());
        let (begun, ended, due) = (HashSet::new(), HashSet::new(), VecDeque::new());
        Ok(Running { events, halter, task, counts, steps, begun, ended, due, asking: None })
    }
}

impl Running {
    /// What happens next; none at the end.
    pub async fn next(&mut self) -> Option<Event> {
        self.came_back();
        while self.due.is_empty() {
            let event = self.events.recv().await?;
            self.arrange(event);
        }
        self.hand_out()
    }

    /// The same, for a thread outside of the runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.came_back();
        while self.due.is_empty() {
            let event = self.events.blocking_recv()?;
            self.arrange(event);
        }
        self.hand_out()
    }

    /// Ends it early, also from elsewhere.
    #[must_use]
    pub fn halter(&self) -> Halter {
        self.halter.clone()
    }

    /// The caller has seen the event before.
    fn came_back(&mut self) {
        if let Some(host) = self.asking.take() {
            self.counts.seen[host].notify_one();
        }
    }

    fn hand_out(&mut self) -> Option<Event> {
        let event = self.due.pop_front()?;
        if let Event::StepBegun { host, .. } = event {
            self.asking = Some(host);
        }
        Some(event)
    }

    /// Adds what follows from an event. A run that was given up may write for a little longer: that is
    /// passed over.
    fn arrange(&mut self, event: Event) {
        match event {
            Event::StepBegun { host, .. } if self.begun.insert(host) => {
                self.due.extend([Event::HostBegun { host }, event]);
            }
            Event::StepEnded { host, step, .. } => {
                if self.ended.insert((host, step)) {
                    self.due.push_back(event);
                    // A host's steps end in their order.
                    let is_last = step + 1 == self.steps;
                    self.due.extend(is_last.then_some(Event::HostEnded { host }));
                }
            }
            Event::Output { host, step, .. } if self.ended.contains(&(host, step)) => {}
            event => self.due.push_back(event),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins hosts while there is room.
struct Engine {
    batch: Arc<Batch>,
    events: mpsc::Sender<Event>,
    halter: Halter,
    counts: Arc<Counts>,
    workers: JoinSet<()>,
    /// Which host a task works on.
    at: HashMap<tokio::task::Id, usize>,
    /// The first host that was not begun.
    next: usize,
    /// The first host of the next round.
    round_end: usize,
}

impl Engine {
    fn new(batch: Arc<Batch>, events: mpsc::Sender<Event>, halter: Halter) -> Self {
        let hosts = batch.hosts.len();
        let round_end = batch.options.serial.unwrap_or(hosts).min(hosts);
        Self {
            counts: Arc::new(Counts::new(hosts)),
            batch,
            events,
            halter,
            workers: JoinSet::new(),
            at: HashMap::new(),
            next: 0,
            round_end,
        }
    }

    async fn run(mut self) {
        let deadline =
            self.batch.options.deadline.and_then(|after| Instant::now().checked_add(after));
        let (mut told, mut late) = (false, false);
        loop {
            self.begin();
            if self.workers.is_empty() {
                break;
            }
            tokio::select! {
                Some(joined) = self.workers.join_next_with_id() => self.joined(joined).await,
                () = until(deadline), if !late => {
                    late = true;
                    self.halter.halt(Why::Deadline, How::Stop);
                }
                why = self.halter.reached(How::Drain), if !told => {
                    told = true;
                    let _ = self.events.send(Event::Halted { why }).await;
                }
            }
        }
        let why = self.halter.asked().map_or(Cause::Earlier, |halt| Cause::Batch(halt.why));
        for host in self.next..self.batch.hosts.len() {
            self.worker(host).left_out(why).await;
        }
    }

    fn begin(&mut self) {
        if self.workers.is_empty() && self.next == self.round_end {
            let round = self.batch.options.serial.unwrap_or(self.batch.hosts.len());
            self.round_end = self.next.saturating_add(round).min(self.batch.hosts.len());
        }
        while self.next < self.round_end
            && self.workers.len() < self.batch.options.at_once
            && self.halter.asked().is_none()
        {
            let task = self.workers.spawn(self.worker(self.next).run());
            self.at.insert(task.id(), self.next);
            self.next += 1;
        }
    }

    fn worker(&self, host: usize) -> Worker {
        Worker {
            host,
            batch: Arc::clone(&self.batch),
            events: self.events.clone(),
            halter: self.halter.clone(),
            counts: Arc::clone(&self.counts),
        }
    }

    async fn joined(&mut self, joined: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match &joined {
            Ok((id, ())) => *id,
            Err(e) => e.id(),
        };
        let host = self.at.remove(&id);
        if let (Err(e), Some(host)) = (joined, host) {
            tracing::error!("the work on a host broke off: {e}");
            self.worker(host).broken().await;
        }
    }
}
