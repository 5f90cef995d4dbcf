//! The end of a record's file, where frames are put one behind the other.
//!
//! Small frames are hashed and written at once. Large ones are left to two other threads, so that the next piece is
//! read while this one is hashed and the one before it is copied to the file: so many at a time, and whoever makes them
//! waits then.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::{Notify, watch};

use super::hand::{Hand, Place};
use crate::runs::hashes::{Made, Unhashed};
use crate::runs::intake::Spares;
use crate::sys::fs::Lock;
use crate::sys::mutex::lock;

/// Frames from this size are worth another thread.
const LARGE: usize = 64 * 1024;
/// So many frames wait at most while others hash and write: enough for each of them to have one, and one before it.
pub(super) const DEPTH: usize = 4;

/// How far a record is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of whole frames in the file, the verdict's not counted.
    pub length: u64,
    /// Place of the last frame that clients see; 0 if there is none.
    pub last: u64,
    /// The verdict stands behind these bytes.
    pub ended: bool,
}

/// The end of one record.
pub(super) struct Tail {
    file: Lock,
    queue: Mutex<Queue>,
    /// Nobody hashes any more, or nobody writes.
    idle: Condvar,
    /// The threads' calls.
    hash: Condvar,
    write: Condvar,
    progress: watch::Sender<Progress>,
    /// Takes the memory of frames that are written.
    spares: Arc<Spares>,
    /// Called when there is a place again, or none for now.
    wake: OnceLock<Arc<Notify>>,
}

/// Frames that the file does not have, in order.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Waiting>,
    bytes: u64,
    /// Of the first one so many bytes are there.
    begun: usize,
    hasher: Hand,
    writer: Hand,
    /// The file cannot be written.
    failed: bool,
    /// No thread is to wait for more.
    over: bool,
}

/// What is done with frames, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Hash,
    Write,
}

impl Task {
    /// What its thread is called.
    fn name(self) -> &'static str {
        match self {
            Self::Hash => "record-hash",
            Self::Write => "record-write",
        }
    }
}

/// A frame that the file does not have.
enum Waiting {
    /// Its digest is to be made.
    Unhashed(Unhashed),
    /// Its digest is being made.
    Hashing,
    /// It can be written.
    Whole(Bytes),
}

impl From<Made> for Waiting {
    fn from(frame: Made) -> Self {
        match frame {
            Made::Unhashed(frame) => Self::Unhashed(frame),
            Made::Whole(frame) => Self::Whole(frame),
        }
    }
}

impl Queue {
    /// The first one that wants its digest: it keeps its place.
    fn next_unhashed(&mut self) -> Option<Unhashed> {
        let unhashed = |waiting: &&mut Waiting| matches!(waiting, Waiting::Unhashed(_));
        let place = self.frames.iter_mut().find(unhashed)?;
        match std::mem::replace(place, Waiting::Hashing) {
            Waiting::Unhashed(frame) => Some(frame),
            Waiting::Hashing | Waiting::Whole(_) => None,
        }
    }

    fn hashed(&mut self, frame: Bytes) {
        let hashing = |waiting: &&mut Waiting| matches!(waiting, Waiting::Hashing);
        if let Some(place) = self.frames.iter_mut().find(hashing) {
            *place = Waiting::Whole(frame);
        }
    }

    /// The first one, if it can be written.
    fn next_whole(&self) -> Option<&Bytes> {
        match self.frames.front()? {
            Waiting::Whole(frame) => Some(frame),
            Waiting::Unhashed(_) | Waiting::Hashing => None,
        }
    }

    fn hand(&mut self, task: Task) -> &mut Hand {
        match task {
            Task::Hash => &mut self.hasher,
            Task::Write => &mut self.writer,
        }
    }

    fn has(&self, task: Task) -> bool {
        match task {
            Task::Hash => self.frames.iter().any(|frame| matches!(frame, Waiting::Unhashed(_))),
            Task::Write => !self.failed && self.next_whole().is_some(),
        }
    }

    fn is_busy(&self) -> bool {
        self.hasher.is_busy() || self.writer.is_busy()
    }
}

/// How far it is, with what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    /// Bytes, written or not.
    pub(super) end: u64,
    /// Place of the last frame that clients see, written or not.
    pub(super) last: u64,
    /// Frames that wait.
    pub(super) waiting: usize,
    /// Somebody hashes or writes them. Otherwise, if there are any, there was no space for the first.
    pub(super) busy: bool,
    /// The file cannot be written.
    pub(super) failed: bool,
}

impl Tail {
    pub(super) fn new(file: Lock) -> Arc<Self> {
        let (progress, _) = watch::channel(Progress::default());
        let (idle, hash, write) = Default::default();
        // One is read into while the others wait.
        let spares = Arc::new(Spares::new(DEPTH));
        let (queue, wake) = (Mutex::default(), OnceLock::new());
        Arc::new(Self { file, queue, idle, hash, write, progress, spares, wake })
    }

    /// Where the memory of frames comes back to.
    pub(super) fn spares(&self) -> &Arc<Spares> {
        &self.spares
    }

    pub(super) fn file(&self) -> &File {
        self.file.file()
    }

