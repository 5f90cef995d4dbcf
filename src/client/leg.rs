//! A run on one connection: what came and went, in loops of one task that share the run's state.

use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use super::connection::Connection;
use super::control::{Control, Input};
use super::error::OutputError;
use super::state::{LegEnd, State};
use crate::conn::{FrameReader, FrameWriter, HEARTBEAT, SILENCE};
use crate::identity::Ask;
use crate::proto::frame::{self, FrameError};
use crate::proto::header::ClientHeader;
use crate::sys::clock::until;
use crate::sys::mutex::lock;

/// How long a leg tries to send what confirms a verdict.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Whoever waits for so long, without a word of the run, is told for what.
const HINT_AFTER: Duration = Duration::from_secs(10);
/// How long a connection that takes nothing more is read.
const LAST_READ: Duration = Duration::from_secs(1);

/// One leg: the run's state, as the loops on its connection share it.
pub(super) struct Leg<'a> {
    state: Mutex<&'a mut State>,
    person: &'a dyn Ask,
    /// There is something to write.
    writer: Notify,
    /// Standard input may be sent.
    credit: Notify,
    /// The run may have been cancelled.
    clock: Notify,
}

impl<'a> Leg<'a> {
    pub(super) fn new(state: &'a mut State, person: &'a dyn Ask) -> Self {
        Self {
            state: Mutex::new(state),
            person,
            writer: Notify::new(),
            credit: Notify::new(),
            clock: Notify::new(),
        }
    }

    /// There may be something to write, and the run may have been cancelled.
    fn wake(&self) {
        self.writer.notify_one();
        self.clock.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, &'a mut State> {
        lock(&self.state)
    }

    /// Drives the run on one connection until its end or the connection's.
    pub(super) async fn drive(
        &self,
        connection: &mut Connection,
        input: &mut Option<Input>,
        control: &mut mpsc::UnboundedReceiver<Control>,
    ) -> LegEnd {
        let Connection { reader, writer, cork, .. } = connection;
        let end = tokio::select! {
            biased;
            end = self.read(reader) => end,
            end = self.write(writer) => end,
            end = self.watch_sink() => end,
            end = self.read_input(input) => end,
            end = self.obey(control) => end,
            end = self.enforce() => end,
        };
        if matches!(end, LegEnd::Final(_)) {
            // The confirmation goes with the next request, or with the end of the connection.
            cork.put_in();
            self.flush(writer).await;
        }
        end
    }

    /// Sends what is queued, at the end, if the server takes it: it confirms the verdict.
    async fn flush<W: AsyncWrite + Unpin>(&self, writer: &mut FrameWriter<W>) {
        let Ok(queue) = self.lock().outgoing() else { return };
        let sent = async {
            writer.queue_encoded(queue.into()).await?;
            writer.flush().await
        };
        // The run is over; a server that does not hear it forgets it by itself.
        let _ = tokio::time::timeout(LAST_WORD, sent).await;
    }

