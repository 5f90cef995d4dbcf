//! What a client may do with runs beside running them: start and leave, look, list, signal, stop, remove.

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::connection::{Connection, NoWelcome};
use super::control::{Input, RunIo};
use super::driver::Wanted;
use super::error::Error;
use super::outage::{Outage, is_restart};
use super::sink::Output;
use super::state::Leave;
use super::{Client, Command};
use crate::conn::{Frame, SILENCE};
use crate::proto::frame;
use crate::proto::header::{Attach, ClientHeader, ServerHeader, ShowFrom, Stream};
use crate::proto::listing::RunInfo;
use crate::proto::verdict::Verdict;
use crate::transport::DialError;

/// Most bytes of a list for each run that was asked for: several times what the longest run takes.
const RUN_BYTES: u64 = 16 * 1024;

/// Runs of one identity.
#[derive(Debug, Clone, PartialEq)]
pub struct Runs {
    /// The newest, the newest last.
    pub newest: Vec<RunInfo>,
    /// How many there are.
    pub total: u64,
}

/// Takes nothing.
struct Nothing;

impl Output for Nothing {
    fn write(&mut self, _: Stream, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
}

impl Client {
    /// Starts a durable run and leaves it when all of `stdin` was sent; its id.
    ///
    /// # Errors
    /// As [`Client::run`].
    pub async fn start(
        &mut self,
        command: &Command,
        stdin: Option<Input>,
    ) -> Result<String, Error> {
        let (_ask, control) = mpsc::unbounded_channel();
        let io = RunIo { stdin, output: Box::new(Nothing), control };
        match self.ask_to_run(command, io, Leave::WhenSent).await {
            Ok(verdict) => Ok(verdict.run),
            Err(Error::Detached { run }) => Ok(run),
            Err(e) => Err(e),
        }
    }

    /// Shows the record of a durable run from its start, or from now on, and follows it to its end. `run`
    /// is its id or a unique part of it.
    ///
    /// # Errors
    /// As [`Client::run`]; the run is never stopped for an error here.
    pub async fn attach(&mut self, run: &str, from_end: bool, io: RunIo) -> Result<Verdict, Error> {
        let from = if from_end { ShowFrom::End } else { ShowFrom::Start };
        self.look(run, from, true, io).await
    }

