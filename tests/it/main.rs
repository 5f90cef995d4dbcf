//! Behaviour through the real programs.

mod support;

mod auth;
mod flood;
mod liar;
mod limits;
mod quick;
mod startup;
mod strangers;
