//! Starting a run.
//!
//! std's `Command` starts it by posix_spawn(3), which does not copy the server's page tables
//! (`CLONE_VM | CLONE_VFORK`); it would fork, at milliseconds for a large server, upon `pre_exec`,
//! uid, gid, groups, chroot, or a bare program name with PATH set (std `sys/process/unix/unix.rs`,
//! `Command::posix_spawn`). So none of these is used, and the program's path is absolute.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::{fmt, io};

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Uid;
use tokio::net::unix::pipe::{Receiver, Sender};

use super::cgroup::Group;
use super::environment::{BaseEnv, Env};
use super::limits::Stage;
use super::mark::Mark;
use super::not_started::{NotStarted, SpawnError};
use super::program::{find, working_directory};
use super::shim::{self, Terms};
use super::spec::{Program, Spec, TEXT_LIMIT};
use super::wait::Child;
use crate::sys::clock::boottime;
use crate::sys::pipe;
use crate::sys::process::{self, Pid};
use crate::sys::replace::THIS_PROGRAM;

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
    /// What the run writes to, as it has it: for [`Pump::holding`](super::Pump::holding), or to be dropped.
    pub writers: Writers,
}

/// Longest words that are kept with the ends of a run's pipes, bytes: there may be many runs, and a megabyte for each.
const KEPT_WORDS: usize = 4096;

/// The ends of a run's pipes that it writes to, which std's `Command` holds for as long as it is there; none if it would
/// hold too much else. Debug does not show it: its words may hold secrets.
pub struct Writers(#[expect(dead_code, reason = "it is there to be dropped")] Option<Command>);

impl fmt::Debug for Writers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writers")
    }
}

impl Writers {
    /// Those of a command that was started, and nothing else of it: whoever writes to the run is to learn that it has
    /// closed its input, and its environment is of no more use.
    pub(super) fn of(mut command: Command) -> Self {
        command.stdin(Stdio::null()).env_clear();
        let words = command.get_args().map(OsStr::len).sum::<usize>();
        Self((words <= KEPT_WORDS).then_some(command))
    }
}

/// Starts `spec` as the leader of a process group of its own, with `mark`, which the caller has made
/// and written down, in its environment. Returns when the child executes the program: after about 100
/// microseconds, for which an async caller may call it as it is, or when busy processors get to it. A program or
/// folder on a file system that does not answer holds the calling thread as long: what others have named is looked for
/// in a thread that may wait. Under [`Limits`](super::Limits) or as another user it takes a start of this program more.
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
        false => env.get(OsStr::new("PATH")).map_or(OsStr::new(""), AsRef::as_ref),
    };
    let wanted = Wanted { spec, base, path, words: &words(&spec.program)?, env: &env };
    let Pipes { ours, theirs } = Pipes::new(spec).map_err(NotStarted::from_system)?;
    let since = boottime();
    let group = spec.cgroup.as_deref().map(|dir| Group::make(dir, mark, spec.limits)).transpose();
    let group = group.map_err(|error| NotStarted::Limits { stage: Stage::Cgroup, error })?;
    let (pid, command) = if spec.user.is_none() && spec.limits.is_none() && group.is_none() {
        wanted.start(theirs)?
    } else {
        wanted.start_by_step(theirs, group.as_ref())?
    };
    let writers = Writers::of(command);
    let uid = spec.user.as_ref().map(|user| user.uid);
    let child = Child::follow(pid, since, mark).map_err(SpawnError::Unfollowed)?;
    let Ours { stdin, stdout, stderr } = ours;
    Ok(Spawned { child: child.of_user(uid).within(group), stdin, stdout, stderr, writers })
}

/// What to start, and in which environment.
struct Wanted<'a> {
    spec: &'a Spec,
    base: &'a BaseEnv,
    /// Where to look for the program.
    path: &'a OsStr,
    words: &'a [OsString],
    env: &'a Env<'a>,
}

