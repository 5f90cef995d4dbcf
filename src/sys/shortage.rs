//! What the system is short of for a while.

use std::io;

use rustix::io::Errno;

/// Whether the system has none left just now, of descriptors or of memory: what failed says nothing of what was asked
/// for, and is to be tried again.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
