//! Stopping everything that a run has started: SIGTERM, time to finish, then SIGSTOP until nothing
//! new is found, so that nothing can start another process while SIGKILL is being dealt out.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;
use tracing::warn;

use super::mark::Mark;
use super::scan::{Action, Containment, Found, Scanner, Target};
use super::signal::Signal;
use super::wait::Child;
use crate::sys::poll::watch;
use crate::sys::process::{ProcessRef, has_ended, orphans};

/// Time between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for processes to vanish after SIGKILL; those in uninterruptible sleep do not. What is left
/// then is counted as it was last seen.
pub const KILL_GRACE: Duration = Duration::from_secs(2);
/// Time for the passes of SIGSTOP before SIGKILL.
const FREEZE_LIMIT: Duration = Duration::from_secs(1);
/// Time for counting what a run has left.
const COUNT_LIMIT: Duration = Duration::from_secs(2);
/// Most passes of SIGSTOP: what starts processes faster than this is killed in the running.
const FREEZE_PASSES: usize = 16;

/// What became of a run's tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Processes that are still there.
    pub left_running: u32,
    /// How far the tree could be seen.
    pub containment: Containment,
}

/// Stops a run: its main process and all that it has started, which get `grace` ([`TERM_GRACE`])
/// from SIGTERM to SIGKILL. Returns when the main process has ended and nothing is left, at the
/// latest [`KILL_GRACE`] after SIGKILL; what is left then is counted, or, if the system has not let
/// itself be looked at by then, the main process alone.
///
/// Cancel safe: to hurry, drop it and call it again with a shorter `grace`.
///
/// # Errors
/// `/proc` cannot be read, or descriptors are used up; the process group was signalled all the same.
pub async fn stop(child: &Child, scanner: &Scanner, grace: Duration) -> io::Result<Stopped> {
    let tree = Tree::of(child, scanner);
    tree.stop(grace).await
}

/// What is known of a run whose server, or supervisor, has died.
#[derive(Debug, Clone, Copy)]
pub struct Leftovers {
    /// What its processes carry.
    pub mark: Mark,
    /// The user it was run as, if that is not this process's own account: nobody else's processes are its.
    pub uid: Option<u32>,
    /// Start time of its main process.
    pub not_before: u64,
}

/// Stops what is left of a run, if boot id and pid namespace are still those in which it was started.
///
/// # Errors
/// As [`stop`].
pub async fn stop_leftovers(
    scanner: &Scanner,
    left: Leftovers,
    grace: Duration,
) -> io::Result<Stopped> {
    let Leftovers { mark, uid, not_before } = left;
    // Whether it had a control group is not written down.
    let target = Target { mark, group: None, grouped: true, uid, not_before };
    Tree { scanner, target, child: None, kill_grace: KILL_GRACE }.stop(grace).await
}

/// How many processes a run has left behind, to be asked after the end of its main process and
/// before [`Child::reap`].
///
/// A pass over `/proc` would cost each run milliseconds. When the main process has ended, whatever
/// it left has an ancestor, or is one, that was handed to the nearest subreaper: this process, after
/// `sys::process::prepare`. So nothing is looked at unless there are children that nobody here
/// started, and the pass is made only if one of them belongs to the run; if the system does not tell
/// these children, it is always made. It takes at most two seconds: after that the count is of what
/// is known without looking.
///
/// # Errors
/// As [`stop`].
pub async fn count_left(child: &Child, scanner: &Scanner) -> io::Result<Stopped> {
    Tree::of(child, scanner).count_left(COUNT_LIMIT).await
}

fn target_of(child: &Child) -> Target {
    let process = child.process();
    Target {
        mark: child.mark(),
        group: Some(process.pid),
        grouped: child.group().is_some(),
        uid: child.uid(),
        not_before: process.start_time,
    }
}

fn stopped(found: &Found) -> Stopped {
    counted(found.processes.len(), found.containment)
}

fn counted(left: usize, containment: Containment) -> Stopped {
    Stopped { left_running: u32::try_from(left).unwrap_or(u32::MAX), containment }
}

