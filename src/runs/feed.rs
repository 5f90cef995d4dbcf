//! A run's standard input on its way into the command.

use std::io;

use tokio::net::unix::pipe::Sender;

use super::run::Run;
use super::stdin::{Next, StdinQueue};
use crate::sys::pipe;

/// The pipe from which the command reads.
#[derive(Debug)]
pub(super) struct Feed {
    pipe: Sender,
    /// It was found full, and has been made larger.
    is_grown: bool,
}

impl From<Sender> for Feed {
    fn from(pipe: Sender) -> Self {
        Self { pipe, is_grown: false }
    }
}

impl Feed {
    /// Writes what the pipe takes now. False if the command takes no more. Cancel safe.
    async fn write(&mut self, run: &Run, bytes: &[u8]) -> bool {
        let written = match self.pipe.writable().await {
            Ok(()) => self.pipe.try_write(bytes),
            Err(e) => Err(e),
        };
        match written {
            Ok(count) => {
                self.has_taken(count, bytes.len());
                run.with_stdin(|queue| queue.wrote(count));
                true
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn has_taken(&mut self, count: usize, of: usize) {
        if count < of && !self.is_grown {
            self.is_grown = true;
            pipe::grow(&self.pipe);
        }
    }
}

/// Writes to the command's standard input what it takes now. Cancel safe.
pub(super) async fn feed(stdin: &mut Option<Feed>, run: &Run, next: &Next) {
    let Some(feed) = stdin else { return };
    let Next::Bytes(bytes) = next else {
        *stdin = None;
        return;
    };
    if !feed.write(run, bytes).await {
        run.with_stdin(StdinQueue::close);
        *stdin = None;
    }
}
