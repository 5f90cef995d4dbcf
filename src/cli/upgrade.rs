//! An upgrade in place: the program that this server's path names now takes over.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};
use sd_notify::NotifyState;
use tokio::time::timeout;

use super::check::REFUSED;
use super::server_args::CHECK;
use super::settings::names_a_file;
use crate::sys::poll::watch;
use crate::sys::process::{self, Pid};
use crate::sys::replace::{own_program, replace};

/// How long a program may take to say its version.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// So much is read of what it complains about.
const COMPLAINT_LIMIT: usize = 4096;

/// The program that is to take over, and its arguments.
#[derive(Debug, Clone)]
pub(super) struct Upgrade {
    program: PathBuf,
    args: Vec<OsString>,
}

impl Upgrade {
    /// As this program was called. To be called at start.
    pub(super) fn new(args: &[OsString]) -> io::Result<Self> {
        let program = own_program(args.first().map_or("".as_ref(), OsString::as_os_str))?;
        let rest = args.iter().skip(1).cloned();
        Ok(Self { args: [program.clone().into()].into_iter().chain(rest).collect(), program })
    }

    /// Whether the program starts and knows these arguments: asked for its version behind them. What would
    /// be found out later would be found out by a server that is no more.
    pub(super) async fn check(&self) -> Result<(), String> {
        let said = |why: String| format!("{} {why}", self.program.display());
        let (mut complaint, writer) = io::pipe().map_err(|e| format!("no pipe: {e}"))?;
        let mut command = Command::new(&self.program);
        // A configuration that is wrong by now would be found out by a server that is no more.
        let is_configured = names_a_file(&self.args);
        command.args(is_configured.then_some(CHECK)).args(&self.args[1..]);
        command.args((!is_configured).then_some("--version"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(writer);
        let pid = process::spawn(&mut command).map_err(|e| said(format!("does not start: {e}")))?;
        drop(command);
        match timeout(CHECK_TIMEOUT, status_of(pid)).await {
            Ok(Ok(Some(0))) => Ok(()),
            Ok(Ok(status)) => {
                // Something that it has left behind may hold the pipe.
                let _ = rustix::io::ioctl_fionbio(&complaint, true);
                let mut text = vec![0; COMPLAINT_LIMIT];
                let len = complaint.read(&mut text).unwrap_or(0);
                // A line of a file of keys that lets nobody in is told on its stdout, and stops no server.
                if is_configured && status == Some(REFUSED.into()) && len == 0 {
                    return Ok(());
                }
                let text = String::from_utf8_lossy(&text[..len]).into_owned();
                let line = text.lines().next().unwrap_or("it says nothing").to_owned();
                Err(said(format!("does not take over with the same arguments: {line}")))
            }
            Ok(Err(e)) => Err(said(format!("cannot be watched: {e}"))),
            Err(_) => {
                // It is not reaped, so the pid is its own.
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                process::disown(pid);
                Err(said(format!("does not say its version within {} s", CHECK_TIMEOUT.as_secs())))
            }
        }
    }

    /// Becomes it. Returns only if that failed, and why.
    pub(super) fn replace(&self, handed: &[(BorrowedFd<'_>, String)]) -> String {
        let error = replace(&self.program, &self.args, handed);
        format!("cannot become {}: {error}", self.program.display())
    }
}

/// The exit status of a child, once it has ended; none if a signal ended it.
async fn status_of(pid: Pid) -> io::Result<Option<i32>> {
    let pidfd = watch(pidfd_open(pid, PidfdFlags::empty())?)?;
    let _ended = pidfd.readable().await?;
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let status = waitid(WaitId::PidFd(pidfd.as_fd()), peek)?;
    process::reap(pid)?;
    Ok(status.and_then(|status| status.exit_status()))
}

/// The service manager is told that the server is busy with itself (sd_notify(3)); `READY=1` ends this,
/// from whoever serves then.
pub(super) fn tell_reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        // Without systemd there is nobody to tell.
        let _ = sd_notify::notify(&[NotifyState::Reloading, now]);
    }
}

/// The server serves.
pub(super) fn tell_reloaded() {
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}
