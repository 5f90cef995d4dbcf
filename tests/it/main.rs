//! Behaviour through the real programs.

mod support;

mod quick;
