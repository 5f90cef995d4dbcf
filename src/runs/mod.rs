//! Runs: ids, the claim table, records and the journal, and the engine that drives one run.

pub mod clock;
pub mod credit;
pub mod engine;
pub mod host;
pub mod id;
pub mod journal;
pub mod record;
pub mod recover;
pub mod request;
pub mod run;
pub mod stdin;
pub mod table;
mod wire;
