//! The main process and its end. It is seen by pidfd and peeked at, not reaped: the zombie keeps
//! pid and process group id from being recycled until [`Child::reap`], so that a signal to the group
//! never reaches somebody else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, kill_process_group, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::warn;

use super::cgroup::Group;
use super::mark::Mark;
use super::signal::Signal;
use crate::sys::poll::watch;
use crate::sys::process::{self, Ended, Pid, ProcessRef, Usage};
use crate::sys::shortage::is_shortage;

/// A main process that was started and not yet reaped. Dropped unreaped, it goes on running and is
/// reaped when it ends.
#[derive(Debug)]
pub struct Child {
    process: ProcessRef,
    mark: Mark,
    /// The user that it was started as, if that is not this process's own.
    uid: Option<u32>,
    /// Its control group, if it has one of its own.
    group: Option<Group>,
    /// `None` only once reaped.
    pidfd: Option<AsyncFd<OwnedFd>>,
}

impl Child {
    /// Takes over a child that was started after `since` (time since boot); kills its group if that fails.
    pub(super) fn follow(pid: Pid, since: Duration, mark: Mark) -> io::Result<Self> {
        Self::try_follow(pid, since, mark).inspect_err(|_| {
            // It is ours and not reaped, so the group is its own; it may be empty by now.
            let _ = kill_process_group(pid, Signal::KILL.raw());
            process::disown(pid);
        })
    }

    fn try_follow(pid: Pid, since: Duration, mark: Mark) -> io::Result<Self> {
        // Not reaped, so the pid cannot be another's.
        let pidfd = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
        let process = ProcessRef::of_child(pid, since)?;
        Ok(Self { process, mark, uid: None, group: None, pidfd: Some(pidfd) })
    }

    /// It was started as another user.
    pub(super) fn of_user(mut self, uid: Option<u32>) -> Self {
        self.uid = uid;
        self
    }

    /// It was started in a control group of its own.
    pub(super) fn within(mut self, group: Option<Group>) -> Self {
        self.group = group;
        self
    }

    /// Its control group, if it has one of its own.
    pub(super) fn group(&self) -> Option<&Group> {
        self.group.as_ref()
    }

    /// The bytes of memory that the whole run may have, if the kernel has ended it because it wanted more.
    #[must_use]
    pub fn passed_memory(&self) -> Option<u64> {
        self.group.as_ref()?.passed_memory()
    }

    /// The user that it was started as, if that is not this process's own.
    pub(super) fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// The main process; its pid is also the process group's id.
    #[must_use]
    pub fn process(&self) -> ProcessRef {
        self.process
    }

    /// The mark in its environment.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Waits for the end of the main process. Cancel safe, and answers again when asked again.
    ///
    /// # Errors
    /// Somebody else has reaped it: how it ended cannot be known.
    pub async fn exited(&self) -> io::Result<Ended> {
        let pidfd = self.pidfd.as_ref().ok_or(Errno::CHILD)?;
        loop {
            // Costs no system call before the end, however often it is asked.
            let mut ready = pidfd.readable().await?;
            if let Some(ended) = self.ended()? {
                return Ok(ended);
            }
            ready.clear_ready();
        }
    }

    /// The end, if there was one by now, and what the main process took.
    ///
    /// # Errors
    /// As [`Self::exited`].
    pub fn ended(&self) -> io::Result<Option<Ended>> {
        let pidfd = self.pidfd.as_ref().ok_or(Errno::CHILD)?;
        process::ended(pidfd.as_fd())
    }

    /// Sends a signal to the process group. A group of which only the main process's zombie is left
    /// takes it without effect.
    ///
    /// # Errors
    /// EPERM if none of its processes may be signalled.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process_group(self.process.pid, signal.raw())?)
    }

    /// Collects the main process, after which its pid and group id may be given to others: the last
    /// thing that is done with a run.
    ///
    /// # Errors
    /// `WouldBlock` if it has not ended.
    pub fn reap(mut self) -> io::Result<Usage> {
        let usage = process::reap(self.process.pid)?;
        self.pidfd = None;
        Ok(usage)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        let pid = self.process.pid;
        match (process::reap(pid), Handle::try_current()) {
            (Err(e), Ok(runtime)) if e.kind() == io::ErrorKind::WouldBlock => {
                runtime.spawn(process::reap_when_ended(pid, pidfd));
            }
            (Err(_), _) => process::disown(pid),
            (Ok(_), _) => {}
        }
    }
}

/// How long a process that a run has left behind may be a zombie.
const ADOPT_EVERY: Duration = Duration::from_secs(1);

/// Reaps, for as long as it is polled, what ends among the processes that runs have left behind.
/// A server runs this once, since `sys::process::prepare` made it their parent.
///
/// By the clock, and not upon SIGCHLD: that comes at the end of each run too, where it would wake one
/// more thread in the middle of the work, and make short runs dearer by a tenth. The clock stands still while
/// nobody is there who could leave anything: a server without work never wakes.
///
/// # Errors
/// `/proc` cannot be read.
pub async fn adopt() -> io::Result<()> {
    let mut told = false;
    loop {
        sleep(ADOPT_EVERY).await;
        match process::reap_strangers().and_then(|_| process::may_leave_strangers()) {
            Ok(may) => {
                told = false;
                if !may {
                    process::children_changed().await;
                }
            }
            Err(e) if is_shortage(&e) => {
                if !std::mem::replace(&mut told, true) {
                    warn!("what runs have left behind is not reaped for now: {e}");
                }
            }
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
