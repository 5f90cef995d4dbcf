//! A run's standard input on its way into the command.

use std::io;

use tokio::net::unix::pipe::Sender;

use super::run::Run;
use super::stdin::{Next, StdinQueue};
use crate::sys::pipe::Growth;

/// The pipe from which the command reads.
#[derive(Debug)]
pub(super) struct Feed {
    pipe: Sender,
    growth: Growth,
}

impl From<Sender> for Feed {
    fn from(pipe: Sender) -> Self {
        Self { pipe, growth: Growth::after(1) }
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
                self.growth.found(count < bytes.len(), &self.pipe);
                run.with_stdin(|queue| queue.wrote(count));
                true
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
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
