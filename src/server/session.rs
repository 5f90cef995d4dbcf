//! One logged-in connection: requests in, frames out, one run at a time.
//!
//! Reading and writing are two loops of one task, so that a client that does not read can still
//! cancel, and one that does not write still gets its output.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::requests::Requests;
use crate::conn::{ConnError, FrameReader, FrameWriter, HEARTBEAT, SILENCE};
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::runs::record::encode;
use crate::runs::run::{Outgoing, Owner, TakenOver};

/// Most answers that wait for a client that asks but does not read.
pub const ANSWERS_LIMIT: usize = 64;
/// So much of the record is taken at a time.
const BATCH: usize = 512 * 1024;
/// How long a client may be suspended by its terminal.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// After the last word so much is read, for so long, so that the word arrives.
pub(super) const LAST_WORD: (usize, Duration) = (1 << 20, Duration::from_secs(1));

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    /// The client said goodbye.
    #[error("the client closed the connection")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Conn(#[from] ConnError),
    /// The session was ended with a last word to the client.
    #[error("{}: {text}", .code.name())]
    Word {
        /// The kind of error.
        code: Code,
        /// One line for people.
        text: String,
    },
}

impl SessionEnd {
    pub(super) fn word(code: Code, text: impl Into<String>) -> Self {
        Self::Word { code, text: text.into() }
    }
}

impl From<TakenOver> for SessionEnd {
    fn from(taken: TakenOver) -> Self {
        Self::word(Code::TakenOver, taken.to_string())
    }
}

impl From<crate::proto::frame::FrameError> for SessionEnd {
    fn from(error: crate::proto::frame::FrameError) -> Self {
        ConnError::from(error).into()
    }
}

/// What both loops of a session share.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<Pending>,
    called: Notify,
}

/// What waits to be sent.
#[derive(Debug, Default)]
struct Pending {
    answers: Vec<Bytes>,
    run: Option<Current>,
    /// The writer holds a welcome that was not sent.
    greeting: bool,
}

/// The run whose frames are being sent.
#[derive(Debug, Clone)]
struct Current {
    owner: Arc<Owner>,
    sent: u64,
    /// The verdict was sent; its confirmation is waited for.
    ended: bool,
}

impl Outbox {
    /// The outbox of a session whose writer holds the welcome: it is to be sent at once, but after the
    /// answer to a request that is there already.
    pub(super) fn greeting() -> Self {
        let outbox = Self::default();
        outbox.lock().greeting = true;
        outbox
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues an answer.
    pub(super) fn answer(&self, header: &ServerHeader) -> Result<(), SessionEnd> {
        let frame = encode(header, b"")?;
        let mut pending = self.lock();
        if pending.answers.len() >= ANSWERS_LIMIT {
            return Err(SessionEnd::word(
                Code::Flooded,
                "more was asked than was read of the answers",
            ));
        }
        pending.answers.push(frame);
        self.called.notify_one();
        Ok(())
    }

    /// Sends a run's frames after `after` from now on, behind the answers that wait.
    pub(super) fn follow(&self, owner: Owner, after: u64) {
        self.lock().run = Some(Current { owner: Arc::new(owner), sent: after, ended: false });
        self.called.notify_one();
    }

    /// The run that is being served.
    pub(super) fn owner(&self) -> Option<Arc<Owner>> {
        self.lock().run.as_ref().map(|run| Arc::clone(&run.owner))
    }

    /// Whether a run is under way whose verdict was not sent yet.
    pub(super) fn is_busy(&self) -> bool {
        self.lock().run.as_ref().is_some_and(|run| !run.ended)
    }

    /// Lets go of the run.
    pub(super) fn leave(&self) {
        self.lock().run = None;
    }

    fn take(&self) -> (Vec<Bytes>, Option<Current>, bool) {
        let mut pending = self.lock();
        let greeting = std::mem::take(&mut pending.greeting);
        (std::mem::take(&mut pending.answers), pending.run.clone(), greeting)
    }

    /// Notes how far the record was sent, if it is still the same run's.
    fn sent(&self, current: &Current, last: u64, ended: bool) {
        if let Some(run) = &mut self.lock().run
            && Arc::ptr_eq(&run.owner, &current.owner)
        {
            (run.sent, run.ended) = (last, ended);
        }
    }

    /// Waits until there may be something to send.
    async fn wait(&self, current: Option<&Current>) {
        match current {
            Some(run) => tokio::select! {
                () = self.called.notified() => {}
                () = run.owner.called() => {}
            },
            None => self.called.notified().await,
        }
    }
}

/// Serves one logged-in connection to its end. The welcome waits in `writer`, and is sent with the
/// answer to a request that came with the login.
pub(super) async fn serve<R, W>(
    mut reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
    requests: Requests,
    idle_timeout: Duration,
) -> SessionEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = Arc::clone(&requests.outbox);
    let end = tokio::select! {
        biased;
        end = read_loop(&mut reader, requests, idle_timeout) => end,
        end = write_loop(&mut writer, &outbox) => end,
    };
    let end = end.err().unwrap_or(SessionEnd::Closed);
    outbox.leave();
    last_word(&end, reader, writer).await;
    end
}

