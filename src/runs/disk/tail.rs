//! The end of a record's file, where frames are put one behind the other.
//!
//! Small frames are written at once. Large ones are handed to another thread, so that the next piece is read
//! and hashed while this one is copied to the file: so many at a time, and whoever makes them waits then.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::sys::fs::Lock;
use crate::sys::mutex::lock;

/// Frames from this size are worth another thread.
const LARGE: usize = 64 * 1024;
/// So many frames wait at most while another thread writes.
pub(in crate::runs) const DEPTH: usize = 2;

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
    /// Nobody writes any more.
    idle: Condvar,
    progress: watch::Sender<Progress>,
    /// Called when there is a place again.
    wake: OnceLock<Arc<Notify>>,
}

/// Frames that the file does not have, in order.
#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: u64,
    /// Of the first one so many bytes are there.
    begun: usize,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nobody writes.
    #[default]
    Idle,
    /// Somebody writes what is there and what comes.
    Busy,
    /// The file cannot be written.
    Failed,
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
    /// Somebody writes them. Otherwise, if there are any, there was no space for the first.
    pub(super) busy: bool,
    /// The file cannot be written.
    pub(super) failed: bool,
}

impl Tail {
    pub(super) fn new(file: Lock) -> Arc<Self> {
        let (progress, _) = watch::channel(Progress::default());
        let (queue, idle, wake) = (Mutex::default(), Condvar::new(), OnceLock::new());
        Arc::new(Self { file, queue, idle, progress, wake })
    }

    pub(super) fn file(&self) -> &File {
        self.file.file()
    }

    /// Tells of each frame that is written.
    pub(super) fn progress(&self) -> &watch::Sender<Progress> {
        &self.progress
    }

    /// Who is to be called when there is a place again.
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
            busy: queue.state == State::Busy,
            failed: queue.state == State::Failed,
        }
    }

    /// Adds a frame behind those that wait.
    pub(super) fn push(self: &Arc<Self>, frame: Bytes) {
        let large = frame.len() >= LARGE;
        let mut queue = self.lock();
        queue.bytes += frame.len() as u64;
        queue.frames.push_back(frame);
        drop(queue);
        self.go_on(large);
    }

    /// Writes what waits, if nobody does: in another thread if that is worth it.
    pub(super) fn go_on(self: &Arc<Self>, elsewhere: bool) {
        let mut queue = self.lock();
        if queue.state != State::Idle || queue.frames.is_empty() {
            return;
        }
        queue.state = State::Busy;
        drop(queue);
        match Handle::try_current() {
            Ok(runtime) if elsewhere => {
                let this = Arc::clone(self);
                runtime.spawn_blocking(move || this.drain());
            }
            _ => self.drain(),
        }
    }

    /// Returns when nobody writes.
    pub(super) fn settle(&self) {
        let busy = |queue: &mut Queue| queue.state == State::Busy;
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

    fn drain(&self) {
        loop {
            let (frame, begun, at) = {
                let mut queue = self.lock();
                let Some(frame) = queue.frames.front().cloned() else {
                    return self.rest(&mut queue, State::Idle);
                };
                (frame, queue.begun, self.progress.borrow().length)
            };
            let mut done = begun;
            let written = self.write(&frame, &mut done, at);
            let mut queue = self.lock();
            queue.begun = done;
            match written {
                Ok(()) => self.written(&mut queue),
                Err(e) if is_full(&e) => return self.rest(&mut queue, State::Idle),
                Err(e) => {
                    tracing::error!("the record cannot be written: {e}");
                    return self.rest(&mut queue, State::Failed);
                }
            }
        }
    }

    /// The first frame is whole in the file.
    fn written(&self, queue: &mut Queue) {
        let was_full = queue.frames.len() >= DEPTH;
        let Some(frame) = queue.frames.pop_front() else { return };
        queue.bytes -= frame.len() as u64;
        queue.begun = 0;
        self.progress.send_modify(|p| {
            p.length += frame.len() as u64;
            p.last += 1;
        });
        if was_full {
            self.wake();
        }
    }

    fn rest(&self, queue: &mut Queue, state: State) {
        queue.state = state;
        self.idle.notify_all();
        if !queue.frames.is_empty() {
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
mod tests {
    use super::*;
    use crate::sys::fs::lock_exclusive;

    fn tail() -> (Arc<Tail>, File) {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        (Tail::new(lock_exclusive(file).unwrap()), reader)
    }

    /// Large and small ones in turn, so that some are written here and some elsewhere.
    #[tokio::test]
    async fn frames_stand_in_the_order_in_which_they_came_whoever_writes_them() {
        let (tail, file) = tail();
        let mut expected = Vec::new();
        let mut progress = tail.progress().subscribe();
        for n in 0..200u8 {
            let size = if n % 3 == 0 { 10 } else { LARGE + usize::from(n) };
            expected.extend(vec![n; size]);
            tail.push(vec![n; size].into());
            assert_eq!(tail.reach().last, u64::from(n) + 1);
            assert_eq!(tail.reach().end, expected.len() as u64);
            // Only what is whole in the file is told of.
            let Progress { length, .. } = *progress.borrow_and_update();
            assert!(file.metadata().unwrap().len() >= length);
        }
        tail.settle();
        let reach = tail.reach();
        assert_eq!((reach.waiting, reach.busy, reach.failed), (0, false, false));
        assert_eq!(progress.borrow().length, expected.len() as u64);
        let mut text = vec![0; expected.len()];
        file.read_exact_at(&mut text, 0).unwrap();
        assert!(text == expected);
    }

    #[tokio::test]
    async fn who_waits_for_a_place_is_called() {
        let (tail, _file) = tail();
        let wake = Arc::new(Notify::new());
        tail.call(Arc::clone(&wake));
        let mut called = 0;
        for _ in 0..64 {
            while tail.reach().waiting >= DEPTH {
                wake.notified().await;
                called += 1;
            }
            tail.push(vec![0; 4 << 20].into());
        }
        tail.settle();
        assert!(called > 0, "the writer is never behind");
    }

    #[test]
    fn a_file_that_cannot_be_written_is_no_full_one() {
        let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
        let only_read = File::open(&path).unwrap();
        let tail = Tail::new(lock_exclusive(only_read).unwrap());
        tail.push(Bytes::from_static(b"frame"));
        let reach = tail.reach();
        assert!(reach.failed && reach.waiting == 1);
        assert_eq!(tail.abandon(), (1, false));
    }
}
