//! The tutorial's clients: a plain listener for programs that know neither TLS nor frames.
//!
//! One read, of at most [`COMMAND_LIMIT`] bytes, is a command: UTF-8, stripped of white space, run by
//! the server's shell with `/dev/null` as its stdin, where the server was started. Many follow each other on one connection; an empty
//! one is ignored. The reply is what the command wrote to stderr if it wrote anything there, else
//! what it wrote to stdout, in the form of the listener's [`Kind`]. What cannot be answered so (more than
//! [`REPLY_LIMIT`], no memory, no shell) is answered by one line that begins with `rexec-server:`.
//!
//! The reply is complete when the main process has ended and its pipes are empty, as everywhere in
//! this program: processes in the background do not hold it up, and go on.
//!
//! # Who may
//!
//! Nobody proves anything here, so the listener is for the server's own account alone. Over TCP the
//! client's socket has to be on this machine and, by `/proc/net/tcp`, of the server's uid; over a unix
//! socket its process has to be of this uid or root's. A web page can make a browser of this account
//! connect, so a read that is not text or looks like HTTP closes the connection, unexecuted. A
//! server that runs as root does not start with such a listener.
//!
//! # Who goes
//!
//! A client that has gone reads no reply: its command is stopped, with all that it started. One that
//! has only shut down its writing side, as `nc -N` does, gets its reply.

mod address;
mod client;
mod command;
mod reply;
mod screen;
mod sockets;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

pub use address::{ClassicAddr, ClassicAddrError, Kind, StartError, warning_lines};

use super::accepting::pause_after;
use crate::exec::{BaseEnv, Scanner};
use crate::runs::throttle::Throttle;
use crate::sys::fs;
use crate::transport::Listener;
use client::Client;

/// Most bytes of a command. A longer read is refused, because where it ends is not known. Over TCP a
/// command that does not fit one segment (about 32 KiB on a loopback interface) can come in two
/// reads, and is then two commands: nothing marks its end.
pub const COMMAND_LIMIT: usize = 65_536;
/// Most bytes of a reply. Beyond it the command is stopped and the reply says so.
pub const REPLY_LIMIT: usize = 256 << 20;
/// Most bytes of all replies together that are being collected or sent.
pub const MEMORY_LIMIT: usize = 512 << 20;
/// Most connections, all classic listeners together.
pub const CONNECTION_LIMIT: usize = 64;
/// How long a client may say nothing, or take nothing of its reply, before it is disconnected.
pub const IDLE_LIMIT: Duration = Duration::from_secs(600);

// A length is sent as a signed 32-bit number.
const _: () = assert!(REPLY_LIMIT <= i32::MAX as usize);

/// The limits above, as values: tests go one past smaller ones.
#[derive(Debug, Clone, Copy)]
struct Limits {
    reply: usize,
    memory: usize,
    connections: usize,
    idle: Duration,
}

impl Limits {
    const DEFAULT: Self = Self {
        reply: REPLY_LIMIT,
        memory: MEMORY_LIMIT,
        connections: CONNECTION_LIMIT,
        idle: IDLE_LIMIT,
    };
}

/// What the classic listeners of a server share; a clone shares it too.
#[derive(Debug, Clone)]
pub struct ClassicSettings(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    shell: PathBuf,
    base_env: BaseEnv,
    scanner: Scanner,
    /// Whose clients are served.
    uid: u32,
    limits: Limits,
    places: Arc<Semaphore>,
    /// One permit for each byte of a reply.
    memory: Arc<Semaphore>,
    strangers: Throttle,
    commands: AtomicU64,
}

impl ClassicSettings {
    /// Commands are run by `shell` (an absolute path) in the environment of this account; `scanner`
    /// finds their processes when they are to be stopped.
    #[must_use]
    pub fn new(shell: PathBuf, scanner: Scanner) -> Self {
        Self::with(shell, scanner, fs::euid(), Limits::DEFAULT)
    }

