//! A supervisor that has no run yet: its program, its folder, and the link to it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tracing::warn;

use super::disk::Folder;
use super::durable::Keeping;
use super::link::Link;
use crate::sys::poll::watch;
use crate::sys::process;

/// The argument by which this program is a supervisor.
pub const SUPERVISE: &str = "supervise";

/// A supervisor that has no run yet.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) link: Link,
    pub(super) pid: Pid,
    /// What it has prepared: the run's folder when there is one, removed by itself when there is none.
    pub(super) folder: Folder,
}

impl Ready {
    /// Starts one, which waits at its end of the link to be told for which run. Waits for the disk, and until the new
    /// program runs.
    pub(super) fn start(keeping: &Keeping) -> io::Result<Self> {
        let folder = Folder::prepare(&keeping.ready).map_err(|e| no_place(&keeping.ready, &e))?;
        match start_in(&folder, keeping) {
            Ok((link, pid)) => Ok(Self { link, pid, folder }),
            Err(e) => {
                folder.remove();
                Err(e)
            }
        }
    }
}

/// A run cannot have a folder.
pub(super) fn no_place(folder: &Path, error: &io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            "; put back what is missing, or start the server anew, which makes it empty"
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("no place in {}: {error}{advice}", folder.display()))
}

/// It leaves this process's session, which a leader of a process group cannot.
fn start_in(folder: &Folder, keeping: &Keeping) -> io::Result<(Link, Pid)> {
    let (link, theirs) = Link::pair()?;
    // By descriptor: the program that is running, also when its file has been replaced.
    let program = format!("/proc/self/fd/{}", keeping.program.as_raw_fd());
    let mut command = Command::new(program);
    command.arg0("rexec-server").arg(SUPERVISE).arg(&keeping.runs).arg(folder.path());
    // Where its folder is when it comes to it: at once it may be a run's.
    command.current_dir(folder.path());
    command.stdin(theirs).stdout(Stdio::null()).stderr(folder.log()?);
    let pid = process::spawn_reaper(&mut command)?;
    drop(command);
    match pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from).and_then(watch) {
        Ok(pidfd) => drop(tokio::spawn(process::reap_when_ended(pid, pidfd))),
        Err(e) => {
            warn!("a supervisor is not watched: {e}");
            process::disown(pid);
        }
    }
    Ok((link, pid))
}
