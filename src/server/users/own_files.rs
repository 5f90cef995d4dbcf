//! A user's own files, read with the user's rights: by this very program, which becomes the user before it opens
//! any. Root would read what the user may not, follow links to it, and wait for what the user has put there.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, Signal, kill_process, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::identity::{Found, read_list};
use crate::sys::pause;
use crate::sys::pipe;
use crate::sys::process;
use crate::sys::replace::THIS_PROGRAM;
use crate::sys::users::User;

/// The argument by which this program reads a user's files.
pub const READ_AS: &str = "read-as";
/// Most bytes that are read of what it found: two of the longest files, each byte an escape of JSON.
const ANSWER_LIMIT: usize = 64 << 20;
/// How long the user's folders may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Exit status of one that could not say what it found.
const FAILED: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Asked {
    user: User,
    paths: Vec<PathBuf>,
}

/// Who reads for one user.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// The last one, which was killed: a file system that does not answer may hold it all the same.
    left: Option<OwnedFd>,
}

impl Reader {
    /// The text of each file.
    ///
    /// # Errors
    /// `TimedOut` if the user's folders do not answer: within [`PATIENCE`], or still not since they last did not.
    pub(super) fn read_as(&mut self, user: &User, paths: &[PathBuf]) -> io::Result<Vec<Found>> {
        if let Some(left) = &self.left
            && !process::has_ended(left)?
        {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.left = None;
        let asked = Asked { user: user.clone(), paths: paths.to_vec() };
        ask(&asked, |killed| self.left = killed)
    }
}

fn ask(asked: &Asked, left: impl FnOnce(Option<OwnedFd>)) -> io::Result<Vec<Found>> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = Command::new(THIS_PROGRAM);
    command.env_clear().current_dir("/").process_group(0);
    pause::hand_on(&mut command);
    command.arg(READ_AS).arg(serde_json::to_string(asked)?);
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let pid = process::spawn(&mut command)?;
    drop(command);
    let answer = pipe::read_all(reader.into(), ANSWER_LIMIT, Some(PATIENCE)).inspect_err(|_| {
        // It is ours and not reaped, so it is no other process.
        let _ = kill_process(pid, Signal::KILL);
        left(pidfd_open(pid, PidfdFlags::empty()).ok());
    });
    process::disown(pid);
    let found: Vec<Found> = serde_json::from_slice(&answer?)?;
    if found.len() == asked.paths.len() {
        Ok(found)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// Becomes the user and says on stdout what is in the files; the exit status.
#[must_use]
pub fn main(asked: &OsString) -> u8 {
    pause::program("reader");
    let asked = asked.to_str().and_then(|text| serde_json::from_str::<Asked>(text).ok());
    let Some(Asked { user, paths }) = asked else { return FAILED };
    pause::point("reading");
    let found: Vec<Found> = match user.become_it() {
        Ok(()) => paths.iter().map(|path| read(path)).collect(),
        Err((stage, e)) => {
            let text = format!("this cannot become {} ({stage:?}): {e}", user.name);
            vec![Err(text); paths.len()]
        }
    };
    let told = serde_json::to_vec(&found).map_err(io::Error::from);
    match told.and_then(|text| File::from(stdout()?).write_all(&text)) {
        Ok(()) => 0,
        Err(_) => FAILED,
    }
}

fn stdout() -> io::Result<OwnedFd> {
    rustix::stdio::stdout().try_clone_to_owned()
}

fn read(path: &Path) -> Found {
    match read_list(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.is_missing() => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}