    /// Shows what there is of a record. The verdict, if the run is over.
    ///
    /// # Errors
    /// As [`Client::attach`].
    pub async fn logs(&mut self, run: &str, io: RunIo) -> Result<Option<Verdict>, Error> {
        match self.look(run, ShowFrom::Start, false, io).await {
            Ok(verdict) => Ok(Some(verdict)),
            Err(Error::Detached { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Waits for the end of a durable run.
    ///
    /// # Errors
    /// As [`Client::attach`].
    pub async fn wait(&mut self, run: &str) -> Result<Verdict, Error> {
        let (_ask, control) = mpsc::unbounded_channel();
        let io = RunIo { stdin: None, output: Box::new(Nothing), control };
        self.look(run, ShowFrom::Verdict, true, io).await
    }

    async fn look(
        &mut self,
        run: &str,
        from: ShowFrom,
        follow: bool,
        io: RunIo,
    ) -> Result<Verdict, Error> {
        let attach = Attach { run: run.into(), after: 0, from, follow };
        self.drive(Wanted::Look(attach), Leave::Stay, io).await
    }

    /// The runs of this identity, at most `limit` of them.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn runs(&mut self, limit: u64) -> Result<Runs, Error> {
        self.list(limit, false).await
    }

    /// The runs of all identities, at most `limit` of them; for operators.
    ///
    /// # Errors
    /// As [`Client::runs`].
    pub async fn runs_of_all(&mut self, limit: u64) -> Result<Runs, Error> {
        self.list(limit, true).await
    }

    async fn list(&mut self, limit: u64, all: bool) -> Result<Runs, Error> {
        let mut newest: Vec<RunInfo> = Vec::new();
        let mut bytes = 0;
        let request = ClientHeader::List { limit: Some(limit), all };
        let (mut connection, mut frame) = self.ask(&request).await?;
        loop {
            let ServerHeader::Runs { more, total } = header(&frame)? else {
                return Err(unexpected());
            };
            let runs: Vec<RunInfo> = serde_json::from_slice(&frame.body)
                .map_err(|e| broken(&format!("its list cannot be read: {e}")))?;
            bytes += frame.body.len() as u64;
            let is_endless = more && runs.is_empty();
            newest.extend(runs);
            let most = limit.saturating_add(1).saturating_mul(RUN_BYTES);
            if is_endless || newest.len() as u64 > limit || bytes > most {
                return Err(broken("the server told of more runs than were asked for"));
            }
            if !more {
                self.connection = Some(connection);
                return Ok(Runs { newest, total });
            }
            frame = answer(&mut connection).await?;
        }
    }

    /// Sends the process group of a run a signal, named without `SIG`. False if the run had ended.
    ///
    /// # Errors
    /// As [`Client::runs`].
    pub async fn signal(&mut self, run: &str, signal: &str) -> Result<bool, Error> {
        let (signal, run) = (signal.into(), Some(run.into()));
        self.order(&ClientHeader::Signal { signal, run }).await
    }

    /// Stops everything that a run has started. False if the run had ended.
    ///
    /// # Errors
    /// As [`Client::runs`].
    pub async fn stop(&mut self, run: &str) -> Result<bool, Error> {
        self.order(&ClientHeader::Cancel { run: Some(run.into()), as_operator: false }).await
    }

    /// Deletes the record of a run that has ended; its id stays taken.
    ///
    /// # Errors
    /// As [`Client::runs`].
    pub async fn remove(&mut self, run: &str) -> Result<(), Error> {
        self.order(&ClientHeader::Remove { run: run.into() }).await.map(|_| ())
    }

    async fn order(&mut self, order: &ClientHeader) -> Result<bool, Error> {
        let (connection, frame) = self.ask(order).await?;
        self.connection = Some(connection);
        match header(&frame)? {
            ServerHeader::Done { .. } => Ok(true),
            ServerHeader::AlreadyEnded { .. } => Ok(false),
            _ => Err(unexpected()),
        }
    }

    /// Reaches the server, or the one after it: one that goes while TLS is set up has seen nothing of a request.
    pub(super) async fn reach(&self) -> Result<Connection, DialError> {
        let patience = self.reconnect_timeout.min(self.target.connect_timeout);
        let (mut outage, mut was_cut) = (Outage::new(), false);
        loop {
            let error = match Connection::open(&self.target, &self.target.keys).await {
                Ok(open) => return Ok(open),
                Err(error) => error,
            };
            let next = is_restart(&error, was_cut).then(|| outage.next(patience)).flatten();
            let Some(next) = next else { return Err(error) };
            was_cut = true;
            self.target.keys.ask().note(&format!("reconnecting: {error}"));
            sleep_until(next).await;
        }
    }

    /// Sends a request and waits for its answer; on a new connection if there is none that lives. Cancel
    /// safe: the connection on which the answer may still come goes with it.
    async fn ask(&mut self, request: &ClientHeader) -> Result<(Connection, Frame), Error> {
        let mut connection = match self.living().await {
            Some(connection) => connection,
            None => self.reach().await?,
        };
        let encoded = frame::encoded(request, b"").map_err(|e| broken(&e.to_string()))?;
        match connection.ask(encoded, self.target.connect_timeout).await {
            Ok(()) => answer(&mut connection).await.map(|frame| (connection, frame)),
            Err(NoWelcome::Refused(code, text)) => Err(NoWelcome::refusal(code, text)),
            Err(NoWelcome::Broken(why)) => Err(broken(&why)),
            Err(NoWelcome::Late) => Err(broken("it did not answer in time")),
            Err(NoWelcome::NoKey(why)) => {
                let endpoint = self.target.endpoint.clone();
                Err(DialError::NoLogin { endpoint, why }.into())
            }
        }
    }
}

async fn answer(connection: &mut Connection) -> Result<Frame, Error> {
    let answered = timeout(SILENCE, async {
        loop {
            let frame = connection.reader.next(Some(SILENCE)).await?;
            let Some(frame) = frame else { return Ok(None) };
            if !matches!(frame.header()?, ServerHeader::Heartbeat | ServerHeader::Unknown) {
                return Ok::<_, crate::conn::ConnError>(Some(frame));
            }
        }
    });
    match answered.await {
        Ok(Ok(Some(frame))) => Ok(frame),
        Ok(Ok(None)) => Err(broken("the server closed the connection")),
        Ok(Err(e)) => Err(broken(&e.to_string())),
        Err(_) => Err(broken("the server did not answer in time")),
    }
}

fn header(frame: &Frame) -> Result<ServerHeader, Error> {
    match frame.header() {
        Ok(ServerHeader::Refused(refused)) => Err(NoWelcome::refusal(refused.code, refused.text)),
        Ok(ServerHeader::Lost(refusal)) => {
            let (run, text, code) = (refusal.run, refusal.text, Some(refusal.code));
            Err(Error::Unknown { run, text, code })
        }
        Ok(ServerHeader::Error { code, text }) => Err(NoWelcome::refusal(code, text)),
        Ok(header) => Ok(header),
        Err(e) => Err(broken(&e.to_string())),
    }
}

fn unexpected() -> Error {
    broken("the server gave another answer than was asked for")
}

fn broken(why: &str) -> Error {
    Error::NoAnswer(why.into())
}
