//! A run's output, piece by piece in the order in which the pipes become readable, and the rule by
//! which it ends.
//!
//! When the main process has ended ([`Pump::main_ended`]), what is in the pipes at that moment is
//! read completely, however long the caller takes to ask. Others may still hold a pipe. Their bytes
//! are taken until end of file, [`IDLE_LIMIT`] of empty pipes or [`DRAIN_LIMIT`] in all; time in
//! which the caller has no room ([`Pump::pause`]) does not count. Then a stream has ended as
//! [`StreamEnd::Held`], and its pipe is read into nothing, so that what holds it lives on.
//!
//! With `wait_eof` only end of file ends a stream, until the run is stopped ([`Pump::tree_stopped`]).

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use rustix::event::PollFlags;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::spawn::Writers;
use crate::sys::pipe::{Growth, PIPE_SIZE};
use crate::sys::poll::ready_now;

/// How long held pipes may be empty before a run's output counts as ended.
pub const IDLE_LIMIT: Duration = Duration::from_millis(100);
/// How long bytes are taken from held pipes at most.
pub const DRAIN_LIMIT: Duration = Duration::from_millis(250);
/// So many full reads in a row make a pipe grow.
const FULL_READS: u8 = 4;
/// Bytes that a held pipe is read into nothing by.
const SINK_PIECE: usize = 16_384;

/// Where output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// stdout.
    Out,
    /// stderr.
    Err,
    /// Both through one pipe.
    Both,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// Nobody holds the pipe any more: nothing can follow.
    Eof,
    /// Processes that are left running still hold it.
    Held,
}

/// What [`Pump::next`] yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Bytes were appended to the caller's buffer.
    Piece {
        /// Where they come from.
        stream: Stream,
        /// How many; at least 1.
        len: usize,
    },
    /// A stream has ended; once for each.
    End {
        /// Which.
        stream: Stream,
        /// How.
        end: StreamEnd,
    },
    /// All streams have ended; from now on always.
    Done,
}

/// One pipe.
#[derive(Debug)]
struct Source {
    stream: Stream,
    /// `Some` until the stream's end was yielded.
    pipe: Option<Receiver>,
    /// The pipe after end of file: closed with the rest, after the verdict, which need not wait for that.
    ended: Option<Receiver>,
    /// Bytes that were in the pipe when the main process ended, and are still to be read.
    due: usize,
    /// The pipe was found empty, and nobody holds the other end.
    is_over: bool,
    growth: Growth,
}

