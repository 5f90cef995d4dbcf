//! The engine of one run: its pipes, its end and its stop, driven by one task.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::{self, millis};
use super::disk::writer::NoMore;
use super::excerpt::{Excerpt, Taker};
use super::feed::{Feed, feed};
use super::hashes::Made;
use super::intake::Intake;
use super::record::{PIECE, Recorder};
use super::run::{Orders, Run};
use super::stdin::Next;
use crate::exec::{self, Child, Event, Pump, Scanner, Signal, Spawned};
use crate::proto::digest::Algorithm;
use crate::proto::frame::FrameError;
use crate::proto::header::Stream;
use crate::proto::verdict::{End, Limit, StopBy, Stopped, StreamEndKind, Usage, Verdict};
use crate::sys::clock::until;

/// Most bytes of the first piece.
const FIRST_PIECE: usize = 16 * 1024;
/// How long the pipes are read, whether there is room or not, after a stop by the client or because it is gone.
const CUT_AFTER: Duration = Duration::from_millis(250);
/// How long until a full disk is looked at again.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What an engine goes by.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// When to stop the run, counted from its start: the client's wish.
    pub deadline: Option<Duration>,
    /// The same, as the server's policy wants it.
    pub ceiling: Option<Duration>,
    /// Most bytes that it may write, both streams together, before it is stopped.
    pub output: Option<u64>,
    /// How many bytes of the output to keep for the journal.
    pub excerpt: Option<u64>,
    /// How long to wait for a client that vanished.
    pub grace: Duration,
    /// Wait for the end of both pipes.
    pub wait_eof: bool,
    /// Both streams come through one pipe.
    pub merge: bool,
}

/// One run while it is driven.
#[derive(Debug)]
pub struct Engine {
    run: Arc<Run>,
    child: Child,
    pump: Pump,
    stdin: Option<Feed>,
    scanner: Scanner,
    course: Course,
}

/// What has happened to a run so far. Debug does not show output: it may hold secrets.
struct Course {
    bounds: Bounds,
    started: Instant,
    started_at: String,
    recorder: Recorder,
    intake: Intake,
    /// The record has frames hashed when it has them.
    others_hash: bool,
    taker: Taker,
    /// Most bytes of the next piece: grown by those who fill it, so that a quiet run holds little.
    reach: usize,
    main: Main,
    stop: Stop,
    hurried: bool,
    ends: Vec<(Stream, StreamEndKind)>,
    /// Bytes of output that may still come; none: any number.
    output_left: Option<u64>,
    /// More came than may.
    output_exceeded: bool,
    /// Nothing more is read.
    output_over: bool,
    /// Because the record has passed its limit.
    at_limit: bool,
    /// Reading ends then, whatever is in the pipes.
    cut_at: Option<Instant>,
}

/// The main process.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Main {
    Runs,
    /// None: somebody else reaped it.
    Ended(Option<exec::Ended>, Instant),
}

/// A stop of the whole tree.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    NotAsked,
    Running(Stopped),
    Done(Stopped, exec::Stopped),
}

impl fmt::Debug for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Course")
            .field("bounds", &self.bounds)
            .field("started", &self.started_at)
            .field("intake", &self.intake)
            .field("main", &self.main)
            .field("stop", &self.stop)
            .field("ends", &self.ends)
            .field("output_over", &self.output_over)
            .finish_non_exhaustive()
    }
}

type Stopping<'a> = Pin<Box<dyn Future<Output = io::Result<exec::Stopped>> + Send + 'a>>;

impl Engine {
    /// Takes over a run that was just spawned.
    #[must_use]
    pub fn new(run: Arc<Run>, spawned: Spawned, bounds: Bounds, scanner: Scanner) -> Self {
        let Spawned { child, stdin, stdout, stderr, writers } = spawned;
        let pump = Pump::new(stdout, stderr, bounds.wait_eof).holding(writers);
        let mut course = Course::new(bounds, run.algorithm);
        if let Some(spares) = run.spares() {
            (course.intake, course.others_hash) = (Intake::recycling(spares), true);
        }
        Self { run, child, pump, stdin: stdin.map(Feed::from), scanner, course }
    }