    async fn read<R: AsyncRead + Unpin>(&self, reader: &mut FrameReader<R>) -> LegEnd {
        loop {
            let frame = match reader.next(Some(SILENCE)).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return LegEnd::Broken("the server closed the connection".into()),
                Err(e) => return LegEnd::Broken(e.to_string()),
            };
            match self.lock().take(frame) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(e) => return LegEnd::Broken(e.to_string()),
            }
            self.credit.notify_one();
            self.wake();
        }
    }

    async fn write<W: AsyncWrite + Unpin>(&self, writer: &mut FrameWriter<W>) -> LegEnd {
        let mut heartbeat = Instant::now() + HEARTBEAT;
        loop {
            let outgoing = self.lock().outgoing();
            let mut queue = match outgoing {
                Ok(queue) => queue,
                Err(e) => return LegEnd::Broken(e.to_string()),
            };
            if queue.is_empty() && timeout_at(heartbeat, self.writer.notified()).await.is_ok() {
                continue;
            }
            let sent = async {
                if queue.is_empty() {
                    frame::encode(&ClientHeader::Heartbeat, b"", &mut queue)?;
                }
                writer.queue_encoded(queue.into()).await?;
                writer.flush().await
            };
            if let Err(e) = sent.await {
                return self.read_on(e.to_string()).await;
            }
            self.lock().sent();
            heartbeat = Instant::now() + HEARTBEAT;
        }
    }

    /// A connection that takes nothing more may still bring the reason: reading ends the leg.
    async fn read_on(&self, why: String) -> LegEnd {
        tokio::time::sleep(LAST_READ).await;
        LegEnd::Broken(why)
    }

    async fn watch_sink(&self) -> LegEnd {
        loop {
            let progress = self.lock().sink.progress();
            progress.await;
            let mut state = self.lock();
            let moved = state.sink_moved();
            if let Some(end) = state.finished() {
                return end;
            }
            if let Err(e) = moved {
                return LegEnd::Broken(e.to_string());
            }
            self.wake();
        }
    }

    async fn read_input(&self, input: &mut Option<Input>) -> LegEnd {
        let Some(source) = input else { return std::future::pending().await };
        loop {
            let wanted = self.lock().stdin_wanted();
            let Some(wanted) = wanted else {
                self.credit.notified().await;
                continue;
            };
            let mut buffer = BytesMut::with_capacity(wanted);
            let read = source.read_buf(&mut (&mut buffer).limit(wanted)).await;
            match self.took(read, buffer) {
                Ok(true) => self.wake(),
                Ok(false) => {
                    self.wake();
                    if let Some(end) = self.lock().input_refused() {
                        return end;
                    }
                    return std::future::pending().await;
                }
                Err(e) => return LegEnd::Broken(e.to_string()),
            }
        }
    }

    /// What was read of the input, or why nothing more will be. False if that ends the reading.
    fn took(&self, read: io::Result<usize>, bytes: BytesMut) -> Result<bool, FrameError> {
        let mut state = self.lock();
        match read {
            Ok(_) => state.send_input(exact(bytes))?,
            Err(e) => state.cancel_for(OutputError::Input(e))?,
        }
        Ok(state.failure.is_none())
    }

    async fn obey(&self, control: &mut mpsc::UnboundedReceiver<Control>) -> LegEnd {
        while let Some(asked) = control.recv().await {
            let mut state = self.lock();
            if let Err(e) = state.control(asked) {
                return LegEnd::Broken(e.to_string());
            }
            if let Some(end) = state.last_word() {
                return end;
            }
            drop(state);
            self.wake();
        }
        std::future::pending().await
    }

    fn patience(&self) -> (Option<Instant>, bool) {
        let state = self.lock();
        (state.cancelled, state.is_started())
    }

    /// Ends the leg when an answer has been waited for long enough: that to the request, which heartbeats
    /// do not replace, or that to a cancel.
    async fn enforce(&self) -> LegEnd {
        let asked = Instant::now();
        let mut limit = HINT_AFTER;
        loop {
            let (cancelled, started) = self.patience();
            let unanswered = (!started).then_some(asked + limit);
            tokio::select! {
                () = until(cancelled) => return self.lock().last_word_now(),
                () = until(unanswered) => {
                    if limit == SILENCE {
                        let text = format!("the request was not answered within {} s", limit.as_secs());
                        return LegEnd::Broken(text);
                    }
                    self.person.reassure("the server has not said yet that the run has started");
                    limit = SILENCE;
                }
                () = self.clock.notified() => {}
            }
        }
    }
}

/// A line of a few bytes does not keep the buffer that it was read into.
fn exact(bytes: BytesMut) -> Bytes {
    if bytes.len() < bytes.capacity() / 2 { Bytes::copy_from_slice(&bytes) } else { bytes.freeze() }
}

#[cfg(test)]
mod tests;
