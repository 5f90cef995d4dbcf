//! Behaviour through the real programs.

mod support;

mod docs;
mod memory;
mod python;
mod quick;
