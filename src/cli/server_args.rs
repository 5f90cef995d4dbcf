//! The server's command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::client_args::{duration, some_time};
use super::journal_args::JournalArgs;
use super::man::Section;
use super::{gc, journal};
use crate::server::classic::ClassicAddr;
use crate::transport::{Endpoint, Host, ListenAddr};

/// A server whose `--listen NAME:PORT` has more addresses than this is restarted to upgrade it.
const NAME_SOCKETS: usize = 8;

/// Run commands for those who may, and tell them the truth about each.
#[derive(Debug, Parser)]
#[command(
    name = "rexec-server",
    version,
    max_term_width = 100,
    after_help = after_help(),
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(super) struct Program {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// What is decided about a server.
    #[command(flatten)]
    pub(super) serve: Args,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(subcommand)]
    Journal(journal::Command),
    Gc(gc::Args),
}

/// What is decided about a server.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Listen here: host:port (port 0: any free one), [::1]:8080, localhost:8080 (both families) or
    /// unix:/path/to/socket; repeatable. Not needed where sockets are handed over (LISTEN_FDS)
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<ListenAddr>,

    /// The name under which this server keeps its journal; by default made from the first --listen
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Let in the Ed25519 keys of FILE (as OpenSSH writes it), besides this account on this machine;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    pub(super) authorized_keys: Vec<PathBuf>,

    /// Serve the socket tutorial's clients here, to programs of this account on this machine only:
    /// json=ADDR, length=ADDR or raw=ADDR; repeatable
    #[arg(long, value_name = "KIND=ADDR")]
    pub(super) classic: Vec<ClassicAddr>,

    /// Most logged-in connections at one time
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = at_least_one)]
    pub(super) max_connections: usize,

    /// Most runs at one time
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least_one)]
    pub(super) max_runs: usize,

    /// Memory for output that clients have not confirmed, such as 64M; each run has 96 KiB on top
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    pub(super) memory_budget: u64,

    /// The shell for command text
    #[arg(long, value_name = "PATH", default_value = "/bin/sh")]
    pub(super) shell: PathBuf,

    /// Close a connection on which nothing was run for so long
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = some_time)]
    pub(super) idle_timeout: Duration,

    /// On SIGTERM or SIGHUP, give runs so long to end by themselves; a second SIGTERM stops them at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(super) drain_timeout: Duration,

    #[command(flatten)]
    pub(super) journal: JournalArgs,

    /// Stop a durable run whose record grows beyond so much
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub(super) record_limit: u64,

    /// Keep records of durable runs for so long after their end; their ids are taken for as long, and 10
    /// minutes more
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = duration)]
    pub(super) keep_for: Duration,

    /// Keep at most so many records of durable runs that have ended; those that ended first go first
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(super) keep_count: usize,

    /// Keep records of at most so many bytes of disk; those that ended first go first
    #[arg(long, value_name = "BYTES", default_value = "16G", value_parser = bytes)]
    pub(super) keep_bytes: u64,

    /// How log lines look on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,

    /// Log more
    #[arg(short, long)]
    pub(super) verbose: bool,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub(super) completions: Option<Shell>,

    /// Print the manual page and exit
    #[arg(long, exclusive = true)]
    pub(super) man: bool,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const NOTES: &str = "\
The server prints `listening on ADDR` on stdout for each address when it is ready, and tells systemd \
(sd_notify). Its log goes to stderr.

Sockets that a service manager hands over (LISTEN_FDS, see sd_listen_fds(3)) are used in the place of new ones for \
the same --listen addresses; without --listen they are what is listened on.

SIGTERM: no new runs, --drain-timeout for those under way, then the end. SIGHUP: an upgrade in place. New runs wait, \
those under way have --drain-timeout, then the server becomes the program that its path names now, with the same \
arguments, process id and sockets; no connection is refused meanwhile. If that program does not start, the server goes \
on. After nohup, SIGHUP is ignored; if the server's terminal was closed, it is as SIGTERM.

With no configuration it serves programs of its own account on this machine. For other machines give \
--authorized-keys; on another address than loopback it does not start without.";

const EXAMPLES: &str =
    "  rexec-server --listen 127.0.0.1:8080     in one terminal; it says when it is ready
  rexec 127.0.0.1:8080 \"ls -l\"                in another one
  rexec-server journal show                what was run, by whom, and how it ended
  rexec-server gc --dry-run                what would be removed of durable runs that are over";

fn after_help() -> String {
    format!("{NOTES}\n\nExample:\n{EXAMPLES}")
}

/// What the manual page has besides the options.
pub(super) fn sections() -> Vec<Section> {
    vec![
        ("NOTES", format!("{NOTES}\n\n{}", journal::ANCHORS)),
        ("EXAMPLES", EXAMPLES.into()),
        ("SEE ALSO", "rexec(1), sshd(8)".into()),
    ]
}

/// The definition, for completions and the manual page.
pub(super) fn definition() -> clap::Command {
    Program::command()
}

impl Program {
    pub(super) fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(args)
    }
}

impl Args {
    /// Fails where there is nothing to listen on.
    pub(super) fn check_addresses(&self, handed_over: usize) -> Result<(), clap::Error> {
        if handed_over > 0 || !self.listen.is_empty() || !self.classic.is_empty() {
            return Ok(());
        }
        let text = "nothing to listen on: give --listen ADDR, such as --listen 127.0.0.1:8080";
        Err(definition().error(clap::error::ErrorKind::MissingRequiredArgument, text))
    }

    /// How many sockets the addresses need, as far as that is known without asking a resolver.
    pub(super) fn sockets(&self) -> usize {
        let addresses = self.listen.iter().chain(self.classic.iter().map(|c| &c.address));
        let needed = |address: &ListenAddr| match &address.0 {
            Endpoint::Tcp { host: Host::Localhost, .. } => 2,
            Endpoint::Tcp { host: Host::Name(_), .. } => NAME_SOCKETS,
            Endpoint::Tcp { .. } | Endpoint::Unix(_) => 1,
        };
        addresses.map(needed).sum()
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number from 1".into()),
    }
}

/// A count of bytes: `65536`, `64K`, `256M`, `1G`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let count: u64 = digits.parse().map_err(|_| "a count of bytes, such as 65536, 64M or 1G")?;
    count.checked_mul(1 << shift).ok_or_else(|| "too many bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts() {
        assert_eq!(bytes("65536"), Ok(65536));
        assert_eq!(bytes("32M"), Ok(32 << 20));
        for bad in ["", "M", "1T", "-1", "99999999999G"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
