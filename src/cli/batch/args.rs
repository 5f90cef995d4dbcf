//! The command line of `rexec batch`.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{CommandFactory as _, Parser, ValueEnum};

use crate::cli::reach::Reach;
use crate::cli::words::BATCH;
use crate::units::some_time;

/// Run commands on many machines, and get one verdict for each of them.
#[derive(Debug, Parser)]
#[command(name = "rexec batch", bin_name = "rexec batch", max_term_width = 100, after_help = AFTER_HELP)]
pub(super) struct Args {
    /// The command, as for a single run: one word is text for each server's shell, several words, or
    /// any words after --, are a program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(super) command: Vec<String>,

    /// The hosts: a:8080,b:8080, ranges such as web[01-20]:8080, names and @groups of
    /// ~/.config/rexec/config.toml
    #[arg(short = 'H', long = "host", value_name = "LIST")]
    pub(super) host: Vec<String>,

    /// Hosts from FILE, one list a line; # begins a comment. -: from stdin
    #[arg(long, value_name = "FILE")]
    pub(super) hosts: Vec<PathBuf>,

    /// Leave these hosts out
    #[arg(short = 'x', long, value_name = "LIST")]
    pub(super) exclude: Vec<String>,

    /// A step: text for each server's shell; repeatable, run in order, over one connection for each host
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["command", "file"])]
    pub(super) step: Vec<String>,

    /// Steps from FILE: one command a line, # comments, lines continued by a backslash; or, if its name ends
    /// in .toml, a plan. -: commands from stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    pub(super) file: Option<PathBuf>,

    /// Run what did not end well in an earlier batch, from its --report or its --json. What nobody knows the
    /// end of is asked for again under the same id, which never runs twice
    #[arg(long, value_name = "FILE",
        conflicts_with_all = ["host", "hosts", "exclude", "command", "step", "file", "cwd", "env", "timeout", "merge"])]
    pub(super) resume: Option<PathBuf>,

    /// Show what would run where, and run nothing
    #[arg(long)]
    pub(super) dry_run: bool,

    /// Run each command in this folder of its server
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<String>,

    /// Set a variable for each command; without a value, to the one it has here, which is then masked in
    /// everything that is shown or written
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<String>,

    /// Stop a command and everything it started after so long
    #[arg(short, long, value_name = "TIME", value_parser = some_time)]
    pub(super) timeout: Option<Duration>,

    /// Put each command's stdout and stderr through one pipe, so that their order is exact
    #[arg(long)]
    pub(super) merge: bool,

    /// Work on so many hosts at once
    #[arg(short, long, value_name = "N", default_value_t = AT_ONCE, value_parser = hosts_at_once)]
    pub(super) jobs: NonZeroUsize,

    /// Go in rounds of N hosts, or of so many percent of them: the next round begins when all of one have
    /// ended
    #[arg(long, value_name = "N|P%", value_parser = some_hosts)]
    pub(super) serial: Option<Amount>,

    /// Begin no further host once more than N, or P percent, have failed
    #[arg(long, value_name = "N|P%")]
    pub(super) max_failures: Option<Amount>,

    /// Stop everything at the first step that does not end well
    #[arg(long)]
    pub(super) fail_fast: bool,

    /// Stop everything after so long
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(super) deadline: Option<Duration>,

    /// Try to reach a host so often again; one that does not let us in is not asked again
    #[arg(long, value_name = "N", default_value_t = crate::client::batch::RETRIES)]
    pub(super) retries: u32,

    /// How to show what the commands write; by default grouped above a live table on a terminal, else prefix
    #[arg(long, value_name = "HOW", value_enum)]
    pub(super) output: Option<Shown>,

    /// Keep each stream of each step in a file of its own: DIR/HOST/STEP.stdout
    #[arg(long, value_name = "DIR")]
    pub(super) log_dir: Option<PathBuf>,

    /// Keep them as they came: secrets are not masked there
    #[arg(long, requires = "log_dir")]
    pub(super) log_raw: bool,

    /// Print what happens as JSON Lines, the last of which is the summary
    #[arg(long, conflicts_with = "output")]
    pub(super) json: bool,

    /// Write the summary to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,

    /// Write a report in JUnit's XML to FILE, for CI systems
    #[arg(long, value_name = "FILE")]
    pub(super) junit: Option<PathBuf>,

    /// Write a page to FILE that shows hosts and steps over time, with their output; it fetches nothing
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,

    #[command(flatten)]
    pub(super) reach: Reach,

    /// Whether `--` stood right before the command.
    #[arg(skip)]
    pub(super) exact: bool,
}

