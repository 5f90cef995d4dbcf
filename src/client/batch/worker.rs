//! One host: its steps in order, over one connection as long as that lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::output::ToEvents;
use super::{
    Batch, Before, Cause, Event, Halter, How, Loss, OnError, Outcome, RetryOn, Step, StepEnd,
};
use crate::client::command::random_id;
use crate::client::{Client, Command, Control, Error, RunIo, UsageError};
use crate::proto::code::Code;
use crate::proto::verdict::Verdict;
use crate::transport::DialError;

/// First pause before a step is tried again; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause before a step is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What is counted over all hosts.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Hosts with a step that did not end well.
    failed: AtomicUsize,
    /// Steps that have their verdict, for each host.
    pub(super) ended: Vec<AtomicUsize>,
    /// Told for each host when the caller has seen that a step is begun.
    pub(super) seen: Vec<Notify>,
}

impl Counts {
    pub(super) fn new(hosts: usize) -> Self {
        let ended = std::iter::repeat_with(AtomicUsize::default).take(hosts).collect();
        let seen = std::iter::repeat_with(Notify::default).take(hosts).collect();
        Self { failed: AtomicUsize::default(), ended, seen }
    }
}

/// One host's turn.
pub(super) struct Worker {
    pub(super) host: usize,
    pub(super) batch: Arc<Batch>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) halter: Halter,
    pub(super) counts: Arc<Counts>,
}

impl Worker {
    /// Runs every step that is to be run.
    pub(super) async fn run(self) {
        let target = self.batch.hosts[self.host].target.clone();
        let timeout = self.batch.options.reconnect_timeout;
        let mut client = Client::new(target).reconnect_timeout(timeout);
        let (mut skip, mut failed) = (None, false);
        for (at, step) in self.batch.steps.iter().enumerate() {
            if self.before(at) == &Before::Ok {
                self.ended(at, self.not_asked(at, Cause::Earlier)).await;
                continue;
            }
            if let Some(why) = self.halter.stop() {
                skip.get_or_insert(Cause::Batch(why));
            }
            let end = match skip {
                Some(cause) => self.not_asked(at, cause),
                None => self.step(&mut client, at, step).await,
            };
            let outcome = end.outcome;
            if outcome != Outcome::Ok && !std::mem::replace(&mut failed, true) {
                self.note_failure();
            }
            if outcome != Outcome::Ok && skip.is_none() && ends_host(outcome, step.on_error) {
                skip = Some(Cause::Earlier);
            }
            self.ended(at, end).await;
        }
    }

    fn before(&self, step: usize) -> &Before {
        self.batch.hosts[self.host].before.get(step).unwrap_or(&Before::Nothing)
    }

    async fn ended(&self, step: usize, end: Box<StepEnd>) {
        self.counts.ended[self.host].store(step + 1, Ordering::Release);
        // Whoever listens to nothing wants no verdict.
        let _ = self.events.send(Event::StepEnded { host: self.host, step, end }).await;
    }

    /// The first failure of this host may end the batch.
    fn note_failure(&self) {
        let failed = self.counts.failed.fetch_add(1, Ordering::AcqRel) + 1;
        let options = &self.batch.options;
        if options.fail_fast {
            self.halter.halt(super::Why::FailFast, How::Stop);
        }
        if options.max_failures.is_some_and(|most| failed > most) {
            self.halter.halt(super::Why::TooManyFailures, How::Drain);
        }
    }

