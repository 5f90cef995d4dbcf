//! This process's standard input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf, Stdin};

use crate::sys::pipe::{Growth, PIPE_SIZE};

/// Standard input. A pipe whose writer keeps it full is made larger.
pub(super) struct Growing {
    stdin: Stdin,
    growth: Growth,
}

impl Growing {
    pub(super) fn new() -> Self {
        Self { stdin: tokio::io::stdin(), growth: Growth::after(1) }
    }
}

impl AsyncRead for Growing {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stdin).poll_read(cx, buf);
        if polled.is_ready() {
            let is_full = buf.filled().len() - before >= PIPE_SIZE;
            this.growth.found(is_full, rustix::stdio::stdin());
        }
        polled
    }
}
