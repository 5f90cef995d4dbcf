//! What a descriptor is ready for, poll(2).

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
