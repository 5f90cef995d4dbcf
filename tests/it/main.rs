//! Behaviour through the real programs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

mod auth;
mod classic;
mod cli;
mod cuts;
mod docs;
mod drain;
mod env;
mod exact;
mod flood;
mod liar;
mod library;
mod limits;
mod memory;
mod not_started;
mod prompt;
mod python;
mod quick;
mod report;
mod run;
mod shutdown;
mod start_up;
mod state;
mod stop;
mod strangers;
