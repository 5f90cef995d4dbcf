//! What signals ask of the server.

use std::io;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::upgrade::{Upgrade, tell_reloaded, tell_reloading};
use crate::server::Call;
use crate::sys::signals::{Signals, Terminals};

/// The signals that the server hears. The last two have a meaning to other servers, a new file for the log: whoever
/// sends them does not want the end of what runs.
pub(super) const HEARD: [Signal; 6] =
    [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP, Signal::USR1, Signal::USR2];

/// What SIGHUP means to this server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hangup {
    /// Nothing: it was started to outlive its terminal, as by nohup(1).
    Ignored,
    /// An upgrade; or the end, if one of these terminals has been closed.
    Heard(Terminals),
}

/// Signals that are heard, and what they ask for.
pub(super) struct Hearing {
    pub(super) calls: mpsc::Receiver<Call>,
    task: JoinHandle<()>,
}

/// Turns signals into calls from now on, after one that was not obeyed yet. They are held.
pub(super) fn listen(upgrade: Upgrade, hangup: Hangup, first: Option<Call>) -> io::Result<Hearing> {
    let signals = Signals::new(&HEARD)?;
    let (sender, calls) = mpsc::channel(2);
    if let Some(call) = first {
        // There is room for it.
        let _ = sender.try_send(call);
    }
    let task = tokio::spawn(async move {
        // Its failure would be one of the kernel; the server is then ended by SIGKILL only.
        if let Err(e) = hear(&signals, &upgrade, hangup, &sender).await {
            warn!("cannot hear signals any more: {e}");
        }
    });
    Ok(Hearing { calls, task })
}

impl Hearing {
    /// Hears no more: what comes from now on waits with the kernel, for the program that this process becomes. What
    /// was heard would be lost with this one: the call to stop, if it is among that.
    pub(super) async fn end(mut self) -> Option<Call> {
        self.task.abort();
        // It ends by the abort only.
        let _ = self.task.await;
        let mut left = std::iter::from_fn(|| self.calls.try_recv().ok());
        left.find(|call| *call == Call::Stop)
    }
}

async fn hear(
    signals: &Signals,
    upgrade: &Upgrade,
    hangup: Hangup,
    calls: &mpsc::Sender<Call>,
) -> io::Result<()> {
    loop {
        let signal = signals.next().await?;
        match asked_by(signal, hangup) {
            None => continue,
            Some(Call::Stop) => {
                stop(calls, signal);
                continue;
            }
            Some(Call::Upgrade) => tell_reloading(),
        }
        tokio::select! {
            checked = upgrade.check() => match checked {
                Ok(()) => drop(calls.try_send(Call::Upgrade)),
                Err(why) => {
                    warn!("no upgrade, going on: {why}");
                    tell_reloaded();
                }
            },
            signal = next_stop(signals, hangup) => stop(calls, signal?),
        }
    }
}

/// What a signal asks for, if anything.
fn asked_by(signal: Signal, hangup: Hangup) -> Option<Call> {
    match (signal, hangup) {
        (Signal::HUP, Hangup::Ignored) => {
            info!("SIGHUP is ignored, as whoever started this server wanted it");
            None
        }
        (Signal::HUP, Hangup::Heard(terminals)) if terminals.were_closed() => {
            info!("the terminal of this server was closed");
            Some(Call::Stop)
        }
        (Signal::HUP, Hangup::Heard(_)) => Some(Call::Upgrade),
        (Signal::USR1 | Signal::USR2, _) => {
            info!("SIGUSR1 and SIGUSR2 mean nothing to this server");
            None
        }
        _ => Some(Call::Stop),
    }
}

/// SIGQUIT leaves no time: it is as one SIGTERM after another.
fn stop(calls: &mpsc::Sender<Call>, signal: Signal) {
    let times = if signal == Signal::QUIT { 2 } else { 1 };
    for _ in 0..times {
        // More than two say nothing new.
        let _ = calls.try_send(Call::Stop);
    }
}

/// The next signal that ends the server, while it is being upgraded already.
async fn next_stop(signals: &Signals, hangup: Hangup) -> io::Result<Signal> {
    loop {
        let signal = signals.next().await?;
        if asked_by(signal, hangup) == Some(Call::Stop) {
            return Ok(signal);
        }
    }
}
