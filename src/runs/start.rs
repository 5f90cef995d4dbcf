//! Why a command did not start, as the wire names it.

use crate::exec::NotStarted;
use crate::proto::code::Code;

/// The code of a reason.
#[must_use]
pub fn code_of(reason: &NotStarted) -> Code {
    match reason {
        NotStarted::EmptyCommand | NotStarted::NulByte => Code::BadRequest,
        NotStarted::ProgramNotFound(_) => Code::ProgramNotFound,
        NotStarted::ProgramNotExecutable(_) => Code::ProgramNotExecutable,
        NotStarted::InterpreterMissing { .. } => Code::InterpreterMissing,
        NotStarted::BadFormat(_) => Code::BadFormat,
        NotStarted::CwdMissing(_) => Code::CwdMissing,
        NotStarted::CwdNotADirectory(_) => Code::CwdNotADirectory,
        NotStarted::CwdPermission(_) => Code::CwdPermission,
        NotStarted::ArgumentsTooLong => Code::ArgumentsTooLong,
        NotStarted::TextTooLong(_) => Code::TextTooLong,
        NotStarted::BadEnvironment(_) => Code::BadEnvironment,
        NotStarted::OutOfProcesses | NotStarted::OutOfMemory | NotStarted::OutOfDescriptors => {
            Code::OutOfResources
        }
        NotStarted::Other(_) => Code::StartFailed,
    }
}
