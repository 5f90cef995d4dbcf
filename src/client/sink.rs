//! Where output goes: each piece is checked, then written, then confirmed.
//!
//! Hashing and writing happen in a thread of their own, so that a blocked output does not keep the
//! client from hearing the server. A small piece that can be written without blocking, while the thread
//! has nothing to do, is handled in place: that saves a short command two thread switches.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use tokio::sync::Notify;

use super::error::OutputError;
use crate::conn::Frame;
use crate::proto::digest::{Algorithm, Running};
use crate::proto::header::{Output as OutputHeader, Stream};
use crate::proto::verdict::{StreamEnd, StreamEndKind, Verdict};
use crate::sys::mutex::lock;

/// Pieces up to this size may be written in place: POSIX lets a pipe that is writable take as much
/// at once (`PIPE_BUF` on Linux).
pub const INLINE_LIMIT: usize = 4096;
/// More than the largest window, with its frames' headers, is more than a server may send.
pub(super) const UNWRITTEN_LIMIT: usize = 10 * 1024 * 1024;
/// What a waiting frame costs beside its bytes, here as in the server's window.
const FRAME_COST: usize = 64;

/// Takes a command's output. Methods are called one at a time, from any thread, and may block.
pub trait Output: Send + 'static {
    /// Takes the next bytes of a stream, all of them.
    ///
    /// # Errors
    /// The run is then cancelled and the error returned. A panic is such an error.
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()>;

    /// The run has ended and everything before was checked.
    ///
    /// # Errors
    /// As [`Output::write`].
    fn finish(&mut self, verdict: &Verdict) -> io::Result<()> {
        let _ = verdict;
        Ok(())
    }

    /// Whether a write of at most [`INLINE_LIMIT`] bytes would not block now.
    fn is_ready(&self, stream: Stream) -> bool {
        let _ = stream;
        false
    }
}

/// One thing to do.
enum Job {
    /// With the bytes that it keeps from being freed.
    Piece(OutputHeader, Bytes, usize),
    Finish(Box<Verdict>),
}

/// Checks and writes; used by whoever has the lock.
struct Worker {
    output: Box<dyn Output>,
    algorithm: Algorithm,
    streams: Vec<(Stream, Running)>,
    /// The record was not asked for from its start: digests that cover what is missing cannot be checked.
    joined_late: bool,
    /// Where each stream stands then.
    places: Vec<(Stream, u64)>,
}

/// What the thread tells.
struct Progress {
    written: AtomicU64,
    /// What the frames up to there, and perhaps the next one, cost the server's window or more, bytes.
    cost_written: AtomicU64,
    /// Bytes that were handed over and are not written yet.
    unwritten: AtomicUsize,
    failed: AtomicBool,
    failure: Mutex<Option<OutputError>>,
    called: Notify,
}

/// The sink of one run.
pub(super) struct Sink {
    worker: Arc<Mutex<Worker>>,
    progress: Arc<Progress>,
    thread: Option<Sender<Job>>,
}

impl Sink {
    /// Of a record that is asked for from its start, or not.
    pub(super) fn new(output: Box<dyn Output>, joined_late: bool) -> Self {
        let progress = Progress {
            written: AtomicU64::new(0),
            cost_written: AtomicU64::new(0),
            unwritten: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            called: Notify::new(),
        };
        let worker = Worker {
            output,
            algorithm: Algorithm::default(),
            streams: Vec::new(),
            joined_late,
            places: Vec::new(),
        };
        Self { worker: Arc::new(Mutex::new(worker)), progress: Arc::new(progress), thread: None }
    }

    /// By what the digests are made; to be said before the first piece.
    pub(super) fn go_by(&mut self, algorithm: Algorithm) {
        lock(&self.worker).algorithm = algorithm;
    }

