//! The client: one connection at a time, one call for each run, reconnecting and resuming by itself.
//!
//! [`Client::run`] hands a [`Command`] to a `driver`, which takes the run over as many connections as it needs: on
//! each of them it is a `leg`, and what outlives them is its `state`. A [`batch`] is many clients.

pub mod batch;
mod command;
mod connection;
mod control;
mod destination;
mod driver;
mod error;
mod leg;
mod manage;
mod outage;
mod sink;
mod state;
mod stdin;

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

pub use command::Command;
pub use connection::{LONGEST_CONNECT, Target};
pub use control::{CANCEL_WAIT, Control, Input, RunIo};
pub use destination::{Destination, DestinationError};
pub use error::{Error, OutputError, UsageError};
pub use manage::Runs;
pub use sink::{INLINE_LIMIT, Output};

use crate::conn::HEARTBEAT;
use crate::identity::{KeyError, KeyRing, host_public_key, local_identity};
use crate::proto::header::{ClientHeader, Stream, Welcome};
use crate::proto::verdict::Verdict;
use crate::sys::fs::{FsError, StateDir, open_state_dir};
use crate::sys::mutex::lock;
use crate::transport::{Endpoint, EndpointError, HostTrust};
use connection::Connection;
use driver::{Driver, Wanted};
use state::Leave;

/// How long reaching a server may take, unless the caller says otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a lost server is looked for, unless the caller says otherwise: less than the grace for
/// which it keeps the run.
pub const RECONNECT_TIMEOUT: Duration = Duration::from_secs(90);

