//! Signals: what this process inherited about them, and hearing them without losing one.
//!
//! A signal that is held (blocked in every thread) waits in the kernel until it is read from a
//! `signalfd(2)`, or until the program that this process becomes reads it. So a signal that comes
//! while the server replaces itself is heard, by the one before or by the one after.
//!
//! std's `Command` starts every child with an empty mask, so runs do not inherit this.
#![expect(unsafe_code, reason = "sigaction, pthread_sigmask and signalfd have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;

use super::process::watch;

/// Bytes of one `struct signalfd_siginfo`.
const INFO_LEN: usize = size_of::<libc::signalfd_siginfo>();

/// Whether a signal is ignored by this process, as its starter wanted it (`sigaction(2)`).
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; `action` is writable and of the type asked for.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: zeroed is a valid sigaction, and the call has filled it.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Unblocks every signal but SIGHUP, which stays blocked if it is: the server that became this one holds
/// it, and it would kill a server that does not listen to it yet.
pub(super) fn unblock_all_but_held() -> io::Result<()> {
    let mut now = set_of(&[]);
    // SAFETY: a null new mask only asks; `now` is writable.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut now) })?;
    // SAFETY: `now` is a mask that the call has filled.
    let held = unsafe { libc::sigismember(&raw const now, libc::SIGHUP) } == 1;
    let mask = set_of(if held { &[Signal::HUP] } else { &[] });
    // SAFETY: `mask` is filled, and the old one is not asked for.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) })
}

/// Holds these signals in this thread and in those that it starts from now on. To be called while
/// there is one thread: one that does not hold them would take them.
///
/// # Errors
/// None that can happen (`pthread_sigmask(3)`).
pub fn hold(signals: &[Signal]) -> io::Result<()> {
    let mask = set_of(signals);
    // SAFETY: `mask` is filled, and the old one is not asked for.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) })
}

fn set_of(signals: &[Signal]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable; sigemptyset fills it before anything is added or read.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal.as_raw());
        }
        set.assume_init()
    }
}

fn checked(failed: i32) -> io::Result<()> {
    if failed == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(failed)) }
}

/// Held signals, one after the other. Several of one kind that come before they are read count as one.
#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<OwnedFd>,
}

impl Signals {
    /// Hears `signals`, which are held.
    ///
    /// # Errors
    /// Out of descriptors or memory.
    ///
    /// # Panics
    /// Outside of a Tokio runtime with I/O enabled.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let mask = set_of(signals);
        // SAFETY: `mask` is filled; -1 asks for a new descriptor.
        let fd =
            unsafe { libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made it.
        Ok(Self { fd: watch(unsafe { OwnedFd::from_raw_fd(fd) })? })
    }

    /// The next one. Cancel safe: what is not returned stays with the kernel.
    ///
    /// # Errors
    /// The system's.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            let mut ready = self.fd.readable().await?;
            let mut info = [0; INFO_LEN];
            match ready.try_io(|fd| Ok(rustix::io::read(fd, &mut info)?)) {
                Ok(Ok(_)) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(Err(e)) => return Err(e),
                Err(_would_block) => continue,
            }
            // Its first field is the number, `ssi_signo`.
            let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            if let Some(signal) = i32::try_from(number).ok().and_then(Signal::from_named_raw) {
                return Ok(signal);
            }
        }
    }
}

/// Which of the standard streams are terminals, at the start of a program.
#[derive(Debug, Clone, Copy)]
pub struct Terminals([bool; 3]);

impl Terminals {
    /// What they are now.
    #[must_use]
    pub fn now() -> Self {
        use rustix::stdio::{stderr, stdin, stdout};
        Self([stdin(), stdout(), stderr()].map(rustix::termios::isatty))
    }

    /// Whether one of them has been hung up since: that terminal's window was closed, or its line lost. A
    /// hung-up terminal answers no question, not even what it is.
    #[must_use]
    pub fn were_closed(&self) -> bool {
        self.0.iter().zip(Self::now().0).any(|(then, now)| *then && !now)
    }
}
