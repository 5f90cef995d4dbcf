//! Processes: what this program inherits and hands on, who a pid is, and its own children.
//!
//! Calls that rustix makes safe are made where they are needed; here is what it lacks.

#![expect(
    unsafe_code,
    reason = "sigaction, close_range, wait4, waitid with rusage, TIOCNOTTY, and getpgid and getsid of any pid have no safe form"
)]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;
use std::{fs, ptr};

use rustix::event::PollFlags;
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat, stat as stat_path};
pub use rustix::process::Pid;
use rustix::process::PidfdFlags;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::clock::boottime;
use super::mutex::lock;
use super::poll::ready_now;
use super::signals;

/// First descriptor that is not standard input, output or error.
const FIRST_EXTRA_FD: u32 = 3;
/// Highest signal number of Linux (signal(7): `SIGRTMAX`).
const SIGNAL_MAX: i32 = 64;
/// `/proc/PID/stat` is 52 numbers and a name of 16 bytes.
const STAT_LIMIT: usize = 2048;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Why the process cannot serve runs at all.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// Without `/proc` no run can be told from a recycled pid, and no tree can be stopped.
    #[error("/proc is not usable ({0}): mount it with `mount -t proc proc /proc`")]
    NoProc(io::Error),
    /// A signal's disposition or the mask could not be set.
    #[error("cannot reset signals: {0}")]
    Signals(io::Error),
    /// Descriptors could not be marked close-on-exec; runs would inherit them.
    #[error("cannot keep inherited descriptors from runs: {0}")]
    Descriptors(io::Error),
}

/// What became of the controlling terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// There was none.
    None,
    /// It was given up: no run can read a password from it or be stopped by it.
    GivenUp,
    /// It was kept, because this process leads its session: giving it up would hang up everything
    /// else on it and take Ctrl-C away. A run that opens `/dev/tty` may be stopped by the terminal.
    Kept,
}

/// What was found and remembered at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inherited {
    /// Soft limit of open descriptors; none if unlimited.
    pub open_files: Option<u64>,
    /// The controlling terminal.
    pub terminal: Terminal,
}

/// Puts right, once, what every run inherits: no signal ignored or blocked (a script's `server &`
/// leaves SIGINT and SIGQUIT ignored; SIGHUP, SIGUSR1 and SIGUSR2 stay blocked, see [`signals`]), no descriptor
/// from 3 up, no controlling terminal. Passed sockets (`LISTEN_FDS`) stay open here. This process becomes the parent of what runs leave behind
/// (`PR_SET_CHILD_SUBREAPER`), so that [`orphans`] sees it; call [`reap_strangers`] upon SIGCHLD.
///
/// Call it first, while there is one thread: a signal mask belongs to a thread and is inherited by
/// those it starts. SIGPIPE stays ignored here; std gives it back to children. SIGXFSZ is passed over here.
///
/// # Errors
/// [`PrepareError`], one line that says what to do.
pub fn prepare() -> Result<Inherited, PrepareError> {
    start_time(rustix::process::getpid()).map_err(PrepareError::NoProc)?;
    default_signals()
        .and_then(|()| signals::outlive_file_limit())
        .map_err(PrepareError::Signals)?;
    close_on_exec().map_err(PrepareError::Descriptors)?;
    STDIN_IS_NULL.store(is_null(rustix::stdio::stdin()), Ordering::Relaxed);
    // An old kernel without it only makes counting what a run left behind slower.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    Ok(Inherited { open_files, terminal: give_up_terminal() })
}

/// What [`stdin_is_null`] answers.
static STDIN_IS_NULL: AtomicBool = AtomicBool::new(false);

/// Whether standard input was `/dev/null` when [`prepare`] was called, and can be read: nohup(1) opens it for writing.
/// False in a program that did not call it, which may put something else there.
#[must_use]
pub fn stdin_is_null() -> bool {
    STDIN_IS_NULL.load(Ordering::Relaxed)
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    let is_read = fcntl_getfl(fd).is_ok_and(|flags| {
        flags & OFlags::ACCMODE != OFlags::WRONLY && !flags.contains(OFlags::PATH)
    });
    // Where a file stands in the place of the device, nothing is.
    let is_device =
        |found: &Stat| FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice;
    let device =
        |found: rustix::io::Result<Stat>| found.ok().filter(is_device).map(|found| found.st_rdev);
    let null = device(stat_path("/dev/null"));
    is_read && null.is_some() && device(fstat(fd)) == null
}

