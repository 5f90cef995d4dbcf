//! Starting a program in the memory of this one, without a copy of it (`CLONE_VM | CLONE_VFORK`, clone(2)).
//!
//! So does posix_spawn(3), by which std starts programs; but before version 2.38 glibc asks the kernel there about each of 64
//! signals and sets it, and it maps a stack for each child and looks up limits: 150 system calls, and a twentieth of
//! what a short run takes in all. Here only those signals are set that have a handler, and the stack is kept.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::WaitOptions;

use super::{Orphans, Pid, STARTING, know};
use crate::sys::signals;

/// Bytes of the stack on which a child comes to its execve(2): what glibc gives one. It needs a few hundred.
const STACK: usize = 32 * 1024;
/// Exit status of a child that did not become the program; nobody is told.
const FAILED: c_int = 127;
/// Descriptors below are the child's standard ones.
const FIRST_FREE: RawFd = 3;

thread_local! {
    /// For one child at a time: this thread stands still until it has another.
    static KEPT: RefCell<Box<[MaybeUninit<u128>]>> =
        RefCell::new(Box::new_uninit_slice(STACK / size_of::<u128>()));
}

/// A program to start, as execve(2) takes it.
#[derive(Debug, Clone, Copy)]
pub struct Program<'a> {
    /// Its file.
    pub file: &'a Path,
    /// Its name and its arguments.
    pub words: &'a [OsString],
    /// Its whole environment.
    pub env: &'a BTreeMap<OsString, OsString>,
    /// The folder in which it begins.
    pub cwd: &'a Path,
    /// Its standard input, output and error.
    pub stdio: [BorrowedFd<'a>; 3],
}

/// Why a program was not executed.
#[derive(Debug)]
pub enum NotExecuted {
    /// It did not come to execve(2).
    Before(io::Error),
    /// execve(2) said this.
    Exec(io::Error),
}

impl From<io::Error> for NotExecuted {
    fn from(error: io::Error) -> Self {
        Self::Before(error)
    }
}

/// Starts a program as the leader of a process group of its own, with every signal let in and none handled. It stays a
/// zombie until [`super::reap`]. Returns when it is executed, with its descriptor (pidfd_open(2)).
///
/// Signals that are handled only since the first call here, and are not [held](signals::hold), may find their handler in
/// the child's last moment before execve(2).
///
/// # Errors
/// [`NotExecuted`]: there is no child.
pub fn start(program: &Program<'_>) -> Result<(Pid, OwnedFd), NotExecuted> {
    let (words, env) = (Strings::of_words(program.words)?, Strings::of_env(program.env)?);
    let (file, cwd) = (string(program.file)?, string(program.cwd)?);
    let (argv, envp) = (words.pointers(), env.pointers());
    let (_moved, stdio) = clear_of_standard(program.stdio)?;
    let plan = Plan {
        file: file.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        cwd: cwd.as_ptr(),
        stdio,
        handled: signals::handled(),
        error: AtomicI32::new(0),
        at_exec: AtomicBool::new(false),
    };
    let _starting = STARTING.read().unwrap_or_else(PoisonError::into_inner);
    let (pid, pidfd) = signals::with_all_blocked(|| clone(&plan))?;
    let error = match plan.error.load(Ordering::Relaxed) {
        0 => {
            know(pid, Orphans::ComeHere);
            return Ok((pid, pidfd));
        }
        error => io::Error::from_raw_os_error(error),
    };
    // It ends at once. Nobody else takes it: `_starting` is held.
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()));
    let at_exec = plan.at_exec.load(Ordering::Relaxed);
    Err(if at_exec { NotExecuted::Exec(error) } else { NotExecuted::Before(error) })
}

/// What a child does, and what became of it. The pointers live as long as the one who waits for the child.
struct Plan {
    file: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    stdio: [RawFd; 3],
    /// One bit for each number.
    handled: u64,
    /// Number of an error; 0: none.
    error: AtomicI32,
    /// execve(2) was called.
    at_exec: AtomicBool,
}

