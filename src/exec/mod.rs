//! A run on this machine: what to start ([`Spec`]), starting it ([`spawn()`]), its output ([`Pump`]),
//! its end ([`Child`]), and stopping everything that it has started ([`stop()`]).
//!
//! Knows nothing of the wire. One run, driven from one `select!`:
//!
//! 1. [`spawn()`] gives a [`Spawned`]: the main process as a [`Child`], and its pipes.
//! 2. [`Pump::next`] yields output; [`Child::exited`] the end, upon which [`Pump::main_ended`] is
//!    called and the pump goes on until it yields [`Event::Done`].
//! 3. [`stop()`] may run at any time before [`Child::reap`].
//! 4. [`count_left`], then [`Child::reap`] or a drop of the [`Child`], are the last:
//!    until then the zombie keeps the pid, and with it the process group's id, from being given to
//!    anybody else.

pub mod cgroup;
pub mod environment;
pub mod limits;
pub mod mark;
pub mod not_started;
pub mod program;
pub mod pump;
pub mod scan;
pub mod shim;
pub mod signal;
pub mod spawn;
pub mod spec;
pub mod stop;
pub mod wait;

pub use crate::sys::process::{End, Ended, Usage};
pub use cgroup::{Groups, GroupsError};
pub use environment::BaseEnv;
pub use limits::Limits;
pub use mark::Mark;
pub use not_started::{NotStarted, SpawnError};
pub use pump::{Event, Pump, Stream, StreamEnd, pipes_released};
pub use scan::{Containment, Scanner};
pub use signal::Signal;
pub use spawn::{Spawned, spawn};
pub use spec::{Program, Spec};
pub use stop::{Leftovers, Stopped, TERM_GRACE, count_left, stop, stop_leftovers};
pub use wait::{Child, adopt};

#[cfg(test)]
mod testing;
