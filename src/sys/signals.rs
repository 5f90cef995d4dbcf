//! What this process inherited about signals.
#![expect(unsafe_code, reason = "sigaction(2) has no safe wrapper that only asks")]

use std::mem::MaybeUninit;
use std::ptr;

/// Whether a signal is ignored by this process, as its starter wanted it (`sigaction(2)`).
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: a null new action only asks; `action` is writable and of the type asked for.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: zeroed is a valid sigaction, and the call has filled it.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
