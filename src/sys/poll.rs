//! What a descriptor is ready for: now, by poll(2), and later, by the runtime.
#![expect(unsafe_code, reason = "tokio's registration of a descriptor has no safe form")]

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Which of `events` there are now, and whether the other end is gone (`POLLHUP`, `POLLERR`). Waits for nothing.
///
/// # Errors
/// Out of memory.
pub fn ready_now(fd: &impl AsFd, events: PollFlags) -> io::Result<PollFlags> {
    let mut fds = [PollFd::new(fd, events)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&at_once)))?;
    Ok(fds[0].revents())
}

/// Registers a descriptor that is read from with the runtime; a pidfd becomes readable when its process ends.
///
/// # Errors
/// epoll_ctl(2) failed: out of memory or of watches.
///
/// # Panics
/// Outside of a Tokio runtime with I/O enabled.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and the same, for as long as it lives; the AsyncFd owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}
