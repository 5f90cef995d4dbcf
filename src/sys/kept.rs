//! Whether a file system has kept what was written. Those of the network take it at first, and say only when the file
//! is closed that there was no room for it (close(2)).

#![expect(unsafe_code, reason = "std closes, and does not tell what came of it")]

use std::io;
use std::os::fd::{AsFd, IntoRawFd as _};

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Asks by closing a copy of the descriptor, which itself stays open. What is no regular file keeps nothing.
///
/// # Errors
/// What the file system says.
pub fn is_kept(fd: impl AsFd) -> io::Result<()> {
    if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
        return Ok(());
    }
    loop {
        let copy = fcntl_dupfd_cloexec(&fd, 0)?.into_raw_fd();
        // SAFETY: the number is the copy's, which nobody else has, and is not used again.
        if unsafe { libc::close(copy) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // The copy is closed, and it is not known what came of what was written.
        if Errno::from_io_error(&error) != Some(Errno::INTR) {
            return Err(error);
        }
    }
}
