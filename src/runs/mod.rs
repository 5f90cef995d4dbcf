//! Runs: ids, the claim table, records and the journal, and the engine that drives one run.

pub mod books;
pub mod clock;
pub mod credit;
pub mod disk;
pub mod durable;
pub mod engine;
pub mod host;
pub mod id;
pub mod journal;
pub mod launch;
pub mod ledger;
pub mod link;
pub mod listing;
pub mod record;
pub mod recover;
pub mod request;
pub mod retention;
pub mod run;
pub mod stdin;
pub mod store;
pub mod sweep;
pub mod table;
pub mod throttle;
mod wire;
