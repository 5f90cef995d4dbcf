//! Stopping everything that a run has started: SIGTERM, time to finish, then SIGSTOP until nothing
//! new is found, so that nothing can start another process while SIGKILL is being dealt out.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use tokio::time::timeout;

use super::scan::{Action, Containment, Environ, Found, Scanner, Target};
use super::signal::Signal;
use super::spec::Mark;
use super::wait::Child;
use crate::sys::process::{ProcessRef, gone, group_of, orphans, watch};

/// Time between SIGTERM and SIGKILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// Time for processes to vanish after SIGKILL; those in uninterruptible sleep do not.
pub const KILL_GRACE: Duration = Duration::from_secs(2);
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
/// latest [`KILL_GRACE`] after SIGKILL; what is left then is counted.
///
/// Cancel safe: to hurry, drop it and call it again with a shorter `grace`.
///
/// # Errors
/// `/proc` cannot be read, or descriptors are used up; the process group was signalled all the same.
pub async fn stop(child: &Child, scanner: &Scanner, grace: Duration) -> io::Result<Stopped> {
    let tree = Tree { scanner, target: target_of(child), child: Some(child) };
    tree.stop(grace).await
}

/// Stops what is left of a run whose server has died: known by its mark and the start time of its
/// main process, and only if boot id and pid namespace are still the same.
///
/// # Errors
/// As [`stop`].
pub async fn stop_leftovers(
    scanner: &Scanner,
    mark: Mark,
    not_before: u64,
    grace: Duration,
) -> io::Result<Stopped> {
    let target = Target { mark, group: None, not_before };
    Tree { scanner, target, child: None }.stop(grace).await
}

/// How many processes a run has left behind, to be asked after the end of its main process and
/// before [`Child::reap`].
///
/// A pass over `/proc` would cost each run milliseconds. When the main process has ended, whatever
/// it left has an ancestor, or is one, that was handed to the nearest subreaper: this process, after
/// `sys::process::prepare`. So the pass is made only if one of the children that nobody here started
/// belongs to the run; if the system does not tell these children, it is always made.
///
/// # Errors
/// As [`stop`].
pub async fn count_left(child: &Child, scanner: &Scanner) -> io::Result<Stopped> {
    let target = target_of(child);
    if nothing_adopted(&target) {
        return Ok(Stopped { left_running: 0, containment: Containment::Marks });
    }
    count(scanner, target).await
}

/// A count that does not wait for ever for those that cannot be looked at.
async fn count(scanner: &Scanner, target: Target) -> io::Result<Stopped> {
    match timeout(KILL_GRACE, scanner.scan(target, Action::Count)).await {
        Ok(found) => Ok(stopped(&found?)),
        Err(_) => Ok(Stopped { left_running: 0, containment: Containment::Group }),
    }
}

fn target_of(child: &Child) -> Target {
    let process = child.process();
    Target { mark: child.mark(), group: Some(process.pid), not_before: process.start_time }
}

fn nothing_adopted(target: &Target) -> bool {
    let mut environ = Environ::default();
    let foreign = |&pid: &_| {
        group_of(pid) != target.group
            && match environ.look(pid) {
                Ok(mark) => mark != Some(target.mark),
                // Executing, or not to be seen: the pass decides.
                Err(e) => gone(&e),
            }
    };
    orphans().is_ok_and(|orphans| orphans.iter().all(foreign))
}

fn stopped(found: &Found) -> Stopped {
    let left_running = u32::try_from(found.processes.len()).unwrap_or(u32::MAX);
    Stopped { left_running, containment: found.containment }
}

/// A run being stopped.
struct Tree<'a> {
    scanner: &'a Scanner,
    target: Target,
    /// The main process, if it is ours and not reaped.
    child: Option<&'a Child>,
}

impl Tree<'_> {
    async fn stop(&self, grace: Duration) -> io::Result<Stopped> {
        if !grace.is_zero()
            && let Ok(Ok(gone)) = timeout(grace, self.terminate()).await
        {
            return Ok(gone);
        }
        // Looking may take for ever: the environment of a process that waits for a dead network disk
        // cannot be read. The group is signalled before anybody looks.
        let frozen = timeout(KILL_GRACE, self.freeze()).await;
        let killed = timeout(KILL_GRACE, self.signal(Signal::KILL)).await;
        let (Ok(frozen), Ok(killed)) = (frozen, killed) else { return self.unseen() };
        killed?;
        frozen?;
        match timeout(KILL_GRACE, self.killed()).await {
            Ok(gone) => gone,
            Err(_) => count(self.scanner, self.target).await,
        }
    }

    /// What can be said without looking.
    fn unseen(&self) -> io::Result<Stopped> {
        let left_running = u32::from(!self.main_ended()?);
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
            self.ended(found).await?;
        }
    }

    /// As [`Self::gone`], killing what is found on the way.
    async fn killed(&self) -> io::Result<Stopped> {
        loop {
            let main_ended = self.main_ended()?;
            let found = self.signal(Signal::KILL).await?;
            if main_ended && found.processes.is_empty() {
                return Ok(stopped(&found));
            }
            self.ended(found).await?;
        }
    }

    fn main_ended(&self) -> io::Result<bool> {
        self.child.map_or(Ok(true), |child| Ok(child.ended()?.is_some()))
    }

    /// Waits for the end of the main process and of what was found.
    async fn ended(&self, found: Found) -> io::Result<()> {
        if let Some(child) = self.child {
            child.exited().await?;
        }
        for pidfd in found.watch {
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
