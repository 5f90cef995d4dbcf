//! Writing a record: every frame goes to the file as soon as may be, and only whole frames are told of.
//!
//! A full disk is back-pressure: no more is read than there is space for, and the command waits at its pipes.
//! Space is set aside before, also for the end of the record, so that the verdict fits. Where a file system
//! sets nothing aside, what does not fit waits here.

use std::fmt;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;
use tokio::sync::{Notify, watch};

use super::tail::{DEPTH, Progress, Reach, Tail, is_full};
use crate::runs::hashes::Made;
use crate::runs::intake::Spares;
use crate::runs::record::PIECE;
use crate::sys::fs::Lock;
use crate::sys::pause;

/// So much of the disk stays free for the journal, beyond what records take.
pub const JOURNAL_RESERVE: u64 = 64 * 1024 * 1024;
/// Set aside beyond the last frame, for the frames of the end.
const END_RESERVE: u64 = 64 * 1024;
/// The frames that one piece of output makes have so much beside its bytes, with room to spare.
const FRAMES: u64 = 4096;
/// On a full disk less than this is not worth a frame.
const SMALLEST: usize = 4096;
/// The disk is asked for so much at a time, and for an eighth of the record if that is more: once, of one that has
/// little.
const STEP: u64 = 384 * 1024;
const _: () = assert!(STEP > PIECE as u64 + 2 * FRAMES + END_RESERVE);
const LONGEST_STEP: u64 = 16 * 1024 * 1024;

/// Why nothing more may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMore {
    /// The record has passed its limit.
    Limit,
    /// The file cannot be written.
    Failed,
}

/// A record that is being written. Debug shows no output: it may hold secrets.
pub struct Writer {
    tail: Arc<Tail>,
    /// The disk has been asked for space up to here.
    asked: u64,
    limit: u64,
    /// Where the record reached its limit: whatever comes behind is too much.
    limit_at: Option<u64>,
    /// The last look found no space for a whole piece.
    full: bool,
    failed: bool,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({:?})", self.tail.reach())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tail.leave();
    }
}

impl Writer {
    /// Begins a record in an empty file, which may grow to `limit` bytes.
    #[must_use]
    pub fn new(file: Lock, limit: u64) -> Self {
        let tail = Tail::new(file);
        Self { tail, asked: 0, limit, limit_at: None, full: false, failed: false }
    }

    /// Sets space aside for the first frames, while nobody waits for them. Where that fails the first one asks again.
    pub fn reserve(&mut self) {
        let _ = self.ask(0, 0);
    }

    /// Tells of each frame that is written.
    #[must_use]
    pub fn progress(&self) -> &watch::Sender<Progress> {
        self.tail.progress()
    }

    /// Who is to be called when there is room again, or none for now.
    pub fn call(&self, wake: Arc<Notify>) {
        self.tail.call(wake);
    }

    /// Adds a frame that no client sees.
    ///
    /// # Errors
    /// What the system says; no part of the frame counts then.
    pub fn note(&mut self, frame: &[u8]) -> io::Result<()> {
        self.tail.settle();
        let Progress { length, .. } = *self.progress().borrow();
        self.ask(length, frame.len() as u64)?;
        self.tail.file().write_all_at(frame, length)?;
        self.progress().send_modify(|p| p.length += frame.len() as u64);
        Ok(())
    }

    /// Adds the next frame that clients see, once it is hashed and when there is space.
    pub fn push(&mut self, frame: Made) {
        self.tail.push(frame);
        pause::point("written");
    }

    /// Where the memory of frames comes back to.
    #[must_use]
    pub fn spares(&self) -> &Arc<Spares> {
        self.tail.spares()
    }

    /// How many bytes of output may be added: as many as there is space set aside for, so that what was read
    /// is not lost when the disk is full. One at the limit, because only the next byte tells output that
    /// ends there from output that goes on; none behind it.
    pub fn room(&mut self) -> usize {
        self.tail.go_on();
        let Reach { end, waiting, busy, .. } = self.tail.reach();
        let most = if busy { DEPTH } else { 1 };
        if waiting >= most || self.no_more().is_some() {
            return 0;
        }
        if end >= self.limit {
            self.limit_at = Some(end);
        }
        let left = usize::try_from(self.limit.saturating_sub(end)).unwrap_or(usize::MAX);
        left.max(1).min(self.space(end))
    }

