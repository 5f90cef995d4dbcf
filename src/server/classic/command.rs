//! One command from start to reply, and the stop of one that nobody waits for.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Shared;
use super::reply::{Output, Overflow, Reply};
use crate::exec::{
    self, Child, Event, Mark, Program, Pump, Signal, SpawnError, Spec, Stopped, TERM_GRACE,
};

/// Most bytes of output taken at once.
const PIECE: usize = 65_536;

/// Why a reply is not the command's output.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    NotStarted(#[from] SpawnError),
    #[error("could not start: no random numbers: {0}")]
    NoMark(io::Error),
    #[error(transparent)]
    Overflow(#[from] Overflow),
    #[error("the command was stopped, because its output cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Runs a command to its end. Dropped before, it has the command stopped; `running` is dropped when
/// nothing of it is left.
pub(super) async fn run(text: &str, shared: &Arc<Shared>, running: &mpsc::Sender<()>) -> Reply {
    match collect(text, shared, running.clone()).await {
        Ok(reply) => reply,
        Err(failure) => Reply::line(&failure),
    }
}

async fn collect(
    text: &str,
    shared: &Arc<Shared>,
    running: mpsc::Sender<()>,
) -> Result<Reply, Failure> {
    let mark = Mark::new().map_err(Failure::NoMark)?;
    let program = Program::Shell { shell: shared.shell.clone(), text: text.into() };
    // The tutorial's server runs commands where it was started.
    let cwd = std::env::current_dir().ok();
    let spec = Spec {
        program,
        env: Vec::new(),
        cwd,
        merge: false,
        stdin: false,
        wait_eof: false,
        own_path: false,
        limits: exec::Limits::default(),
        cgroup: None,
        user: None,
    };
    let spawned = exec::spawn(&spec, &shared.base_env, &shared.next_run(), mark)?;
    let tree = Tree::new(spawned.child, Arc::clone(shared), running);
    let mut pump =
        Pump::new(spawned.stdout, spawned.stderr, spec.wait_eof).holding(spawned.writers);
    let mut output = Output::new(shared);
    match follow(&mut pump, &tree, &mut output).await {
        Ok(()) => {
            tree.ended().await;
            Ok(output.reply())
        }
        Err(failure) => {
            // What still writes learns at once that nobody reads, and the memory is free.
            drop((pump, output));
            tree.stop().await;
            Err(failure)
        }
    }
}

/// Takes the output until it is complete and the main process has ended.
async fn follow(pump: &mut Pump, tree: &Tree, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut piece = BytesMut::new();
    let (mut runs, mut reading) = (true, true);
    while runs || reading {
        tokio::select! {
            ended = tree.exited(), if runs => {
                ended?;
                runs = false;
                pump.main_ended()?;
            }
            event = pump.next(PIECE, &mut piece), if reading => match event? {
                Event::Piece { stream, .. } => {
                    output.add(stream, &piece)?;
                    piece.clear();
                }
                Event::End { .. } => {}
                Event::Done => reading = false,
            }
        }
    }
    Ok(())
}

/// What a [`Tree`] that is dropped before its end does.
#[derive(Debug, Clone, Copy)]
enum OnDrop {
    /// Has a task of its own stop it.
    Stop,
    /// Kills the process group: it is that task, and the runtime is being shut down.
    Kill,
}

/// A command's processes.
#[derive(Debug)]
struct Tree {
    /// `Some` until it has ended.
    child: Option<Child>,
    shared: Arc<Shared>,
    running: mpsc::Sender<()>,
    runtime: Handle,
    on_drop: OnDrop,
}

impl Tree {
    fn new(child: Child, shared: Arc<Shared>, running: mpsc::Sender<()>) -> Self {
        let runtime = Handle::current();
        Self { child: Some(child), shared, running, runtime, on_drop: OnDrop::Stop }
    }

    async fn exited(&self) -> io::Result<()> {
        match &self.child {
            Some(child) => child.exited().await.map(drop),
            None => Ok(()),
        }
    }

    /// The command has ended by itself: what it left behind goes on, and is told of.
    async fn ended(mut self) {
        if let Some(child) = &self.child {
            self.tell("left behind", exec::count_left(child, &self.shared.scanner).await);
        }
        self.reap();
    }

    async fn stop(mut self) {
        if let Some(child) = &self.child {
            let stopped = exec::stop(child, &self.shared.scanner, TERM_GRACE).await;
            self.tell("could not be stopped", stopped);
        }
        self.reap();
    }

    fn tell(&self, what: &str, result: io::Result<Stopped>) {
        match result {
            Ok(Stopped { left_running: 0, .. }) => {}
            Ok(Stopped { left_running, .. }) => self
                .shared
                .warn(|| format!("processes of a classic command that {what}: {left_running}")),
            Err(e) => self
                .shared
                .warn(|| format!("cannot look for the processes of a classic command: {e}")),
        }
    }

    fn reap(&mut self) {
        // Only a process that nothing could end is not reaped here; it is when it ends.
        let _ = self.child.take().map(Child::reap);
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let Some(child) = self.child.take() else { return };
        match self.on_drop {
            OnDrop::Stop => {
                let stopping = Self {
                    child: Some(child),
                    shared: Arc::clone(&self.shared),
                    running: self.running.clone(),
                    runtime: self.runtime.clone(),
                    on_drop: OnDrop::Kill,
                };
                self.runtime.spawn(stopping.stop());
            }
            OnDrop::Kill => {
                // EPERM: none of the group may be signalled any more, and nothing else can be done.
                let _ = child.signal_group(Signal::KILL);
            }
        }
    }
}
