//! Where a run's record is kept: in memory until it is confirmed, or on disk.

use std::sync::Arc;

use bytes::Bytes;

use super::credit::Budget;
use super::disk::Writer;
use super::disk::writer::NoMore;
use super::hashes::Made;
use super::intake::Spares;
use super::record::{AckAhead, Record};

/// A record that is being made.
#[derive(Debug)]
pub enum Store {
    /// For the owner alone, who confirms what it has.
    Memory(Record),
    /// For whoever looks, as long as it is kept.
    Disk(Writer),
}

/// What a store needs from those who drive the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// How many bytes may be added now.
    pub room: usize,
    /// The disk is full: ask again after a while.
    pub waits: bool,
    /// Nothing more may be added: the run is to be stopped.
    pub no_more: Option<NoMore>,
}

impl Store {
    /// An empty record in memory.
    #[must_use]
    pub fn memory(budget: &Arc<Budget>) -> Self {
        Self::Memory(Record::new(Arc::clone(budget)))
    }

    /// Keeps the next frame. One that is to be hashed is so before it can be had; for the disk by another thread, if
    /// that is worth it.
    pub fn push(&mut self, frame: Made) {
        match self {
            Self::Memory(record) => record.push(frame.whole()),
            Self::Disk(writer) => writer.push(frame),
        }
    }

    /// Where the memory of its frames comes back to; none if whoever gets them keeps them.
    #[must_use]
    pub fn spares(&self) -> Option<Arc<Spares>> {
        match self {
            Self::Memory(_) => None,
            Self::Disk(writer) => Some(Arc::clone(writer.spares())),
        }
    }

    /// Keeps a frame that no client sees; only a record on disk has such.
    pub fn note(&mut self, frame: &[u8]) {
        if let Self::Disk(writer) = self
            && let Err(e) = writer.note(frame)
        {
            tracing::error!("the record cannot be written: {e}");
        }
    }

    /// Keeps the verdict. False if it could not be written.
    pub fn finish(&mut self, verdict: Bytes) -> bool {
        match self {
            Self::Memory(record) => record.push(verdict),
            Self::Disk(writer) => {
                if let Err(e) = writer.finish(&verdict) {
                    tracing::error!("the verdict cannot be written: {e}");
                    return false;
                }
            }
        }
        true
    }

    /// What may be added, and when.
    pub fn needs(&mut self) -> Needs {
        match self {
            Self::Memory(record) => Needs { room: record.room(), ..Needs::default() },
            Self::Disk(writer) => {
                let room = writer.room();
                Needs { room, waits: writer.is_waiting(), no_more: writer.no_more() }
            }
        }
    }

    /// Place of the last frame; 0 if there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        match self {
            Self::Memory(record) => record.last(),
            Self::Disk(writer) => writer.last(),
        }
    }

    /// Place of the first frame that the owner can have from here: none if it reads the disk.
    #[must_use]
    pub fn first(&self) -> u64 {
        match self {
            Self::Memory(record) => record.first(),
            Self::Disk(_) => 1,
        }
    }

    /// The owner has every frame up to `seq`.
    ///
    /// # Errors
    /// [`AckAhead`] if no such frame was made.
    pub fn ack(&mut self, seq: u64) -> Result<(), AckAhead> {
        match self {
            Self::Memory(record) => record.ack(seq),
            Self::Disk(writer) if seq > writer.last() => {
                Err(AckAhead { acked: seq, last: writer.last() })
            }
            Self::Disk(_) => Ok(()),
        }
    }

    /// Up to about `bytes` of the frames after `seq` that are kept in memory, and the place of the last.
    #[must_use]
    pub fn after(&self, seq: u64, bytes: usize) -> (Vec<Bytes>, u64) {
        match self {
            Self::Memory(record) => record.after(seq, bytes),
            Self::Disk(_) => (Vec::new(), seq),
        }
    }
}
