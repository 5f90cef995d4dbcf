//! A step between the server and a command that is held to [`Limits`]: this very program, which takes them
//! on and then becomes the command. std can set none of them without a fork of the whole server.
//!
//! Variables of the command's are no variables of the step's: one that the loader obeys (`LD_PRELOAD`) could
//! have it do something before it takes on any limit. Their names have a sign in front until the command starts.
//!
//! What fails there is told over a pipe that execve(2) closes: nothing on it means that the command runs.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::not_started::NotStarted;
use crate::sys::process::{self, Pid};

/// The argument by which this program is the step.
pub const LIMITED: &str = "limited";
/// This program by what it is, not by its name: its file may have been replaced.
pub(super) const PROGRAM: &str = "/proc/self/exe";
/// Exit status of a step that did not become the command. Its report says why.
const FAILED: u8 = 127;
/// In front of the names of the command's variables.
const SIGN: &[u8] = b"_";
/// Most bytes of a report.
const REPORT_LIMIT: u64 = 256;

/// Whether this program knows [`LIMITED`]: one that has the library built in need not.
static IS_OFFERED: AtomicBool = AtomicBool::new(false);

/// What was being done when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Reading its own arguments.
    Arguments,
    /// `RLIMIT_AS`.
    Memory,
    /// `RLIMIT_CPU`.
    Cpu,
    /// `RLIMIT_NPROC`.
    Processes,
    /// nice(2).
    Nice,
    /// execve(2).
    Execute,
}

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    stage: Stage,
    errno: i32,
}

/// This program calls [`main`] when its first argument is [`LIMITED`].
pub fn offer() {
    IS_OFFERED.store(true, Ordering::Relaxed);
}

/// The command's environment as the step gets it.
pub(super) fn signed(name: &OsStr) -> OsString {
    OsString::from_vec([SIGN, name.as_bytes()].concat())
}

/// Starts `command`, which is [`PROGRAM`] with all that the command is to have but its words. Returns when
/// the command itself runs, so it takes a start of this program more.
///
/// # Errors
/// As of the command alone, or [`NotStarted::Limits`].
pub(super) fn spawn(
    command: &mut Command,
    (program, words): (&Path, &[OsString]),
    limits: Limits,
) -> Result<Pid, NotStarted> {
    if !IS_OFFERED.load(Ordering::Relaxed) {
        return Err(NotStarted::from_system(io::ErrorKind::Unsupported.into()));
    }
    let (reader, writer) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|e| NotStarted::from_system(io::Error::from(e)))?;
    let limits = serde_json::to_string(&limits).map_err(|e| NotStarted::Other(e.into()))?;
    command.arg0("rexec-server").args([LIMITED, &writer.as_raw_fd().to_string(), &limits]);
    command.arg(program).args(words);
    let pid = process::spawn_handing(command, writer.as_fd())
        .map_err(|e| NotStarted::from_exec(e, program))?;
    drop(writer);
    let mut report = Vec::new();
    // A pipe that cannot be read is one that says nothing.
    let _ = File::from(reader).take(REPORT_LIMIT).read_to_end(&mut report);
    let Ok(Report { stage, errno }) = serde_json::from_slice(&report) else { return Ok(pid) };
    process::disown(pid);
    let error = io::Error::from_raw_os_error(errno);
    Err(match stage {
        Stage::Execute => NotStarted::from_exec(error, program),
        stage => NotStarted::Limits { stage, error },
    })
}

/// Takes on the limits and becomes the command: `LIMITED FD LIMITS PROGRAM WORDS...`, the words with the
/// command's own name first. The exit status, if that fails.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    let [fd, limits, program, words @ ..] = args else { return FAILED };
    // The descriptor came open over execve(2), and is to be closed by the next one, as all others.
    let report = process::keep_from_children()
        .and_then(|()| File::options().write(true).open(Path::new("/proc/self/fd").join(fd)));
    let Ok(mut report) = report else { return FAILED };
    let Err((stage, error)) = become_command(limits, program, words);
    let errno = error.raw_os_error().unwrap_or_default();
    if let Ok(text) = serde_json::to_vec(&Report { stage, errno }) {
        // Whoever has started this is gone then.
        let _ = report.write_all(&text);
    }
    FAILED
}

fn become_command(
    limits: &OsStr,
    program: &OsStr,
    words: &[OsString],
) -> Result<std::convert::Infallible, (Stage, io::Error)> {
    let limits = limits.to_str().and_then(|text| serde_json::from_str::<Limits>(text).ok());
    let limits = limits.ok_or((Stage::Arguments, io::ErrorKind::InvalidInput.into()))?;
    let mut command = Command::new(program);
    let own = |(name, value): (OsString, OsString)| {
        Some((OsStr::from_bytes(name.as_bytes().strip_prefix(SIGN)?).to_owned(), value))
    };
    command.env_clear().envs(std::env::vars_os().filter_map(own));
    if let Some((name, words)) = words.split_first() {
        command.arg0(name).args(words);
    }
    take_on(limits)?;
    Err((Stage::Execute, command.exec()))
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
        let started = spawn(&mut Command::new(PROGRAM), (Path::new("/bin/true"), &[]), limits);
        assert!(matches!(started, Err(NotStarted::Other(_))));
    }
}
