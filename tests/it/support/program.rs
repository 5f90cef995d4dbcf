//! Programs that a test makes. Another process writes them: what this one has open to write, children that other
//! tests start at this moment have too until they execute theirs, and it could not be executed meanwhile (ETXTBSY).

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program of this text, or of these bytes, that everybody may execute.
pub(crate) fn made(path: &Path, text: impl AsRef<[u8]>) {
    let mut command = Command::new("sh");
    command.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(path);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_ref()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A copy of one.
pub(crate) fn copied(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-p").arg(from).arg(to).status().unwrap().success());
}
