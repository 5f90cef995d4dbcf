//! Runs: ids, the claim table, records and the journal, and the engine that drives one run.

pub mod credit;
pub mod record;
