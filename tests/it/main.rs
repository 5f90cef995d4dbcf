//! Behaviour through the real programs.

#![expect(
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test what is missing is a failure, what is printed explains it, and a literal is handed over"
)]

mod support;

mod classic;
mod cuts;
mod docs;
mod memory;
mod python;
mod quick;
