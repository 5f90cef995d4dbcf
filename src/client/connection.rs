//! One connection to a server: reaching it, logging in, and whether it can be used again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::destination::Destination;
use super::error::Error;
use crate::conn::{ConnError, Frame, FrameReader, FrameWriter, HEARTBEAT};
use crate::handshake::{Answer, ClientLogin, HELLOS_LIMIT, LoginError};
use crate::identity::{Candidate, Channel, KeyRing};
use crate::proto::code::Code;
use crate::proto::frame::Limits;
use crate::proto::header::Welcome;
use crate::transport::{
    self, ClientStream, Cork, DialError, Endpoint, HostKeyCheck, HostKeyError, HostTrust, Stream,
};

/// Where to go and as whom.
///
/// A server of this account on this machine is a [`Target::local`]. One elsewhere is known by its host key, and this client
/// by a key of its own:
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use rexec::client::{CONNECT_TIMEOUT, Client, Target};
/// use rexec::identity::{Key, KeyRing};
/// use rexec::transport::HostTrust;
///
/// // What the server says in its first line, and ssh-keygen -lf of its host_key.pub.
/// let host_key = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".parse()?;
/// let target = Target {
///     endpoint: "build:8080".parse()?,
///     user: None,
///     trust: Arc::new(HostTrust { pins: vec![host_key], ..HostTrust::default() }),
///     keys: KeyRing::of([Key::load("/home/me/.ssh/id_ed25519".as_ref())?]),
///     connect_timeout: CONNECT_TIMEOUT,
/// };
/// let client = Client::new(target);
/// # let _ = client;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Target {
    /// The server's address.
    pub endpoint: Endpoint,
    /// The user to be there; none: whoever the server runs as.
    pub user: Option<String>,
    /// Which host keys are accepted.
    pub trust: Arc<dyn HostKeyCheck>,
    /// The keys that can be proved.
    pub keys: KeyRing,
    /// How long reaching the server may take; of more than [`LONGEST_CONNECT`] the rest is not used.
    pub connect_timeout: Duration,
}

impl Target {
    /// The server and the user, as they are written.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { user: self.user.clone(), endpoint: self.endpoint.clone() }
    }
}

/// The longest that reaching a server is waited for: clocks can be added up to so far.
pub const LONGEST_CONNECT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection to the server.
pub(super) struct Connection {
    pub(super) reader: FrameReader<ReadHalf<Stream>>,
    pub(super) writer: FrameWriter<WriteHalf<Stream>>,
    /// Out when a request is sent.
    pub(super) cork: Cork,
    channel: Option<Channel>,
    user: Option<String>,
    keys: KeyRing,
    /// The key that was proved.
    proven: Option<Arc<Candidate>>,
    welcome: Option<Welcome>,
    /// Runs while there is one run after another. tokio writes to a descriptor of its own, and looks at it, for each
    /// timer that becomes the first; so those of a run are not.
    first_timer: Pin<Box<Sleep>>,
}

/// How long that timer runs: less than any of a run's.
const FIRST_TIMER: Duration = Duration::from_secs(HEARTBEAT.as_secs() / 2);

/// Why the first flight of a connection was not answered with a welcome.
pub(super) enum NoWelcome {
    /// Nothing was started.
    Refused(Code, String),
    /// This client has no key to prove. Nothing was started.
    NoKey(String),
    /// The link died; the request may have arrived.
    Broken(String),
    /// The server took too long; the request may have arrived.
    Late,
}

impl Connection {
    /// Reaches the server, to prove one of `keys`. Nothing of a request is sent.
    pub(super) async fn open(target: &Target, keys: &KeyRing) -> Result<Self, DialError> {
        let dialled = dial(target).await?;
        let (read, write) = split(dialled.stream);
        Ok(Self {
            reader: FrameReader::new(read, Limits::FULL),
            writer: FrameWriter::new(write),
            cork: dialled.cork,
            channel: dialled.channel,
            user: target.user.clone(),
            keys: keys.clone(),
            proven: None,
            welcome: None,
            first_timer: Box::pin(sleep(Duration::ZERO)),
        })
    }