impl Source {
    /// What the pipe has now; none if it is empty or has ended before.
    fn read(&mut self, max: usize, buf: &mut BytesMut) -> io::Result<Option<Event>> {
        let Some(pipe) = &self.pipe else { return Ok(None) };
        if self.is_over {
            return Ok(Some(self.end_of_file()));
        }
        buf.reserve(max);
        match pipe.try_read_buf(&mut buf.limit(max)) {
            Ok(0) => Ok(Some(self.end_of_file())),
            Ok(len) => {
                self.due = self.due.saturating_sub(len);
                // Only those get a larger pipe who fill it.
                self.growth.found(len >= max.min(PIPE_SIZE), pipe);
                Ok(Some(Event::Piece { stream: self.stream, len }))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn end_of_file(&mut self) -> Event {
        let (event, pipe) = self.end(StreamEnd::Eof);
        self.ended = pipe;
        event
    }

    fn end(&mut self, end: StreamEnd) -> (Event, Option<Receiver>) {
        self.due = 0;
        (Event::End { stream: self.stream, end }, self.pipe.take())
    }

    /// Whether somebody still holds the other end.
    fn is_held(&self) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else { return Ok(false) };
        Ok(!ready_now(pipe, PollFlags::IN)?.contains(PollFlags::HUP))
    }

    /// The main process has ended: what is in the pipe now is still to be read. That nothing is and nothing can
    /// follow, as of most short runs, one look tells, without waiting for the runtime's.
    fn main_ended(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        self.is_over = ready_now(pipe, PollFlags::IN)? == PollFlags::HUP;
        if !self.is_over {
            self.due = usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(usize::MAX);
        }
        Ok(())
    }
}

/// Where the run is.
#[derive(Debug)]
enum Phase {
    /// The main process runs, or end of file is waited for.
    Running,
    /// The main process has ended; some of what was in the pipes may not yet be read.
    Due,
    /// Bytes of others are taken.
    Draining(Clock),
}

/// Time spent on held pipes.
#[derive(Debug)]
struct Clock {
    spent: Duration,
    /// When the clock was last looked at; `None` while it stands.
    since: Option<Instant>,
    /// What it showed when the pipes were found empty; `None` if something was read since.
    empty_at: Option<Duration>,
}

impl Clock {
    fn tick(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(since) = self.since.replace(now) {
            self.spent += now - since;
        }
        self.spent
    }

    /// Time left now that the pipes are empty.
    fn left_empty(&mut self) -> Duration {
        let spent = self.tick();
        let idle = spent - *self.empty_at.get_or_insert(spent);
        DRAIN_LIMIT.saturating_sub(spent).min(IDLE_LIMIT.saturating_sub(idle))
    }
}

/// Both pipes of a run.
#[derive(Debug)]
pub struct Pump {
    sources: Vec<Source>,
    /// Which source is asked next, modulo their number.
    turn: usize,
    phase: Phase,
    wait_eof: bool,
    /// What the main process writes to, until its end.
    writers: Option<Writers>,
}

impl Pump {
    /// Takes the pipes of a run; without `stderr`, `stdout` carries both streams.
    #[must_use]
    pub fn new(stdout: Receiver, stderr: Option<Receiver>, wait_eof: bool) -> Self {
        let first = if stderr.is_some() { Stream::Out } else { Stream::Both };
        let source = |stream, pipe| {
            let growth = Growth::after(FULL_READS);
            Source { stream, pipe: Some(pipe), ended: None, due: 0, is_over: false, growth }
        };
        let sources = std::iter::once(source(first, stdout))
            .chain(stderr.map(|pipe| source(Stream::Err, pipe)))
            .collect();
        Self { sources, turn: 0, phase: Phase::Running, wait_eof, writers: None }
    }

    /// Holds the other ends of the pipes until the main process has ended. That closes its own a moment before it
    /// has: nobody is woken for that, only to wait on.
    #[must_use]
    pub fn holding(self, writers: Writers) -> Self {
        Self { writers: Some(writers), ..self }
    }

    /// The main process has ended: call it once, as soon as it is known. With `wait_eof` it only lets go of what
    /// is held.
    ///
    /// # Errors
    /// The system cannot say what is in a pipe (poll(2); FIONREAD, ioctl_pipe(2)).
    pub fn main_ended(&mut self) -> io::Result<()> {
        self.writers = None;
        if self.wait_eof || !matches!(self.phase, Phase::Running) {
            return Ok(());
        }
        for source in &mut self.sources {
            source.main_ended()?;
        }
        self.phase = Phase::Due;
        Ok(())
    }

    /// All that could be ended of the run has been: what still holds a pipe is not waited for, with
    /// `wait_eof` neither.
    ///
    /// # Errors
    /// As [`Self::main_ended`].
    pub fn tree_stopped(&mut self) -> io::Result<()> {
        self.wait_eof = false;
        self.main_ended()
    }

    /// The caller has no room: time from now until the next call of [`Self::next`] does not count.
    /// May be called at any time and again.
    pub fn pause(&mut self) {
        if let Phase::Draining(clock) = &mut self.phase {
            clock.tick();
            clock.since = None;
        }
    }

    /// The next thing that happens: at most `max` bytes appended to `buf`, or an end. `max` is at
    /// least 1. Cancel safe: dropped, it has read nothing.
    ///
    /// # Errors
    /// A pipe cannot be read.
    pub async fn next(&mut self, max: usize, buf: &mut BytesMut) -> io::Result<Event> {
        // A pipe that is never empty must not keep the caller's other work from being polled.
        consume_budget().await;
        loop {
            if self.sources.iter().all(|source| source.pipe.is_none()) {
                return Ok(Event::Done);
            }
            if self.limit_reached()
                && let Some(event) = self.give_up()?
            {
                return Ok(event);
            }
            if let Some(event) = self.read(max, buf)? {
                return Ok(event);
            }
            let left = self.left_empty();
            let is_over = left.is_some_and(|left| left.is_zero());
            if is_over && let Some(event) = self.give_up()? {
                return Ok(event);
            }
            // When time is over but nobody holds a pipe any more, end of file is about to be seen.
            let until = left.filter(|_| !is_over).map(|left| Instant::now() + left);
            self.readable(until).await?;
        }
    }

    /// Whether [`DRAIN_LIMIT`] is over. Starts the clock when all that was due has been read.
    fn limit_reached(&mut self) -> bool {
        if matches!(self.phase, Phase::Due) && self.sources.iter().all(|source| source.due == 0) {
            let clock = Clock { spent: Duration::ZERO, since: None, empty_at: None };
            self.phase = Phase::Draining(clock);
        }
        match &mut self.phase {
            Phase::Draining(clock) => clock.tick() >= DRAIN_LIMIT,
            Phase::Running | Phase::Due => false,
        }
    }

    fn left_empty(&mut self) -> Option<Duration> {
        match &mut self.phase {
            Phase::Draining(clock) => Some(clock.left_empty()),
            Phase::Running | Phase::Due => None,
        }
    }

    /// What can be had without waiting, from the pipes in turn.
    fn read(&mut self, max: usize, buf: &mut BytesMut) -> io::Result<Option<Event>> {
        for _ in 0..self.sources.len() {
            let turn = self.turn % self.sources.len();
            self.turn = turn + 1;
            let source = &mut self.sources[turn];
            let event = source.read(max, buf)?;
            if event.is_some() {
                if let Phase::Draining(clock) = &mut self.phase {
                    clock.empty_at = None;
                }
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Ends one stream whose pipe is held; none if no pipe is.
    fn give_up(&mut self) -> io::Result<Option<Event>> {
        for source in &mut self.sources {
            if source.is_held()? {
                let (event, pipe) = source.end(StreamEnd::Held);
                if let Some(pipe) = pipe {
                    sink_until_eof(pipe);
                }
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Waits until a pipe is readable or closed, or the time has come.
    async fn readable(&self, until: Option<Instant>) -> io::Result<()> {
        let any = poll_fn(|cx| self.poll_readable(cx));
        let Some(until) = until else { return any.await };
        tokio::select! {
            biased;
            done = any => done,
            () = sleep_until(until) => Ok(()),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // All are polled, so that each wakes this task.
        let mut any = Poll::Pending;
        for pipe in self.sources.iter().filter_map(|source| source.pipe.as_ref()) {
            if let Poll::Ready(ready) = pipe.poll_read_ready(cx) {
                any = Poll::Ready(ready);
            }
        }
        any
    }
}

/// Pipes that are read into nothing now.
static HELD: AtomicUsize = AtomicUsize::new(0);
static RELEASED: Notify = Notify::const_new();

/// Waits until nobody holds a pipe of a run that has ended: to leave earlier would be SIGPIPE to those
/// who do.
pub async fn pipes_released() {
    loop {
        let released = RELEASED.notified();
        if HELD.load(Ordering::Acquire) == 0 {
            return;
        }
        released.await;
    }
}

/// One in [`HELD`].
struct Held;

impl Held {
    fn new() -> Self {
        HELD.fetch_add(1, Ordering::AcqRel);
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.fetch_sub(1, Ordering::AcqRel);
        RELEASED.notify_waiters();
    }
}

/// Reads a held pipe into nothing until end of file, so that its writers neither block nor die of
/// SIGPIPE.
fn sink_until_eof(pipe: Receiver) {
    let held = Held::new();
    tokio::spawn(async move {
        let _held = held;
        while pipe.readable().await.is_ok() {
            // On the worker's stack, for the time of one call: a waiting sink has no buffer.
            match pipe.try_read(&mut [0; SINK_PIECE]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    });
}

#[cfg(test)]
mod tests;