/// Handlers are left alone (std has one for stack overflow): exec resets them, but keeps "ignored".
fn default_signals() -> io::Result<()> {
    for signal in (1..=SIGNAL_MAX).filter(|&s| s != libc::SIGPIPE) {
        if signals::is_ignored(signal) {
            // SAFETY: SIG_DFL runs none of our code.
            cvt(unsafe { libc::signal(signal, libc::SIG_DFL) } == libc::SIG_ERR)?;
        }
    }
    // SAFETY: SIG_IGN runs none of our code.
    cvt(unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) } == libc::SIG_ERR)?;
    signals::unblock_all_but_held()
}

fn cvt(failed: bool) -> io::Result<()> {
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn close_on_exec() -> io::Result<()> {
    // SAFETY: sets a flag of descriptors; touches no memory.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_EXTRA_FD,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 { Ok(()) } else { close_on_exec_each() }
}

/// For kernels before 5.11, and sandboxes that do not know the call.
fn close_on_exec_each() -> io::Result<()> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(fd) = name.to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if fd >= FIRST_EXTRA_FD.cast_signed() {
            // SAFETY: sets a flag; a descriptor closed meanwhile answers EBADF.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Gives the controlling terminal up, for this process and what it starts.
pub fn give_up_terminal() -> Terminal {
    let Ok(tty) = fs::File::open("/dev/tty") else { return Terminal::None };
    if leads_session(rustix::process::getpid()) {
        return Terminal::Kept;
    }
    // SAFETY: TIOCNOTTY takes no argument.
    match unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCNOTTY) } {
        0 => Terminal::GivenUp,
        _ => Terminal::Kept,
    }
}

/// A process, told from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessRef {
    /// Its id in this pid namespace.
    pub pid: Pid,
    /// Clock ticks from boot to its start: field 22 of `/proc/PID/stat`, proc(5).
    pub start_time: u64,
}

impl ProcessRef {
    /// Who has this pid now.
    ///
    /// # Errors
    /// `/proc/PID/stat` cannot be read: `NotFound` if there is no such process.
    pub fn of(pid: Pid) -> io::Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)? })
    }

    /// A process that a child, or this process, has started after `since` ([`boottime`]). `/proc` is asked only if the
    /// clock has ticked since then: its answer waits for the end of the child's execve(2) (the kernel's
    /// `exec_update_lock`).
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_child(pid: Pid, since: Duration) -> io::Result<Self> {
        let (from, to) = (ticks(since), ticks(boottime()));
        if from == to { Ok(Self { pid, start_time: from }) } else { Self::of(pid) }
    }

    /// A pidfd of exactly this process; none if it is gone. The start time is compared after
    /// opening: a pid that has the right one then cannot have been recycled before.
    ///
    /// # Errors
    /// Out of descriptors, or `/proc` cannot be read.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let pidfd = match rustix::process::pidfd_open(self.pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            opened => opened?,
        };
        match start_time(self.pid) {
            Ok(time) if time == self.start_time => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(e) if gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Whole clock ticks, as `/proc` counts time.
fn ticks(time: Duration) -> u64 {
    let tick = NANOS_PER_SECOND / rustix::param::clock_ticks_per_second().max(1);
    u64::try_from(time.as_nanos() / u128::from(tick)).unwrap_or(u64::MAX)
}

/// Whether reading below `/proc/PID` failed because the process is no more.
#[must_use]
pub fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// The process group of a process; none if the process is no more, is a kernel thread, or its group
/// is not of this pid namespace. (rustix takes the 0 that the kernel says then for a pid.)
#[must_use]
pub fn group_of(pid: Pid) -> Option<Pid> {
    // SAFETY: takes and gives integers.
    match unsafe { libc::getpgid(pid.as_raw_nonzero().get()) } {
        group if group > 0 => Pid::from_raw(group),
        _ => None,
    }
}

/// Whether a process leads its session, setsid(2). (rustix takes the 0 for a pid that the kernel says
/// for a session of another pid namespace and for a process that is just ending.)
#[must_use]
pub fn leads_session(pid: Pid) -> bool {
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: takes and gives integers.
    unsafe { libc::getsid(pid) == pid }
}

/// Whether the process of a pidfd has ended; a zombie has.
///
/// # Errors
/// poll(2) failed: out of memory.
pub fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    Ok(!ready_now(pidfd, PollFlags::IN)?.is_empty())
}

/// `/proc/PID/stat`, in the one read by which the kernel hands it out whole: this is on the way of
/// each run, and reading until the end asks seven times.
fn stat(pid: Pid) -> io::Result<Vec<u8>> {
    let mut line = vec![0; STAT_LIMIT];
    let len = fs::File::open(format!("/proc/{pid}/stat"))?.read(&mut line)?;
    line.truncate(len);
    Ok(line)
}

