//! A server in its runtime: serving, draining, and going on after an upgrade that failed.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::accepting::accept;
use super::classic::{self, ClassicSettings};
use super::shared::Shared;
use super::status;
use crate::proto::verdict::StopBy;
use crate::runs::host::Host;
use crate::sys::fs::Lock;
use crate::transport::Bound;

/// How long clients get to confirm their verdicts, and strangers to log in, before the server goes.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long what is being started gets to have begun before an upgrade: longer than the start of another user's run,
/// which is given up after 10 s.
const HELD_WITHIN: Duration = Duration::from_secs(11);
/// How long runs that were stopped, and those that were killed, get to end before a look at what is left.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// What ends by no signal.
const STUCK: &str =
    "a run whose folder or program is on a file system that does not answer is still being started";
/// The name under which the lock of the instance is handed over.
pub(super) const LOCK_NAME: &str = "rexec-lock";

/// What an operator asks of a server that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Nothing new, the drain time-out for what is under way, then the end. Another one: at once.
    Stop,
    /// The same, but what is new waits instead of being refused, for the program that takes over.
    Upgrade,
}

/// Why a server has stopped serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every run has ended.
    Stopped,
    /// So it has for an upgrade: nobody is being served, and what comes waits in the sockets.
    Drained,
}

/// A server in its runtime.
pub struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) classic_settings: ClassicSettings,
    pub(super) classic: Vec<(classic::Kind, Bound)>,
    pub(super) bound: Vec<Bound>,
    pub(super) status: Option<UnixListener>,
    /// Held as long as the server lives.
    pub(super) lock: Lock,
}

/// What takes connections.
struct Taking {
    listeners: Vec<JoinHandle<()>>,
    classics: JoinSet<()>,
    stop_classics: watch::Sender<bool>,
}

impl Running {
    /// Serves until it is called to something else, and returns when every run has ended. After
    /// [`Ended::Drained`] it can be called again, to go on.
    ///
    /// # Errors
    /// The system refuses to watch a socket.
    pub async fn serve(&self, calls: &mut Receiver<Call>) -> io::Result<Ended> {
        let taking = self.take()?;
        let host = Arc::clone(&self.shared.host);
        // Ends when this returns.
        let mut sweeping = JoinSet::new();
        sweeping.spawn(async move { host.sweep().await });
        let call = self.called(calls).await;
        // Clients whose link breaks while the server drains still find their runs.
        let held = match call {
            Some(Call::Upgrade) => self.drain_to_upgrade(calls).await,
            Some(Call::Stop) | None => None,
        };
        if held.is_none() {
            // The tutorial's clients do not come back: they are told to go first, and nobody is left waiting.
            taking.stop_classics.send_replace(true);
            self.classic.iter().for_each(|(_, bound)| bound.refuse());
            self.drain_to_stop(calls).await;
        }
        taking.end().await;
        match held {
            Some(()) => drop(timeout(FAREWELL, self.shared.lobby.emptied()).await),
            None => self.part(calls).await,
        }
        match timeout(FAREWELL, self.shared.host.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => error!("the journal's last lines cannot be synced: {e}"),
            Err(_) => error!("the journal's last lines are not on the disk: it does not answer"),
        }
        Ok(if held.is_none() { Ended::Stopped } else { Ended::Drained })
    }

    /// Whoever is let in by now is answered, and whoever waits for another server is sent there, where nobody is taken
    /// any more by this one. Shown to the door before the request was sent a client would not come back; after it,
    /// it would look for the server in vain.
    async fn part(&self, calls: &mut Receiver<Call>) {
        let Shared { lobby, holds, .. } = &*self.shared;
        holds.leave();
        let answered = async {
            lobby.emptied().await;
            holds.emptied().await;
        };
        tokio::select! {
            _ = timeout(FAREWELL, answered) => {}
            () = stop_call(calls) => {}
        }
    }

    /// Waits until it is called to something that it can do. For an upgrade nothing new is started from then on.
    async fn called(&self, calls: &mut Receiver<Call>) -> Option<Call> {
        let host = &self.shared.host;
        loop {
            let call = calls.recv().await;
            if call != Some(Call::Upgrade) {
                return call;
            }
            tokio::select! {
                held = timeout(HELD_WITHIN, host.hold()) => match held {
                    Ok(()) => return call,
                    Err(_) => warn!("no upgrade: {STUCK}"),
                },
                () = stop_call(calls) => return Some(Call::Stop),
            }
        }
    }

