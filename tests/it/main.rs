//! Behaviour through the real programs.
#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test what is missing is a failure, what is printed explains it, and a literal is handed over"
)]

mod sick_disk;
mod sick_record;
mod support;

mod activation;
mod addresses;
mod agents;
mod auth;
mod batch;
mod certificates;
mod cgroups;
mod classic;
mod cli;
mod completions;
mod costs;
mod cuts;
mod dead_disk;
#[cfg(feature = "blake3")]
mod digests;
mod docs;
mod drain;
mod durable;
mod durable_bad;
mod durable_kill;
mod durable_places;
mod durable_seen;
mod durable_spare;
mod durable_stopped;
mod durable_torn;
mod durable_verbs;
mod env;
mod exact;
mod flood;
mod full_disk;
mod journal;
mod journal_show;
mod journal_verify;
mod keys;
mod killed;
mod late;
mod liar;
mod liar_verbs;
mod library;
mod limits;
mod memory;
mod minute;
mod not_kept;
mod not_started;
mod once;
mod pages;
mod penalties;
mod pipes;
mod policy;
mod policy_ceilings;
mod policy_journal;
mod prompt;
mod python;
mod quick;
mod replay;
mod report;
mod restart;
mod restart_classic;
mod restart_ended;
mod restart_raced;
mod restart_told;
mod restart_users;
mod resume;
mod retention;
mod rights;
mod run;
mod saved;
mod segments;
mod shortage;
mod shutdown;
mod start_up;
mod state;
mod stop;
mod strangers;
mod system;
mod system_durable;
mod system_groups;
mod system_hung;
mod system_left;
mod system_lists;
mod trust;
mod upgrade;
mod upgrade_program;