    /// Sends `request` (whole frames), with the login before it on a new connection, and reads the
    /// answer to the login. The server may take so long as `limit` each time that it is waited for.
    pub(super) async fn ask(&mut self, request: Bytes, limit: Duration) -> Result<(), NoWelcome> {
        self.ask_noting(request, limit, &AtomicBool::new(false)).await
    }

    /// The same, and notes in `has_begun` that the request may arrive: not while somebody is asked for a
    /// passphrase.
    pub(super) async fn ask_noting(
        &mut self,
        request: Bytes,
        limit: Duration,
        has_begun: &AtomicBool,
    ) -> Result<(), NoWelcome> {
        if self.welcome.is_some() {
            has_begun.store(true, Ordering::Relaxed);
            if self.first_timer.deadline() <= Instant::now() {
                self.first_timer.as_mut().reset(Instant::now() + FIRST_TIMER);
            }
            let sent = timeout(limit, self.send(request)).await.map_err(|_| NoWelcome::Late)?;
            return sent.map_err(|e| NoWelcome::Broken(e.to_string()));
        }
        let keys = match &self.channel {
            Some(channel) => self.keys.keys(&channel.host_key).await,
            None => Ok(Vec::new()),
        };
        let keys = keys.map_err(|e| NoWelcome::NoKey(e.to_string()))?;
        let mut login = ClientLogin::new(self.user.clone(), keys);
        for _ in 0..HELLOS_LIMIT {
            let answer = self.hello(&mut login, &request, limit, has_begun).await?;
            if let Answer::Welcome(welcome) = answer {
                self.welcome = Some(welcome);
                return Ok(());
            }
        }
        let text = "the server accepts none of the keys that it named".into();
        Err(NoWelcome::Refused(Code::NotAuthorized, text))
    }

    /// Logs in without a request, within the time that reaching the server may take.
    pub(super) async fn log_in(&mut self, target: &Target) -> Result<(), Error> {
        let endpoint = target.endpoint.clone();
        match self.ask(Bytes::new(), target.connect_timeout.min(LONGEST_CONNECT)).await {
            Ok(()) => Ok(()),
            Err(NoWelcome::Late) => {
                Err(DialError::Timeout { endpoint, stage: "logging in" }.into())
            }
            Err(NoWelcome::Refused(code, text)) => Err(NoWelcome::refusal(code, text)),
            Err(NoWelcome::NoKey(why) | NoWelcome::Broken(why)) => {
                Err(DialError::NoLogin { endpoint, why }.into())
            }
        }
    }

    /// Says `hello`, with the request behind it if it can be answered with more than a question.
    async fn hello(
        &mut self,
        login: &mut ClientLogin,
        request: &Bytes,
        limit: Duration,
        has_begun: &AtomicBool,
    ) -> Result<Answer, NoWelcome> {
        let hello = login.hello(self.channel.as_ref(), self.keys.ask()).await?;
        self.proven = login.proven().cloned();
        self.writer.queue(&hello, b"").map_err(LoginError::from)?;
        let is_question = self.channel.is_some() && self.proven.is_none();
        let request = if is_question { Bytes::new() } else { request.clone() };
        has_begun.fetch_or(!is_question, Ordering::Relaxed);
        let answer = timeout(limit, self.answer(login, request)).await;
        let answer = answer.map_err(|_| NoWelcome::Late)??;
        if matches!(answer, Answer::Again) {
            // The request that went with it was thrown away.
            self.proven = None;
        }
        Ok(answer)
    }

    async fn answer(
        &mut self,
        login: &mut ClientLogin,
        request: Bytes,
    ) -> Result<Answer, LoginError> {
        // A refusal may be on its way although the rest of the request cannot be sent any more.
        let sent = self.send(request).await;
        match login.answer(&mut self.reader).await {
            Err(LoginError::Conn(_) | LoginError::Closed) if sent.is_err() => {
                Err(sent.err().map_or(LoginError::Closed, LoginError::Conn))
            }
            answer => answer,
        }
    }

