//! Behaviour through the real programs.

mod support;

mod classic;
mod quick;
