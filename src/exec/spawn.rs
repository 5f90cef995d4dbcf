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
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::not_started::{NotStarted, SpawnError};
use super::program::{find, working_directory};
use super::shim::{self, Terms};
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
/// it is; a program or folder on a file system that does not answer holds the calling thread as long. Under
/// [`Limits`](super::Limits) or as another user it takes a start of this program more; whoever serves several users
/// gives it a thread that may wait, since each of them chooses what it waits for.
///
/// # Errors
/// [`SpawnError::NotStarted`] says that nothing was executed, and why.
///
/// # Panics
/// Outside of a Tokio runtime with I/O enabled.
pub fn spawn(spec: &Spec, base: &BaseEnv, run: &str, mark: Mark) -> Result<Spawned, SpawnError> {
    let env = base.with(&spec.env, run, mark)?;
    let path = match spec.own_path {
        true => base.path(),
        false => env.get(OsStr::new("PATH")).map_or(OsStr::new(""), OsString::as_os_str),
    };
    let words = words(&spec.program)?;
    // What only the user may see is looked for by the step, with the user's rights.
    let (file, cwd, terms) = match &spec.user {
        Some(user) => (None, "/".into(), Terms::of_user(spec, user, path)),
        None => {
            let cwd = working_directory(spec.cwd.as_deref(), base.home())?;
            (Some(find(&words[0], path, &cwd)?), cwd, Terms::of_limits(spec.limits))
        }
    };
    let pipes = Pipes::new(spec)?;
    let direct = file.as_deref().filter(|_| spec.limits.is_none());
    let mut command = Command::new(direct.unwrap_or(Path::new(shim::PROGRAM)));
    command.env_clear().process_group(0).current_dir(&cwd);
    command.stdin(pipes.child_stdin).stdout(pipes.child_stdout).stderr(pipes.child_stderr);
    let since = boottime();
    let pid = if let Some(file) = direct {
        command.arg0(&words[0]).args(&words[1..]).envs(&env);
        process::spawn(&mut command).map_err(|e| NotStarted::from_exec(e, file))?
    } else {
        command.envs(env.iter().map(|(name, value)| (shim::signed(name), value)));
        shim::spawn(&mut command, (file.as_deref(), &words), &terms)?
    };
    // Closes our copies of the child's ends: they would keep end-of-file from being seen, and the
    // descriptors set free are those that following the child needs.
    drop(command);
    let uid = spec.user.as_ref().map(|user| user.uid);
    let child = Child::follow(pid, since, mark).map_err(SpawnError::Unfollowed)?.of_user(uid);
    Ok(Spawned { child, stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr })
}

/// The argument vector, the name that was asked for first; at least that is there.
fn words(program: &Program) -> Result<Vec<OsString>, NotStarted> {
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
    if words.is_empty() { Err(NotStarted::EmptyCommand) } else { Ok(words) }
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
            give(&read, spec)?;
            (Some(Sender::from_owned_fd(write)?), Stdio::from(read))
        } else {
            (None, Stdio::null())
        };
        let (stdout, child_stdout) = output(spec)?;
        let (stderr, child_stderr) = if spec.merge {
            (None, child_stdout.try_clone()?)
        } else {
            let (stderr, child_stderr) = output(spec)?;
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

/// A pipe is its maker's: another user could use it, but not open it by a name such as `/dev/stderr`.
fn give(pipe: &OwnedFd, spec: &Spec) -> io::Result<()> {
    let Some(user) = &spec.user else { return Ok(()) };
    Ok(rustix::fs::fchown(pipe, Some(Uid::from_raw(user.uid)), None)?)
}

fn output(spec: &Spec) -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    give(&write, spec)?;
    Ok((Receiver::from_owned_fd(read)?, write))
}

#[cfg(test)]
mod tests;
