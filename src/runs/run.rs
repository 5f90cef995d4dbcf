//! One run, as its engine and the connection of its owner share it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::clock;
use super::credit::Budget;
use super::disk::Progress;
use super::record::AckAhead;
use super::request::{Request, Terms};
use super::stdin::{Next, StdinError, StdinQueue};
use super::store::{Needs, Store};
use super::table::Key;
use crate::proto::code::Code;
use crate::proto::digest::{Digest, HASH_NAME};
use crate::proto::header::{Grant, Started, StdinPiece};
use crate::proto::verdict::StopBy;

/// Signals that may wait for the engine; a client that sends more before it looks loses the rest.
const SIGNALS_LIMIT: usize = 64;

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Claimed; whether it starts is not known yet.
    Starting,
    /// Its main process has this id.
    Running {
        /// Process id.
        pid: u32,
    },
    /// It could not be started; its id is free again.
    NotStarted {
        /// Why.
        code: Code,
        /// One line for people.
        text: String,
    },
    /// It may have been started and is out of reach.
    Lost {
        /// Why.
        code: Code,
    },
}

/// A run.
#[derive(Debug)]
pub struct Run {
    /// Its id under its identity.
    pub key: Key,
    /// What it was asked to do, to compare.
    pub terms: Terms,
    /// The command for people.
    pub command: String,
    /// When it was claimed, RFC 3339.
    pub accepted: String,
    phase: watch::Sender<Phase>,
    shared: Mutex<Shared>,
    engine: Notify,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    stdin: StdinQueue,
    stdin_closed_told: bool,
    signals: Vec<u8>,
    stop: Option<StopBy>,
    hurry: bool,
    /// Somebody asked for a stop: no output is waited for that there is no room for.
    give_up: bool,
    /// Nobody wants the output any more.
    discard: bool,
    /// The run needs no owner.
    detached: bool,
    /// Bytes of the record so far.
    bytes: u64,
    /// It has ended by itself: there is nothing to stop.
    ended: bool,
    /// Place of the verdict in the record, once it is there, and when it was made.
    verdict: Option<(u64, Instant)>,
    /// The engine is done, whether or not the verdict could be kept.
    over: bool,
    generation: u64,
    owner: Presence,
}

/// Whether somebody looks after a run.
#[derive(Debug, Clone)]
enum Presence {
    /// A connection, woken by this.
    Here(Arc<Notify>),
    /// Nobody, since then.
    Gone(Instant),
}

/// What the engine finds when it looks.
#[derive(Debug)]
pub struct Orders {
    /// Signals for the process group.
    pub signals: Vec<u8>,
    /// Stop the run.
    pub stop: Option<StopBy>,
    /// Give the processes no time to finish.
    pub hurry: bool,
    /// Once the run has ended, do not wait for room.
    pub give_up: bool,
    /// Since when nobody looks after the run.
    pub alone_since: Option<Instant>,
    /// How many bytes of output may be read, and whether there is any use in waiting for more room.
    pub needs: Needs,
    /// What to write to the command.
    pub stdin: Next,
}

/// The owner's hold on a run; letting go of it starts the run's grace.
#[derive(Debug)]
pub struct Owner {
    run: Arc<Run>,
    generation: u64,
    wake: Arc<Notify>,
}

/// Another connection has taken the run over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another connection has taken this run over")]
pub struct TakenOver;

/// What the owner's connection has to send. Debug does not show the frames: output may hold secrets.
#[derive(Default)]
pub struct Outgoing {
    /// Frames of the record, in order.
    pub frames: Vec<Bytes>,
    /// Place of the last of them.
    pub last: u64,
    /// Frames that are missing before them.
    pub gap: Option<(u64, u64)>,
    /// New credit for standard input.
    pub grant: Option<Grant>,
    /// The command has closed its standard input.
    pub stdin_closed: bool,
    /// Whether `frames` ends with the verdict.
    pub ended: bool,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("frames", &self.frames.len())
            .field("last", &self.last)
            .field("gap", &self.gap)
            .field("grant", &self.grant)
            .field("stdin_closed", &self.stdin_closed)
            .field("ended", &self.ended)
            .finish()
    }
}

