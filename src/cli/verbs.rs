//! `rexec ps`, `attach`, `logs`, `wait`, `signal`, `stop`, `rm`: what is done with durable runs.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::output::Kept;
use super::reach::At;
use super::report::Report;
use super::status::{Answer, Asked, Status, of_end, of_verdict};
use crate::client::{Client, Error};
use crate::exec::Signal;
use crate::proto::id::{BadId, RunId};
use crate::proto::verdict::Verdict;

mod listing;
mod view;
mod waited;

use listing::ps;
use view::{View, logs};
use waited::Waited;

/// Look after durable runs.
#[derive(Debug, Parser)]
#[command(name = "rexec", max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List your runs, the newest last
    Ps {
        #[command(flatten)]
        at: At,
        /// At most so many, the newest
        #[arg(long, value_name = "N", default_value_t = 1000)]
        limit: u64,
        /// Those of everybody, with whose they are; for operators
        #[arg(long)]
        all: bool,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show a durable run from its start, follow it, and exit as it does; Ctrl-C leaves it running
    Attach {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        run: Run,
        /// Show from its `start`, or from its `end`: only what is still to come
        #[arg(long, value_name = "WHERE", default_value = "start")]
        from: Where,
        /// Ctrl-C is SIGINT for the run, as when it is run in the foreground
        #[arg(long)]
        forward_signals: bool,
        /// Print one JSON object when it has ended: how, stdout and stderr, as `rexec --json` does
        #[arg(long)]
        json: bool,
    },
    /// Show what a durable run has written so far
    Logs {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        run: Run,
    },
    /// Wait for the end of durable runs, and exit as they do: of several, as the first that failed. Of
    /// several a line each says which: its id, what it came to (the `outcome` of --json), and the status
    Wait {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        runs: Several,
        /// Wait for whichever ends first, print its line, and exit as it does
        #[arg(long, conflicts_with = "all")]
        any: bool,
        /// Wait for all; the default
        #[arg(long)]
        all: bool,
        /// Print a JSON object for each run, one a line: how it has ended
        #[arg(long)]
        json: bool,
    },
    /// Send a signal to the process group of a run
    Signal {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        run: Run,
        /// The signal: a name such as HUP, or a number
        signal: Signal,
    },
    /// Stop a run and everything that it started, and wait for its end. One that has ended stays as it is
    Stop {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        run: Run,
    },
    /// Delete the records of runs that have ended; their ids stay taken
    Rm {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        runs: Several,
    },
    /// Print the host key that a server shows now, as a line of known_hosts, and its fingerprint. No login,
    /// and nothing is verified: compare the fingerprint with what the server printed at its start
    HostKey {
        #[command(flatten)]
        at: At,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The run's id, or a unique part of it
    #[arg(value_parser = part_of_id)]
    run: String,
}

#[derive(Debug, clap::Args)]
struct Several {
    /// The runs' ids, or unique parts of them
    #[arg(required = true, value_name = "RUN", value_parser = part_of_id)]
    runs: Vec<String>,
}

/// A part of an id that there can be.
fn part_of_id(text: &str) -> Result<String, BadId> {
    RunId::new(text).map(|id| id.to_string())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Where {
    /// All of its output.
    Start,
    /// What is still to come.
    End,
}

/// The verbs, for completions.
pub(super) fn definitions() -> Vec<clap::Command> {
    let line = <Line as clap::CommandFactory>::command();
    line.get_subcommands().cloned().collect()
}

/// Runs `rexec VERB`; the exit status.
pub(super) fn main(args: &[OsString]) -> u8 {
    let line = match Line::try_parse_from(args) {
        Ok(line) => line,
        Err(e) => return super::usage("rexec", &super::habits::explained(e, args)),
    };
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(e) => {
            super::complain("rexec", &format!("cannot start: {e}"));
            return Status::Unreached.code();
        }
    };
    let status = runtime.block_on(line.verb.perform());
    runtime.shutdown_background();
    status
}

impl Verb {
    fn at(&self) -> &At {
        match self {
            Self::Ps { at, .. }
            | Self::Attach { at, .. }
            | Self::Logs { at, .. }
            | Self::Wait { at, .. }
            | Self::Signal { at, .. }
            | Self::Stop { at, .. }
            | Self::Rm { at, .. }
            | Self::HostKey { at } => at,
        }
    }

    async fn perform(&self) -> u8 {
        let at = self.at();
        let client = match client(at) {
            Ok(client) => client,
            Err(status) => return status,
        };
        match self {
            Self::Ps { limit, all, json, .. } => ps(at, client, (*limit, *all), *json).await,
            Self::Attach { run, from, forward_signals, json, .. } => {
                let view = View { at, run: &run.run, kept: json.then(Kept::default) };
                view.attach(client, *from == Where::End, *forward_signals).await
            }
            Self::Logs { run, .. } => logs(at, client, &run.run).await,
            Self::Wait { runs, any, json, .. } => {
                let waited = Waited { at, runs: &runs.runs, is_one: *any, json: *json };
                if *any { waited.any().await } else { waited.all(client).await }
            }
            Self::Signal { run, signal, .. } => {
                ordered(at, &run.run, client.signal_once(&run.run, *signal).await)
            }
            Self::Stop { run, .. } => stop(at, client, &run.run).await,
            Self::Rm { runs, .. } => remove(at, client, &runs.runs).await,
            Self::HostKey { .. } => super::host_key::show(at).await,
        }
    }
}

impl Client {
    async fn signal_once(mut self, run: &str, signal: Signal) -> Result<bool, Error> {
        self.signal(run, signal.name()).await
    }
}

/// A client of the server; the exit status if there cannot be one.
fn client(at: &At) -> Result<Client, u8> {
    at.reach.client(&at.addr).map_err(|e| {
        at.reach.say(&e.to_string());
        Status::Unreached.code()
    })
}

/// Says what went wrong; the exit status.
fn failed(at: &At, error: Error) -> u8 {
    failed_of(at, None, error)
}

/// The same, of one of several runs.
fn failed_of(at: &At, run: Option<&str>, error: Error) -> u8 {
    tell(at, run, &answer_of(&Err(error), Asked::Nothing))
}

/// The answer for the end of a run that others have started.
fn answer_of(end: &Result<Verdict, Error>, asked: Asked) -> Answer {
    let answer = of_end(end, asked);
    if answer.status != Status::NotStarted {
        return answer;
    }
    let rest = |line: String| line.strip_prefix("not started: ").unwrap_or(&line).to_owned();
    Answer { status: Status::Refused, line: answer.line.map(rest), ..answer }
}

/// Says what there is to say, of one of several runs; the exit status.
fn tell(at: &At, run: Option<&str>, answer: &Answer) -> u8 {
    if let Some(line) = &answer.line {
        let whose = run.map(|run| format!("{run}: ")).unwrap_or_default();
        at.reach.say(&format!("{whose}{line}"));
    }
    answer.status.code()
}

/// Prints an object, if that was asked for; the exit status, which is another one if it cannot be printed.
fn printed(at: &At, report: Option<Report<'_>>, status: u8) -> u8 {
    match report.map_or(Ok(()), |report| report.print()) {
        Ok(()) => status,
        Err(unwritten) => {
            at.reach.say(&unwritten.line);
            unwritten.status.code()
        }
    }
}

/// The name of a run where there are others.
fn among<'a>(runs: &[String], run: &'a str) -> Option<&'a str> {
    (runs.len() > 1).then_some(run)
}

