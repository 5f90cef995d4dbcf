//! Named points at which a test can stop a program, to hold a race open or to kill it there. They exist
//! in debug builds only.

#[cfg(debug_assertions)]
static PROGRAM: std::sync::OnceLock<&str> = std::sync::OnceLock::new();

/// From here on the points of this process are those of `program`: `PROGRAM:POINT`. Whoever says nothing
/// has plain names.
#[cfg(debug_assertions)]
pub fn program(program: &'static str) {
    // Said once, at the start; who says it again means the same.
    let _ = PROGRAM.set(program);
}

/// Stops this process, as SIGSTOP does, if a test asked for this point: `REXEC_PAUSE_AT` names it, and
/// the file `REXEC_PAUSE_FILE`, made here, tells that it was reached. Once only, as long as the file is
/// there.
#[cfg(debug_assertions)]
#[expect(unsafe_code, reason = "only raise(3) stops the calling thread before it returns")]
pub fn point(name: &str) {
    let asked = std::env::var("REXEC_PAUSE_AT").is_ok_and(|at| is_meant(&at, name));
    let file = std::env::var_os("REXEC_PAUSE_FILE");
    if let (true, Some(file)) = (asked, file)
        && std::fs::File::create_new(file).is_ok()
    {
        // A signal to the process may be taken by another thread, while this one goes on for a while.
        // SAFETY: `raise` touches no memory of ours; a stop has no handler.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
}

#[cfg(debug_assertions)]
fn is_meant(at: &str, name: &str) -> bool {
    match PROGRAM.get() {
        Some(program) => at.split_once(':') == Some((program, name)),
        None => at == name,
    }
}

/// A program that gets no environment has this process's points nevertheless.
#[cfg(debug_assertions)]
pub fn hand_on(command: &mut std::process::Command) {
    for name in ["REXEC_PAUSE_AT", "REXEC_PAUSE_FILE"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "there is nothing to call")]
pub fn hand_on(_: &mut std::process::Command) {}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "there is nothing to call")]
pub fn program(_: &'static str) {}

/// Nothing, in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
#[expect(clippy::inline_always, reason = "there is nothing to call")]
pub fn point(_: &str) {}
