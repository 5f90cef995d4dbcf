//! Behaviour through the real programs.

mod support;

mod docs;
mod python;
mod quick;
