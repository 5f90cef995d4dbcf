//! Behaviour through the real programs.

mod support;

mod classic;
mod cli;
mod cuts;
mod docs;
mod drain;
mod env;
mod exact;
mod library;
mod memory;
mod not_started;
mod prompt;
mod python;
mod quick;
mod report;
mod run;
mod shutdown;
mod start_up;
mod stop;
