//! Runs: ids, the claim table, records and the journal, and the engine that drives one run.

pub mod clock;
pub mod credit;
pub mod id;
pub mod journal;
pub mod record;
pub mod stdin;
