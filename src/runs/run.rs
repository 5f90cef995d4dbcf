//! One run, as its engine and the connection of its owner share it.

use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::clock;
use super::credit::Budget;
use super::disk::Progress;
use super::hashes::Made;
use super::intake::Spares;
use super::request::{Request, Terms};
use super::stdin::{Next, StdinQueue};
use super::store::{Needs, Store};
use super::table::Key;
use crate::proto::code::Code;
use crate::proto::digest::{Algorithm, Digest};
use crate::proto::frame::{self, Decoded, Limits};
use crate::proto::header::{ServerHeader, Started};
use crate::proto::verdict::{StopBy, Verdict};
use crate::sys::mutex::lock;

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
    /// By what the digests of its streams are made, whoever asks.
    pub algorithm: Algorithm,
    /// The command for people.
    pub command: String,
    /// When it was claimed, RFC 3339.
    pub accepted: String,
    phase: watch::Sender<Phase>,
    shared: Mutex<Shared>,
    pub(super) engine: Arc<Notify>,
}

/// What the engine and the connections change.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) stdin: StdinQueue,
    pub(super) stdin_closed_told: bool,
    /// Those that wait for the engine. As in the kernel (signal(7)) none waits twice, so that there are never
    /// more than there are signals.
    signals: Vec<u8>,
    stop: Option<StopBy>,
    hurry: bool,
    /// Somebody asked for a stop: no output is waited for that there is no room for.
    give_up: bool,
    /// Nobody wants the output any more.
    pub(super) discard: bool,
    /// The run needs no owner.
    detached: bool,
    /// Bytes of the record so far.
    bytes: u64,
    ending: Ending,
    pub(super) generation: u64,
    pub(super) owner: Presence,
}

/// How far a run is from its end.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// It goes on.
    Ahead,
    /// It has ended by itself: there is nothing to stop.
    Ended,
    /// The engine is done.
    Over {
        /// Place of the verdict in the record and when it was made, if it could be kept.
        verdict: Option<(u64, Instant)>,
    },
}

/// Whether somebody looks after a run.
#[derive(Debug, Clone)]
pub(super) enum Presence {
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

impl Run {
    /// A run that was just claimed. Nobody owns it yet.
    #[must_use]
    pub fn new(key: Key, request: &Request, budget: &Arc<Budget>, store: Store) -> Self {
        let engine = Arc::new(Notify::new());
        if let Store::Disk(writer) = &store {
            writer.call(Arc::clone(&engine));
        }
        let algorithm = request.algorithm();
        let shared = Shared {
            store,
            stdin: StdinQueue::new(Arc::clone(budget), request.has_stdin(), algorithm),
            stdin_closed_told: false,
            signals: Vec::new(),
            stop: None,
            hurry: false,
            give_up: false,
            discard: false,
            detached: request.is_kept(),
            bytes: 0,
            ending: Ending::Ahead,
            generation: 0,
            owner: Presence::Gone(Instant::now()),
        };
        let (phase, _) = watch::channel(Phase::Starting);
        let (terms, command, accepted) =
            (request.terms.clone(), request.command(), clock::timestamp());
        let shared = Mutex::new(shared);
        Self { key, terms, algorithm, command, accepted, phase, shared, engine }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.shared)
    }

    /// Tells everybody who waits how far the run is.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Whether it is not known yet whether it starts.
    pub(super) fn is_starting(&self) -> bool {
        *self.phase.borrow() == Phase::Starting
    }

    /// Waits until it is known whether the run has started.
    pub async fn known(&self) -> Phase {
        let mut phase = self.phase.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        phase.wait_for(|p| *p != Phase::Starting).await.map_or(Phase::Starting, |p| p.clone())
    }

    /// Asks the engine to stop the run. False if it had ended by itself: then only its output, if
    /// there is no room for it, is no longer waited for.
    pub fn stop(&self, by: StopBy) -> bool {
        let mut shared = self.lock();
        shared.give_up = true;
        let goes_on = shared.goes_on();
        if goes_on {
            shared.stop = shared.stop.or(Some(by));
        }
        self.engine.notify_one();
        goes_on
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
        match (&shared.owner, shared.verdict_at()) {
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
        if needs.no_more.is_some() && !shared.discard && shared.goes_on() {
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

    /// For the engine: adds a frame to the record.
    pub fn record(&self, frame: Made) {
        let mut shared = self.lock();
        shared.bytes += frame.len() as u64;
        shared.store.push(frame);
        if shared.discard {
            shared.forget_all();
        }
        // Of a record on disk its writer tells.
        if matches!(shared.store, Store::Memory(_)) {
            shared.wake_owner();
        }
    }

    /// For the engine: where the memory of its frames comes back to, if others hash and write them.
    #[must_use]
    pub fn spares(&self) -> Option<Arc<Spares>> {
        self.lock().store.spares()
    }

    /// For the engine: from here on the run has ended by itself.
    pub fn set_ended(&self) {
        self.lock().ending = Ending::Ended;
    }

    /// For the engine: adds the verdict, the record's last frame.
    pub fn finish(&self, verdict: Bytes) {
        let mut shared = self.lock();
        let is_kept = shared.store.finish(verdict);
        let verdict = is_kept.then(|| (shared.store.last(), Instant::now()));
        shared.ending = Ending::Over { verdict };
        shared.wake_owner();
    }

    /// How it ended, while its client has not confirmed that.
    #[must_use]
    pub fn verdict(&self) -> Option<Box<Verdict>> {
        let shared = self.lock();
        let (seq, _) = shared.verdict_at()?;
        let (frames, _) = shared.store.after(seq.checked_sub(1)?, 1);
        let Ok(Decoded::Frame(frame)) = frame::decode(frames.first()?, Limits::FULL) else {
            return None;
        };
        match serde_json::from_slice(frame.header) {
            Ok(ServerHeader::Verdict(verdict)) => Some(verdict),
            _ => None,
        }
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

    pub(super) fn started(&self, shared: &Shared, pid: u32, attached: bool) -> Started {
        Started {
            run: self.key.id.to_string(),
            pid,
            attached,
            stdin_offset: shared.stdin.received().offset(),
            stdin_hash: shared.stdin.received().digest(),
            stdin_grant: shared.stdin.granted(),
            hash: self.algorithm.name().into(),
        }
    }

    /// For the engine: adds to the record on disk what no client sees.
    pub fn note(&self, frame: &[u8]) {
        self.lock().store.note(frame);
    }

    /// Gives back what its record on disk has set aside and not used.
    pub fn give_back(&self) {
        if let Store::Disk(writer) = &self.lock().store {
            writer.give_back();
        }
    }

    /// Whether its engine has done all that it could.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.lock().ending, Ending::Over { .. })
    }

    /// The run goes on whether or not anybody looks after it. False if it has ended.
    pub fn detach(&self) -> bool {
        let mut shared = self.lock();
        shared.detached = true;
        self.engine.notify_one();
        shared.goes_on()
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
        if !shared.goes_on() {
            return false;
        }
        // The last one counts: SIGSTOP and SIGCONT take back one another.
        shared.signals.retain(|waiting| *waiting != signal);
        shared.signals.push(signal);
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
    fn goes_on(&self) -> bool {
        matches!(self.ending, Ending::Ahead)
    }

    /// Place of the verdict in the record, once it is there, and when it was made.
    pub(super) fn verdict_at(&self) -> Option<(u64, Instant)> {
        match self.ending {
            Ending::Over { verdict } => verdict,
            Ending::Ahead | Ending::Ended => None,
        }
    }

    pub(super) fn forget_all(&mut self) {
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

#[cfg(test)]
mod tests;
