//! Descriptors that are handed over at start: by a service manager, or by the server before an upgrade
//! (sd_listen_fds(3)).

#![expect(
    unsafe_code,
    reason = "descriptors that are known by their numbers are taken over, and variables unset"
)]

use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// The first descriptor that is handed over (`SD_LISTEN_FDS_START`).
pub const FIRST: RawFd = 3;

/// A descriptor that was handed over.
#[derive(Debug)]
pub struct Passed {
    /// Its number at the start of the program, for messages.
    pub number: RawFd,
    /// From `LISTEN_FDNAMES`; `unknown` without it.
    pub name: String,
    /// The descriptor itself, by now under another number, close-on-exec.
    pub fd: OwnedFd,
}

/// The numbers from [`FIRST`] up, without a gap, kept for what this program will hand over itself. Each
/// is taken by `dup3(2)` onto it; what is dropped is free for other uses.
#[derive(Debug)]
pub struct Slots(Vec<OwnedFd>);

/// `LISTEN_FDS`, `LISTEN_PID` or `LISTEN_FDNAMES` cannot be true.
#[derive(Debug, thiserror::Error)]
#[error("LISTEN_FDS, LISTEN_PID or LISTEN_FDNAMES is wrong ({0}): see sd_listen_fds(3)")]
pub struct ListenFdsError(io::Error);

/// Takes what was handed over to this process, none if it was for another one, and keeps the numbers
/// from [`FIRST`] up for as much and `more`, or as many as the limit of open files allows. Unsets the variables,
/// so that no child takes them for its own. An unrelated descriptor that had one of the numbers stays open
/// under another one: whoever handed it down may have meant no more than that it stays open.
///
/// To be called while there is one thread, and before anything was opened.
///
/// # Errors
/// [`ListenFdsError`].
pub fn take(more: usize) -> Result<(Vec<Passed>, Slots), ListenFdsError> {
    let told = told()?;
    let past = FIRST + (told.len() + more) as RawFd;
    let mut passed = Vec::with_capacity(told.len());
    for (number, name) in told {
        let fd = moved_up(number, past).map_err(ListenFdsError)?;
        passed.push(Passed { number, name, fd });
    }
    let free_from = FIRST + passed.len() as RawFd;
    let slots = (FIRST..past).map_while(|number| slot(number, past, number >= free_from)).collect();
    Ok((passed, Slots(slots)))
}

/// Numbers and names. (Of sd-notify only the numbers are taken: it expects names for descriptors that were
/// handed over to another process.)
fn told() -> Result<Vec<(RawFd, String)>, ListenFdsError> {
    let names = std::env::var("LISTEN_FDNAMES").ok();
    // SAFETY: by the contract of `take` there is one thread, so that nobody reads the environment now.
    let numbers = unsafe {
        std::env::remove_var("LISTEN_FDNAMES");
        sd_notify::listen_fds_and_unset_env()
    };
    let numbers = numbers.map_err(ListenFdsError)?;
    let names: Vec<String> = match names {
        Some(names) if numbers.len() > 0 => names.split(':').map(str::to_owned).collect(),
        _ => vec!["unknown".to_owned(); numbers.len()],
    };
    if names.len() != numbers.len() {
        let text = format!("{} names for {} descriptors", names.len(), numbers.len());
        return Err(ListenFdsError(io::Error::other(text)));
    }
    Ok(numbers.zip(names).collect())
}

/// Another descriptor for the same file, from `past` up.
fn moved_up(number: RawFd, past: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: sets no flag and touches no memory; a number that is not open answers EBADF.
    match unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, past) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the call has just made it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// Makes the descriptor `number` this program's own. If it is a stranger's, that stays open.
fn slot(number: RawFd, past: RawFd, is_strange: bool) -> Option<OwnedFd> {
    match moved_up(number, past) {
        Ok(same) => {
            if is_strange {
                // Nobody's here, and open as long as this process.
                let _ = same.into_raw_fd();
            }
            // SAFETY: it is open, and as nothing was opened yet, nobody in this program owns it.
            Some(unsafe { OwnedFd::from_raw_fd(number) })
        }
        // Free. std has opened standard input if nobody else has.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::BADF) => {
            fcntl_dupfd_cloexec(rustix::stdio::stdin(), number).ok()
        }
        Err(_) => None,
    }
}

impl Slots {
    /// Moves `fd` to the next number. False if there is none left: `fd` stays where it is.
    ///
    /// # Errors
    /// `dup3(2)` failed.
    pub fn place(&mut self, fd: &mut OwnedFd) -> io::Result<bool> {
        if self.0.is_empty() {
            return Ok(false);
        }
        let mut slot = self.0.remove(0);
        rustix::io::dup3(&*fd, &mut slot, rustix::io::DupFlags::CLOEXEC)?;
        *fd = slot;
        Ok(true)
    }
}