fn clone(plan: &Plan) -> io::Result<(Pid, OwnedFd)> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let mut pidfd: c_int = -1;
    let argument = ptr::from_ref(plan).cast_mut().cast();
    let pid = KEPT.with_borrow_mut(|stack| {
        // Stacks grow downwards.
        let top = stack.as_mut_ptr_range().end.cast();
        // SAFETY: the stack is as large as `child` needs, aligned, and nobody else's while it is borrowed. With
        // CLONE_VFORK this thread goes on when the child uses neither stack nor plan any more. `child` calls
        // nothing that takes a lock or memory, and no handler of this process runs in it: every signal is blocked
        // until those with a handler are set. CLONE_PIDFD writes to the fifth argument.
        unsafe { libc::clone(child, top, flags, argument, &raw mut pidfd) }
    });
    let pid = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }?;
    // SAFETY: the call has just made it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok((pid.ok_or(io::ErrorKind::Other)?, pidfd))
}

/// The child's whole life before the program's. What it returns is its exit status.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: it is the parent's, who stands still; what is written to is atomic.
    let plan = unsafe { &*plan.cast::<Plan>() };
    become_program(plan);
    let error = io::Error::last_os_error().raw_os_error();
    plan.error.store(error.unwrap_or(libc::EINVAL), Ordering::Relaxed);
    FAILED
}

/// Returns upon an error.
fn become_program(plan: &Plan) {
    let mut stdio = plan.stdio.iter().zip(0..);
    // SAFETY: all strings are there and end with NUL, and all lists with null; these are calls that a child may make
    // before it executes something (signal-safety(7)).
    unsafe {
        if libc::setpgid(0, 0) != 0
            || stdio.any(|(from, to)| libc::dup2(*from, to) < 0)
            || !close_others()
            || libc::chdir(plan.cwd) != 0
        {
            return;
        }
        // In a group of its own: what is sent to ours does not come here any more.
        signals::let_all_in(plan.handled);
        plan.at_exec.store(true, Ordering::Relaxed);
        libc::execve(plan.file, plan.argv, plan.envp);
    }
}

/// They close by themselves in execve(2), which takes as long as the folder or the program does not answer: so long the
/// ends of other runs' pipes would be held. True: a kernel that knows no close_range(2) leaves it at that.
fn close_others() -> bool {
    // SAFETY: they are the child's own copies.
    unsafe { libc::syscall(libc::SYS_close_range, FIRST_FREE, libc::c_uint::MAX, 0) };
    true
}