fn start_time(pid: Pid) -> io::Result<u64> {
    parse_start_time(&stat(pid)?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/PID/stat has no start time")
    })
}

fn parse_start_time(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 22)?.parse().ok()
}

/// A field of `/proc/PID/stat` by its number in proc(5), from 3 on. Field 2, the name, may itself
/// hold blanks and `)`: what counts is the last one.
fn stat_field(stat: &[u8], number: usize) -> Option<&str> {
    let name_end = stat.iter().rposition(|&b| b == b')')?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// Whether a signal has stopped a process, until another one has it go on (`T`, proc(5)).
///
/// # Errors
/// `/proc/PID/stat` cannot be read.
pub fn is_stopped(pid: Pid) -> io::Result<bool> {
    Ok(stat_field(&stat(pid)?, 3) == Some("T"))
}

/// Whether a process that shows an empty environment is within execve(2), where the new one is not
/// yet in place (`env_end`, field 51, is 0): it has one a moment later. False for a zombie.
///
/// # Errors
/// `/proc/PID/stat` cannot be read.
pub fn is_executing(pid: Pid) -> io::Result<bool> {
    let stat = stat(pid)?;
    let ended = stat_field(&stat, 3).is_none_or(|state| "ZXx".contains(state));
    Ok(!ended && stat_field(&stat, 51) == Some("0"))
}

/// The real uid of a process: whose it is, whatever set-user-id program it has become. None if it is gone.
///
/// # Errors
/// `/proc` cannot be read.
pub fn real_uid(pid: Pid) -> io::Result<Option<u32>> {
    match fs::read(format!("/proc/{pid}/status")) {
        Err(e) if gone(&e) => Ok(None),
        status => Ok(uid_in(&status?)),
    }
}

fn uid_in(status: &[u8]) -> Option<u32> {
    let line = status.split(|&b| b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes of memory that this process has resident, proc_pid_statm(5).
///
/// # Errors
/// `/proc` cannot be read.
pub fn resident() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// The kernel's id of this boot: pids of another one mean nothing.
///
/// # Errors
/// `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// machine-id(5), if this machine has one.
#[must_use]
pub fn machine_id() -> Option<String> {
    let read = |path| fs::read_to_string(path).ok().map(|id| id.trim().to_owned());
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .into_iter()
        .filter_map(read)
        .find(|id| !id.is_empty())
}

/// Inode of this process's pid namespace, pid_namespaces(7).
///
/// # Errors
/// `/proc` cannot be read.
pub fn pid_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Children that somebody waits for; all others are strangers.
static KNOWN: Mutex<BTreeMap<i32, Orphans>> = Mutex::new(BTreeMap::new());
/// Called when a child was started, was reaped or became a stranger.
static CHANGED: Notify = Notify::const_new();
/// Read while a child is started and not yet known, written while strangers are reaped: a child
/// that ends at once is never taken for a stranger.
static STARTING: RwLock<()> = RwLock::new(());

/// To whom the kernel hands what a child leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Orphans {
    /// To this process.
    ComeHere,
    /// To the child itself, a subreaper.
    StayThere,
}

fn known() -> MutexGuard<'static, BTreeMap<i32, Orphans>> {
    lock(&KNOWN)
}

/// While it is held no child is being started.
pub(super) fn nobody_starts() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that stays a zombie until [`reap`]. Every child of a process that calls
/// [`reap_strangers`] has to be started here.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: &mut Command) -> io::Result<Pid> {
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let child = signals::let_in(|| command.spawn())?;
    let pid = Pid::from_child(&child);
    know(pid, Orphans::ComeHere);
    Ok(pid)
}

/// The same, with one more descriptor open in the child, under its number here. Nothing else is started
/// meanwhile, or it would inherit it too.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn_handing(command: &mut Command, handed: BorrowedFd<'_>) -> io::Result<Pid> {
    let _nobody_else_starts = nobody_starts();
    rustix::io::fcntl_setfd(handed, rustix::io::FdFlags::empty())?;
    let spawned = signals::let_in(|| command.spawn());
    // It was close-on-exec before, and setting that does not fail.
    let _ = rustix::io::fcntl_setfd(handed, rustix::io::FdFlags::CLOEXEC);
    let pid = Pid::from_child(&spawned?);
    know(pid, Orphans::ComeHere);
    Ok(pid)
}

fn know(pid: Pid, orphans: Orphans) {
    known().insert(pid.as_raw_nonzero().get(), orphans);
    CHANGED.notify_one();
}

