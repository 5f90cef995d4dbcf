//! Real sockets, real commands, and clients as the tutorial has them.

mod ends;
mod kinds;
mod strangers;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::transport::{Endpoint, Host, bind};

/// Longer than anything here takes; a test that reaches it has hung.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("hangs")
}

/// Waits for something that gives no event of its own.
async fn until(what: impl Fn() -> bool) {
    within(async {
        while !what() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A classic listener; dropped, it is aborted.
struct Server {
    address: Endpoint,
    task: JoinHandle<()>,
    shutdown: Option<oneshot::Sender<()>>,
}

impl Server {
    fn start(kind: Kind) -> Self {
        Self::with(kind, "127.0.0.1:0", fs::euid(), Limits::DEFAULT)
    }

    fn limited(kind: Kind, limits: Limits) -> Self {
        Self::with(kind, "127.0.0.1:0", fs::euid(), limits)
    }

    fn with(kind: Kind, address: &str, uid: u32, limits: Limits) -> Self {
        let bound = bind(&address.parse().unwrap()).unwrap().pop().unwrap();
        let listener = bound.register().unwrap();
        let address = listener.address().clone();
        let settings =
            ClassicSettings::with("/bin/sh".into(), Scanner::new().unwrap(), uid, limits);
        let (shutdown, told) = oneshot::channel::<()>();
        let told = async {
            let _ = told.await;
        };
        let task = tokio::spawn(serve(listener, kind, settings, told));
        Self { address, task, shutdown: Some(shutdown) }
    }

    fn socket_address(&self) -> SocketAddr {
        match &self.address {
            Endpoint::Tcp { host: Host::Ip(ip), port } => (*ip, *port).into(),
            other => panic!("{other}"),
        }
    }

    async fn connect(&self) -> Peer {
        Peer(TcpStream::connect(self.socket_address()).await.unwrap())
    }

    /// As at the end of the server, and waits for the end.
    async fn shut_down(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        within(&mut self.task).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client by hand.
struct Peer(TcpStream);

impl Peer {
    async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        within(self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// A reply of the kind `length`.
    async fn body(&mut self) -> Vec<u8> {
        let size = i32::from_le_bytes(self.take(4).await.try_into().unwrap());
        self.take(usize::try_from(size).unwrap()).await
    }

    async fn ask(&mut self, command: &str) -> String {
        self.say(command).await;
        String::from_utf8(self.body().await).unwrap()
    }

    /// The server closes without a byte: at once, or by reset because it did not read all.
    async fn is_closed(&mut self) {
        match within(self.0.read(&mut [0])).await {
            Ok(0) => {}
            Ok(_) => panic!("an answer"),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Runs the tutorial's client.
async fn python(kind: Kind, server: &Server, args: &[&str]) -> std::process::Output {
    let port = server.socket_address().port().to_string();
    let mut client = Command::new("python3");
    client.args(["-c", include_str!("tests/client.py"), &kind.to_string(), &port]);
    client.args(args).current_dir("/");
    let client = tokio::task::spawn_blocking(move || client.output());
    within(client).await.unwrap().expect("these tests need python3")
}

/// The pid that a command has written into a file.
async fn pid_in(file: &Path) -> String {
    let read = || std::fs::read_to_string(file).unwrap_or_default();
    until(|| read().ends_with('\n')).await;
    read().trim().to_owned()
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}