    /// Drives the run to its end: its output goes into the record. The verdict is returned, not
    /// recorded, because the journal comes first. The main process is reaped when this is dropped, or
    /// when it ends, if nothing could end it: once the verdict is out, for that is waited for.
    pub async fn drive(&mut self) -> Verdict {
        self.pump_to_the_end().await;
        let left = match self.course.stop {
            Stop::Done(_, stopped) => stopped,
            _ => known(exec::count_left(&self.child, &self.scanner).await),
        };
        let seq = self.course.recorder.take_seq();
        self.course.verdict(&self.run, seq, left, &self.child)
    }

    /// What the journal is to have of the output, once it was driven to the end.
    pub(super) fn excerpt(&self) -> Option<Excerpt> {
        self.course.taker.excerpt()
    }

    async fn pump_to_the_end(&mut self) {
        let Self { run, child, pump, stdin, scanner, course } = self;
        let mut stopping: Option<Stopping<'_>> = None;
        loop {
            let orders = run.orders();
            orders.signals.iter().for_each(|signal| send(child, *signal));
            if let Some((by, limit)) = course.who_stops(&orders, child) {
                course.begin_stop(by, limit);
                stopping = Some(Box::pin(exec::stop(child, scanner, exec::TERM_GRACE)));
            }
            if orders.hurry && stopping.is_some() && !std::mem::replace(&mut course.hurried, true) {
                stopping = Some(Box::pin(exec::stop(child, scanner, Duration::ZERO)));
            }
            if course.is_over(&orders) {
                return;
            }
            let reading = orders.needs.room > 0 && !course.output_over;
            if !reading {
                pump.pause();
                course.intake.rest();
            }
            let room = course.room(orders.needs.room);
            let retry = orders.needs.waits.then(|| Instant::now() + DISK_PAUSE);
            let timer = earliest(course.timer(&orders), retry);
            tokio::select! {
                ended = child.exited(), if course.main == Main::Runs => {
                    course.main_ended(ended.ok());
                    course.output_failed(&pump.main_ended());
                }
                event = async { pump.next(room, course.intake.buffer(room)).await }, if reading => {
                    course.output(event, run);
                }
                stopped = ready(&mut stopping), if stopping.is_some() => {
                    stopping = None;
                    course.stopped(known(stopped));
                    course.output_failed(&pump.tree_stopped());
                }
                () = feed(stdin, run, &orders.stdin), if stdin.is_some() && orders.stdin != Next::Nothing => {}
                () = run.ordered() => {}
                () = until(timer), if timer.is_some() => {}
            }
            if !course.goes_on() {
                run.set_ended();
            }
        }
    }
}

impl Course {
    fn new(bounds: Bounds, algorithm: Algorithm) -> Self {
        let streams: &[Stream] =
            if bounds.merge { &[Stream::Both] } else { &[Stream::Stdout, Stream::Stderr] };
        Self {
            recorder: Recorder::new(streams, algorithm),
            output_left: bounds.output,
            taker: Taker::new(bounds.excerpt),
            output_exceeded: false,
            bounds,
            started: Instant::now(),
            started_at: clock::timestamp(),
            intake: Intake::default(),
            others_hash: false,
            reach: FIRST_PIECE,
            main: Main::Runs,
            stop: Stop::NotAsked,
            hurried: false,
            ends: Vec::new(),
            output_over: false,
            at_limit: false,
            cut_at: None,
        }
    }

    /// Whether the run has not ended by itself.
    fn goes_on(&self) -> bool {
        self.main == Main::Runs || self.waits_for_eof()
    }

    /// Whether there is more to the run than its main process: those who hold its output.
    fn waits_for_eof(&self) -> bool {
        self.bounds.wait_eof && !self.output_over
    }

    /// Who wants the run stopped now, if it does not end by itself and nobody has stopped it yet.
    fn who_stops(&self, orders: &Orders, child: &Child) -> Option<(StopBy, Option<Limit>)> {
        if self.stop != Stop::NotAsked || !self.goes_on() {
            return None;
        }
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let by = orders
            .stop
            .map(|by| (by, None))
            .or(self.limit_reached(due).map(|limit| (StopBy::Policy, Some(limit))))
            .or(due(self.after(self.bounds.deadline)).then_some((StopBy::Deadline, None)))
            .or(due(self.lost_at(orders)).then_some((StopBy::ClientLost, None)))?;
        // It may have ended since: then it ended by itself, and that is its verdict.
        (self.waits_for_eof() || matches!(child.ended(), Ok(None))).then_some(by)
    }