/// Starts a child that takes what its own children leave behind, as a supervisor does.
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn_reaper(command: &mut Command) -> io::Result<Pid> {
    let pid = spawn(command)?;
    know(pid, Orphans::StayThere);
    Ok(pid)
}

/// Waits until a child is started, is reaped or becomes a stranger, or returns at once if that has happened
/// since the last time. For one who waits.
pub async fn children_changed() {
    CHANGED.notified().await;
}

/// No program that this one becomes or starts gets a descriptor besides the standard ones.
///
/// # Errors
/// `/proc/self/fd` cannot be read, on kernels where it has to be.
pub fn keep_from_children() -> io::Result<()> {
    close_on_exec()
}

/// What a child took, with the descendants that it has waited for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Largest resident set, bytes (`ru_maxrss`, getrusage(2)). At least that of this process when it
    /// started the child, whose memory the two share until execve(2).
    pub peak: u64,
}

/// Collects a child that has ended; its pid may be another's from now on. Never blocks.
///
/// # Errors
/// `WouldBlock` if it still runs; `ECHILD` if it is not a child of this process.
pub fn reap(pid: Pid) -> io::Result<Usage> {
    // Held over both steps: the pid is free from wait4 on, and must not be struck off after a new
    // child has got it.
    let mut known = known();
    let raw = pid.as_raw_nonzero().get();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: wait4 may leave the status out (null), and `usage` is writable.
    match unsafe { libc::wait4(raw, ptr::null_mut(), libc::WNOHANG, usage.as_mut_ptr()) } {
        0 => return Err(io::ErrorKind::WouldBlock.into()),
        -1 => return Err(io::Error::last_os_error()),
        _ => known.remove(&raw),
    };
    CHANGED.notify_one();
    // SAFETY: zeroed is a valid rusage, and wait4 has filled it.
    Ok(Usage::from(unsafe { usage.assume_init() }))
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By exit(3).
    Exited {
        /// 0 to 255.
        code: u8,
    },
    /// By a signal.
    Signaled {
        /// Its number, real-time ones included.
        signal: i32,
        /// A core file was written.
        core_dumped: bool,
    },
}

/// A child that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub end: End,
    /// What it took: what [`reap`] will say.
    pub usage: Usage,
}

/// The end of a child, if there was one by now, without collecting it: that takes the kernel ten times as long. Never
/// blocks.
///
/// # Errors
/// `ECHILD` if it is not a child of this process, or is reaped.
pub fn ended(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both are writable, and of the types that the kernel fills; the C library's waitid leaves
    // out the fifth argument.
    let done = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PIDFD,
            pidfd.as_raw_fd(),
            info.as_mut_ptr(),
            libc::WEXITED | libc::WNOHANG | libc::WNOWAIT,
            usage.as_mut_ptr(),
        )
    };
    cvt(done != 0)?;
    // SAFETY: zeroed is valid for both, whatever the kernel has filled.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // None has ended: waitid(2) leaves it 0.
    if info.si_signo == 0 {
        return Ok(None);
    }
    // SAFETY: of a child's end the kernel says the status.
    let status = unsafe { info.si_status() };
    let end = match info.si_code {
        // The eight bits that exit(3) keeps.
        libc::CLD_EXITED => End::Exited { code: u8::try_from(status & 0xff).unwrap_or(u8::MAX) },
        code => End::Signaled { signal: status, core_dumped: code == libc::CLD_DUMPED },
    };
    Ok(Some(Ended { end, usage: Usage::from(usage) }))
}

impl From<libc::rusage> for Usage {
    fn from(usage: libc::rusage) -> Self {
        Self {
            user: duration(usage.ru_utime),
            system: duration(usage.ru_stime),
            peak: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Reaps a child when it has ended. `pidfd` is its own ([`watch`](super::poll::watch)).
pub async fn reap_when_ended(pid: Pid, pidfd: AsyncFd<OwnedFd>) {
    // Whatever goes wrong leaves a stranger, which is reaped as one.
    if pidfd.readable().await.is_err() || reap(pid).is_err() {
        disown(pid);
    }
}

/// Nobody waits for this child any more: it is reaped as a stranger.
pub fn disown(pid: Pid) {
    known().remove(&pid.as_raw_nonzero().get());
    CHANGED.notify_one();
}

mod orphans;
pub use orphans::{may_leave_strangers, orphans, reap_strangers};

#[cfg(test)]
pub(crate) mod forks;
#[cfg(test)]
pub(crate) mod tests;
