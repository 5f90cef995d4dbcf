//! Behaviour through the real programs.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

mod auth;
mod classic;
mod cuts;
mod docs;
mod flood;
mod liar;
mod limits;
mod memory;
mod python;
mod quick;
mod startup;
mod strangers;
