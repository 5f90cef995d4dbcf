//! The signals that a client passes on: Ctrl-C, termination, Ctrl-Z.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;

use super::status::Asked;
use crate::client::Control;
use crate::sys::signals::is_ignored;

/// Ctrl-Z waits so long for the server to be told: a link that takes nothing is not to keep the terminal.
const PAUSE_WAIT: Duration = Duration::from_secs(1);

/// What was asked so far, for the exit status.
#[derive(Default)]
pub(super) struct AskedSoFar(Cell<Asked>);

impl AskedSoFar {
    pub(super) fn get(&self) -> Asked {
        self.0.get()
    }

    fn set(&self, asked: Asked) {
        self.0.set(asked);
    }
}

/// The signals of this process; one that whoever started it had ignored (`nohup`, a script's `&`)
/// stays ignored.
pub(super) struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
    suspend: Option<Signal>,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        let listen = |kind: SignalKind| {
            if is_ignored(kind.as_raw_value()) { Ok(None) } else { signal(kind).map(Some) }
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            suspend: listen(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
        })
    }

    /// Passes on what comes: the first Ctrl-C as SIGINT to the command, the next as a cancel.
    /// Returns when a third one says that even the answer is not wanted.
    /// A `durable` run is left alone when the terminal goes.
    pub(super) async fn pass_on(
        &mut self,
        control: &UnboundedSender<Control>,
        asked: &AskedSoFar,
        durable: bool,
    ) {
        let mut interrupts = 0;
        loop {
            let order = tokio::select! {
                () = next(&mut self.interrupt) => {
                    interrupts += 1;
                    asked.set(Asked::Interrupt);
                    match interrupts {
                        1 => Control::Signal("INT".into()),
                        2 => Control::Cancel,
                        _ => return,
                    }
                }
                () = next(&mut self.terminate) => {
                    asked.set(Asked::Terminate);
                    Control::Cancel
                }
                () = next(&mut self.hangup) => {
                    asked.set(Asked::Terminate);
                    if durable { Control::Detach } else { Control::Cancel }
                }
                () = next(&mut self.suspend) => {
                    pause(control).await;
                    continue;
                }
            };
            // A run that is over asks for nothing.
            let _ = control.send(order);
        }
    }

    /// Waits, between commands, for Ctrl-C (true) or for what ends this program (false). Ctrl-Z
    /// suspends it.
    pub(super) async fn at_prompt(&mut self) -> bool {
        loop {
            tokio::select! {
                () = next(&mut self.interrupt) => return true,
                () = next(&mut self.terminate) => return false,
                () = next(&mut self.hangup) => return false,
                () = next(&mut self.suspend) => suspend(),
            }
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        // None would mean that the runtime is gone.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Stops this process once the server was told: it would take one that is silent for dead.
async fn pause(control: &UnboundedSender<Control>) {
    let (told, mut waiting) = mpsc::channel(1);
    // A run that is over lets go of it at once.
    let _ = control.send(Control::Pause { told });
    let _ = timeout(PAUSE_WAIT, waiting.recv()).await;
    suspend();
}

/// Stops this process as the terminal asked; it goes on with SIGCONT.
fn suspend() {
    // Whoever cannot stop itself goes on, which harms nobody.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
}