/// Why a client cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The address makes no sense.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The state folder cannot be used.
    #[error(transparent)]
    State(#[from] FsError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// A client of one server.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use rexec::{Client, Command};
/// let mut client = Client::local("127.0.0.1:8080")?;
/// let output = client.output(&Command::shell("ls -l")).await?;
/// assert!(output.verdict.succeeded());
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// # Ok(())
/// # }
/// ```
pub struct Client {
    target: Target,
    reconnect_timeout: Duration,
    connection: Option<Connection>,
    last_run: Option<String>,
}

/// The whole output of a run.
#[derive(Debug, Clone)]
pub struct Collected {
    /// How it ended.
    pub verdict: Verdict,
    /// What it wrote to its standard output, or with [`Command::merge`] to both.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Client {
    /// A client of the server at `target`. Nothing is sent before the first run.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, reconnect_timeout: RECONNECT_TIMEOUT, connection: None, last_run: None }
    }

    /// A client with no configuration: a server of this account on this machine.
    ///
    /// # Errors
    /// The address, the state folder or a key in it cannot be used.
    pub fn local(address: &str) -> Result<Self, SetupError> {
        let endpoint: Endpoint = address.parse()?;
        Ok(Self::new(Target::local(endpoint, &open_state_dir()?)?))
    }

    /// How long a lost server is looked for.
    #[must_use]
    pub fn reconnect_timeout(mut self, timeout: Duration) -> Self {
        self.reconnect_timeout = timeout;
        self
    }

    /// Reaches the server and logs in, so that what stands in the way is known before there is a command.
    /// [`Client::run`] does it by itself.
    ///
    /// # Errors
    /// [`Error::Unreached`] or [`Error::Refused`].
    pub async fn connect(&mut self) -> Result<(), Error> {
        let mut connection = self.reach().await?;
        connection.log_in(&self.target).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Runs a command to its end, over as many connections as that takes.
    ///
    /// Dropping the future leaves the run: it waits for its client as long as [`Command::grace`] says and is stopped then,
    /// unless [`Client::stop`] stops it, by [`Client::last_run`]. [`Control::Cancel`] stops it, and what is returned then
    /// is its verdict.
    ///
    /// ```no_run
    /// # async fn example(mut client: rexec::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use rexec::Command;
    /// use rexec::client::{Control, Output, RunIo};
    /// use rexec::proto::header::Stream;
    ///
    /// struct Shown;
    /// impl Output for Shown {
    ///     fn write(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()> {
    ///         println!("{stream:?}: {}", String::from_utf8_lossy(bytes));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let (ask, control) = tokio::sync::mpsc::unbounded_channel();
    /// let stdin = Box::new(&b"to the command"[..]);
    /// let io = RunIo { stdin: Some(stdin), output: Box::new(Shown), control };
    /// tokio::spawn(async move {
    ///     tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    ///     ask.send(Control::Cancel)
    /// });
    /// let verdict = client.run(&Command::shell("cat; make"), io).await?;
    /// println!("{:?}, stopped: {:?}", verdict.end, verdict.stopped);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// An [`Error`] says what is known of the run, and whether it is safe to run it again.
    pub async fn run(&mut self, command: &Command, io: RunIo) -> Result<Verdict, Error> {
        self.ask_to_run(command, io, Leave::Stay).await
    }

    async fn ask_to_run(
        &mut self,
        command: &Command,
        mut io: RunIo,
        leave: Leave,
    ) -> Result<Verdict, Error> {
        let (header, body) = command.request(io.stdin.is_some(), leave != Leave::Stay)?;
        self.last_run = Some(header.id.clone());
        if header.stdin {
            // A script that nobody gives is an empty one: its shell waits for the end of its input.
            io.stdin.get_or_insert_with(|| Box::new(tokio::io::empty()));
        }
        self.drive(Wanted::Run(header, body), leave, io).await
    }

    async fn drive(&mut self, wanted: Wanted, leave: Leave, io: RunIo) -> Result<Verdict, Error> {
        let mut connection = self.living().await;
        let driver = Driver::new(&self.target, self.reconnect_timeout, wanted, leave, io);
        let end = driver.run(&mut connection).await;
        // After an error nobody knows what may still come on the connection.
        self.connection = connection.filter(|open| end.is_ok() && open.writer.is_empty());
        end
    }

    /// Takes the connection, if its server still listens.
    async fn living(&mut self) -> Option<Connection> {
        let mut connection = self.connection.take()?;
        connection.is_alive().await.then_some(connection)
    }

    /// Runs a command without a standard input and collects its output, however much it is.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn output(&mut self, command: &Command) -> Result<Collected, Error> {
        let collector = Collector::default();
        let (_ask, control) = mpsc::unbounded_channel();
        let io = RunIo { stdin: None, output: Box::new(collector.clone()), control };
        let verdict = self.run(command, io).await?;
        let (stdout, stderr) = std::mem::take(&mut *collector.lock());
        Ok(Collected { verdict, stdout, stderr })
    }

    /// Keeps an idle connection alive for as long as it is polled.
    pub async fn keep_alive(&mut self) {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            let Some(connection) = &mut self.connection else { continue };
            let sent = connection.writer.send(&ClientHeader::Heartbeat, b"").await;
            if sent.is_err() || !connection.is_alive().await {
                self.connection = None;
            }
        }
    }

    /// The id of the run that was asked for last, also when its future was dropped before it ended.
    #[must_use]
    pub fn last_run(&self) -> Option<&str> {
        self.last_run.as_deref()
    }

    /// What the server said at login; none before the first run.
    #[must_use]
    pub fn welcome(&self) -> Option<&Welcome> {
        self.connection.as_ref().and_then(Connection::welcome)
    }
}

impl Target {
    /// A server of this account on this machine: its key and ours are in the state folder.
    ///
    /// # Errors
    /// A key cannot be used or made.
    pub fn local(endpoint: Endpoint, state: &StateDir) -> Result<Self, SetupError> {
        let own = host_public_key(state)?;
        let identity = local_identity(state)?;
        Ok(Self {
            endpoint,
            user: None,
            trust: Arc::new(HostTrust { own: Some(own.into()), ..HostTrust::default() }),
            keys: KeyRing::of([identity]),
            connect_timeout: CONNECT_TIMEOUT,
        })
    }
}

/// Keeps everything.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<(Vec<u8>, Vec<u8>)>>);

impl Collector {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<u8>, Vec<u8>)> {
        lock(&self.0)
    }
}

impl Output for Collector {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut kept = self.lock();
        let kept = if stream == Stream::Stderr { &mut kept.1 } else { &mut kept.0 };
        kept.extend_from_slice(bytes);
        Ok(())
    }

    fn is_ready(&self, _: Stream) -> bool {
        true
    }
}