/// The same descriptors, or copies of those that dup2(2) would write over.
fn clear_of_standard(stdio: [BorrowedFd<'_>; 3]) -> io::Result<(Vec<OwnedFd>, [RawFd; 3])> {
    let (mut moved, mut numbers) = (Vec::new(), stdio.map(|fd| fd.as_raw_fd()));
    for (fd, number) in stdio.iter().zip(&mut numbers) {
        if *number < FIRST_FREE {
            let copy = rustix::io::fcntl_dupfd_cloexec(fd, FIRST_FREE)?;
            *number = copy.as_raw_fd();
            moved.push(copy);
        }
    }
    Ok((moved, numbers))
}

/// Strings as execve(2) takes them, in one piece of memory.
#[derive(Default)]
struct Strings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Strings {
    fn of_words(words: &[OsString]) -> io::Result<Self> {
        let mut strings = Self::default();
        words.iter().try_for_each(|word| strings.push([word.as_bytes(), b"", b""]))?;
        Ok(strings)
    }

    fn of_env(env: &BTreeMap<OsString, OsString>) -> io::Result<Self> {
        let mut strings = Self::default();
        env.iter().try_for_each(|(name, value)| {
            strings.push([name.as_bytes(), b"=", value.as_bytes()])
        })?;
        Ok(strings)
    }

    fn push(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        if parts.iter().any(|part| part.contains(&0)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.starts.push(self.bytes.len());
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.bytes.push(0);
        Ok(())
    }

    /// Where each begins, and null; good as long as these strings are.
    fn pointers(&self) -> Vec<*const c_char> {
        let each = self.starts.iter().map(|start| self.bytes[*start..].as_ptr().cast());
        each.chain([ptr::null()]).collect()
    }
}

fn string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::sys::process::tests::alone;
    use crate::sys::{pipe, process};

    fn shell(text: &str, stdio: [BorrowedFd<'_>; 3]) -> Result<(Pid, OwnedFd), NotExecuted> {
        let words = ["sh", "-c", text].map(OsString::from);
        let (file, cwd) = (Path::new("/bin/sh"), Path::new("/"));
        start(&Program { file, words: &words, env: &BTreeMap::new(), cwd, stdio })
    }

    #[test]
    fn what_fails_before_execve_is_told_from_it_and_leaves_no_child() {
        if !alone(
            "sys::process::vfork::tests::what_fails_before_execve_is_told_from_it_and_leaves_no_child",
        ) {
            return;
        }
        let (null, env) = (pipe::null().unwrap(), BTreeMap::new());
        let with = |file: &str, cwd: &str| {
            let (file, cwd) = (Path::new(file), Path::new(cwd));
            start(&Program { file, words: &[], env: &env, cwd, stdio: [null; 3] })
        };
        let missing = Some(libc::ENOENT);
        let before = with("/bin/sh", "/no/such/folder");
        assert!(matches!(before, Err(NotExecuted::Before(e)) if e.raw_os_error() == missing));
        let exec = with("/no/such/program", "/");
        assert!(matches!(exec, Err(NotExecuted::Exec(e)) if e.raw_os_error() == missing));
        assert!(matches!(with("/bin/\0sh", "/"), Err(NotExecuted::Before(_))));
        let none = rustix::process::waitpid(None, WaitOptions::NOHANG);
        assert_eq!(none.err(), Some(rustix::io::Errno::CHILD));
    }

    /// A program that was started with some of them closed gets their numbers for its own.
    #[test]
    fn a_child_gets_its_streams_whatever_numbers_they_have_here() {
        if !alone(
            "sys::process::vfork::tests::a_child_gets_its_streams_whatever_numbers_they_have_here",
        ) {
            return;
        }
        let (reader, writer) = io::pipe().unwrap();
        // SAFETY: nothing reads the standard input of this process, nor holds that descriptor.
        unsafe { libc::close(0) };
        let input = rustix::io::fcntl_dupfd_cloexec(&reader, 0).unwrap();
        assert_eq!(input.as_raw_fd(), 0);
        let (mut shown, output) = io::pipe().unwrap();
        io::Write::write_all(&mut &writer, b"heard\n").unwrap();
        let stdio = [input.as_fd(), output.as_fd(), output.as_fd()];
        let (pid, _pidfd) = shell("read line; echo $line; echo $line >&2", stdio).unwrap();
        drop(output);
        let mut text = String::new();
        io::Read::read_to_string(&mut shown, &mut text).unwrap();
        assert_eq!(text, "heard\nheard\n");
        rustix::process::waitpid(Some(pid), WaitOptions::empty()).unwrap();
        // It is the reader's copy, and was not closed.
        std::mem::forget(input);
    }

    /// One that waits for the child would otherwise be noted here, by the handler.
    #[test]
    fn a_signal_that_is_handled_here_ends_a_child() {
        let null = pipe::null().unwrap();
        let (pid, _pidfd) = shell("kill -SEGV $$", [null; 3]).unwrap();
        let ended = rustix::process::waitid(
            rustix::process::WaitId::Pid(pid),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        );
        assert_eq!(ended.unwrap().unwrap().terminating_signal(), Some(libc::SIGSEGV));
        process::reap(pid).unwrap();
    }
}