/// Says how a run ended, if the command does not speak for itself; the exit status.
fn told(at: &At, verdict: &Verdict, asked: Asked) -> u8 {
    let answer = of_verdict(verdict, asked);
    if let Some(line) = &answer.line {
        at.reach.say(line);
    }
    answer.status.code()
}

fn ended_already(run: &str) -> String {
    format!("run {run} has ended already")
}

/// An order that a run which has ended cannot obey.
fn ordered(at: &At, run: &str, obeyed: Result<bool, Error>) -> u8 {
    match obeyed {
        Ok(true) => 0,
        Ok(false) => {
            at.reach.say(&ended_already(run));
            Status::NotStarted.code()
        }
        Err(e) => failed(at, e),
    }
}

async fn stop(at: &At, mut client: Client, run: &str) -> u8 {
    match client.stop(run).await {
        // What was asked for is so.
        Ok(false) => {
            at.reach.say(&ended_already(run));
            0
        }
        Ok(true) => match client.wait(run).await {
            Ok(verdict) => {
                // It was stopped, as this client asked: that is a success here.
                if verdict.left_running > 0 {
                    told(at, &verdict, Asked::Nothing);
                }
                0
            }
            Err(Error::Refused { .. }) => 0,
            Err(e) => failed(at, e),
        },
        Err(e) => failed(at, e),
    }
}

async fn remove(at: &At, mut client: Client, runs: &[String]) -> u8 {
    let mut first_failure = 0;
    for run in runs {
        let status = match client.remove(run).await {
            Ok(()) => 0,
            Err(e) => failed_of(at, among(runs, run), e),
        };
        if first_failure == 0 {
            first_failure = status;
        }
    }
    first_failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::words::VERBS;

    #[test]
    fn every_verb_is_among_the_words_that_the_program_takes_for_itself() {
        let defined = definitions();
        let names: Vec<_> = defined.iter().map(clap::Command::get_name).collect();
        assert_eq!(names, VERBS);
    }
}