    /// One step, as often as it is to be tried.
    async fn step(&self, client: &mut Client, at: usize, step: &Step) -> Box<StepEnd> {
        let began = Instant::now();
        let most = step.retries.unwrap_or(self.batch.options.retries);
        let (mut attempts, mut pause) = (0, FIRST_PAUSE);
        let mut before: Option<Box<StepEnd>> = None;
        loop {
            attempts += 1;
            let (run, end) = self.attempt(client, at, step, attempts).await;
            // What was not tried again is what it was.
            if let (Err(Error::Interrupted), Some(before)) = (&end, before.take()) {
                return before;
            }
            let outcome = Outcome::of(&end, self.halter.stop());
            let again = attempts <= most
                && self.halter.stop().is_none()
                && may_try_again(&end, outcome, step.retry_on);
            let why = end.as_ref().map_or_else(ToString::to_string, |_| outcome.name().into());
            let elapsed = began.elapsed();
            let ended = Box::new(StepEnd { outcome, end: Some(end), run, attempts, elapsed });
            if !again {
                return ended;
            }
            let event = Event::Retrying { host: self.host, step: at, pause, why };
            let _ = self.events.send(event).await;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.halter.reached(How::Stop) => return ended,
            }
            before = Some(ended);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks for a step once, under an id of its own; the id, and how it ended.
    async fn attempt(
        &self,
        client: &mut Client,
        at: usize,
        step: &Step,
        attempt: u32,
    ) -> (Option<String>, Result<Verdict, Error>) {
        let (run, command) = match self.named(at, step, attempt) {
            Ok(named) => named,
            Err(e) => return (None, Err(e.into())),
        };
        let begun = Event::StepBegun { host: self.host, step: at, run: run.clone(), attempt };
        let _ = self.events.send(begun).await;
        tokio::select! {
            () = self.counts.seen[self.host].notified() => {}
            _ = self.halter.reached(How::Stop) => {
                let is_old = attempt == 1 && matches!(self.before(at), Before::Asked { .. });
                let error = if is_old { Error::unasked(&run) } else { Error::Interrupted };
                return (Some(run), Err(error));
            }
        }
        let (ask, control) = mpsc::unbounded_channel();
        let output = Box::new(ToEvents::new(self.host, at, self.events.clone()));
        let io = RunIo { stdin: None, output, control };
        let mut end = std::pin::pin!(client.run(&command, io));
        let mut cancelled = false;
        let end = loop {
            tokio::select! {
                end = &mut end => break end,
                _ = self.halter.reached(How::Stop), if !cancelled => {
                    cancelled = true;
                    // A run that is over asks for nothing.
                    let _ = ask.send(Control::Cancel);
                }
                _ = self.halter.reached(How::Abandon), if cancelled => break Err(Error::hurried(&run)),
            }
        };
        (Some(run), end)
    }

    /// The command under its id: that of the earlier request, of which nobody knows what became of it, or
    /// a new one.
    fn named(&self, at: usize, step: &Step, attempt: u32) -> Result<(String, Command), UsageError> {
        let command = step.command.clone();
        if let (Before::Asked { run, first_sent }, 1) = (self.before(at), attempt) {
            // By a clock that was set back, or another machine's: too long ago is answered with "lost",
            // too short ago might run it a second time.
            let ago = first_sent.elapsed().unwrap_or(Duration::MAX);
            return Ok((run.clone(), command.id(run).sent_before(ago)));
        }
        let run = random_id()?;
        Ok((run.clone(), command.id(run)))
    }

    /// The end of a step that this batch does not ask for.
    fn not_asked(&self, step: usize, cause: Cause) -> Box<StepEnd> {
        match self.before(step) {
            Before::Nothing => StepEnd::without_run(Outcome::NotStarted(cause)),
            Before::Ok => StepEnd::without_run(Outcome::Ok),
            Before::Asked { run, .. } => {
                let end = StepEnd::without_run(Outcome::Lost(Loss::End));
                Box::new(StepEnd { run: Some(run.clone()), ..*end })
            }
        }
    }

    /// The verdict on steps of a host whose task broke: the first of them may have been under way.
    pub(super) async fn broken(&self) {
        let first = self.counts.ended[self.host].load(Ordering::Acquire);
        for step in first..self.batch.steps.len() {
            let end = if step == first {
                StepEnd::without_run(Outcome::Lost(Loss::End))
            } else {
                self.not_asked(step, Cause::Earlier)
            };
            self.ended(step, end).await;
        }
        self.note_failure();
    }

    /// The verdicts on a host that was never begun.
    pub(super) async fn left_out(&self, cause: Cause) {
        for step in 0..self.batch.steps.len() {
            self.ended(step, self.not_asked(step, cause)).await;
        }
    }
}

/// Whether the next steps are not to be run.
fn ends_host(outcome: Outcome, on_error: OnError) -> bool {
    on_error == OnError::Stop || outcome == Outcome::Unreachable
}

/// Whether trying again may help, and runs nothing twice that was not meant to.
fn may_try_again(end: &Result<Verdict, Error>, outcome: Outcome, on: RetryOn) -> bool {
    match (end, outcome) {
        (Err(Error::Unreached(e)), _) => is_passing(e),
        (Err(Error::Refused { code, .. }), _) => {
            matches!(code, Code::TooManyConnections | Code::TooManyRuns | Code::LoginTimeout)
        }
        (Ok(_), Outcome::Failed { .. } | Outcome::Signalled { .. } | Outcome::Deadline) => {
            on == RetryOn::Failure
        }
        _ => false,
    }
}

/// Whether what stands in the way may be gone the next time. A wrong key or a stranger stays one.
fn is_passing(error: &DialError) -> bool {
    match error {
        DialError::Resolve { .. }
        | DialError::Unreachable { .. }
        | DialError::Unix { .. }
        | DialError::Broken { .. }
        | DialError::NoLogin { .. }
        | DialError::Timeout { .. } => true,
        DialError::WrongUser { .. } | DialError::NotRexec { .. } | DialError::HostKey(_) => false,
    }
}
