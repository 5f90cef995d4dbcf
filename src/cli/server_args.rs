//! The server's command line.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::access_args::AccessArgs;
use super::habits::suggest;
use super::journal_args::JournalArgs;
use super::man::Section;
use super::{gc, journal, server_status};
use crate::identity::Network;
use crate::server::classic::ClassicAddr;
use crate::transport::{Endpoint, Host, ListenAddr};
use crate::units::{bytes, duration, some_time};

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
    subcommand_negates_reqs = true
)]
pub(super) struct Program {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    /// What is decided about a server.
    #[command(flatten)]
    pub(super) serve: Args,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub(super) completions: Option<Shell>,

    /// Print the manual page and exit
    #[arg(long, exclusive = true)]
    pub(super) man: bool,
}

/// What the program does besides serving.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(subcommand)]
    Journal(journal::Command),
    Gc(gc::Args),
    Check(Box<CheckArgs>),
    Status(server_status::Args),
}

/// Check the configuration and print every setting with where it comes from, every rule of the policy, and
/// every line of the files of keys with what it means
///
/// Takes the options of the server itself; what is printed are its settings in force. Nothing is started or
/// changed. Exit status: 0 all is well, 1 the configuration or a file that it names is not, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct CheckArgs {
    /// What the server would be started with.
    #[command(flatten)]
    pub(super) serve: Args,

    /// Print one JSON object instead: the settings, and the files of keys line by line
    #[arg(long)]
    pub(super) json: bool,
}

/// The verb that only reads the settings.
pub(super) const CHECK: &str = "check";

const MAX_CONNECTIONS: &str = "4096";
const MAX_RUNS: &str = "1024";
const MEMORY_BUDGET: &str = "256M";
const SHELL: &str = "/bin/sh";
const IDLE_TIMEOUT: &str = "10m";
const DRAIN_TIMEOUT: &str = "30s";
const RECORD_LIMIT: &str = "1G";
const KEEP_FOR: &str = "7d";
const KEEP_COUNT: &str = "10000";
const KEEP_BYTES: &str = "16G";
const NO_PENALTY: [&str; 2] = ["127.0.0.0/8", "::1/128"];
const LOG_FORMAT: &str = "text";

