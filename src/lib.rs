//! `rexec` runs a command on another machine and tells the truth about it.

pub mod conn;
pub mod exec;
pub mod identity;
pub mod proto;
pub mod runs;
pub mod sys;
pub mod transport;
