//! Waiting for what a server that was killed has left to another process for a moment.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::info;

/// How long that may be. What a server was just starting has all that the server had open until it executes its
/// program (vfork(2)), also when the server is killed meanwhile.
const LEFT_FOR: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Gets `what` nobody else has, or somebody else lets go of within [`LEFT_FOR`]. That it is waited for is said at once: it
/// may as well be a server that is there to stay.
pub(super) fn get<T, E>(
    what: impl Display,
    is_taken: impl Fn(&E) -> bool,
    mut get: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let until = Instant::now() + LEFT_FOR;
    let mut said = false;
    loop {
        match get() {
            Err(e) if is_taken(&e) && Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    let seconds = LEFT_FOR.as_secs();
                    info!(
                        "waiting up to {seconds} s for {what}: a server that was killed may leave it late"
                    );
                }
                sleep(PAUSE);
            }
            done => return done,
        }
    }
}