    fn with(shell: PathBuf, scanner: Scanner, uid: u32, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            shell,
            base_env: BaseEnv::of_this_process(),
            scanner,
            uid,
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            memory: Arc::new(Semaphore::new(limits.memory)),
            strangers: Throttle::default(),
            commands: AtomicU64::new(0),
        }))
    }
}

impl Shared {
    /// Logs something that a client can cause as often as it likes, at most once a second.
    fn warn(&self, line: impl FnOnce() -> String) {
        if let Some(line) = self.strangers.line(line) {
            warn!("{line}");
        }
    }

    /// What a command finds in `REXEC_RUN`.
    fn next_run(&self) -> String {
        format!("classic-{}", self.commands.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Serves a listener that [`ClassicAddr::check`] has allowed, until `shutdown` completes; then every
/// connection is closed, every command stopped, and it returns when they are gone: at most
/// seven seconds later, the time that [`crate::exec::stop()`] may take.
///
/// Dropped, it stops them too, in tasks of the runtime that nobody waits for; a runtime that is
/// itself being shut down kills their process groups at once.
pub async fn serve(
    listener: Listener,
    kind: Kind,
    settings: ClassicSettings,
    shutdown: impl Future<Output = ()>,
) {
    let shared = settings.0;
    // Every command holds a sender: when the last is dropped, all are gone.
    let (running, mut gone) = mpsc::channel(1);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (client, place) = tokio::select! {
            biased;
            () = &mut shutdown => break,
            admitted = admit(&listener, &shared) => admitted,
        };
        // Those that ended, so that there are never more than places.
        while connections.try_join_next().is_some() {}
        let session =
            Session { client, kind, shared: Arc::clone(&shared), running: running.clone() };
        connections.spawn(session.serve(place));
    }
    drop(listener);
    connections.shutdown().await;
    drop(running);
    gone.recv().await;
}

/// The next client that may be served. Strangers are turned away here, one at a time and before they
/// have a place, so that however many they are they only make others wait their turn.
async fn admit(listener: &Listener, shared: &Shared) -> (Client, OwnedSemaphorePermit) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                shared.warn(|| format!("cannot accept a classic connection: {e}"));
                pause_after(&e).await;
                continue;
            }
        };
        let client = match Client::admit(accepted, shared.uid).await {
            Ok(client) => client,
            Err(why) => {
                shared.warn(|| format!("closed a classic connection: {why}"));
                continue;
            }
        };
        match Arc::clone(&shared.places).try_acquire_owned() {
            Ok(place) => return (client, place),
            Err(_) => shared.warn(|| {
                let most = shared.limits.connections;
                format!("closed a classic connection: there are {most} already; close some first")
            }),
        }
    }
}

/// One connection.
struct Session {
    client: Client,
    kind: Kind,
    shared: Arc<Shared>,
    running: mpsc::Sender<()>,
}

impl Session {
    async fn serve(mut self, _place: OwnedSemaphorePermit) {
        // One more than a command may have shows that there was more.
        let mut buffer = vec![0; COMMAND_LIMIT + 1];
        loop {
            let len = match timeout(self.shared.limits.idle, self.client.read(&mut buffer)).await {
                Ok(Ok(0)) => return debug!("a classic client has left"),
                Ok(Ok(len)) => len,
                Ok(Err(e)) => return debug!("a classic client has left: {e}"),
                Err(_) => return debug!("closed a classic connection: it was idle too long"),
            };
            match screen::command(&buffer[..len]) {
                Ok("") => {}
                Ok(text) => {
                    if !self.answer(text).await {
                        return;
                    }
                }
                Err(why) => {
                    return self.shared.warn(|| format!("closed a classic connection: {why}"));
                }
            }
        }
    }

    /// Whether the client was there to take the reply.
    async fn answer(&mut self, text: &str) -> bool {
        let reply = tokio::select! {
            biased;
            reply = command::run(text, &self.shared, &self.running) => reply,
            () = self.client.gone() => {
                debug!("a classic client has left: its command is being stopped");
                return false;
            }
        };
        let sent = reply.send(self.kind, &mut self.client, self.shared.limits.idle).await;
        sent.inspect_err(|e| debug!("a classic client did not take its reply: {e}")).is_ok()
    }
}
