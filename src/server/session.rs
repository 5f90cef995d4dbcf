//! One logged-in connection: requests in, frames out, one run at a time.
//!
//! Reading and writing are two loops of one task, so that a client that does not read can still
//! cancel, and one that does not write still gets its output.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::batch::Batch;
use super::end::{SessionEnd, last_word};
use super::held::Held;
use super::outbox::{Outbox, STARTED_WAIT, Taken};
use super::requests::Requests;
use super::waiting::Heard;
use crate::conn::{FrameReader, FrameWriter, HEARTBEAT};
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::runs::owner::Outgoing;

/// How long a client may be suspended by its terminal.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// How long a session waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a request, while there is no run.
    pub(super) idle: Duration,
    /// For any byte; none: for ever.
    pub(super) silence: Option<Duration>,
}

/// Serves one logged-in connection to its end. The welcome waits in `writer`, and is sent with the
/// answer to a request that came with the login.
pub(super) async fn serve<R, W>(
    mut reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
    mut requests: Requests,
    patience: Patience,
) -> SessionEnd
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let outbox = Arc::clone(&requests.outbox);
    let end = tokio::select! {
        biased;
        end = read_loop(&mut reader, &mut requests, patience) => end,
        end = write_loop(&mut writer, &outbox) => end,
    };
    let end = end.err().unwrap_or(SessionEnd::Closed);
    outbox.leave();
    last_word(&end, reader, writer).await;
    requests.leave().await;
    end
}

async fn read_loop<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    requests: &mut Requests,
    patience: Patience,
) -> Result<(), SessionEnd> {
    let mut silence = patience.silence;
    let mut heard = Instant::now();
    let mut busy_until = Instant::now();
    loop {
        if let Some(heard) = requests.waiting.next() {
            requests.handle(heard).await?;
            continue;
        }
        if requests.is_busy() {
            busy_until = Instant::now();
        }
        let next = timeout_at(busy_until + patience.idle, reader.next(silence));
        let next = tokio::select! {
            next = next => next,
            () = Held::wait(requests.held.as_ref(), &requests.host, &requests.holds),
                if !requests.waiting.is_waiting() =>
            {
                requests.go_on().await?;
                continue;
            }
            came = requests.waiting.came() => {
                requests.take_up(came).await?;
                continue;
            }
        };
        let frame = match next {
            Ok(frame) => frame?,
            Err(_) if requests.is_busy() => continue,
            Err(_) => {
                let text = format!("nothing was asked for {} s", patience.idle.as_secs());
                return Err(SessionEnd::word(Code::IdleTimeout, text));
            }
        };
        let Some(frame) = frame else { return Ok(()) };
        // Only a client that said `pause` can have been silent for so long.
        requests.is_stale |= patience.silence.is_some_and(|most| heard.elapsed() > most);
        heard = Instant::now();
        let header = frame.header_by(ClientHeader::read)?;
        let pauses = header == ClientHeader::Pause;
        silence = patience.silence.map(|most| if pauses { LONGEST_PAUSE } else { most });
        let (at, size) = (heard.into_std(), frame.size());
        requests.handle(Heard { at, header, body: frame.body, size }).await?;
    }
}

async fn write_loop<W: AsyncWrite + Unpin>(
    writer: &mut FrameWriter<W>,
    outbox: &Outbox,
) -> Result<(), SessionEnd> {
    let mut heartbeat = Instant::now() + HEARTBEAT;
    // When it runs out, what waits in `writer` goes. It runs on when that went earlier: tokio writes to a descriptor of its
    // own for each timer that becomes the first, and would for each short run.
    let mut clock = std::pin::pin!(sleep(STARTED_WAIT));
    let mut runs = false;
    loop {
        let Taken { answers, run, mut is_urgent } = outbox.take();
        for answer in answers {
            writer.queue_encoded(answer).await?;
        }
        let batch = match &run {
            Some(run) => run.serving.batch(run.sent).await?,
            None => Batch::default(),
        };
        let said = queue(writer, &batch.outgoing).await?;
        is_urgent |= (said && !batch.may_wait) || batch.is_left;
        if let Some(run) = &run {
            outbox.sent(run, &batch);
        }
        if !is_urgent {
            if !runs && !writer.is_empty() {
                clock.as_mut().reset(Instant::now() + STARTED_WAIT);
                runs = true;
            }
            tokio::select! {
                biased;
                () = outbox.wait(run.as_ref()) => continue,
                () = clock.as_mut(), if runs => runs = false,
                () = sleep_until(heartbeat) => writer.queue(&ServerHeader::Heartbeat, b"")?,
            }
        }
        if !writer.is_empty() || is_urgent {
            writer.flush().await?;
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
        writer.queue_encoded(frame.clone()).await?;
    }
    let nothing = outgoing.gap.is_none()
        && outgoing.grant.is_none()
        && !outgoing.stdin_closed
        && outgoing.frames.is_empty();
    Ok(!nothing)
}

#[cfg(test)]
mod tests;