    /// The limit of the policy that the run has come to.
    fn limit_reached(&self, due: impl Fn(Option<Instant>) -> bool) -> Option<Limit> {
        if self.output_exceeded {
            return self.bounds.output.map(|bytes| Limit::Output { bytes });
        }
        let ceiling = self.bounds.ceiling.filter(|_| due(self.after(self.bounds.ceiling)))?;
        Some(Limit::Deadline { ms: millis(ceiling) })
    }

    fn deadline(&self) -> Option<Instant> {
        earliest(self.after(self.bounds.deadline), self.after(self.bounds.ceiling))
    }

    fn after(&self, time: Option<Duration>) -> Option<Instant> {
        time.and_then(|time| self.started.checked_add(time))
    }

    /// Most bytes of the next piece. One when no more may come: only that tells output that ends there from
    /// output that goes on.
    fn room(&self, room: usize) -> usize {
        let left =
            self.output_left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        room.min(self.reach).min(left.max(1))
    }

    fn lost_at(&self, orders: &Orders) -> Option<Instant> {
        orders.alone_since.and_then(|since| since.checked_add(self.bounds.grace))
    }

    fn begin_stop(&mut self, by: StopBy, limit: Option<Limit>) {
        let after_ms = millis(self.started.elapsed());
        self.stop = Stop::Running(Stopped { by, after_ms, limit });
    }

    fn stopped(&mut self, result: exec::Stopped) {
        let Stop::Running(stopped) = self.stop else { return };
        self.stop = Stop::Done(stopped, result);
        // A deadline's client still wants every byte; the others do not wait for them.
        if stopped.by != StopBy::Deadline || self.main == Main::Runs {
            self.cut_at = Some(Instant::now() + CUT_AFTER);
        }
    }

    fn main_ended(&mut self, ended: Option<exec::Ended>) {
        self.main = Main::Ended(ended, Instant::now());
    }

    fn output(&mut self, event: io::Result<Event>, run: &Run) {
        match event {
            Ok(Event::Piece { .. }) if self.output_left == Some(0) => {
                self.intake.clear();
                (self.output_exceeded, self.output_over) = (true, true);
            }
            Ok(Event::Piece { stream, len }) => {
                self.output_left = self.output_left.map(|left| left.saturating_sub(len as u64));
                self.reach =
                    if len >= self.reach { (self.reach * 4).min(PIECE) } else { self.reach };
                self.taker.add(stream.into(), self.intake.piece());
                self.output_over |= self.keep(stream.into(), run).is_err();
            }
            Ok(Event::End { stream, end }) => self.ends.push((stream.into(), end.into())),
            Ok(Event::Done) => self.output_over = true,
            Err(e) => self.output_failed(&Err(e)),
        }
    }

    /// Adds what was read to the record.
    fn keep(&mut self, stream: Stream, run: &Run) -> Result<(), FrameError> {
        if self.recorder.is_mark_due()
            && let Some(mark) = self.recorder.mark()?
        {
            run.record(Made::Whole(mark));
        }
        let time_ms = millis(self.started.elapsed());
        let frame = self.recorder.output(stream, &mut self.intake, time_ms)?;
        match frame {
            Some(frame) if self.others_hash => run.record(Made::Unhashed(frame)),
            Some(frame) => run.record(Made::Whole(frame.whole())),
            None => {}
        }
        Ok(())
    }

    /// What cannot be read is cut: the verdict says so for every stream that did not end before.
    fn output_failed(&mut self, result: &io::Result<()>) {
        self.output_over |= result.is_err();
    }

    /// Whether there is nothing to wait for but the verdict.
    fn is_over(&mut self, orders: &Orders) -> bool {
        match self.stop {
            Stop::Running(_) => return false,
            Stop::NotAsked if self.goes_on() => return false,
            Stop::NotAsked | Stop::Done(..) => {}
        }
        let now = Instant::now();
        // Nor does a full disk make room for what a stopped run has left.
        let stuck = orders.needs.waits && self.stop != Stop::NotAsked;
        if stuck || (orders.give_up && self.stop == Stop::NotAsked) {
            self.cut_at.get_or_insert(now + CUT_AFTER);
        }
        self.output_over |= orders.needs.no_more.is_some();
        self.at_limit |= orders.needs.no_more == Some(NoMore::Limit);
        self.output_over |= self.give_up_at(orders).is_some_and(|at| at <= now);
        self.output_over
    }