/// Whether a process is still there, as far as can be said; a zombie is not.
fn is_left(process: &ProcessRef) -> bool {
    match process.open() {
        Ok(Some(pidfd)) => !has_ended(&pidfd).unwrap_or(false),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// A run being stopped.
struct Tree<'a> {
    scanner: &'a Scanner,
    target: Target,
    /// The main process, if it is ours and not reaped.
    child: Option<&'a Child>,
    /// [`KILL_GRACE`].
    kill_grace: Duration,
}

impl<'a> Tree<'a> {
    fn of(child: &'a Child, scanner: &'a Scanner) -> Self {
        let target = target_of(child);
        Self { scanner, target, child: Some(child), kill_grace: KILL_GRACE }
    }

    async fn stop(&self, grace: Duration) -> io::Result<Stopped> {
        if !grace.is_zero()
            && let Ok(Ok(gone)) = timeout(grace, self.terminate()).await
        {
            return Ok(gone);
        }
        // Looking may take for ever: the environment of a process that waits for a dead network disk
        // cannot be read. The group is signalled before anybody looks, and what goes wrong here goes
        // wrong again below.
        let _ = timeout(FREEZE_LIMIT, self.freeze()).await;
        let mut seen = None;
        match timeout(self.kill_grace, self.killed(&mut seen)).await {
            Ok(gone) => gone,
            Err(_) => self.left(seen),
        }
    }

    async fn count_left(&self, limit: Duration) -> io::Result<Stopped> {
        if orphans().is_ok_and(|orphans| orphans.is_empty()) {
            return Ok(counted(0, Containment::of(self.target.grouped)));
        }
        match timeout(limit, self.scanner.scan(self.target, Action::CountLeft)).await {
            Ok(found) => Ok(stopped(&found?)),
            Err(_) => self.unseen(),
        }
    }

    /// What is left of that which was last seen.
    fn left(&self, seen: Option<Found>) -> io::Result<Stopped> {
        let Some(found) = seen else { return self.unseen() };
        let left = found.processes.iter().filter(|process| is_left(process)).count();
        Ok(counted(left, found.containment))
    }

    /// What can be said without looking.
    fn unseen(&self) -> io::Result<Stopped> {
        let left_running = u32::from(!self.main_ended()?);
        let pid = self.child.map(|child| child.process().pid.as_raw_nonzero());
        warn!(
            pid,
            left_running,
            "the processes of a run could not be looked at in time; no more than its main process is counted"
        );
        Ok(Stopped { left_running, containment: Containment::Group })
    }

    async fn terminate(&self) -> io::Result<Stopped> {
        let terminated = self.signal(Signal::TERM).await;
        // What was stopped (`pause`, Ctrl-Z) cannot act upon SIGTERM otherwise.
        self.signal(Signal::CONT).await?;
        terminated?;
        self.gone().await
    }

    /// Signals the process group in one call, and then those that have left it.
    async fn signal(&self, signal: Signal) -> io::Result<Found> {
        if let Some(child) = self.child {
            // EPERM: none of the group may be signalled, which the count will show.
            let _ = child.signal_group(signal);
        }
        self.scanner.scan(self.target, Action::SignalOutsiders(signal)).await
    }

    /// Waits until the main process has ended and nothing else is found.
    async fn gone(&self) -> io::Result<Stopped> {
        loop {
            let main_ended = self.main_ended()?;
            let found = self.scanner.scan(self.target, Action::Count).await?;
            if main_ended && found.processes.is_empty() {
                return Ok(stopped(&found));
            }
            self.ended(found.watch).await?;
        }
    }

    /// As [`Self::gone`], killing what is found on the way, of which the last is put into `seen`.
    async fn killed(&self, seen: &mut Option<Found>) -> io::Result<Stopped> {
        if let Some(group) = self.child.and_then(Child::group) {
            // Where the kernel cannot, what is found is killed one by one.
            let _ = group.kill();
        }
        loop {
            let main_ended = self.main_ended()?;
            let mut found = self.signal(Signal::KILL).await?;
            if main_ended && found.processes.is_empty() {
                return Ok(stopped(&found));
            }
            let watched = std::mem::take(&mut found.watch);
            *seen = Some(found);
            self.ended(watched).await?;
        }
    }

    fn main_ended(&self) -> io::Result<bool> {
        self.child.map_or(Ok(true), |child| Ok(child.ended()?.is_some()))
    }

    /// Waits for the end of the main process and of what was found.
    async fn ended(&self, watched: Vec<OwnedFd>) -> io::Result<()> {
        if let Some(child) = self.child {
            child.exited().await?;
        }
        for pidfd in watched {
            watch(pidfd)?.readable().await?.retain_ready();
        }
        Ok(())
    }

    /// Stops all that is found until a pass finds nothing new.
    async fn freeze(&self) -> io::Result<()> {
        let mut seen = HashSet::<ProcessRef>::new();
        for _ in 0..FREEZE_PASSES {
            let found = self.signal(Signal::STOP).await?;
            let known = seen.len();
            seen.extend(found.processes);
            if seen.len() == known {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