/// What is decided about a server.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read settings from FILE: TOML, where each of these options is a key, and where the policy is: who may run
    /// what, and within what. What is given on the command line counts
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Listen here: host:port (port 0: any free one), [::1]:8080, localhost:8080 (both families) or
    /// unix:/path/to/socket; repeatable. Not needed where sockets are handed over (LISTEN_FDS)
    #[arg(long, value_name = "ADDR")]
    pub(super) listen: Vec<ListenAddr>,

    /// The name under which this server keeps its journal; by default made from the first --listen
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    #[command(flatten)]
    pub(super) access: AccessArgs,

    /// Serve the socket tutorial's clients here, to programs of this account on this machine only:
    /// json=ADDR, length=ADDR or raw=ADDR; repeatable
    #[arg(long, value_name = "KIND=ADDR")]
    pub(super) classic: Vec<ClassicAddr>,

    /// Most logged-in connections at one time
    #[arg(long, value_name = "N", default_value = MAX_CONNECTIONS, value_parser = at_least_one)]
    pub(super) max_connections: usize,

    /// Most runs at one time
    #[arg(long, value_name = "N", default_value = MAX_RUNS, value_parser = at_least_one)]
    pub(super) max_runs: usize,

    /// Memory for output that clients have not confirmed, such as 64M; each run has 96 KiB on top
    #[arg(long, value_name = "BYTES", default_value = MEMORY_BUDGET, value_parser = bytes)]
    pub(super) memory_budget: u64,

    /// The shell for command text
    #[arg(long, value_name = "PATH", default_value = SHELL)]
    pub(super) shell: PathBuf,

    /// Close a connection on which nothing was run for so long
    #[arg(long, value_name = "TIME", default_value = IDLE_TIMEOUT, value_parser = some_time)]
    pub(super) idle_timeout: Duration,

    /// On SIGTERM or SIGHUP, give runs so long to end by themselves; a second SIGTERM stops them at once
    #[arg(long, value_name = "TIME", default_value = DRAIN_TIMEOUT, value_parser = duration)]
    pub(super) drain_timeout: Duration,

    /// Failed logins from this address or network (such as 10.0.0.0/8) have no penalty; repeatable. Loopback has
    /// none unless something else is given here; none: nobody is exempt
    #[arg(long, value_name = "NET", default_values = NO_PENALTY, value_parser = network)]
    pub(super) no_penalty: Vec<Exempt>,

    /// Give each run a control group of its own in this folder of cgroup v2, which is left to this server: what it has
    /// started is found whatever it does, and memory and processes of a rule hold for the whole run
    #[arg(long, value_name = "DIR")]
    pub(super) cgroup: Option<PathBuf>,

    #[command(flatten)]
    pub(super) journal: JournalArgs,

    /// Stop a durable run whose record grows beyond so much
    #[arg(long, value_name = "BYTES", default_value = RECORD_LIMIT, value_parser = bytes)]
    pub(super) record_limit: u64,

    /// Keep records of durable runs for so long after their end; their ids are taken for as long, and 10
    /// minutes more
    #[arg(long, value_name = "TIME", default_value = KEEP_FOR, value_parser = duration)]
    pub(super) keep_for: Duration,

    /// Keep at most so many records of durable runs that have ended. When there are more, whoever has most loses those
    /// that ended first
    #[arg(long, value_name = "N", default_value = KEEP_COUNT)]
    pub(super) keep_count: usize,

    /// Keep records of at most so many bytes of disk. When they take more, whoever has most loses those that ended first
    #[arg(long, value_name = "BYTES", default_value = KEEP_BYTES, value_parser = bytes)]
    pub(super) keep_bytes: u64,

    /// How log lines look on stderr
    #[arg(long, value_name = "FORMAT", default_value = LOG_FORMAT)]
    pub(super) log_format: LogFormat,

    /// Log more
    #[arg(short, long, overrides_with = "verbose")]
    pub(super) verbose: bool,
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

SIGTERM: no new runs, --drain-timeout for those under way, then the end; a second one, and SIGQUIT, stop them at once. \
SIGUSR1 and SIGUSR2 do nothing. SIGHUP: an upgrade in place. New runs wait, \
those under way have --drain-timeout, then the server becomes the program that its path names now, with the same \
arguments, process id and sockets; no connection is refused meanwhile. If that program does not start, the server goes \
on. After nohup, SIGHUP is ignored; if the server's terminal was closed, it is as SIGTERM.

With no configuration it serves programs of its own account on this machine. For other machines give \
--authorized-keys; on another address than loopback it does not start without.";

const EXAMPLES: &str =
    "  rexec-server --listen 127.0.0.1:8080     in one terminal; it says when it is ready
  rexec 127.0.0.1:8080 \"ls -l\"             in another one
  rexec-server journal show                what was run, by whom, and how it ended
  rexec-server check --config FILE         is this configuration right, and what would it mean?
  rexec-server status                      what a running server counts
  rexec-server gc --dry-run                what would be removed of durable runs that are over";

const STATUSES: &str = "  0     it ended as it was told to: by SIGTERM, SIGINT or SIGQUIT
  1     it could not start, or could not go on; of a command, what its own help says
  2     wrong usage, or nothing to look at
  141   stdout was closed
  252   what was to be printed could not be written";

fn after_help() -> String {
    format!("{NOTES}\n\nExit status:\n{STATUSES}\n\nExample:\n{EXAMPLES}")
}

/// What the manual page has besides the options.
pub(super) fn sections() -> Vec<Section> {
    vec![
        ("NOTES", format!("{NOTES}\n\n{}", journal::ANCHORS)),
        ("EXIT STATUS", STATUSES.into()),
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
        Self::try_parse_from(args).map_err(explained)
    }
}

/// What was meant by an option or a command as other servers have them.
fn explained(mut error: clap::Error) -> clap::Error {
    let (kind, of) = match error.kind() {
        ErrorKind::UnknownArgument => (ContextKind::InvalidArg, instead as fn(&str) -> _),
        ErrorKind::InvalidSubcommand => (ContextKind::InvalidSubcommand, command_for as _),
        _ => return error,
    };
    let Some(ContextValue::String(word)) = error.get(kind) else { return error };
    if let Some(tip) = of(word) {
        error.remove(ContextKind::SuggestedSubcommand);
        suggest(&mut error, tip);
    }
    error
}