    /// Takes a piece that arrived.
    pub(super) fn piece(
        &mut self,
        mut header: OutputHeader,
        frame: Frame,
    ) -> Result<(), OutputError> {
        // The name is of no use here, and as long as the server likes.
        header.filename = None;
        let size = frame.size() + FRAME_COST;
        self.push(Job::Piece(header, frame.body, size))
    }

    /// Takes the verdict.
    pub(super) fn finish(&mut self, verdict: Box<Verdict>) -> Result<(), OutputError> {
        self.push(Job::Finish(verdict))
    }

    fn push(&mut self, job: Job) -> Result<(), OutputError> {
        let size = job.size();
        if self.progress.unwritten.fetch_add(size, Ordering::AcqRel) == 0 && self.is_ready(&job) {
            perform(&self.worker, &self.progress, &job);
            return Ok(());
        }
        if self.progress.unwritten.load(Ordering::Acquire) > UNWRITTEN_LIMIT {
            return Err(OutputError::Flooded);
        }
        self.hand_over(job)
    }

    fn is_ready(&self, job: &Job) -> bool {
        match job {
            Job::Piece(header, body, _) => {
                body.len() <= INLINE_LIMIT && lock(&self.worker).output.is_ready(header.stream)
            }
            // Finishing a file may wait for the disk.
            Job::Finish(_) => self.thread.is_none(),
        }
    }

    fn hand_over(&mut self, job: Job) -> Result<(), OutputError> {
        let thread = match &self.thread {
            Some(thread) => thread,
            None => self.thread.insert(start(&self.worker, &self.progress)?),
        };
        // The thread ends only with its sender, so it is there.
        let _ = thread.send(job);
        Ok(())
    }

    /// Place of the last frame that was written.
    pub(super) fn written(&self) -> u64 {
        self.progress.written.load(Ordering::Acquire)
    }

    /// What the frames that were written cost in the server's window, bytes; not less.
    pub(super) fn cost_written(&self) -> u64 {
        self.progress.cost_written.load(Ordering::Acquire)
    }

    /// Whether everything that was handed over is written.
    pub(super) fn is_idle(&self) -> bool {
        self.progress.unwritten.load(Ordering::Acquire) == 0
    }

    /// What went wrong, once.
    pub(super) fn failure(&self) -> Option<OutputError> {
        lock(&self.progress.failure).take()
    }

    /// Waits for progress or failure.
    pub(super) fn progress(&self) -> impl Future<Output = ()> + Send + 'static {
        let progress = Arc::clone(&self.progress);
        async move { progress.called.notified().await }
    }
}

impl Job {
    /// Never 0, so that a job that is under way shows.
    fn size(&self) -> usize {
        match self {
            Self::Piece(_, _, size) => *size,
            Self::Finish(_) => 1,
        }
    }

    /// Where a failure to do it is reported.
    fn stream(&self) -> Stream {
        match self {
            Self::Piece(header, ..) => header.stream,
            Self::Finish(_) => Stream::Stdout,
        }
    }

    fn seq(&self) -> u64 {
        match self {
            Self::Piece(header, ..) => header.seq,
            Self::Finish(verdict) => verdict.seq,
        }
    }
}

fn start(
    worker: &Arc<Mutex<Worker>>,
    progress: &Arc<Progress>,
) -> Result<Sender<Job>, OutputError> {
    let (jobs, waiting) = mpsc::channel();
    let (worker, progress) = (Arc::clone(worker), Arc::clone(progress));
    thread::Builder::new()
        .name("output".into())
        .spawn(move || work(&waiting, &worker, &progress))
        .map_err(|e| OutputError::Write(Stream::Both, e))?;
    Ok(jobs)
}

fn work(waiting: &Receiver<Job>, worker: &Mutex<Worker>, progress: &Progress) {
    while let Ok(job) = waiting.recv() {
        perform(worker, progress, &job);
    }
}

