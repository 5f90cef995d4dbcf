//! Behaviour through the real programs.

mod support;

mod classic;
mod docs;
mod memory;
mod python;
mod quick;
