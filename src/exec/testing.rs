//! What the tests of this folder share.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tracing::subscriber::DefaultGuard;

use super::{BaseEnv, Child, End, Event, Mark, Program, Pump, Spawned, Spec, Stream, StreamEnd};
use crate::sys::process::{Pid, ProcessRef, has_ended};

/// Longer than anything here takes; a test that reaches it has hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn spec(program: Program) -> Spec {
    Spec {
        program,
        env: Vec::new(),
        cwd: None,
        merge: false,
        stdin: false,
        wait_eof: false,
        own_path: false,
        limits: super::Limits::default(),
        cgroup: None,
        user: None,
    }
}

pub(super) fn shell(text: &str) -> Spec {
    spec(Program::Shell { shell: "/bin/sh".into(), text: text.into() })
}

pub(super) fn argv(words: &[&str]) -> Spec {
    spec(Program::Argv { words: words.iter().map(Into::into).collect() })
}

pub(super) fn spawn(spec: &Spec) -> Spawned {
    super::spawn(spec, &BaseEnv::of_this_process(), "the-run", super::Mark::new().unwrap()).unwrap()
}

/// What a whole run came to.
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) out: Vec<u8>,
    pub(super) err: Vec<u8>,
    pub(super) ends: Vec<StreamEnd>,
    pub(super) child: Child,
}

impl Outcome {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

/// Runs as a server would: one loop over output and end.
pub(super) async fn follow(spawned: Spawned, wait_eof: bool) -> Outcome {
    let Spawned { child, stdin: _, stdout, stderr, writers } = spawned;
    let mut pump = Pump::new(stdout, stderr, wait_eof).holding(writers);
    let (mut out, mut err, mut ends) = (Vec::new(), Vec::new(), Vec::new());
    let mut exit = None;
    let mut buf = BytesMut::new();
    loop {
        tokio::select! {
            ended = child.exited(), if exit.is_none() => {
                exit = Some(ended.unwrap());
                pump.main_ended().unwrap();
            }
            event = pump.next(65_536, &mut buf) => match event.unwrap() {
                Event::Piece { stream: Stream::Err, .. } => err.extend(buf.split()),
                Event::Piece { .. } => out.extend(buf.split()),
                Event::End { end, .. } => ends.push(end),
                Event::Done => break,
            },
        }
    }
    let end = child.exited().await.unwrap().end;
    Outcome { end, out, err, ends, child }
}

pub(super) async fn run(spec: &Spec) -> Outcome {
    within(follow(spawn(spec), spec.wait_eof)).await
}

pub(super) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("hangs")
}

/// Waits for something that gives no event of its own.
pub(super) async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// The next line of a run, which has to be a pid.
pub(super) async fn pid_line(pipe: &mut Receiver) -> ProcessRef {
    let mut line = String::new();
    while !line.ends_with('\n') {
        line.push(char::from(within(pipe.read_u8()).await.unwrap()));
    }
    ProcessRef::of(Pid::from_raw(line.trim().parse().unwrap()).unwrap()).unwrap()
}

pub(super) fn is_gone(process: &ProcessRef) -> bool {
    process.open().unwrap().is_none_or(|pidfd| has_ended(&pidfd).unwrap())
}

/// Processes that have the mark, found by other means than the scanner's.
pub(super) fn marked(mark: Mark) -> Vec<String> {
    let holds = |dir: &Path| {
        std::fs::read(dir.join("environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&mark.to_string()))
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| holds(dir))
        .map(|dir| dir.display().to_string())
        .collect()
}

/// What this thread has logged.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps what this thread logs, for as long as the guard lives.
pub(super) fn logged() -> (Log, DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}
