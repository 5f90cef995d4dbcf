//! What a server counts, and the socket in its instance's folder by which it tells.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::time::timeout;
use tracing::warn;

use super::Shared;
use crate::sys::fs::is_own_or_root;
use crate::sys::process::resident;

/// The socket's name in the folder of the instance.
const SOCKET: &str = "status.sock";
/// So long one who asks may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Why a stranger was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The key, the account or the proof.
    NotAuthorized,
    /// Another refusal.
    Refused,
    /// TLS did not come about, or the peer left before it had logged in.
    Broken,
    /// What it said was none of this protocol.
    Protocol,
    /// It took too long.
    Late,
    /// It was shown out for a newcomer.
    ShownOut,
    /// It was not spoken to, for what had come from there before.
    Penalty,
}

/// What has happened since the start.
#[derive(Debug)]
pub(super) struct Counters {
    since: Instant,
    connections: AtomicU64,
    logins: AtomicU64,
    open: AtomicU64,
    refused: [AtomicU64; 7],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            connections: AtomicU64::new(0),
            logins: AtomicU64::new(0),
            open: AtomicU64::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

/// Counts a login as long as it is kept.
pub(super) struct Open<'a>(&'a Counters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, why: Why) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn logged_in(&self) -> Open<'_> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self)
    }
}

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

/// Logins that did not come about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedCounts {
    /// The key, the account or the proof.
    pub not_authorized: u64,
    /// Another refusal.
    pub refused: u64,
    /// TLS did not come about, or the peer left.
    pub broken: u64,
    /// Not this protocol.
    pub protocol: u64,
    /// Too late.
    pub late: u64,
    /// Shown out for a newcomer.
    pub shown_out: u64,
    /// Not spoken to, for what had come from there before.
    pub penalty: u64,
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
    let refused = |why: Why| get(&counters.refused[why as usize]);
    Status {
        server: crate::handshake::AGENT.into(),
        pid: std::process::id(),
        uptime_s: counters.since.elapsed().as_secs(),
        connections: get(&counters.connections),
        logins: get(&counters.logins),
        logged_in: get(&counters.open),
        refused: RefusedCounts {
            not_authorized: refused(Why::NotAuthorized),
            refused: refused(Why::Refused),
            broken: refused(Why::Broken),
            protocol: refused(Why::Protocol),
            late: refused(Why::Late),
            shown_out: refused(Why::ShownOut),
            penalty: refused(Why::Penalty),
        },
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
