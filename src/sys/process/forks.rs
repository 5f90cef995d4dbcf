//! Counts forks, so that a test can say that there was none: posix_spawn(3) does not run
//! pthread_atfork(3) handlers, fork(2) does, on the thread that calls it.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static FORKS: Cell<usize> = const { Cell::new(0) };
}

extern "C" fn count() {
    FORKS.set(FORKS.get() + 1);
}

/// How often this thread has forked since the first call.
pub(crate) fn on_this_thread() -> usize {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        // SAFETY: the handler touches only a thread-local integer without destructor.
        assert_eq!(unsafe { libc::pthread_atfork(Some(count), None, None) }, 0);
    });
    FORKS.get()
}
