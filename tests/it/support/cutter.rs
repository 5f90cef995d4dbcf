//! A session of the library's client over a link that dies after so many bytes, within the test's own
//! process: thousands of them fit into seconds.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rexec::client::{Error, Output, RunIo, Target};
use rexec::proto::header::Stream;
use rexec::proto::verdict::Verdict;
use rexec::transport::HostTrust;
use rexec::{Client, Command};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::PATIENCE;
use super::relay::Way;

/// A relay between unix sockets. Connection after connection dies by the next of its cuts; when they
/// are used up, the rest live.
pub(crate) struct Cutter {
    path: PathBuf,
    /// Bytes that were carried up and down.
    pub(crate) carried: Arc<[AtomicU64; 2]>,
    pub(crate) connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Cutter {
    /// Listens on `path` and relays to the unix socket `server`.
    pub(crate) fn new(path: PathBuf, server: &Path, cuts: Vec<(Way, u64)>) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let carried = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, made, server) =
            (Arc::clone(&carried), Arc::clone(&connections), server.to_owned());
        let task = tokio::spawn(async move {
            let mut cuts = cuts.into_iter();
            while let Ok((client, _)) = listener.accept().await {
                made.fetch_add(1, Ordering::Relaxed);
                let Ok(server) = UnixStream::connect(&server).await else { continue };
                tokio::spawn(carry(client, server, cuts.next(), Arc::clone(&counted)));
            }
        });
        Self { path, carried, connections, task }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            endpoint: format!("unix:{}", self.path.display()).parse().unwrap(),
            trust: Arc::new(HostTrust::default()),
            keys: rexec::identity::KeyRing::of([]),
            connect_timeout: PATIENCE,
        }
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn carry(
    client: UnixStream,
    server: UnixStream,
    cut: Option<(Way, u64)>,
    counted: Arc<[AtomicU64; 2]>,
) {
    let limit = |way| cut.filter(|(at, _)| *at == way).map_or(u64::MAX, |(_, bytes)| bytes);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // Whichever way ends first takes the other down: both halves are dropped.
    tokio::select! {
        () = one_way(from_client, to_server, limit(Way::Up), &counted[0]) => {}
        () = one_way(from_server, to_client, limit(Way::Down), &counted[1]) => {}
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut left: u64,
    counted: &AtomicU64,
) {
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Ok(count @ 1..) = from.read(&mut buffer[..most]).await else { return };
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        counted.fetch_add(count as u64, Ordering::Relaxed);
        left -= count as u64;
    }
}

/// What came, by stream.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<[Vec<u8>; 2]>>);

impl Kept {
    pub(crate) fn take(&self) -> [Vec<u8>; 2] {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Output for Kept {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
        self.0.lock().unwrap()[usize::from(stream == Stream::Stderr)].extend_from_slice(bytes);
        Ok(())
    }

    fn is_ready(&self, _: Stream) -> bool {
        true
    }
}

/// Runs `command` with this stdin to its end: what the client says, stdout and stderr.
pub(crate) async fn session(
    target: Target,
    command: &Command,
    stdin: &'static [u8],
) -> (Result<Verdict, Error>, [Vec<u8>; 2]) {
    let kept = Kept::default();
    let (_ask, control) = mpsc::unbounded_channel();
    let io = RunIo { stdin: Some(Box::new(stdin)), output: Box::new(kept.clone()), control };
    let mut client = Client::new(target).reconnect_timeout(PATIENCE);
    let end = tokio::time::timeout(PATIENCE, client.run(command, io)).await;
    (end.expect("the session hangs"), kept.take())
}
