//! One connection to a server: reaching it, logging in, and whether it can be used again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout};

use super::error::Error;
use crate::conn::{ConnError, Frame, FrameReader, FrameWriter};
use crate::handshake::{self, Answer, Channel, LoginError};
use crate::identity::Key;
use crate::proto::code::Code;
use crate::proto::frame::Limits;
use crate::proto::header::Welcome;
use crate::transport::{self, Cork, DialError, Endpoint, HostKeyCheck, Stream};

/// Where to go and as whom.
#[derive(Clone)]
pub struct Target {
    /// The server's address.
    pub endpoint: Endpoint,
    /// Which host keys are accepted.
    pub trust: Arc<dyn HostKeyCheck>,
    /// The keys that can be proved, the one to try first in front.
    pub keys: Vec<Arc<Key>>,
    /// How long reaching the server may take; of more than [`LONGEST_CONNECT`] the rest is not used.
    pub connect_timeout: Duration,
}

/// The longest that reaching a server is waited for: clocks can be added up to so far.
pub const LONGEST_CONNECT: Duration = Duration::from_secs(365 * 24 * 3600);

/// A connection to the server.
pub(super) struct Connection {
    pub(super) reader: FrameReader<ReadHalf<Stream>>,
    pub(super) writer: FrameWriter<WriteHalf<Stream>>,
    /// Out once a request was sent.
    pub(super) cork: Cork,
    channel: Option<Channel>,
    keys: Vec<Arc<Key>>,
    /// The key that was proved last.
    index: usize,
    welcome: Option<Welcome>,
}

/// Why the first flight of a connection was not answered with a welcome.
pub(super) enum NoWelcome {
    /// Nothing was started.
    Refused(Code, String),
    /// The link died; the request may have arrived.
    Broken(String),
}

impl Connection {
    /// Reaches the server, to prove one of `keys`. Nothing of a request is sent.
    pub(super) async fn open(target: &Target, keys: &[Arc<Key>]) -> Result<Self, DialError> {
        let deadline = Instant::now() + target.connect_timeout.min(LONGEST_CONNECT);
        let dialled =
            transport::connect(&target.endpoint, deadline, Arc::clone(&target.trust)).await?;
        let channel =
            dialled.channel.map(|c| Channel { host_key: c.fingerprint(), exporter: c.exporter });
        let (read, write) = split(dialled.stream);
        Ok(Self {
            reader: FrameReader::new(read, Limits::FULL),
            writer: FrameWriter::new(write),
            cork: dialled.cork,
            channel,
            keys: keys.to_vec(),
            index: 0,
            welcome: None,
        })
    }

    /// Sends `request` (whole frames), with the login before it on a new connection, and reads the
    /// answer to the login.
    pub(super) async fn ask(&mut self, request: Bytes) -> Result<(), NoWelcome> {
        if self.welcome.is_some() {
            return self.send(request).await.map_err(|e| NoWelcome::Broken(e.to_string()));
        }
        let first = self.login(0, request.clone()).await.map_err(NoWelcome::from)?;
        let answer = match first {
            Answer::Try(index) => self.login(index, request).await.map_err(NoWelcome::from)?,
            welcome @ Answer::Welcome(_) => welcome,
        };
        match answer {
            Answer::Welcome(welcome) => {
                self.welcome = Some(welcome);
                Ok(())
            }
            Answer::Try(_) => Err(NoWelcome::Refused(
                Code::NotAuthorized,
                "the server accepts none of the keys that it named".into(),
            )),
        }
    }

    /// Logs in without a request, within the time that reaching the server may take.
    pub(super) async fn log_in(&mut self, target: &Target) -> Result<(), Error> {
        let endpoint = target.endpoint.clone();
        let limit = target.connect_timeout.min(LONGEST_CONNECT);
        match timeout(limit, self.ask(Bytes::new())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(NoWelcome::Refused(code, text))) => Err(NoWelcome::refusal(code, text)),
            Ok(Err(NoWelcome::Broken(why))) => Err(DialError::NoLogin { endpoint, why }.into()),
            Err(_) => Err(DialError::Timeout { endpoint, stage: "logging in" }.into()),
        }
    }

    async fn login(&mut self, index: usize, request: Bytes) -> Result<Answer, LoginError> {
        self.index = index;
        let hello = handshake::hello(self.channel.as_ref(), &self.keys, index)?;
        self.writer.queue(&hello, b"")?;
        // A refusal may be on its way although the rest of the request cannot be sent any more.
        let sent = self.send(request).await;
        match handshake::answer(&mut self.reader, &self.keys).await {
            Err(LoginError::Conn(_) | LoginError::Closed) if sent.is_err() => {
                Err(sent.err().map_or(LoginError::Closed, LoginError::Conn))
            }
            answer => answer,
        }
    }

    async fn send(&mut self, frames: Bytes) -> Result<(), ConnError> {
        self.writer.queue_encoded(frames).await?;
        self.writer.flush().await?;
        self.cork.pull_out();
        Ok(())
    }

    /// The key that was proved with the last request; none on a unix socket.
    pub(super) fn key(&self) -> Option<&Arc<Key>> {
        self.keys.get(self.index)
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

fn is_heartbeat(frame: &Frame) -> bool {
    use crate::proto::header::ServerHeader;
    matches!(frame.header(), Ok(ServerHeader::Heartbeat | ServerHeader::AlreadyEnded { .. }))
}

impl From<LoginError> for NoWelcome {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Refused(refused) => Self::Refused(refused.code, refused.text),
            LoginError::Proof(e) => Self::Refused(Code::NotAuthorized, e.to_string()),
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
            keys: Vec::new(),
            index: 0,
            welcome: None,
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
