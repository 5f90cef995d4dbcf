//! What `exec` says, in the words of the wire.

use crate::exec::{self, NotStarted};
use crate::proto::code::Code;
use crate::proto::header::Stream;
use crate::proto::verdict::{Containment, End, StreamEndKind};

impl From<&NotStarted> for Code {
    fn from(reason: &NotStarted) -> Self {
        match reason {
            NotStarted::EmptyCommand | NotStarted::NulByte => Self::BadRequest,
            NotStarted::ProgramNotFound(_) => Self::ProgramNotFound,
            NotStarted::ProgramNotExecutable(_) => Self::ProgramNotExecutable,
            NotStarted::InterpreterMissing { .. } => Self::InterpreterMissing,
            NotStarted::BadFormat(_) => Self::BadFormat,
            NotStarted::CwdMissing(_) => Self::CwdMissing,
            NotStarted::CwdNotADirectory(_) => Self::CwdNotADirectory,
            NotStarted::CwdPermission(_) => Self::CwdPermission,
            NotStarted::ArgumentsTooLong => Self::ArgumentsTooLong,
            NotStarted::TextTooLong(_) => Self::TextTooLong,
            NotStarted::BadEnvironment(_) => Self::BadEnvironment,
            NotStarted::OutOfProcesses | NotStarted::OutOfMemory | NotStarted::OutOfDescriptors => {
                Self::OutOfResources
            }
            NotStarted::Limits { .. } | NotStarted::User { .. } | NotStarted::Other(_) => {
                Self::StartFailed
            }
        }
    }
}

impl From<exec::Stream> for Stream {
    fn from(stream: exec::Stream) -> Self {
        match stream {
            exec::Stream::Out => Self::Stdout,
            exec::Stream::Err => Self::Stderr,
            exec::Stream::Both => Self::Both,
        }
    }
}

impl From<exec::StreamEnd> for StreamEndKind {
    fn from(end: exec::StreamEnd) -> Self {
        match end {
            exec::StreamEnd::Eof => Self::Eof,
            exec::StreamEnd::Held => Self::Held,
        }
    }
}

impl From<exec::End> for End {
    fn from(end: exec::End) -> Self {
        match end {
            exec::End::Exited { code } => Self::Exited { code },
            exec::End::Signaled { signal, core_dumped } => {
                // Linux numbers its signals 1 to 64.
                Self::Signaled { signal: u8::try_from(signal).unwrap_or(u8::MAX), core_dumped }
            }
        }
    }
}

impl From<exec::Containment> for Containment {
    fn from(containment: exec::Containment) -> Self {
        match containment {
            exec::Containment::Group => Self::Group,
            exec::Containment::Marks => Self::Marks,
            exec::Containment::Cgroup => Self::Cgroup,
        }
    }
}
