//! `rexec` runs a command on another machine and tells the truth about it.

pub mod exec;
pub mod proto;
pub mod sys;