    /// Bytes of output that have space behind `end`.
    fn space(&mut self, end: u64) -> usize {
        let asked = self.ask(end, PIECE as u64 + FRAMES);
        self.full = asked.is_err();
        match asked {
            Ok(()) => PIECE,
            Err(e) if is_full(&e) => {
                let left = self.asked.saturating_sub(end + FRAMES + END_RESERVE);
                usize::try_from(left).ok().filter(|left| *left >= SMALLEST).unwrap_or(0)
            }
            Err(e) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::error!("the record cannot be written: {e}");
                }
                0
            }
        }
    }

    /// Whether there is no space for more.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let Reach { waiting, busy, .. } = self.tail.reach();
        self.full || (waiting > 0 && !busy)
    }

    /// Whether nothing more may be added, and why.
    #[must_use]
    pub fn no_more(&self) -> Option<NoMore> {
        let Reach { end, failed, .. } = self.tail.reach();
        if self.failed || failed {
            return Some(NoMore::Failed);
        }
        self.limit_at.is_some_and(|at| end > at).then_some(NoMore::Limit)
    }

    /// Place of the last frame, written or not.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.tail.reach().last
    }

    /// Adds the verdict. It has space of its own, and comes behind what waited; what still has no space
    /// then is missing, and the verdict's counts show it.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&mut self, verdict: &[u8]) -> io::Result<()> {
        self.tail.go_on();
        self.tail.settle();
        self.tail.leave();
        let Progress { length, .. } = *self.progress().borrow();
        self.tail.file().write_all_at(verdict, length)?;
        let (lost, begun) = self.tail.abandon();
        if begun {
            // What the last wait has begun is cut off.
            self.tail.file().set_len(length + verdict.len() as u64)?;
        }
        self.progress().send_modify(|p| {
            p.last += lost + 1;
            p.ended = true;
        });
        pause::point("finished");
        Ok(())
    }

    /// Gives back what was asked for and not used. Nobody waits for that.
    pub fn give_back(&self) {
        let length = self.tail.file().metadata().map(|m| m.len());
        if let Err(e) = length.and_then(|length| self.tail.file().set_len(length)) {
            tracing::warn!("the record keeps more of the disk than it needs: {e}");
        }
    }

    /// Makes sure that `bytes` at `length`, and the end behind them, have space.
    fn ask(&mut self, length: u64, bytes: u64) -> io::Result<()> {
        let needed = length + bytes + END_RESERVE;
        if needed <= self.asked {
            return Ok(());
        }
        let step = (length / 8).clamp(STEP, LONGEST_STEP).max(needed - self.asked);
        let disk = fstatvfs(self.tail.file())?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < JOURNAL_RESERVE.saturating_add(step) {
            return Err(Errno::NOSPC.into());
        }
        let flags = FallocateFlags::KEEP_SIZE;
        match fallocate(self.tail.file(), flags, self.asked, step) {
            // A file system that sets nothing aside is asked for its free space only.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.asked += step,
            Err(e) => return Err(e.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::sys::fs::lock_exclusive;

    fn whole(frame: &'static [u8]) -> Made {
        Made::Whole(Bytes::from_static(frame))
    }

    fn writer(limit: u64) -> (Writer, std::fs::File) {
        let file = tempfile::tempfile().unwrap();
        let reader = file.try_clone().unwrap();
        (Writer::new(lock_exclusive(file).unwrap(), limit), reader)
    }

    #[test]
    fn space_is_there_before_the_first_frame() {
        let (mut writer, file) = writer(1 << 20);
        writer.reserve();
        let reserved = file.metadata().unwrap();
        assert_eq!(reserved.len(), 0, "who comes late would take it for claimed");
        writer.note(b"claimed").unwrap();
        let blocks = std::os::unix::fs::MetadataExt::blocks;
        assert_eq!(blocks(&file.metadata().unwrap()), blocks(&reserved));
    }

    #[test]
    fn frames_are_told_of_when_they_are_whole() {
        let (mut writer, file) = writer(1 << 20);
        writer.note(b"claimed").unwrap();
        writer.push(whole(b"one"));
        writer.push(whole(b"two"));
        assert_eq!(*writer.progress().borrow(), Progress { length: 13, last: 2, ended: false });
        writer.finish(b"verdict").unwrap();
        assert_eq!(*writer.progress().borrow(), Progress { length: 13, last: 3, ended: true });
        let mut text = vec![0; 20];
        file.read_exact_at(&mut text, 0).unwrap();
        assert_eq!(text, b"claimedonetwoverdict");
        assert_eq!(file.metadata().unwrap().len(), 20);
        let blocks = || std::os::unix::fs::MetadataExt::blocks(&file.metadata().unwrap());
        let before = blocks();
        writer.give_back();
        assert_eq!(file.metadata().unwrap().len(), 20);
        assert!(blocks() <= before && blocks() * 512 < END_RESERVE, "{} of {before}", blocks());
    }

    fn wait_until_nobody_else_has(tail: &Arc<Tail>) {
        while Arc::strong_count(tail) > 1 {
            std::thread::yield_now();
        }
    }

    /// They would hold the record's lock.
    #[test]
    fn no_thread_waits_for_frames_of_a_record_that_is_over_or_given_up() {
        let (mut over, _file) = writer(1 << 30);
        over.push(Made::Whole(vec![0; 1 << 20].into()));
        over.finish(b"verdict").unwrap();
        wait_until_nobody_else_has(&over.tail);
        let (mut given_up, _file) = writer(1 << 30);
        given_up.push(Made::Whole(vec![0; 1 << 20].into()));
        let tail = Arc::clone(&given_up.tail);
        drop(given_up);
        wait_until_nobody_else_has(&tail);
    }

    #[test]
    fn only_what_comes_behind_the_limit_is_too_much() {
        let (mut writer, _file) = writer(10);
        assert_eq!((writer.room(), writer.no_more()), (10, None));
        writer.push(whole(b"0123456789"));
        assert_eq!((writer.room(), writer.no_more()), (1, None), "it may be all");
        writer.push(whole(b"a"));
        assert_eq!((writer.room(), writer.no_more()), (0, Some(NoMore::Limit)));
        writer.finish(b"verdict").unwrap();
        assert_eq!(writer.progress().borrow().last, 3);
    }
}
