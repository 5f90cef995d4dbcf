//! This process's standard input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf, Stdin};

use crate::sys::pipe::{self, PIPE_SIZE};

/// Standard input. A pipe whose writer keeps it full is made larger.
pub(super) struct Growing {
    stdin: Stdin,
    is_grown: bool,
}

impl Growing {
    pub(super) fn new() -> Self {
        Self { stdin: tokio::io::stdin(), is_grown: false }
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
        if !this.is_grown && buf.filled().len() - before >= PIPE_SIZE {
            this.is_grown = true;
            pipe::grow(rustix::stdio::stdin());
        }
        polled
    }
}
