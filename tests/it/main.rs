//! Behaviour through the real programs.

mod support;

mod cuts;
mod once;
mod quick;
