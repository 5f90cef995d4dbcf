//! Behaviour through the real programs.

mod support;

mod classic;
mod cuts;
mod docs;
mod memory;
mod python;
mod quick;