    async fn send(&mut self, frames: Bytes) -> Result<(), ConnError> {
        self.cork.pull_out();
        self.writer.queue_encoded(frames).await?;
        self.writer.flush().await
    }

    /// The key that was proved; none on a unix socket, or if there was none to prove.
    pub(super) fn key(&self) -> Option<&Arc<Candidate>> {
        self.proven.as_ref()
    }

    /// Who the server says it is and we are; none before the first request.
    pub(super) fn welcome(&self) -> Option<&Welcome> {
        self.welcome.as_ref()
    }

    /// Whether the server still listens. Between runs it sends nothing but heartbeats, and an error
    /// when it closes. Looks and does not wait: a timer of no length rounds up to the next millisecond,
    /// which is longer than a short run.
    pub(super) async fn is_alive(&mut self) -> bool {
        // Lets the runtime see what has come since it last looked.
        tokio::task::yield_now().await;
        loop {
            let next = tokio::select! {
                biased;
                next = self.reader.next(None) => next,
                () = std::future::ready(()) => return true,
            };
            match next {
                Ok(Some(frame)) if is_heartbeat(&frame) => {}
                _ => return false,
            }
        }
    }
}

/// Reaches the server. A host key that nobody knows is asked about while no connection waits; it is
/// remembered once the server has proved it.
async fn dial(target: &Target) -> Result<ClientStream, DialError> {
    let Target { endpoint, trust, .. } = target;
    let deadline = || Instant::now() + target.connect_timeout.min(LONGEST_CONNECT);
    let unknown = match transport::connect(endpoint, deadline(), Arc::clone(trust)).await {
        Err(DialError::HostKey(HostKeyError::Unknown(unknown))) => unknown,
        done => return done,
    };
    if !trust.believes(&unknown).await {
        return Err(HostKeyError::Unknown(unknown).into());
    }
    let this = HostTrust { pins: vec![unknown.key.fingerprint()], ..HostTrust::default() };
    let dialled = transport::connect(endpoint, deadline(), Arc::new(this)).await?;
    trust.remember(&unknown)?;
    Ok(dialled)
}

fn is_heartbeat(frame: &Frame) -> bool {
    use crate::proto::header::ServerHeader;
    matches!(frame.header(), Ok(ServerHeader::Heartbeat | ServerHeader::AlreadyEnded { .. }))
}

impl From<LoginError> for NoWelcome {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused(refused) => Self::Refused(refused.code, refused.text),
            LoginError::NoKey(why) => Self::NoKey(why),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl NoWelcome {
    /// The error of a client that does not try again.
    pub(super) fn refusal(code: Code, text: String) -> Error {
        match code {
            Code::Conflict => Error::Conflict { text },
            code => Error::Refused { code, text },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixStream;

    use super::*;
    use crate::proto::header::ServerHeader;

    fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (read, write) = split(Stream::from(ours));
        let connection = Connection {
            reader: FrameReader::new(read, Limits::FULL),
            writer: FrameWriter::new(write),
            cork: Cork::default(),
            channel: None,
            user: None,
            keys: KeyRing::of([]),
            proven: None,
            welcome: None,
            first_timer: Box::pin(sleep(Duration::ZERO)),
        };
        (connection, theirs)
    }

    #[tokio::test(start_paused = true)]
    async fn the_look_before_a_run_waits_for_no_timer() {
        let (mut connection, mut server) = connection();
        // Between two ticks, where a timer would have to round.
        tokio::time::advance(Duration::from_micros(100)).await;
        let before = Instant::now();
        assert!(connection.is_alive().await);
        let mut heartbeat = Vec::new();
        crate::proto::frame::encode(&ServerHeader::Heartbeat, b"", &mut heartbeat).unwrap();
        server.write_all(&heartbeat).await.unwrap();
        assert!(connection.is_alive().await, "a heartbeat is no answer");
        drop(server);
        assert!(!connection.is_alive().await);
        assert_eq!(Instant::now(), before);
    }
}
