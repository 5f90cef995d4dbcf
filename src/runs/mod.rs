//! Runs: ids, the claim table, records and the journal, and the engine that drives one run.
//!
//! A [`host`] has all runs of a server. A [`request`] claims its id in the [`table`], and the [`ledger`] writes the
//! claim into the [`journal`] before anything is started. From then on the id is one of three things ([`entry`]):
//!
//! - A run of this process. A task, its [`engine`], drives the command and appends to the [`record`], which is kept
//!   in memory until the client has confirmed it; [`run`] is what that task and the client's connection share.
//! - A [`durable`] run. A supervisor, a process of its own, drives the same engine and has the record on [`disk`];
//!   the server talks to it over a [`link`], and answers from what it has left when it is over.
//! - The id of a durable run whose record was let go of ([`sweep`], [`retention`]).
//!
//! [`recover`] finds out what became of each when a server starts.

pub mod answer;
pub mod books;
pub mod clock;
pub mod credit;
pub mod disk;
pub mod durable;
pub mod engine;
pub mod entry;
pub mod excerpt;
mod feed;
pub mod hashes;
pub mod host;
pub mod intake;
pub mod journal;
pub mod judged;
pub mod launch;
pub mod ledger;
pub mod link;
pub mod listing;
pub mod owner;
pub mod place;
mod reach;
pub mod ready;
pub mod record;
pub mod recover;
pub mod request;
pub mod retention;
pub mod run;
mod settle;
pub mod shares;
mod single;
mod spare;
mod start;
pub mod stdin;
pub mod store;
pub mod sweep;
pub mod table;
pub mod throttle;
mod wire;
