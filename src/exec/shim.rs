//! A step between the server and a command that is held to [`Limits`] or runs as another user: this very
//! program, which takes that on and then becomes the command. std can set none of the limits without a fork of the
//! whole server; and what a user has chosen, folder and program, is looked for when the step has the user's rights
//! and no others.
//!
//! Variables of the command's are no variables of the step's: one that the loader obeys (`LD_PRELOAD`) could
//! have it do something before it takes on any limit. Their names have a sign in front until the command starts.
//!
//! What fails there is told over a pipe that execve(2) closes: nothing on it means that the command runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process_group, nice, setrlimit};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::limits::{Limits, Stage};
use super::not_started::{NotStarted, SpawnError};
use super::program::{find, working_directory};
use super::spec::Spec;
use crate::sys::pipe;
use crate::sys::process::{self, Pid};
use crate::sys::replace::THIS_PROGRAM;
use crate::sys::users::User;

/// The argument by which this program is the step.
pub const LIMITED: &str = "limited";
/// Exit status of a step that did not become the command. Its report says why.
const FAILED: u8 = 127;
/// In front of the names of the command's variables.
const SIGN: &[u8] = b"_";
/// Most bytes of a report: it may name a program by a word as long as there is, each byte a number in it.
const REPORT_LIMIT: usize = 1 << 20;
/// How long a step may take that depends on a user's folders.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether this program knows [`LIMITED`]: one that has the library built in need not.
static IS_OFFERED: AtomicBool = AtomicBool::new(false);

/// What the step takes on before it becomes the command.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Terms {
    limits: Limits,
    /// Its control group.
    group: Option<PathBuf>,
    user: Option<AsUser>,
}

/// As whom, and what has to be looked for with the user's rights: root sees more.
#[derive(Debug, Serialize, Deserialize)]
struct AsUser {
    user: User,
    cwd: Option<OsString>,
    /// Where the program is looked for.
    path: OsString,
}

impl Terms {
    pub(super) fn of_limits(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn of_user(spec: &Spec, user: &User, path: &OsStr) -> Self {
        let cwd = spec.cwd.clone().map(PathBuf::into_os_string);
        let user = AsUser { user: user.clone(), cwd, path: path.to_owned() };
        Self { user: Some(user), ..Self::of_limits(spec.limits) }
    }

    /// In this control group.
    pub(super) fn within(self, group: Option<&Path>) -> Self {
        Self { group: group.map(Path::to_owned), ..self }
    }
}

/// This program calls [`main`] when its first argument is [`LIMITED`].
pub fn offer() {
    IS_OFFERED.store(true, Ordering::Relaxed);
}

/// The command's environment as the step gets it.
pub(super) fn signed(name: &OsStr) -> OsString {
    OsString::from_vec([SIGN, name.as_bytes()].concat())
}

/// Starts `command`, which is [`THIS_PROGRAM`] with all that the command is to have but its words. Returns when
/// the command itself runs, so it takes a start of this program more. `file` is the program's, unless the step is
/// to look for it.
///
/// # Errors
/// As of the command alone, [`NotStarted::Limits`] or [`NotStarted::User`]; and [`SpawnError::Unfollowed`] if the
/// step has said nothing for [`PATIENCE`], as when the user's folder does not answer.
pub(super) fn spawn(
    command: &mut Command,
    (file, words): (Option<&Path>, &[OsString]),
    terms: &Terms,
) -> Result<Pid, SpawnError> {
    if !IS_OFFERED.load(Ordering::Relaxed) {
        return Err(NotStarted::from_system(io::ErrorKind::Unsupported.into()).into());
    }
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| NotStarted::from_system(io::Error::from(e)))?;
    let json = serde_json::to_string(terms).map_err(|e| NotStarted::Other(e.into()))?;
    command.arg0("rexec-server").args([LIMITED, &writer.as_raw_fd().to_string(), &json]);
    command.arg(file.unwrap_or(Path::new(""))).args(words);
    let itself = Path::new(THIS_PROGRAM);
    let pid = process::spawn_handing(command, writer.as_fd())
        .map_err(|e| NotStarted::from_exec(e, file.unwrap_or(itself)))?;
    drop(writer);
    let patience = terms.user.is_some().then_some(PATIENCE);
    let report = pipe::read_all(reader.into(), REPORT_LIMIT, patience).inspect_err(|_| {
        // It is ours and not reaped, so the group is its own.
        let _ = kill_process_group(pid, Signal::KILL);
        process::disown(pid);
    });
    let report = report.map_err(SpawnError::Unfollowed)?;
    let Ok(why) = serde_json::from_slice::<NotStarted>(&report) else { return Ok(pid) };
    process::disown(pid);
    Err(why.into())
}

