//! What a server tells of itself, and the socket in its instance's folder by which it tells.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::time::timeout;
use tracing::warn;

pub use super::counters::RefusedCounts;
use super::shared::Shared;
use crate::sys::fs::is_own_or_root;
use crate::sys::process::resident;

/// The socket's name in the folder of the instance.
const SOCKET: &str = "status.sock";
/// So long one who asks may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// What a server tells of itself, since it was started or has upgraded itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name and version.
    pub server: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Connections that were taken, classic ones aside.
    pub connections: u64,
    /// Logins, in all.
    pub logins: u64,
    /// Connections that are logged in now.
    pub logged_in: u64,
    /// Logins that did not come about, by the reason.
    pub refused: RefusedCounts,
    /// Addresses and networks that are not spoken to at this moment.
    pub penalties: u64,
    /// Runs.
    pub runs: RunCounts,
    /// Bytes of memory: what is resident, and what of the budget is in use.
    pub memory: MemoryUse,
}

/// Runs since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunCounts {
    /// Under way.
    pub running: u64,
    /// Started.
    pub started: u64,
    /// Not started: refused by a limit or the policy, or the command could not be started.
    pub refused: u64,
    /// Bytes of output of runs that are over, durable ones aside.
    pub output_bytes: u64,
}

/// Bytes of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// Of the process.
    pub resident: u64,
    /// Of `--memory-budget`: output and input that wait for somebody.
    pub budget: u64,
}

pub(super) fn status(shared: &Shared) -> Status {
    let (counters, runs) = (&shared.counters, shared.host.counts());
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Status {
        server: crate::handshake::AGENT.into(),
        pid: std::process::id(),
        uptime_s: counters.since.elapsed().as_secs(),
        connections: get(&counters.connections),
        logins: get(&counters.logins),
        logged_in: get(&counters.open),
        refused: counters.refused_so_far(),
        penalties: shared.penalties.count() as u64,
        runs: RunCounts {
            running: shared.host.running() as u64,
            started: get(&runs.started),
            refused: get(&runs.refused),
            output_bytes: get(&runs.output),
        },
        memory: MemoryUse { resident: resident().unwrap_or(0), budget: shared.host.budget_used() },
    }
}

/// Binds the socket in the folder of an instance, whose lock the caller holds: one that is there already is
/// of a server that is no more.
pub(super) fn bind(instance: &Path) -> io::Result<StdListener> {
    with_socket(instance, |path| {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = StdListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    })
}

/// Tells whoever asks, of this account or root, for as long as it is polled.
pub(super) async fn tell(listener: UnixListener, shared: Arc<Shared>) {
    loop {
        let mut stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!("cannot tell the status: {e}");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        if !stream.peer_cred().is_ok_and(|peer| is_own_or_root(peer.uid())) {
            continue;
        }
        // A struct of numbers and one text.
        let Ok(text) = serde_json::to_vec(&status(&shared)) else { continue };
        // Whoever does not read is no loss. The socket's buffer takes all of it.
        let _ = timeout(PATIENCE, stream.write_all(&text)).await;
    }
}

/// Asks the server of the instance in this folder.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` if there is none; `InvalidData` if it is of another version.
pub fn ask(instance: &Path) -> io::Result<Status> {
    let stream = with_socket(instance, |path| StdStream::connect(path))?;
    stream.set_read_timeout(Some(5 * PATIENCE))?;
    let mut text = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Whether a server takes connections in the folder of this instance, as far as this account may know.
pub(super) fn is_served(instance: &Path) -> bool {
    match with_socket(instance, |path| StdStream::connect(path)) {
        Ok(_) => true,
        Err(e) => !is_nobody(&e),
    }
}

/// Whether asking has shown that nobody is there to answer.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// By way of the folder's descriptor: a path may be longer than a socket's address.
fn with_socket<T>(instance: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    use std::os::fd::AsRawFd as _;
    let folder = fs::File::open(instance)?;
    with(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(SOCKET))
}
