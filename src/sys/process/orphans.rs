//! Children that nobody waits for: what runs have left behind.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::OnceLock;
use std::{fs, io};

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};

use super::{Orphans, gone, known, nobody_starts};

/// How many bytes of a list of children are read at a time; each child takes up to 8.
pub(super) const CHILDREN_PIECE: usize = 1024;

/// Whether there is a stranger, or somebody who may leave one behind without [`super::children_changed`].
///
/// # Errors
/// `/proc` cannot be read.
pub fn may_leave_strangers() -> io::Result<bool> {
    let comes_here = known().values().any(|orphans| *orphans == Orphans::ComeHere);
    Ok(comes_here || !strangers()?.is_empty())
}

/// Reaps what ended and was handed to this process as PID 1 or subreaper; says how many.
/// Known zombies stay. waitid(2) for any child answers the same zombie again and again, so behind
/// a known one the children are asked one by one.
///
/// # Errors
/// `/proc` cannot be read.
pub fn reap_strangers() -> io::Result<usize> {
    let _nobody_starts = nobody_starts();
    let peek = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match rustix::process::waitid(WaitId::All, peek) {
        Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(0),
        peeked => peeked?,
    };
    let reaped = |pid: &Pid| {
        matches!(rustix::process::waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_)))
    };
    Ok(strangers()?.iter().filter(|pid| reaped(pid)).count())
}

/// Children that this process did not start: what runs have left behind, zombies included.
///
/// # Errors
/// `Unsupported` if orphans are not handed to this process, or the kernel does not list children
/// (`CONFIG_PROC_CHILDREN`): only a look at all processes can tell then.
///
/// A child that is just being started may be among them, and proc(5) allows that one is missing
/// when another ends at this moment.
pub fn orphans() -> io::Result<Vec<Pid>> {
    let list = match ADOPTED.get() {
        Some(list) => list,
        None => {
            let main = rustix::process::getpid();
            if main != Pid::INIT && rustix::process::child_subreaper()?.is_none() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            let list = children_of(Path::new(&format!("/proc/self/task/{main}")))?;
            ADOPTED.get_or_init(|| list)
        }
    };
    strangers_in(list)
}

/// The children of the main thread, kept open: to find the file takes longer than to read it. Orphans are
/// handed to the first thread that lives (find_alive_thread in the kernel's exit.c), which is that one. To
/// look at each thread would cost a server with many processors more than a short run does.
///
/// Read from offset 0 it is made anew (seq_file in the kernel), and read by one at a time, who has [`KNOWN`].
static ADOPTED: OnceLock<fs::File> = OnceLock::new();

/// Children that nobody knows, disowned ones among them: each is listed by the thread that started or
/// adopted it.
fn strangers() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        match children_of(&task?.path()) {
            Ok(list) => found.extend(strangers_in(&list)?),
            // The thread has ended meanwhile.
            Err(e) if gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// Opens the list of a thread's children.
fn children_of(task: &Path) -> io::Result<fs::File> {
    match fs::File::open(task.join("children")) {
        Err(e) if gone(&e) && !Path::new("/proc/thread-self/children").exists() => {
            Err(io::ErrorKind::Unsupported.into())
        }
        opened => opened,
    }
}

fn strangers_in(list: &fs::File) -> io::Result<Vec<Pid>> {
    // Held while the list is read: what is in it and not known then is nobody's.
    let known = known();
    let list = read_children(list)?;
    let pids = list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.filter(|pid| !known.contains_key(pid)).filter_map(Pid::from_raw).collect())
}

/// Reads a list of children from its start. A piece that is not filled is the last one (seq_file in the kernel), so
/// that of most servers costs one call.
fn read_children(list: &fs::File) -> io::Result<String> {
    let mut read = Vec::new();
    let mut piece = [0; CHILDREN_PIECE];
    loop {
        match list.read_at(&mut piece, read.len() as u64) {
            Ok(len) => {
                read.extend_from_slice(&piece[..len]);
                if len < piece.len() {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    String::from_utf8(read).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
