//! What signals ask of the server.

use std::io;

use rustix::process::Signal;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::upgrade::{Upgrade, tell_reloaded, tell_reloading};
use crate::server::Call;
use crate::sys::signals::{Signals, Terminals};

/// The signals that the server hears.
pub(super) const HEARD: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// What SIGHUP means to this server.
#[derive(Debug, Clone, Copy)]
pub(super) enum Hangup {
    /// Nothing: it was started to outlive its terminal, as by nohup(1).
    Ignored,
    /// An upgrade; or the end, if one of these terminals has been closed.
    Heard(Terminals),
}

/// Turns signals into calls from now on. They are held.
pub(super) fn listen(upgrade: Upgrade, hangup: Hangup) -> io::Result<mpsc::Receiver<Call>> {
    let signals = Signals::new(&HEARD)?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        // Its failure would be one of the kernel; the server is then ended by SIGKILL only.
        if let Err(e) = hear(&signals, &upgrade, hangup, &sender).await {
            warn!("cannot hear signals any more: {e}");
        }
    });
    Ok(receiver)
}

async fn hear(
    signals: &Signals,
    upgrade: &Upgrade,
    hangup: Hangup,
    calls: &mpsc::Sender<Call>,
) -> io::Result<()> {
    loop {
        let call = match (signals.next().await?, hangup) {
            (Signal::HUP, Hangup::Ignored) => {
                info!("SIGHUP is ignored, as whoever started this server wanted it");
                continue;
            }
            (Signal::HUP, Hangup::Heard(terminals)) if terminals.were_closed() => {
                info!("the terminal of this server was closed");
                Call::Stop
            }
            (Signal::HUP, Hangup::Heard(_)) => Call::Upgrade,
            _ => Call::Stop,
        };
        // More than two say nothing new.
        if call == Call::Stop {
            let _ = calls.try_send(call);
            continue;
        }
        tell_reloading();
        tokio::select! {
            checked = upgrade.check() => match checked {
                Ok(()) => drop(calls.try_send(Call::Upgrade)),
                Err(why) => {
                    warn!("no upgrade, going on: {why}");
                    tell_reloaded();
                }
            },
            stopped = next_stop(signals) => {
                stopped?;
                let _ = calls.try_send(Call::Stop);
            }
        }
    }
}

/// The next signal that ends the server, while it is being upgraded already.
async fn next_stop(signals: &Signals) -> io::Result<()> {
    while signals.next().await? == Signal::HUP {}
    Ok(())
}