impl Run {
    /// A run that was just claimed. Nobody owns it yet.
    #[must_use]
    pub fn new(key: Key, request: &Request, budget: &Arc<Budget>, store: Store) -> Self {
        let shared = Shared {
            store,
            stdin: StdinQueue::new(Arc::clone(budget), request.has_stdin()),
            stdin_closed_told: false,
            signals: Vec::new(),
            stop: None,
            hurry: false,
            give_up: false,
            discard: false,
            detached: request.is_kept(),
            bytes: 0,
            ended: false,
            verdict: None,
            over: false,
            generation: 0,
            owner: Presence::Gone(Instant::now()),
        };
        let (phase, _) = watch::channel(Phase::Starting);
        let (terms, command, accepted) =
            (request.terms.clone(), request.command(), clock::timestamp());
        Self {
            key,
            terms,
            command,
            accepted,
            phase,
            shared: Mutex::new(shared),
            engine: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits how far the run is.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Waits until it is known whether the run has started.
    pub async fn known(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        phase.wait_for(|p| *p != Phase::Starting).await.map_or(Phase::Starting, |p| p.clone())
    }

    /// Takes the run over; the connection that had it finds out when it next looks.
    #[must_use]
    pub fn take_over(self: &Arc<Self>) -> Owner {
        let wake = Arc::new(Notify::new());
        let mut shared = self.lock();
        if let Presence::Here(earlier) = &shared.owner {
            earlier.notify_one();
        }
        shared.generation += 1;
        // What was told on an earlier connection may not have arrived.
        shared.stdin_closed_told = false;
        shared.owner = Presence::Here(Arc::clone(&wake));
        self.engine.notify_one();
        Owner { run: Arc::clone(self), generation: shared.generation, wake }
    }

    /// Asks the engine to stop the run. False if it had ended by itself: then only its output, if
    /// there is no room for it, is no longer waited for.
    pub fn stop(&self, by: StopBy) -> bool {
        let mut shared = self.lock();
        shared.give_up = true;
        if !shared.ended {
            shared.stop = shared.stop.or(Some(by));
        }
        self.engine.notify_one();
        !shared.ended
    }

    /// Asks the engine to give a run that is being stopped no time to finish.
    pub fn hurry(&self) {
        self.lock().hurry = true;
        self.engine.notify_one();
    }

    /// Since when the verdict waits for a confirmation that nobody is there to give.
    #[must_use]
    pub fn abandoned_since(&self) -> Option<Instant> {
        let shared = self.lock();
        match (&shared.owner, shared.verdict) {
            (Presence::Gone(since), Some((_, made))) => Some(made.max(*since)),
            _ => None,
        }
    }

    /// For the engine: waits until an owner, its absence or an order calls.
    pub async fn ordered(&self) {
        self.engine.notified().await;
    }

    /// For the engine: what there is to do.
    #[must_use]
    pub fn orders(&self) -> Orders {
        let mut shared = self.lock();
        let alone_since = match shared.owner {
            Presence::Gone(since) if !shared.detached => Some(since),
            Presence::Here(_) | Presence::Gone(_) => None,
        };
        let needs = shared.store.needs();
        // Who does not want the output does not pay for it either.
        if needs.over && !shared.discard && !shared.ended {
            shared.stop = shared.stop.or(Some(StopBy::Policy));
        }
        Orders {
            signals: std::mem::take(&mut shared.signals),
            stop: shared.stop,
            hurry: shared.hurry,
            give_up: shared.give_up,
            alone_since,
            needs,
            stdin: shared.stdin.front(),
        }
    }

    /// For the engine: adds frames to the record.
    pub fn record(&self, frames: Vec<Bytes>) {
        let mut shared = self.lock();
        for frame in frames {
            shared.bytes += frame.len() as u64;
            shared.store.push(frame);
        }
        if shared.discard {
            shared.forget_all();
        }
        shared.wake_owner();
    }

    /// For the engine: from here on the run has ended by itself.
    pub fn set_ended(&self) {
        self.lock().ended = true;
    }

    /// For the engine: adds the verdict, the record's last frame.
    pub fn finish(&self, verdict: Bytes) {
        let mut shared = self.lock();
        shared.ended = true;
        shared.over = true;
        if shared.store.finish(verdict) {
            shared.verdict = Some((shared.store.last(), Instant::now()));
        }
        shared.wake_owner();
    }

    /// The answer to a client that looks and does not own.
    #[must_use]
    pub fn seen_started(&self) -> Started {
        let pid = match &*self.phase.borrow() {
            Phase::Running { pid } => *pid,
            Phase::Starting | Phase::NotStarted { .. } | Phase::Lost { .. } => 0,
        };
        self.started(&self.lock(), pid, true)
    }

    fn started(&self, shared: &Shared, pid: u32, attached: bool) -> Started {
        Started {
            run: self.key.id.to_string(),
            pid,
            attached,
            stdin_offset: shared.stdin.received().offset(),
            stdin_hash: shared.stdin.received().digest(),
            stdin_grant: shared.stdin.granted(),
            hash: HASH_NAME.into(),
        }
    }

    /// For the engine: adds to the record on disk what no client sees.
    pub fn note(&self, frame: &[u8]) {
        self.lock().store.note(frame);
    }

    /// Whether its engine has done all that it could.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lock().over
    }

    /// The run goes on whether or not anybody looks after it. False if it has ended.
    pub fn detach(&self) -> bool {
        let mut shared = self.lock();
        shared.detached = true;
        self.engine.notify_one();
        !shared.ended
    }

    /// How far the record on disk is; none of a run whose record is in memory.
    #[must_use]
    pub fn progress(&self) -> Option<watch::Receiver<Progress>> {
        match &self.lock().store {
            Store::Memory(_) => None,
            Store::Disk(writer) => Some(writer.progress().subscribe()),
        }
    }

    /// Bytes of its record so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// How much of the standard input has come: for the verdict.
    #[must_use]
    pub fn stdin_received(&self) -> (u64, Digest) {
        let shared = self.lock();
        (shared.stdin.received().offset(), shared.stdin.received().digest())
    }

    /// Sends the process group a signal. False if the run had ended by itself.
    pub fn signal(&self, signal: u8) -> bool {
        let mut shared = self.lock();
        if shared.ended {
            return false;
        }
        if shared.signals.len() < SIGNALS_LIMIT {
            shared.signals.push(signal);
        }
        self.engine.notify_one();
        true
    }

    /// For the engine: looks at the standard input's queue, and wakes the owner for what came of it.
    pub fn with_stdin<T>(&self, look: impl FnOnce(&mut StdinQueue) -> T) -> T {
        let mut shared = self.lock();
        let result = look(&mut shared.stdin);
        shared.wake_owner();
        result
    }
}

impl Shared {
    fn forget_all(&mut self) {
        let last = self.store.last();
        // The last frame was made, so it can be acknowledged.
        let _ = self.store.ack(last);
    }

