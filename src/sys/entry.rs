//! The way into a program that lives for a moment, past the one of Rust's runtime.
//!
//! Before `main` the runtime finds out where the stack ends, so as to name an overflow: it reads and parses
//! `/proc/self/maps`, makes a second stack and sets two handlers, which takes as long as a tenth of a local
//! shell. Here an overflow ends the program without a line, by the same guard page. What else the runtime does
//! first is done here too.
#![expect(unsafe_code, reason = "fcntl, open and signal are asked about numbers, not descriptors")]

use std::panic::catch_unwind;
use std::process::{abort, exit};

/// The status of a program that panicked, as Rust's runtime gives it.
const PANICKED: i32 = 101;

/// Makes a function the program's `main`: `rexec::program!(rexec::rexec_main)`. It gives the exit status. Where
/// the arguments can be had without the runtime, which is glibc, the runtime's way is not taken; the file then
/// needs `#![cfg_attr(target_env = "gnu", no_main)]`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        // SAFETY: the name, and the type that a `main` of C has. Nothing unwinds out of it: it does not return.
        #[cfg(target_env = "gnu")]
        #[allow(unsafe_code, reason = "the C library calls it by this name")]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _: ::std::ffi::c_int,
            _: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            $crate::sys::entry::enter($main)
        }

        #[cfg(not(target_env = "gnu"))]
        fn main() -> ::std::process::ExitCode {
            $main().into()
        }
    };
}

/// Runs `main` in a process of one thread that has run nothing else yet, and exits as it says.
#[doc(hidden)]
pub fn enter(main: fn() -> u8) -> ! {
    open_standard();
    // SAFETY: it has no handler that could run. Writing to a pipe that nobody reads is then an error.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // Runs what is to be run at an exit: standard output is flushed.
    exit(catch_unwind(main).map_or(PANICKED, i32::from))
}

/// A standard descriptor that was closed becomes `/dev/null`: the next file would take its number, and get
/// what is meant for it.
fn open_standard() {
    for number in 0..3 {
        // SAFETY: to ask for the flags changes nothing, whatever the number stands for.
        let is_open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
        // SAFETY: the path ends with NUL. The lowest free number is taken, which is this one.
        if !is_open && unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } == -1 {
            abort();
        }
    }
}
