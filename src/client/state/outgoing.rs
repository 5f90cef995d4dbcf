//! What a connection is still to take: frames in their order, and one confirmation.

use std::convert::Infallible;

use tokio::sync::mpsc;

use crate::client::control::Control;
use crate::proto::frame::{self, FrameError};
use crate::proto::header::ClientHeader;

/// Bytes of the server's window that are written between two confirmations while more is waiting.
const ACK_EVERY: u64 = 128 * 1024;

/// What is to be written on a connection.
#[derive(Default)]
pub(super) struct Outgoing {
    frames: Vec<u8>,
    /// The signals among them.
    signals: Vec<Control>,
    /// Whoever waits for a pause among them to be written.
    paused: Option<mpsc::Sender<Infallible>>,
    /// Whoever waits for one that is being written.
    pausing: Option<mpsc::Sender<Infallible>>,
    /// What is to be confirmed with them: one number, however long nothing can be written.
    ack: Option<u64>,
    acked: u64,
    /// What was written had cost so much when it was last confirmed.
    acked_cost: u64,
}

impl Outgoing {
    pub(super) fn send(&mut self, header: &ClientHeader) -> Result<(), FrameError> {
        frame::encode(header, b"", &mut self.frames)
    }

    /// Sends a signal, which is remembered until a connection may have taken it.
    pub(super) fn signal(
        &mut self,
        signal: Control,
        header: &ClientHeader,
    ) -> Result<(), FrameError> {
        self.send(header)?;
        self.signals.push(signal);
        Ok(())
    }

    /// Says `pause`, and lets go of `told` when that is written.
    pub(super) fn pause(
        &mut self,
        told: mpsc::Sender<Infallible>,
        header: &ClientHeader,
    ) -> Result<(), FrameError> {
        self.send(header)?;
        self.paused = Some(told);
        Ok(())
    }

    /// Frames that are encoded already. Long ones are not copied if nothing waits before them.
    pub(super) fn send_encoded(&mut self, frames: Vec<u8>) {
        if self.frames.is_empty() {
            self.frames = frames;
        } else {
            self.frames.extend(frames);
        }
    }

    /// Confirms what was written up to a frame if that is worth it: for every `cost` confirmed the server
    /// sends more, and one that has nothing more to send is told at once.
    pub(super) fn written(&mut self, seq: u64, cost: u64, is_all: bool) {
        if seq > self.acked && (is_all || cost - self.acked_cost >= ACK_EVERY) {
            (self.acked, self.acked_cost) = (seq, cost);
            self.ack = Some(seq);
        }
    }

    /// Confirms the verdict, written or not.
    pub(super) fn confirm(&mut self, seq: u64) {
        self.ack = Some(seq);
    }

    /// Everything that is to be written now.
    pub(super) fn take(&mut self) -> Result<Vec<u8>, FrameError> {
        if let Some(seq) = self.ack.take() {
            self.send(&ClientHeader::Ack { seq })?;
        }
        self.signals.clear();
        self.pausing = self.paused.take();
        Ok(std::mem::take(&mut self.frames))
    }

    /// What was taken is written.
    pub(super) fn sent(&mut self) {
        self.pausing = None;
    }

    /// Forgets what a connection did not take, and says which signals were among that.
    pub(super) fn start_over(&mut self) -> Vec<Control> {
        std::mem::take(self).signals
    }
}