    /// When to stop reading although there is no room, because nobody will make any.
    fn give_up_at(&self, orders: &Orders) -> Option<Instant> {
        earliest(self.cut_at, self.lost_at(orders))
    }

    fn timer(&self, orders: &Orders) -> Option<Instant> {
        match self.stop {
            Stop::NotAsked if self.goes_on() => earliest(self.deadline(), self.lost_at(orders)),
            Stop::Running(_) => None,
            Stop::NotAsked | Stop::Done(..) => self.give_up_at(orders),
        }
    }

    /// What is said of a run that the kernel has ended for its memory, or that ended by itself before it could be
    /// stopped for all that it wrote.
    fn cut_short(&self, end: Option<exec::End>, ended: Instant, child: &Child) -> Option<Stopped> {
        let kill = Signal::KILL.number();
        let is_killed = matches!(end, Some(exec::End::Signaled { signal, .. }) if signal == kill);
        let memory = is_killed.then(|| child.passed_memory()).flatten();
        let limit = match memory {
            Some(bytes) => Limit::Memory { bytes },
            None => Limit::Output { bytes: self.bounds.output.filter(|_| self.output_exceeded)? },
        };
        let after_ms = millis(ended - self.started);
        Some(Stopped { by: StopBy::Policy, after_ms, limit: Some(limit) })
    }

    fn verdict(&self, run: &Run, seq: u64, left: exec::Stopped, child: &Child) -> Verdict {
        let short = if self.at_limit { StreamEndKind::Limit } else { StreamEndKind::Cut };
        let end_of = |stream| {
            let end = self.ends.iter().find(|(s, _)| *s == stream).map_or(short, |e| e.1);
            self.recorder.stream_end(stream, end)
        };
        let (main, ended) = match self.main {
            Main::Runs => (None, Instant::now()),
            Main::Ended(main, at) => (main, at),
        };
        // What took a process that nothing could end is not known.
        let usage = main.map_or_else(exec::Usage::default, |main| main.usage);
        let end = main.map(|main| main.end);
        Verdict {
            seq,
            run: run.key.id.to_string(),
            end: end.map(End::from),
            stopped: match self.stop {
                Stop::NotAsked => self.cut_short(end, ended, child),
                Stop::Running(stopped) | Stop::Done(stopped, _) => Some(stopped),
            },
            hash: run.algorithm.member(),
            stdout: end_of(Stream::Stdout),
            stderr: end_of(Stream::Stderr),
            both: end_of(Stream::Both),
            started: self.started_at.clone(),
            elapsed_ms: millis(ended - self.started),
            usage: Usage { user_ms: millis(usage.user), system_ms: millis(usage.system) },
            containment: left.containment.into(),
            left_running: left.left_running,
            stdin: None,
            journal: None,
        }
    }
}

/// Signals that the kernel refuses are not sent: the group is then gone, or another's by its own will.
fn send(child: &Child, signal: u8) {
    if let Some(signal) = Signal::from_number(signal.into()) {
        let _ = child.signal_group(signal);
    }
}

/// What can be said when the system does not show its processes: the group was signalled, and no more.
fn known(result: io::Result<exec::Stopped>) -> exec::Stopped {
    result.unwrap_or_else(|e| {
        tracing::warn!("cannot look for the processes of a run: {e}");
        exec::Stopped { left_running: 0, containment: exec::Containment::Group }
    })
}

async fn ready(stopping: &mut Option<Stopping<'_>>) -> io::Result<exec::Stopped> {
    match stopping {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn debug_shows_no_output() {
        let bounds = Bounds {
            deadline: None,
            ceiling: None,
            output: None,
            excerpt: None,
            grace: Duration::ZERO,
            wait_eof: false,
            merge: false,
        };
        let mut course = Course::new(bounds, Algorithm::Sha256);
        course.intake.buffer(7).extend_from_slice(b"hunter2");
        let shown = format!("{course:?}");
        assert!(shown.contains("7 bytes") && !shown.contains("hunter2"), "{shown}");
    }
}