/// Takes on the terms and becomes the command: `LIMITED FD TERMS PROGRAM WORDS...`, the words with the
/// command's own name first. The exit status, if that fails.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    let [fd, terms, file, words @ ..] = args else { return FAILED };
    // The descriptor came open over execve(2), and is to be closed by the next one, as all others.
    let report = process::keep_from_children()
        .and_then(|()| File::options().write(true).open(Path::new("/proc/self/fd").join(fd)));
    let Ok(mut report) = report else { return FAILED };
    let Err(why) = become_command(terms, Path::new(file), words);
    // A path that is no text cannot be told.
    let told =
        serde_json::to_vec(&why).or_else(|e| serde_json::to_vec(&NotStarted::Other(e.into())));
    if let Ok(text) = told {
        // Whoever has started this is gone then.
        let _ = report.write_all(&text);
    }
    FAILED
}

fn become_command(
    terms: &OsStr,
    file: &Path,
    words: &[OsString],
) -> Result<std::convert::Infallible, NotStarted> {
    let wrong = || NotStarted::Other(io::ErrorKind::InvalidInput.into());
    let terms = terms.to_str().and_then(|text| serde_json::from_str::<Terms>(text).ok());
    let (Terms { limits, group, user }, Some((name, words))) =
        (terms.ok_or_else(wrong)?, words.split_first())
    else {
        return Err(wrong());
    };
    // The user may not.
    group
        .map_or(Ok(()), |group| cgroup::enter(&group))
        .map_err(|error| NotStarted::Limits { stage: Stage::Cgroup, error })?;
    let file = match &user {
        None => file.to_owned(),
        Some(user) => user.find(name)?,
    };
    let mut command = Command::new(&file);
    let own = |(name, value): (OsString, OsString)| {
        Some((OsStr::from_bytes(name.as_bytes().strip_prefix(SIGN)?).to_owned(), value))
    };
    command.env_clear().envs(std::env::vars_os().filter_map(own)).arg0(name).args(words);
    take_on(limits).map_err(|(stage, error)| NotStarted::Limits { stage, error })?;
    Err(NotStarted::from_exec(command.exec(), &file))
}

impl AsUser {
    /// Becomes the user for good, goes to the folder, and looks for the program there.
    fn find(&self, name: &OsStr) -> Result<PathBuf, NotStarted> {
        let become_it = self.user.become_it();
        become_it.map_err(|(stage, error)| NotStarted::User { stage, error })?;
        let home = Some(&*self.user.home).filter(|home| home.is_absolute());
        let cwd = working_directory(self.cwd.as_deref().map(Path::new), home)?;
        std::env::set_current_dir(&cwd).map_err(|_| NotStarted::CwdPermission(cwd.clone()))?;
        find(name, &self.path, &cwd)
    }
}

fn take_on(limits: Limits) -> Result<(), (Stage, io::Error)> {
    let set = |stage, resource, limit: Option<u64>, grace: u64| match limit {
        None => Ok(()),
        Some(limit) => lower(resource, limit, grace).map_err(|e| (stage, e)),
    };
    if let Some(step) = limits.nice {
        nice(step.into()).map_err(|e| (Stage::Nice, e.into()))?;
    }
    set(Stage::Cpu, Resource::Cpu, limits.cpu, 1)?;
    set(Stage::Processes, Resource::Nproc, limits.processes, 0)?;
    // Last: from here on there may be no memory for anything.
    set(Stage::Memory, Resource::As, limits.memory, 0)
}

/// Lowers a limit for good; one that is lower already stays. `grace`: the hard limit is so much higher.
fn lower(resource: Resource, limit: u64, grace: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let least = |old: Option<u64>, new: u64| Some(old.map_or(new, |old| old.min(new)));
    let maximum = least(maximum, limit.saturating_add(grace));
    let current = least(current, limit);
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_call_of_it_does_nothing() {
        for args in [&[][..], &["3".into()], &["no fd".into(), "{}".into(), "/bin/true".into()]] {
            assert_eq!(main(args), FAILED);
        }
    }

    #[test]
    fn a_program_that_does_not_offer_it_starts_nothing() {
        let limits = Limits { nice: Some(1), ..Limits::default() };
        let file = Some(Path::new("/bin/true"));
        let terms = Terms::of_limits(limits);
        let started = spawn(&mut Command::new(THIS_PROGRAM), (file, &[]), &terms);
        assert!(matches!(started, Err(SpawnError::NotStarted(NotStarted::Other(_)))));
    }
}