const LISTEN: &str = "--listen HOST:PORT, such as --listen 127.0.0.1:8080";

fn instead(option: &str) -> Option<&'static str> {
    Some(match option {
        "-p" | "--port" | "-b" | "--bind" | "-l" | "--address" => LISTEN,
        "-c" => "--config FILE",
        "-d" | "-D" | "--daemon" | "--detach" => {
            "it stays in the foreground: a service manager runs it, or a shell with &"
        }
        _ => return None,
    })
}

fn command_for(word: &str) -> Option<&'static str> {
    Some(match word {
        "start" | "run" | "serve" => "without a command it serves: rexec-server --listen HOST:PORT",
        "stop" | "restart" | "reload" => "SIGTERM ends a server, SIGHUP upgrades it in place",
        _ if word.contains(|c: char| c == ':' || c.is_ascii_digit()) => LISTEN,
        _ => return None,
    })
}

impl Args {
    /// Fails where there is nothing to listen on, or something twice.
    pub(super) fn check_addresses(&self, handed_over: usize) -> Result<(), clap::Error> {
        if handed_over == 0 && self.addresses().next().is_none() {
            let text = "nothing to listen on: give --listen ADDR, such as --listen 127.0.0.1:8080";
            return Err(definition().error(ErrorKind::MissingRequiredArgument, text));
        }
        let conflict = |text| definition().error(ErrorKind::ArgumentConflict, text);
        self.named_twice().map_or(Ok(()), |text| Err(conflict(text)))
    }

    fn addresses(&self) -> impl Iterator<Item = &ListenAddr> {
        self.listen.iter().chain(self.classic.iter().map(|classic| &classic.address))
    }

    /// Of which address the server itself would be in its own way. Port 0 is another one each time.
    pub(super) fn named_twice(&self) -> Option<String> {
        let mut named = HashSet::new();
        let mut fixed =
            self.addresses().filter(|one| !matches!(one.0, Endpoint::Tcp { port: 0, .. }));
        let twice = fixed.find(|one| !named.insert(&one.0))?;
        Some(format!("{} is named twice, and can be listened on once", twice.0))
    }

    /// How many sockets the addresses need, as far as that is known without asking a resolver.
    pub(super) fn sockets(&self) -> usize {
        let needed = |address: &ListenAddr| match &address.0 {
            Endpoint::Tcp { host: Host::Localhost, .. } => 2,
            Endpoint::Tcp { host: Host::Name(_), .. } => NAME_SOCKETS,
            Endpoint::Tcp { .. } | Endpoint::Unix(_) => 1,
        };
        self.addresses().map(needed).sum()
    }
}

/// From where failed logins have no penalty; none: from nowhere.
pub(super) type Exempt = Option<Network>;

fn network(text: &str) -> Result<Exempt, String> {
    if text == "none" { Ok(None) } else { text.parse().map(Some) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("a whole number from 1".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::host::Settings;
    use crate::server::{Config, Kept};

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let args = Program::try_parse_from(["rexec-server"]).unwrap().serve;
        let (config, settings, kept) = (Config::default(), Settings::default(), Kept::default());
        assert_eq!(args.max_connections, config.max_connections);
        assert_eq!(args.idle_timeout, config.idle_timeout);
        assert_eq!(args.drain_timeout, config.drain_timeout);
        let exempt: Vec<_> = args.no_penalty.iter().copied().flatten().collect();
        assert_eq!(exempt, config.no_penalty);
        assert_eq!(args.max_runs, settings.max_runs);
        assert_eq!(args.memory_budget, settings.memory_budget);
        assert_eq!(args.shell, settings.shell);
        assert_eq!(args.record_limit, kept.record_limit);
        assert_eq!(args.keep_for, kept.retention.age);
        assert_eq!(args.keep_count, kept.retention.count);
        assert_eq!(args.keep_bytes, kept.retention.bytes);
    }
}