fn hosts_at_once(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "no number of hosts; write 1 or more".into())
}

const AT_ONCE: NonZeroUsize = match NonZeroUsize::new(crate::client::batch::AT_ONCE) {
    Some(at_once) => at_once,
    None => NonZeroUsize::MIN,
};

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shown {
    /// Each line as it comes, with its host and stream in front
    Prefix,
    /// All of a host's at once, when it has ended; GitHub and GitLab fold it
    Grouped,
    /// At the end, and once for hosts that wrote the same
    Fold,
    /// Nothing but verdicts
    None,
}

/// So many hosts, or so many percent of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Hosts(usize),
    Percent(usize),
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("{text:?} is no number of hosts; write 5 or 10%");
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 0..=100) => Ok(Self::Percent(percent)),
                _ => Err(fault()),
            },
            None => text.parse().map(Self::Hosts).map_err(|_| fault()),
        }
    }
}

/// An amount of a round: with none, nothing would ever run.
fn some_hosts(text: &str) -> Result<Amount, String> {
    match text.parse()? {
        Amount::Hosts(0) | Amount::Percent(0) => {
            Err("a round has at least one host; write 5 or 10%".into())
        }
        amount => Ok(amount),
    }
}

impl Amount {
    /// Of so many, rounded down.
    pub(super) fn of(self, all: usize) -> usize {
        match self {
            Self::Hosts(hosts) => hosts,
            Self::Percent(percent) => all.saturating_mul(percent) / 100,
        }
    }
}

impl Args {
    /// Reads `rexec batch ...`; prints help and errors itself, as clap does.
    pub(super) fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        let mut read = Self::try_parse_from(&args[1..])?;
        let before = args.len().checked_sub(read.command.len() + 1);
        read.exact =
            !read.command.is_empty() && before.is_some_and(|at| at > 1 && args[at] == "--");
        Ok(read)
    }
}

/// The definition, for completions.
pub(in crate::cli) fn definition() -> clap::Command {
    Args::command().name(BATCH)
}

const AFTER_HELP: &str = "\
Exit status: 0 if every step of every host ended well, else the worst that there is, in this order:
  254      a host was not reached, did not let us in, or refused a command: not started
  253      nobody can know whether or how a command ran
  252      output incomplete, altered, or not writable here
  251      stopped by somebody else: server, policy, operator
  124      stopped by its deadline, or by the batch's
  128+n    killed by signal n; 130 and 143: stopped by this program's Ctrl-C or SIGTERM
  1-255    the highest of the commands' own codes
  141      whatever they came to: stdout was closed, and what still ran is stopped
  2        wrong usage; nothing was run

Examples:
  rexec batch -H web[01-20]:8080 uptime
  rexec batch -H @web -x web07 -s 'make -j4' -s 'make test' -j 8
  rexec batch --hosts hosts.txt --file deploy.toml --serial 10% --max-failures 0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!("10%".parse(), Ok(Amount::Percent(10)));
        assert_eq!("3".parse(), Ok(Amount::Hosts(3)));
        for bad in ["", "%", "101%", "-1", "3x"] {
            assert!(bad.parse::<Amount>().is_err(), "{bad}");
        }
        assert_eq!((Amount::Percent(10).of(25), Amount::Hosts(3).of(1)), (2, 3));
    }
}
