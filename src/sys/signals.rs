//! Signals: what this process inherited about them, and hearing them without losing one.
//!
//! A signal that is held (blocked in every thread) waits in the kernel until it is read from a
//! `signalfd(2)`, or until the program that this process becomes reads it. So a signal that comes
//! while the server replaces itself is heard, by the one before or by the one after.
//!
//! A child inherits the mask of the thread that starts it, and std has no way to give it another one short
//! of forking. So the thread lets held signals in while it starts a child (`let_in`), and a handler
//! notes what comes then.
#![expect(unsafe_code, reason = "sigaction, pthread_sigmask and signalfd have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::poll::watch;

/// Bytes of one `struct signalfd_siginfo`.
const INFO_LEN: usize = size_of::<libc::signalfd_siginfo>();

/// The signals that are held: one bit for each number.
static HELD: AtomicU64 = AtomicU64::new(0);
/// What came while a child was started.
static NOTED: AtomicU64 = AtomicU64::new(0);
/// Wakes whoever hears signals when something was noted.
static CALLED: Notify = Notify::const_new();

/// Whether a signal is ignored by this process, as its starter wanted it (`sigaction(2)`). False for those that the
/// C library keeps to itself.
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

/// Those that do not end a server that listens to them, and would kill one that does not yet.
const HARMLESS: [Signal; 3] = [Signal::HUP, Signal::USR1, Signal::USR2];

/// Unblocks every signal but those of [`HARMLESS`] that are blocked: the server that became this one holds them.
pub(super) fn unblock_all_but_held() -> io::Result<()> {
    let mut now = set_of([]);
    // SAFETY: a null new mask only asks; `now` is writable.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::null(), &raw mut now) })?;
    // SAFETY: `now` is a mask that the call has filled.
    let is_held = |one: &Signal| unsafe { libc::sigismember(&raw const now, one.as_raw()) } == 1;
    let mask = set_of(HARMLESS.into_iter().filter(is_held));
    // SAFETY: `mask` is filled, and the old one is not asked for.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) })
}

/// Holds these signals in this thread and in those that it starts from now on. To be called while
/// there is one thread: one that does not hold them would take them.
///
/// # Errors
/// None that can happen (`pthread_sigmask(3)`, `sigaction(2)`).
///
/// # Panics
/// In a debug build, if there is another thread.
pub fn hold(signals: &[Signal]) -> io::Result<()> {
    debug_assert!(is_only_thread(), "another thread would take what is to be held");
    let mask = set_of(signals.iter().copied());
    // SAFETY: `mask` is filled, and the old one is not asked for.
    checked(unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) })?;
    for signal in signals {
        handle(*signal, note)?;
        HELD.fetch_or(bit(signal.as_raw()), Ordering::Relaxed);
    }
    Ok(())
}

/// Whether this process has one thread, as far as proc(5) tells.
fn is_only_thread() -> bool {
    std::fs::read_dir("/proc/self/task").map_or(true, |threads| threads.count() == 1)
}

/// From now on a write beyond this process's limit for files (`RLIMIT_FSIZE`) is an error, EFBIG, as one on a full
/// disk is, and not its end. A handler, since children would inherit that the signal is ignored.
///
/// # Errors
/// None that can happen (`sigaction(2)`).
pub fn outlive_file_limit() -> io::Result<()> {
    handle(Signal::XFSZ, pass_over)
}

fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: zeroed is a valid sigaction. `note` and `pass_over`, the only handlers, do nothing that one may not
    // do (signal-safety(7)): at most a bit is added to an atomic.
    let failed = unsafe {
        (*action.as_mut_ptr()).sa_sigaction = handler as *const () as libc::sighandler_t;
        (*action.as_mut_ptr()).sa_flags = libc::SA_RESTART;
        libc::sigaction(signal.as_raw(), action.as_ptr(), ptr::null_mut())
    };
    checked(failed)
}

extern "C" fn note(signal: libc::c_int) {
    NOTED.fetch_or(bit(signal), Ordering::Relaxed);
}

extern "C" fn pass_over(_: libc::c_int) {}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signals of these bits.
fn signals_of(bits: u64) -> impl Iterator<Item = Signal> {
    (1..=64).filter(move |signal| bits & bit(*signal) != 0).filter_map(Signal::from_named_raw)
}

/// Calls `start`, which starts a child, without a signal held in this thread: the child inherits that.
pub fn let_in<T>(start: impl FnOnce() -> T) -> T {
    let held = HELD.load(Ordering::Relaxed);
    if held == 0 {
        return start();
    }
    let mask = set_of(signals_of(held));
    // SAFETY: `mask` is filled, and the old one is not asked for; each of these signals has a handler.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const mask, ptr::null_mut()) };
    let started = start();
    // SAFETY: as above.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const mask, ptr::null_mut()) };
    if NOTED.load(Ordering::Relaxed) != 0 {
        CALLED.notify_one();
    }
    started
}

/// Gives back to the kernel what was noted and not heard yet, for the program that this process becomes.
/// To be called while no child is being started.
pub(super) fn give_back() {
    for signal in signals_of(NOTED.swap(0, Ordering::Relaxed)) {
        // It is held, so it waits. A signal to oneself does not fail.
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    }
}

fn set_of(signals: impl IntoIterator<Item = Signal>) -> libc::sigset_t {
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

/// pthread_sigmask(3) returns the error; sigaction(2) returns -1.
fn checked(failed: i32) -> io::Result<()> {
    match failed {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
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
        let mask = set_of(signals.iter().copied());
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
            if let Some(signal) = signals_of(NOTED.load(Ordering::Relaxed)).next() {
                NOTED.fetch_and(!bit(signal.as_raw()), Ordering::Relaxed);
                return Ok(signal);
            }
            let mut ready = tokio::select! {
                ready = self.fd.readable() => ready?,
                () = CALLED.notified() => continue,
            };
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