    /// Tells of each frame that is written.
    pub(super) fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// Who is to be called when there is a place again, or none for now.
    pub(super) fn call(&self, wake: Arc<Notify>) {
        // A record is one run's.
        let _ = self.wake.set(wake);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub(super) fn reach(&self) -> Reach {
        let queue = self.lock();
        let Progress { length, last, .. } = *self.progress.borrow();
        Reach {
            end: length + queue.bytes,
            last: last + queue.frames.len() as u64,
            waiting: queue.frames.len(),
            busy: queue.is_busy(),
            failed: queue.failed,
        }
    }

    /// Adds a frame behind those that wait.
    pub(super) fn push(self: &Arc<Self>, frame: Made) {
        let len = frame.len();
        let mut queue = self.lock();
        queue.bytes += len as u64;
        queue.frames.push_back(frame.into());
        drop(queue);
        let place = if len >= LARGE { Place::Elsewhere } else { Place::Here };
        self.work(Task::Hash, place);
        self.work(Task::Write, place);
    }

    /// Tries again what the disk had no space for.
    pub(super) fn go_on(self: &Arc<Self>) {
        self.work(Task::Write, Place::Here);
    }

    /// Does what there is to do, if nobody is at it.
    fn work(self: &Arc<Self>, task: Task, place: Place) {
        let mut queue = self.lock();
        if !queue.has(task) || !queue.hand(task).claim() {
            return;
        }
        match place {
            Place::Elsewhere if queue.hand(task).call() => self.called(task).notify_one(),
            Place::Elsewhere => {
                drop(queue);
                self.start(task);
            }
            Place::Here => {
                drop(queue);
                self.work_off(task, place);
            }
        }
    }

    fn called(&self, task: Task) -> &Condvar {
        match task {
            Task::Hash => &self.hash,
            Task::Write => &self.write,
        }
    }

    /// Has a thread of its own do it; this one, where the system gives no other.
    fn start(self: &Arc<Self>, task: Task) {
        let this = Arc::clone(self);
        let thread = thread::Builder::new().name(task.name().into()).spawn(move || this.stay(task));
        if thread.is_err() {
            self.work_off(task, Place::Here);
        }
    }

    fn stay(self: &Arc<Self>, task: Task) {
        self.lock().hand(task).started();
        loop {
            self.work_off(task, Place::Elsewhere);
            let waits = |queue: &mut Queue| queue.hand(task).waits() && !queue.over;
            let queue = self.called(task).wait_while(self.lock(), waits);
            if queue.unwrap_or_else(PoisonError::into_inner).hand(task).leave() {
                return;
            }
        }
    }

    fn work_off(self: &Arc<Self>, task: Task, place: Place) {
        match task {
            Task::Hash => self.hash_all(place),
            Task::Write => self.write_all(place),
        }
    }

    /// No thread waits for more; what comes all the same is done.
    pub(super) fn leave(&self) {
        self.lock().over = true;
        self.hash.notify_all();
        self.write.notify_all();
    }

    /// Returns when nobody hashes and nobody writes.
    pub(super) fn settle(&self) {
        let busy = |queue: &mut Queue| queue.is_busy();
        drop(self.idle.wait_while(self.lock(), busy).unwrap_or_else(PoisonError::into_inner));
    }

    /// Gives up what waits, once it is settled: how many frames, and whether a part of the first is there.
    pub(super) fn abandon(&self) -> (u64, bool) {
        let mut queue = self.lock();
        let (lost, begun) = (queue.frames.len() as u64, queue.begun > 0);
        (queue.bytes, queue.begun) = (0, 0);
        queue.frames.clear();
        (lost, begun)
    }

    fn hash_all(self: &Arc<Self>, place: Place) {
        loop {
            let Some(frame) = self.next_unhashed(place) else { return };
            let frame = frame.whole();
            self.lock().hashed(frame);
            // While this one is busy: nobody is to find both idle before all is written.
            self.work(Task::Write, place);
        }
    }

    /// The next frame that wants its digest; none, and nobody hashes any more, if there is none.
    fn next_unhashed(&self, place: Place) -> Option<Unhashed> {
        let mut queue = self.lock();
        let frame = queue.next_unhashed();
        if frame.is_none() {
            self.rest(&mut queue, Task::Hash, place);
        }
        frame
    }

    fn write_all(&self, place: Place) {
        loop {
            let (frame, begun, at) = {
                let mut queue = self.lock();
                let Some(frame) = queue.next_whole().cloned() else {
                    return self.rest(&mut queue, Task::Write, place);
                };
                (frame, queue.begun, self.progress.borrow().length)
            };
            let mut done = begun;
            let written = self.write(&frame, &mut done, at);
            // Or its memory would not be the queue's alone.
            drop(frame);
            let mut queue = self.lock();
            queue.begun = done;
            match written {
                Ok(()) => self.written(&mut queue),
                Err(e) if is_full(&e) => return self.rest(&mut queue, Task::Write, place),
                Err(e) => {
                    tracing::error!("the record cannot be written: {e}");
                    queue.failed = true;
                    return self.rest(&mut queue, Task::Write, place);
                }
            }
        }
    }

    /// The first frame is whole in the file.
    fn written(&self, queue: &mut Queue) {
        let was_full = queue.frames.len() >= DEPTH;
        let Some(Waiting::Whole(frame)) = queue.frames.pop_front() else { return };
        let len = frame.len() as u64;
        queue.bytes -= len;
        queue.begun = 0;
        self.progress.send_modify(|p| {
            p.length += len;
            p.last += 1;
        });
        self.spares.give(frame);
        if was_full {
            self.wake();
        }
    }

    fn rest(&self, queue: &mut Queue, task: Task, place: Place) {
        queue.hand(task).rest();
        self.idle.notify_all();
        // There will be no place soon. Who finds that out itself is not called to find it out again.
        if place == Place::Elsewhere && !queue.is_busy() && !queue.frames.is_empty() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(wake) = self.wake.get() {
            wake.notify_one();
        }
    }

    fn write(&self, frame: &[u8], done: &mut usize, at: u64) -> io::Result<()> {
        while *done < frame.len() {
            match self.file().write_at(&frame[*done..], at + *done as u64) {
                Ok(0) => return Err(Errno::NOSPC.into()),
                Ok(count) => *done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Whether there is no space, or no more for this account.
#[must_use]
pub(in crate::runs) fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests;
