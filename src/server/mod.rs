//! The server: connections in, runs out.
//!
//! [`Server::prepare`] makes keys and sockets of [`Options`], and [`Running::serve`] serves until it is called to
//! stop or to be replaced. Each connection is one task (`connection`): it waits in the `lobby` for TLS and its login,
//! then is a `session`, which reads `requests`, serves one run at a time (`serving`), and sends what is in its
//! `outbox`. Its `rights` come from its key and the [`policy`]. [`supervise`] is the program that owns one durable
//! run.

mod accepting;
mod addresses;
mod batch;
pub mod classic;
mod connection;
mod counters;
mod end;
mod held;
mod instance;
mod left;
mod lobby;
mod outbox;
mod penalties;
pub mod policy;
mod posted;
mod requests;
mod rights;
mod running;
mod serving;
mod session;
mod shared;
mod showing;
mod start;
mod start_error;
pub mod status;
pub mod supervise;
mod told;
pub mod users;
mod waiting;

pub use connection::{LOGIN_TIMEOUT, PERSON_TIMEOUT};
pub use held::{HELD_LIMIT, HOLD_LIMIT};
pub use instance::{
    FindError, InstanceError, NAME_LIMIT, RUNS, find_instance, find_journal, find_running,
};
pub use lobby::PLACES;
pub use outbox::{ANSWERS_LIMIT, STARTED_WAIT};
pub use penalties::{FORGET, FREE, LONGEST, REMEMBERED, SHORTEST};
pub use requests::LIST_LIMIT;
pub use running::{Call, Ended, Running};
pub use session::LONGEST_PAUSE;
pub use shared::Config;
pub use start::{Kept, Options, Server, foresee};
pub use start_error::StartError;
pub use users::System;
pub use waiting::BEHIND_LIMIT;
