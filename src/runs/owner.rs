//! The hold that the connection of a run's owner has on it.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::AckAhead;
use super::run::{Presence, Run, Shared};
use super::stdin::StdinError;
use crate::proto::header::{Grant, Started, StdinPiece};
use crate::proto::verdict::StopBy;

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
        let ended = shared.verdict_at().is_some_and(|(seq, _)| last >= seq);
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
        Ok(acked.map(|()| shared.verdict_at().is_some_and(|(verdict, _)| seq >= verdict)))
    }

    /// The client wants no more than the verdict: output that is kept, or is still to come, is dropped.
    ///
    /// # Errors
    /// [`TakenOver`].
    pub fn discard_output(&self) -> Result<(), TakenOver> {
        let mut shared = self.lock()?;
        shared.discard = true;
        if shared.verdict_at().is_none() {
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