    fn wake_owner(&self) {
        if let Presence::Here(owner) = &self.owner {
            owner.notify_one();
        }
    }
}

impl Owner {
    /// The run.
    #[must_use]
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    fn lock(&self) -> Result<MutexGuard<'_, Shared>, TakenOver> {
        let shared = self.run.lock();
        if shared.generation == self.generation { Ok(shared) } else { Err(TakenOver) }
    }

    /// Waits until there may be something to send.
    pub async fn called(&self) {
        self.wake.notified().await;
    }

    /// The answer to a `run` request of a run whose main process has this id.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn started(&self, pid: u32, attached: bool) -> Result<Started, TakenOver> {
        Ok(self.run.started(&*self.lock()?, pid, attached))
    }

    /// Place of the record's last frame.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn last(&self) -> Result<u64, TakenOver> {
        Ok(self.lock()?.store.last())
    }

    /// What there is to send after frame `after`, about `bytes` of it.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn outgoing(&self, after: u64, bytes: usize) -> Result<Outgoing, TakenOver> {
        let mut shared = self.lock()?;
        let kept = shared.store.first();
        let gap = (after + 1 < kept).then_some((after + 1, kept - 1));
        let (frames, last) = shared.store.after(gap.map_or(after, |(_, to)| to), bytes);
        let tell_closed = shared.stdin.is_closed() && !shared.stdin_closed_told;
        shared.stdin_closed_told |= tell_closed;
        let ended = shared.verdict.is_some_and(|(seq, _)| last >= seq);
        Ok(Outgoing {
            frames,
            last,
            gap,
            grant: shared.stdin.grant(),
            stdin_closed: tell_closed,
            ended,
        })
    }

    /// The client wrote every frame up to `seq` to its output. True if the verdict is among them.
    ///
    /// # Errors
    /// [`TakenOver`], or [`AckAhead`] from a client that confirms what was never made.
    pub fn ack(&self, seq: u64) -> Result<Result<bool, AckAhead>, TakenOver> {
        let mut shared = self.lock()?;
        let acked = shared.store.ack(seq);
        self.run.engine.notify_one();
        Ok(acked.map(|()| shared.verdict.is_some_and(|(verdict, _)| seq >= verdict)))
    }

    /// The client wants no more than the verdict: output that is kept, or is still to come, is dropped.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn discard_output(&self) -> Result<(), TakenOver> {
        let mut shared = self.lock()?;
        shared.discard = true;
        if shared.verdict.is_none() {
            shared.forget_all();
        }
        self.run.engine.notify_one();
        Ok(())
    }

    /// Standard input from the client.
    ///
    /// # Errors
    /// [`TakenOver`], or a [`StdinError`] of the client's.
    pub fn stdin(
        &self,
        piece: StdinPiece,
        bytes: &Bytes,
    ) -> Result<Result<(), StdinError>, TakenOver> {
        let taken = self.lock()?.stdin.push(piece, bytes);
        self.run.engine.notify_one();
        Ok(taken)
    }

    /// The end of the standard input.
    ///
    /// # Errors
    /// [`TakenOver`], or a [`StdinError`] of the client's.
    pub fn stdin_end(&self, piece: StdinPiece) -> Result<Result<(), StdinError>, TakenOver> {
        let taken = self.lock()?.stdin.end(piece);
        self.run.engine.notify_one();
        Ok(taken)
    }

    /// A signal for the process group. False if the run had ended by itself.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn signal(&self, signal: u8) -> Result<bool, TakenOver> {
        drop(self.lock()?);
        Ok(self.run.signal(signal))
    }

    /// The client's `cancel`. False if the run had ended by itself.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn cancel(&self) -> Result<bool, TakenOver> {
        drop(self.lock()?);
        Ok(self.run.stop(StopBy::Client))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Ok(mut shared) = self.lock() {
            shared.owner = Presence::Gone(Instant::now());
            drop(shared);
            self.run.engine.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_output() {
        let frames = vec![Bytes::from_static(b"hunter2")];
        let shown = format!("{:?}", Outgoing { frames, last: 41, ..Outgoing::default() });
        assert!(shown.contains("41") && !shown.contains("hunter2"), "{shown}");
    }
}