impl Wanted<'_> {
    /// Starts it from here. Folder and program are looked at before there is a child: one that is held up by a file
    /// system that does not answer would hold the pipes of other runs meanwhile.
    fn start(&self, stdio: Theirs) -> Result<(Pid, Command), NotStarted> {
        let (file, cwd) = self.find()?;
        let mut command = Command::new(&file);
        command.env_clear().process_group(0).current_dir(&cwd);
        command.arg0(&self.words[0]).args(&self.words[1..]).envs(self.env);
        stdio.give_to(&mut command);
        let pid = process::spawn(&mut command).map_err(|e| NotStarted::from_exec(e, &file))?;
        Ok((pid, command))
    }

    /// Program and folder, looked for.
    fn find(&self) -> Result<(PathBuf, PathBuf), NotStarted> {
        let cwd = working_directory(self.spec.cwd.as_deref(), self.base.home())?;
        Ok((find(&self.words[0], self.path, &cwd)?, cwd))
    }

    /// Starts it by a step. What only the user may see is looked for there, with the user's rights.
    fn start_by_step(
        &self,
        stdio: Theirs,
        group: Option<&Group>,
    ) -> Result<(Pid, Command), SpawnError> {
        let (file, cwd, terms) = match &self.spec.user {
            Some(user) => (None, "/".into(), Terms::of_user(self.spec, user, self.path)),
            None => {
                let (file, cwd) = self.find()?;
                (Some(file), cwd, Terms::of_limits(self.spec.limits))
            }
        };
        let mut command = Command::new(THIS_PROGRAM);
        command.env_clear().process_group(0).current_dir(&cwd);
        command.envs(self.env.iter().map(|(name, value)| (shim::signed(name), value)));
        stdio.give_to(&mut command);
        let terms = terms.within(group.map(Group::path));
        let pid = shim::spawn(&mut command, (file.as_deref(), self.words), &terms)?;
        Ok((pid, command))
    }
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
    ours: Ours,
    theirs: Theirs,
}

struct Ours {
    stdin: Option<Sender>,
    stdout: Receiver,
    stderr: Option<Receiver>,
}

/// What the child gets.
struct Theirs {
    stdin: Stdio,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    fn new(spec: &Spec) -> io::Result<Self> {
        let (stdin, their_stdin) = if spec.stdin || matches!(spec.program, Program::Script { .. }) {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            give(&read, spec)?;
            (Some(Sender::from_owned_fd(write)?), read.into())
        } else {
            (None, nothing()?)
        };
        let (stdout, their_stdout) = output(spec)?;
        let (stderr, their_stderr) = if spec.merge {
            (None, their_stdout.try_clone()?)
        } else {
            let (stderr, theirs) = output(spec)?;
            (Some(stderr), theirs)
        };
        let theirs = Theirs { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        Ok(Self { ours: Ours { stdin, stdout, stderr }, theirs })
    }
}

impl Theirs {
    fn give_to(self, command: &mut Command) {
        command.stdin(self.stdin).stdout(self.stdout).stderr(self.stderr);
    }
}

/// `/dev/null`: this program's own stdin if it is that, for to hand on another descriptor takes five calls more.
fn nothing() -> io::Result<Stdio> {
    if process::stdin_is_null() {
        return Ok(Stdio::inherit());
    }
    Ok(pipe::null()?.try_clone_to_owned()?.into())
}

/// A pipe is its maker's: another user could use it, but not open it by a name such as `/dev/stderr`.
fn give(pipe: &OwnedFd, spec: &Spec) -> io::Result<()> {
    let Some(user) = &spec.user else { return Ok(()) };
    Ok(rustix::fs::fchown(pipe, Some(Uid::from_raw(user.uid)), None)?)
}

fn output(spec: &Spec) -> io::Result<(Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    give(&write, spec)?;
    // What tokio would ask first is known of a pipe that was just made.
    fcntl_setfl(&read, OFlags::NONBLOCK)?;
    Ok((Receiver::from_owned_fd_unchecked(read)?, write))
}

#[cfg(test)]
mod tests;
