//! This process's standard input.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, ReadBuf, Stdin};
use tokio::net::unix::pipe;

use crate::sys::pipe::{Growth, PIPE_SIZE};

/// Standard input. A pipe whose writer keeps it full is made larger.
pub(super) struct StandardInput {
    source: Source,
    growth: Growth,
}

enum Source {
    /// A pipe, opened a second time: there it does not block, and whoever shares standard input with this
    /// process sees nothing of that. What comes now and then comes without a change of threads.
    Pipe(pipe::Receiver),
    /// What else it is, and a pipe that is kept full: a thread that may block reads while this one hashes and encrypts.
    Thread(Stdin),
}

impl StandardInput {
    pub(super) fn new() -> Self {
        let source = reopened().map_or_else(|_| Source::Thread(tokio::io::stdin()), Source::Pipe);
        Self { source, growth: Growth::after(1) }
    }
}

/// What every pipe without a name is on (statfs(2)).
const PIPEFS_MAGIC: u32 = 0x5049_5045;

/// # Errors
/// It is no pipe without a name, it is the end to write to or belongs to somebody else, or there is no proc(5).
fn reopened() -> io::Result<pipe::Receiver> {
    let stdin = rustix::stdio::stdin();
    // A named one that is opened after its last writer has left tells poll(2) of no end.
    let is_unnamed = u32::try_from(rustix::fs::fstatfs(stdin)?.f_type) == Ok(PIPEFS_MAGIC);
    if !is_unnamed || rustix::fs::fcntl_getfl(stdin)?.contains(OFlags::WRONLY) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    pipe::Receiver::from_owned_fd(rustix::fs::open("/proc/self/fd/0", flags, Mode::empty())?)
}

impl AsyncRead for StandardInput {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = match &mut this.source {
            Source::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buf),
            Source::Thread(stdin) => Pin::new(stdin).poll_read(cx, buf),
        };
        if polled.is_ready() {
            let is_full = buf.filled().len() - before >= PIPE_SIZE;
            this.growth.found(is_full, rustix::stdio::stdin());
            if is_full && matches!(this.source, Source::Pipe(_)) {
                this.source = Source::Thread(tokio::io::stdin());
            }
        }
        polled
    }
}
