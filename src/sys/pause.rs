//! Named points at which a test can stop a program, to hold a race open or to kill it there. They exist
//! in debug builds only.

/// Stops this process, as SIGSTOP does, if a test asked for this point: `REXEC_PAUSE_AT` names it, and
/// the file `REXEC_PAUSE_FILE`, made here, tells that it was reached. Once only.
#[cfg(debug_assertions)]
#[expect(unsafe_code, reason = "only raise(3) stops the calling thread before it returns")]
pub fn point(name: &str) {
    use std::sync::atomic::{AtomicBool, Ordering};
    static REACHED: AtomicBool = AtomicBool::new(false);
    let asked = std::env::var_os("REXEC_PAUSE_AT").is_some_and(|at| at == name);
    let file = std::env::var_os("REXEC_PAUSE_FILE");
    if let (true, Some(file)) = (asked, file)
        && !REACHED.swap(true, Ordering::Relaxed)
        && std::fs::write(file, name).is_ok()
    {
        // A signal to the process may be taken by another thread, while this one goes on for a while.
        // SAFETY: `raise` touches no memory of ours; a stop has no handler.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "there is nothing to call")]
pub fn point(_: &str) {}