/// After a failure nothing more is written: the output would have a hole.
fn perform(worker: &Mutex<Worker>, progress: &Progress, job: &Job) {
    if !progress.failed.load(Ordering::Acquire) {
        match caught(job.stream(), || lock(worker).perform(job)) {
            Ok(()) => {
                progress.cost_written.fetch_add(job.size() as u64, Ordering::AcqRel);
                progress.written.store(job.seq(), Ordering::Release);
            }
            Err(e) => {
                progress.failed.store(true, Ordering::Release);
                *lock(&progress.failure) = Some(e);
            }
        }
    }
    progress.unwritten.fetch_sub(job.size(), Ordering::AcqRel);
    progress.called.notify_one();
}

/// The output is the caller's code. Its panic is a failure to write: the thread that it would end is waited
/// for, and nothing of what it leaves behind is used again.
fn caught(
    stream: Stream,
    work: impl FnOnce() -> Result<(), OutputError>,
) -> Result<(), OutputError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(OutputError::Write(stream, io::Error::other("the output panicked")))
    })
}

impl Worker {
    fn perform(&mut self, job: &Job) -> Result<(), OutputError> {
        match job {
            Job::Piece(header, body, _) => {
                self.check(header, body)?;
                self.output
                    .write(header.stream, body)
                    .map_err(|e| OutputError::Write(header.stream, e))
            }
            Job::Finish(verdict) => {
                let ends = [
                    (Stream::Stdout, verdict.stdout),
                    (Stream::Stderr, verdict.stderr),
                    (Stream::Both, verdict.both),
                ];
                let stopped = verdict.stopped.is_some();
                ends.into_iter()
                    .try_for_each(|(stream, end)| self.check_end(stream, end, stopped))?;
                self.output.finish(verdict).map_err(|e| OutputError::Write(job.stream(), e))
            }
        }
    }

    fn running(&mut self, stream: Stream) -> &mut Running {
        let at = self.streams.iter().position(|(s, _)| *s == stream);
        let at = at.unwrap_or_else(|| {
            self.streams.push((stream, Running::by(self.algorithm)));
            self.streams.len() - 1
        });
        &mut self.streams[at].1
    }

    /// Whether a piece follows the one before it.
    fn follows(&mut self, header: &OutputHeader, len: usize) -> bool {
        let after = header.offset.saturating_add(len as u64);
        match self.places.iter_mut().find(|(stream, _)| *stream == header.stream) {
            Some((_, place)) => std::mem::replace(place, after) == header.offset,
            None => {
                self.places.push((header.stream, after));
                true
            }
        }
    }

    fn check(&mut self, header: &OutputHeader, body: &[u8]) -> Result<(), OutputError> {
        if self.joined_late {
            let follows = self.follows(header, body.len());
            return if follows { Ok(()) } else { Err(OutputError::Altered(header.stream)) };
        }
        let running = self.running(header.stream);
        let follows = running.offset() == header.offset;
        running.update(body);
        if follows && running.digest() == header.hash {
            Ok(())
        } else {
            Err(OutputError::Altered(header.stream))
        }
    }

    /// A stop may cut the output short, and then the verdict says so.
    fn check_end(
        &mut self,
        stream: Stream,
        end: Option<StreamEnd>,
        stopped: bool,
    ) -> Result<(), OutputError> {
        if self.joined_late {
            let place = self.places.iter().find(|(s, _)| *s == stream).map(|(_, place)| *place);
            let whole = place.is_none() || place == end.map(|end| end.size);
            return if whole { Ok(()) } else { Err(OutputError::Altered(stream)) };
        }
        let running = self.running(stream);
        match end {
            None if running.offset() == 0 => Ok(()),
            Some(end) if end.size == running.offset() && end.hash == running.digest() => {
                match end.end {
                    StreamEndKind::Eof | StreamEndKind::Held => Ok(()),
                    _ if stopped => Ok(()),
                    StreamEndKind::Cut | StreamEndKind::Unknown => Err(OutputError::Cut(stream)),
                    StreamEndKind::Limit => Err(OutputError::Limit(stream, end.size)),
                }
            }
            _ => Err(OutputError::Altered(stream)),
        }
    }
}