async fn read_loop<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    mut requests: Requests,
    idle_timeout: Duration,
) -> Result<(), SessionEnd> {
    let mut silence = SILENCE;
    let mut busy_until = Instant::now();
    loop {
        if requests.outbox.is_busy() {
            busy_until = Instant::now();
        }
        let frame = match timeout_at(busy_until + idle_timeout, reader.next(Some(silence))).await {
            Ok(frame) => frame?,
            Err(_) if requests.outbox.is_busy() => continue,
            Err(_) => {
                let text = format!("nothing was asked for {} s", idle_timeout.as_secs());
                return Err(SessionEnd::word(Code::IdleTimeout, text));
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        let header = frame.header::<ClientHeader>()?;
        silence = if header == ClientHeader::Pause { LONGEST_PAUSE } else { SILENCE };
        requests.handle(header, frame.body).await?;
    }
}

async fn write_loop<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    outbox: &Outbox,
) -> Result<(), SessionEnd> {
    let mut heartbeat = Instant::now() + HEARTBEAT;
    loop {
        let (answers, current, greeting) = outbox.take();
        for answer in &answers {
            writer.queue_encoded(answer).await?;
        }
        let outgoing = match &current {
            Some(run) => run.owner.outgoing(run.sent, BATCH)?,
            None => Outgoing::default(),
        };
        let wrote = queue(writer, &outgoing).await?;
        if let Some(run) = &current {
            outbox.sent(run, outgoing.last, outgoing.ended);
        }
        if wrote || greeting || !answers.is_empty() {
            writer.flush().await?;
            heartbeat = Instant::now() + HEARTBEAT;
        } else if timeout_at(heartbeat, outbox.wait(current.as_ref())).await.is_err() {
            writer.send(&ServerHeader::Heartbeat, b"").await?;
            heartbeat = Instant::now() + HEARTBEAT;
        }
    }
}

/// Queues what a run has to say. False if it is nothing.
async fn queue<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    outgoing: &Outgoing,
) -> Result<bool, SessionEnd> {
    if let Some((from, to)) = outgoing.gap {
        writer.queue(&ServerHeader::Gap { from, to }, b"")?;
    }
    if let Some(grant) = outgoing.grant {
        writer.queue(&ServerHeader::Grant(grant), b"")?;
    }
    if outgoing.stdin_closed {
        writer.queue(&ServerHeader::StdinClosed, b"")?;
    }
    for frame in &outgoing.frames {
        writer.queue_encoded(frame).await?;
    }
    let nothing = outgoing.gap.is_none()
        && outgoing.grant.is_none()
        && !outgoing.stdin_closed
        && outgoing.frames.is_empty();
    Ok(!nothing)
}

/// Says why the connection ends, if there is something to say, and waits until it was heard.
pub(super) async fn last_word<R, W>(
    end: &SessionEnd,
    mut reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (code, text) = match end {
        SessionEnd::Word { code, text } => (*code, text.clone()),
        SessionEnd::Conn(ConnError::Frame(e)) => (Code::BadFrame, e.to_string()),
        SessionEnd::Conn(e @ ConnError::Silent(_)) => (Code::PeerSilent, e.to_string()),
        SessionEnd::Closed | SessionEnd::Conn(_) => return,
    };
    say_and_close(&ServerHeader::Error { code, text }, &mut reader, &mut writer).await;
}

/// Sends a last frame and closes, reading on for a while: closing with unread input would reset the
/// connection and destroy the frame.
pub(super) async fn say_and_close<R, W>(
    header: &ServerHeader,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (bytes, time) = LAST_WORD;
    let said = async {
        writer.send(header, b"").await?;
        writer.shutdown().await
    };
    // The peer may be gone or may not read: then there is nobody to tell.
    if let Ok(Ok(())) = tokio::time::timeout(time, said).await {
        reader.drain(bytes, time).await;
    }
}
