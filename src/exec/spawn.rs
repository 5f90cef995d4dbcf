//! Starting a run.
//!
//! std's `Command` starts it by posix_spawn(3), which does not copy the server's page tables
//! (`CLONE_VM | CLONE_VFORK`); it would fork, at milliseconds for a large server, upon `pre_exec`,
//! uid, gid, groups, chroot, or a bare program name with PATH set (std `sys/process/unix/unix.rs`,
//! `Command::posix_spawn`). So none of these is used, and the program's path is absolute.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::not_started::{NotStarted, SpawnError};
use super::program::{check_cwd, find};
use super::shim;
use super::spec::{BaseEnv, Mark, Program, Spec, TEXT_LIMIT};
use super::wait::Child;
use crate::sys::clock::boottime;
use crate::sys::process;

/// A run that was started: its main process and this side's ends of its pipes.
#[derive(Debug)]
pub struct Spawned {
    /// The main process.
    pub child: Child,
    /// The run's stdin; none if it is `/dev/null`.
    pub stdin: Option<Sender>,
    /// The run's stdout; both streams if the spec says `merge`.
    pub stdout: Receiver,
    /// The run's stderr; none if merged.
    pub stderr: Option<Receiver>,
}

/// Starts `spec` as the leader of a process group of its own, with `mark`, which the caller has made
/// and written down, in its environment. Takes about 100 microseconds, so async callers may call it as
/// it is; a program or folder on a file system that does not answer holds the calling thread as long.
///
/// # Errors
/// [`SpawnError::NotStarted`] says that nothing was executed, and why.
///
/// # Panics
/// Outside of a Tokio runtime with I/O enabled.
pub fn spawn(spec: &Spec, base: &BaseEnv, run: &str, mark: Mark) -> Result<Spawned, SpawnError> {
    let env = base.with(&spec.env, run, mark)?;
    let cwd = working_directory(spec.cwd.as_deref(), base.home())?;
    let path = match spec.own_path {
        true => base.path(),
        false => env.get(OsStr::new("PATH")).map_or(OsStr::new(""), OsString::as_os_str),
    };
    let (program, words) = argv(&spec.program, path, &cwd)?;
    let pipes = Pipes::new(spec)?;
    let is_limited = !spec.limits.is_none();
    let mut command = Command::new(if is_limited { Path::new(shim::PROGRAM) } else { &program });
    command.env_clear().process_group(0).current_dir(&cwd);
    command.stdin(pipes.child_stdin).stdout(pipes.child_stdout).stderr(pipes.child_stderr);
    let since = boottime();
    let pid = if is_limited {
        command.envs(env.iter().map(|(name, value)| (shim::signed(name), value)));
        shim::spawn(&mut command, (&program, &words), spec.limits)?
    } else {
        command.arg0(words.first().map_or(program.as_os_str(), OsString::as_os_str));
        command.args(words.iter().skip(1)).envs(&env);
        process::spawn(&mut command).map_err(|e| NotStarted::from_exec(e, &program))?
    };
    // Closes our copies of the child's ends: they would keep end-of-file from being seen, and the
    // descriptors set free are those that following the child needs.
    drop(command);
    let child = Child::follow(pid, since, mark).map_err(SpawnError::Unfollowed)?;
    Ok(Spawned { child, stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr })
}

/// As with sshd(8): the home, and `/` where there is none that can be entered.
fn working_directory(cwd: Option<&Path>, home: Option<&Path>) -> Result<PathBuf, NotStarted> {
    let root = Path::new("/");
    let home = home.filter(|home| check_cwd(home).is_ok()).unwrap_or(root);
    let Some(cwd) = cwd else { return Ok(home.into()) };
    if cwd.as_os_str().as_bytes().contains(&0) {
        return Err(NotStarted::NulByte);
    }
    if cwd.as_os_str().is_empty() {
        // Joined to the home it would be the home: not what an unset variable of the caller's meant.
        return Err(NotStarted::CwdMissing(cwd.into()));
    }
    let cwd = home.join(cwd);
    check_cwd(&cwd)?;
    Ok(cwd)
}

/// The file to execute and its argument vector, the name that was asked for first.
fn argv(
    program: &Program,
    path: &OsStr,
    cwd: &Path,
) -> Result<(PathBuf, Vec<OsString>), NotStarted> {
    let words = match program {
        Program::Shell { text, .. } if text.len() > TEXT_LIMIT => {
            return Err(NotStarted::TextTooLong(text.len()));
        }
        // `sh -c -x` reads options on (POSIX, sh). Not every shell knows `--` here, so it is given
        // only to a text that needs it, as system(3) does.
        Program::Shell { shell, text } if matches!(text.as_bytes().first(), Some(b'-' | b'+')) => {
            vec![shell.into(), "-c".into(), "--".into(), text.clone()]
        }
        Program::Shell { shell, text } => vec![shell.into(), "-c".into(), text.clone()],
        Program::Script { shell } => vec![shell.into()],
        Program::Argv { words } => words.clone(),
    };
    if words.iter().any(|word| word.as_bytes().contains(&0)) {
        return Err(NotStarted::NulByte);
    }
    let name = words.first().ok_or(NotStarted::EmptyCommand)?;
    Ok((find(name, path, cwd)?, words))
}

/// All pipes of a run. Ours do not block, the child's do: the flag belongs to each end.
struct Pipes {
    stdin: Option<Sender>,
    stdout: Receiver,
    stderr: Option<Receiver>,
    child_stdin: Stdio,
    child_stdout: Stdio,
    child_stderr: Stdio,
}

impl Pipes {
    fn new(spec: &Spec) -> Result<Self, NotStarted> {
        Self::make(spec).map_err(NotStarted::from_system)
    }

    fn make(spec: &Spec) -> io::Result<Self> {
        let (stdin, child_stdin) = if spec.stdin || matches!(spec.program, Program::Script { .. }) {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            (Some(Sender::from_owned_fd(write)?), Stdio::from(read))
        } else {
            (None, Stdio::null())
        };
        let (stdout, child_stdout) = output()?;
        let (stderr, child_stderr) = if spec.merge {
            (None, child_stdout.try_clone()?)
        } else {
            let (stderr, child_stderr) = output()?;
            (Some(stderr), child_stderr)
        };
        Ok(Self {
            stdin,
            stdout,
            stderr,
            child_stdin,
            child_stdout: child_stdout.into(),
            child_stderr: child_stderr.into(),
        })
    }
}

fn output() -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}

#[cfg(test)]
mod tests;
