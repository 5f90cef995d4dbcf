//! Behaviour through the real programs.

mod support;

mod cli;
mod drain;
mod env;
mod exact;
mod library;
mod not_started;
mod prompt;
mod quick;
mod report;
mod run;
mod shutdown;
mod start_up;
mod stop;
