//! Behaviour through the real programs.

mod support;

mod drain;
mod env;
mod exact;
mod not_started;
mod quick;
mod run;
mod shutdown;
mod stop;
