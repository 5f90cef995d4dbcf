//! Why a command did not start, by who is at fault.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::limits::Stage;
use super::spec::TEXT_LIMIT;
use crate::sys::users;

/// Nothing was executed. Each text is one line; names from the client are in it escaped. What to do
/// about it goes with the code that each becomes on the wire.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
pub enum NotStarted {
    /// A command of no words.
    #[error("the command is empty")]
    EmptyCommand,
    /// A word, the text or the working directory holds NUL, which no program can be given.
    #[error("the command or its directory holds a NUL byte")]
    NulByte,
    /// No such program, in PATH or under its path.
    #[error("{0:?}: program not found")]
    ProgramNotFound(OsString),
    /// It exists, but may not be executed: its mode, a `noexec` mount, or it is a directory.
    #[error("{0:?}: not an executable file that may be run here")]
    ProgramNotExecutable(PathBuf),
    /// It exists, but what is to run it does not: the `#!` line's interpreter, or the ELF loader.
    #[error("{program:?}: its interpreter {} is missing",
        .interpreter.as_ref().map_or_else(|| "(ELF loader)".to_owned(), |i| format!("{i:?}")))]
    InterpreterMissing {
        /// What was to be executed.
        program: PathBuf,
        /// As the `#!` line names it; none for a binary.
        interpreter: Option<PathBuf>,
    },
    /// The kernel knows no way to execute this file.
    #[error("{0:?}: not a program for this machine")]
    BadFormat(PathBuf),
    /// The working directory does not exist.
    #[error("{0:?}: no such directory")]
    CwdMissing(PathBuf),
    /// The working directory is something else.
    #[error("{0:?}: not a directory")]
    CwdNotADirectory(PathBuf),
    /// The working directory may not be entered.
    #[error("{0:?}: this directory may not be entered")]
    CwdPermission(PathBuf),
    /// execve(2) says E2BIG.
    #[error(
        "arguments and environment together, or one of them, are longer than this system takes"
    )]
    ArgumentsTooLong,
    /// A shell cannot be given so long a text.
    #[error("a command text of {0} bytes is over the limit of {TEXT_LIMIT}")]
    TextTooLong(usize),
    /// A variable cannot exist (empty name, `=`, NUL) or is the server's to set.
    #[error("the environment variable {0:?} cannot be set")]
    BadEnvironment(OsString),
    /// A limit that it is to be held to cannot be set.
    #[error("it cannot be held to its limits ({stage:?}): {error}")]
    Limits {
        /// Which.
        stage: Stage,
        /// What the system said.
        #[serde(with = "errno")]
        error: io::Error,
    },
    /// The user that it is to run as cannot be taken on.
    #[error("it cannot be run as its user ({stage:?}): {error}")]
    User {
        /// What failed.
        stage: users::Stage,
        /// What the system said.
        #[serde(with = "errno")]
        error: io::Error,
    },
    /// EAGAIN: the account's or the machine's processes.
    #[error("this account or machine can have no more processes")]
    OutOfProcesses,
    /// ENOMEM.
    #[error("the machine is out of memory")]
    OutOfMemory,
    /// EMFILE or ENFILE.
    #[error("the server can open no more descriptors")]
    OutOfDescriptors,
    /// Anything else that the system said.
    #[error("could not start: {0}")]
    Other(#[serde(with = "errno")] io::Error),
}

/// An error of the system as its number.
mod errno {
    use std::io;

    use rustix::io::Errno;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(error: &io::Error, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<io::Error, D::Error> {
        i32::deserialize(from).map(io::Error::from_raw_os_error)
    }
}

/// Why there is no run to follow.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Nothing was executed.
    #[error(transparent)]
    NotStarted(#[from] NotStarted),
    /// It was executed but cannot be followed, so its process group was killed: what it did in that
    /// moment is unknown, and nobody may say that it never started.
    #[error("started, but could not be followed and was killed: {0}")]
    Unfollowed(io::Error),
}

impl NotStarted {
    /// An error that has to do with neither program nor directory.
    pub(super) fn from_system(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::AGAIN) => Self::OutOfProcesses,
            Some(Errno::NOMEM) => Self::OutOfMemory,
            Some(Errno::MFILE | Errno::NFILE) => Self::OutOfDescriptors,
            _ => Self::Other(error),
        }
    }

    /// An error of execve(2) on a program that was found and looked executable.
    pub(super) fn from_exec(error: io::Error, program: &Path) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT) => Self::InterpreterMissing {
                program: program.into(),
                interpreter: interpreter(program),
            },
            Some(Errno::ACCESS | Errno::PERM) => Self::ProgramNotExecutable(program.into()),
            Some(Errno::NOEXEC | Errno::LIBBAD) => Self::BadFormat(program.into()),
            Some(Errno::TOOBIG) => Self::ArgumentsTooLong,
            _ => Self::from_system(error),
        }
    }
}

/// The path on the `#!` line; execve(2) reads no more than 255 bytes of it.
fn interpreter(program: &Path) -> Option<PathBuf> {
    use std::io::Read as _;
    use std::os::unix::ffi::OsStrExt as _;
    const LINE_LIMIT: u64 = 255;
    let mut start = Vec::new();
    std::fs::File::open(program).ok()?.take(LINE_LIMIT).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let path = line.split(|b| b" \t".contains(b)).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}