    fn take(&self) -> io::Result<Taking> {
        let mut listeners = Vec::new();
        for bound in &self.bound {
            listeners.push(tokio::spawn(accept(bound.register()?, Arc::clone(&self.shared))));
        }
        if let Some(status) = &self.status {
            let listener = tokio::net::UnixListener::from_std(status.try_clone()?)?;
            listeners.push(tokio::spawn(status::tell(listener, Arc::clone(&self.shared))));
        }
        let (stop_classics, _) = watch::channel(false);
        let mut classics = JoinSet::new();
        for (kind, bound) in &self.classic {
            let listener = bound.register()?;
            for line in classic::warning_lines(*kind, listener.address()) {
                warn!("{line}");
            }
            let mut stopped = stop_classics.subscribe();
            // A sender that is gone means that the server is.
            let stopped = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
            let settings = self.classic_settings.clone();
            classics.spawn(classic::serve(listener, *kind, settings, stopped));
        }
        Ok(Taking { listeners, classics, stop_classics })
    }

    async fn drain_to_stop(&self, calls: &mut Receiver<Call>) {
        let host = &self.shared.host;
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let drain_timeout = self.shared.config.drain_timeout;
        let new = match self.bound.iter().any(Bound::is_managed) {
            true => "new runs wait for the next server",
            false => "no new runs",
        };
        info!("shutting down: {new}, {} s for those under way", drain_timeout.as_secs());
        host.close_to_new();
        let at_once = tokio::select! {
            () = host.all_ended() => false,
            () = sleep(drain_timeout) => false,
            () = stop_call(calls) => true,
        };
        host.stop_all(StopBy::Shutdown, at_once);
        let within = if at_once { KILLED_WITHIN } else { STOPPED_WITHIN };
        tokio::select! {
            () = ended(host, within) => {}
            () = stop_call(calls) => {
                host.stop_all(StopBy::Shutdown, true);
                ended(host, KILLED_WITHIN).await;
            }
        }
        confirmed(host, calls).await;
    }

    /// Lets what is under way end while everything new waits. None if it was called to stop instead.
    async fn drain_to_upgrade(&self, calls: &mut Receiver<Call>) -> Option<()> {
        let host = &self.shared.host;
        let drain_timeout = self.shared.config.drain_timeout;
        info!("upgrading: new runs wait, {} s for those under way", drain_timeout.as_secs());
        let drained = async {
            if timeout(drain_timeout, host.all_ended()).await.is_err() {
                host.stop_all(StopBy::Shutdown, false);
                host.all_ended().await;
            }
        };
        tokio::select! {
            () = drained => {}
            () = stop_call(calls) => return None,
        }
        tokio::select! {
            _ = timeout(FAREWELL, host.all_confirmed(FAREWELL)) => Some(()),
            () = stop_call(calls) => None,
        }
    }

    /// Calls `replace`, which is to replace this process, with the sockets to hand over: while no line is
    /// being written to the journal. Goes on letting runs in when it returns, and gives its answer.
    pub fn hand_over<T>(&self, replace: impl FnOnce(&[(BorrowedFd<'_>, String)]) -> T) -> T {
        use std::os::fd::AsFd as _;
        let lock = (self.lock.file().as_fd(), LOCK_NAME.to_owned());
        let bound = self.bound.iter().chain(self.classic.iter().map(|(_, bound)| bound));
        let handed: Vec<_> = [lock].into_iter().chain(bound.map(Bound::handed)).collect();
        let answer = self.shared.host.while_nothing_is_written(|| replace(&handed));
        self.shared.host.admit();
        answer
    }
}

impl Taking {
    /// Nobody is taken any more; the tutorial's clients are sent away.
    async fn end(mut self) {
        for task in self.listeners.drain(..) {
            task.abort();
            // It ends by the abort only; its listener is closed then.
            let _ = task.await;
        }
        self.stop_classics.send_replace(true);
        self.classics.join_all().await;
    }
}

/// Waits for the next call to stop. An upgrade is under way, or comes too late.
async fn stop_call(calls: &mut Receiver<Call>) {
    while calls.recv().await == Some(Call::Upgrade) {}
}

/// Waits for the end of what was stopped.
async fn ended(host: &Host, within: Duration) {
    while timeout(within, host.all_ended()).await.is_err() {
        if host.is_only_starting() {
            return warn!("nobody is waited for any more: {STUCK}");
        }
    }
}

async fn confirmed(host: &Host, calls: &mut Receiver<Call>) {
    let confirmed = tokio::select! {
        biased;
        confirmed = timeout(FAREWELL, host.all_confirmed(FAREWELL)) => confirmed.is_ok(),
        () = stop_call(calls) => false,
    };
    if !confirmed {
        warn!("some verdicts were not confirmed by their clients; the journal has them");
    }
}
