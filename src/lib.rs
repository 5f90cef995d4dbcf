//! `rexec` runs a command on another machine and tells the truth about it.
//!
//! The unit is the run, not the connection: it has an id that the client chose, an ordered record of
//! frames (its output), and ends in exactly one verdict. Connections come and go; a run is started at
//! most once, and a client that lost its connection goes on where it was.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # // A server in this process, in place of the one at 127.0.0.1:8080.
//! # use rexec::{server, sys::fs::StateDir, transport::Endpoint};
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().canonicalize()?.join("state");
//! # let options = server::Options {
//! #     state: StateDir::open(&path)?, listen: vec!["127.0.0.1:0".parse()?], name: None,
//! #     inherited: vec![], access: Default::default(), classic: vec![], config: Default::default(), policy: Default::default(), settings: Default::default(),
//! #     kept: None, journal: Default::default(), system: None,
//! # };
//! # let server = server::Server::prepare(options)?;
//! # let endpoint: Endpoint = server.addresses().next().ok_or("no address")?.clone();
//! # let (_stop, shutdown) = tokio::sync::mpsc::channel(1);
//! # tokio::spawn(server.run(shutdown));
//! use rexec::Command;
//!
//! # /*
//! let mut client = rexec::Client::local("127.0.0.1:8080")?;
//! # */
//! # let mut client = rexec::Client::new(rexec::client::Target::local(endpoint, &StateDir::open(&path)?)?);
//! let output = client.output(&Command::argv(["printf", "%s", "no shell reads $THIS"])).await?;
//! assert!(output.verdict.succeeded());
//! assert_eq!(output.stdout, b"no shell reads $THIS");
//! println!("it took {} ms", output.verdict.elapsed_ms);
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! A module imports only from rows below its own (the last three are one); a test holds them to it. To follow a run
//! from end to end read [`client::Client::run`], [`server`] and [`runs`], in this order.
//!
//! ```text
//! cli        the two programs
//! client     one run, many hosts, lost links | server     who may run what, draining, upgrades
//! runs       ids, claims, records, journal, engine
//! handshake  login                           | transport  addresses, TLS, unix sockets
//! identity   keys                            | exec       processes
//! conn       frames over any stream
//! proto      the format: docs/protocol.md
//! sys        what the system is asked for; the only unsafe code
//! units      times and sizes as people write them
//! mistake    what is wrong with a file of theirs, and where
//! ```

pub mod cli;
pub mod client;
pub mod conn;
pub mod exec;
pub mod handshake;
pub mod identity;
pub mod mistake;
pub mod proto;
pub mod runs;
pub mod server;
pub mod sys;
pub mod transport;
pub mod units;

pub use client::{Client, Command};

use std::panic::catch_unwind;
use std::process::ExitCode;

/// The program `rexec`: its exit status. See [`program!`].
#[must_use]
pub fn rexec_main() -> u8 {
    // That of a program that panicked would pass for the command's own.
    catch_unwind(|| cli::rexec::main(&arguments())).unwrap_or_else(|_| cli::rexec::broken())
}

/// The program `rexec-server`.
#[must_use]
pub fn rexec_server_main() -> ExitCode {
    cli::rexec_server::main(&arguments()).into()
}

fn arguments() -> Vec<std::ffi::OsString> {
    std::env::args_os().collect()
}
