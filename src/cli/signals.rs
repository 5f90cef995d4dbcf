//! The signals that a client passes on: Ctrl-C, termination, Ctrl-Z.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;

use super::status::Asked;
use crate::client::Control;
use crate::sys::signals::{Signals as Held, hold, is_ignored};

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

/// What is heard.
const HEARD: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::TSTP];

/// The signals of this process; one that whoever started it had ignored (`nohup`, a script's `&`)
/// stays ignored.
pub(super) struct Signals(Held);

impl Signals {
    /// Listens from now on. To be called while there is one thread ([`hold`]).
    pub(super) fn listen() -> io::Result<Self> {
        let heard: Vec<_> = HEARD.into_iter().filter(|one| !is_ignored(one.as_raw())).collect();
        hold(&heard)?;
        Ok(Self(Held::new(&heard)?))
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
            let order = match self.next().await {
                Signal::INT => {
                    interrupts += 1;
                    asked.set(Asked::Interrupt);
                    match interrupts {
                        1 => Control::Signal("INT".into()),
                        2 => Control::Cancel,
                        _ => return,
                    }
                }
                Signal::TSTP => {
                    pause(control).await;
                    continue;
                }
                Signal::HUP if durable => {
                    asked.set(Asked::Terminate);
                    Control::Detach
                }
                _ => {
                    asked.set(Asked::Terminate);
                    Control::Cancel
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
            match self.next().await {
                Signal::INT => return true,
                Signal::TSTP => suspend(),
                _ => return false,
            }
        }
    }

    /// One that cannot be read any more is none that came.
    async fn next(&mut self) -> Signal {
        match self.0.next().await {
            Ok(signal) => signal,
            Err(_) => std::future::pending().await,
        }
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
pub(super) fn suspend() {
    // Whoever cannot stop itself goes on, which harms nobody.
    let _ = kill_process(getpid(), Signal::STOP);
}
