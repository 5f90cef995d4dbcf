//! `rexec batch`: many hosts, many commands, one honest report.

mod args;
mod blocks;
mod gather;
mod html;
mod junit;
mod ledger;
mod lines;
mod live;
mod logs;
mod markdown;
mod mask;
mod report;
mod resume;
mod rows;
mod show;
mod spill;
mod steps_file;
mod summary;
mod watch;

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use args::Args;
use gather::{Gathered, gather};
use logs::Logs;
use report::{Line, Subject};
use show::Reader;
use watch::{Watched, Watcher};

use super::output::{is_given_kept, write_all};
use super::report_file::{self, Unwritten, worse};
use super::signals::Signals;
use super::status::Status;
use super::words::{Habits, meant};
use crate::client::batch::{Before, Halter, Host, How, Loss, Outcome, Why};

/// How often Ctrl-C still has a report follow: once to stop, once to not wait. The next one leaves at once,
/// also when whoever reads the output has stopped reading.
const PATIENCE: u32 = 2;
/// Names the file that GitHub shows on a job's page.
const STEP_SUMMARY: &str = "GITHUB_STEP_SUMMARY";
const HABITS: Habits = Habits {
    options: "options of rexec batch stand before the command",
    joined: "for the server's shell it has to be one word: quote all of it",
};

pub(super) use args::definition;

/// Runs `rexec batch ...`; the exit status.
pub(super) fn main(args: &[OsString]) -> u8 {
    let args = match Args::read(args) {
        Ok(args) => args,
        Err(e) => return super::usage("rexec", &e),
    };
    let gathered = match gather(&args) {
        Ok(gathered) => gathered,
        Err(line) => return not_run(&args, &line),
    };
    if let Err(line) = check_reports(&args) {
        return not_run(&args, &line);
    }
    if args.dry_run {
        return super::print("rexec", &dry_run(&gathered));
    }
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(e) => return not_run(&args, &format!("cannot start: {e}")),
    };
    let status = runtime.block_on(run(&args, gathered));
    // A look-up of a name may still block a thread: nobody waits for it.
    runtime.shutdown_background();
    status
}

/// Says why nothing was run.
fn not_run(args: &Args, line: &str) -> u8 {
    args.reach.say(&format!("{line}; nothing was run"));
    Status::Usage.code()
}

/// What would run where.
fn dry_run(gathered: &Gathered) -> String {
    let Gathered { batch, secrets, .. } = gathered;
    let names = ledger::Names::of(batch, secrets);
    let mut text = String::new();
    for (number, name) in names.steps.iter().enumerate() {
        let command = secrets.mask(&gathered.subject.steps[number].command_line());
        let command = ledger::shown(&command);
        let command = if command == *name { String::new() } else { format!(": {command}") };
        text.push_str(&format!("step {}: {name}{command}\n", number + 1));
    }
    for (name, host) in names.hosts.iter().zip(&batch.hosts) {
        let address = host.target.destination().to_string();
        let at = if *name == address { String::new() } else { format!(" at {address}") };
        text.push_str(&format!("on {name}{at}{}\n", left(host, names.steps.len())));
    }
    text
}

/// Which steps an earlier batch has left to run on a host; nothing if it left all.
fn left(host: &Host, steps: usize) -> String {
    let is_left = |step: &usize| host.before.get(*step) != Some(&Before::Ok);
    let left: Vec<String> = (0..steps).filter(is_left).map(|step| (step + 1).to_string()).collect();
    match left.len() {
        0 => ": nothing".into(),
        count if count == steps => String::new(),
        1 => format!(": step {}", left.concat()),
        _ => format!(": steps {}", left.join(", ")),
    }
}

async fn run(args: &Args, gathered: Gathered) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return not_run(args, &format!("cannot listen to signals: {e}")),
    };
    let began = Instant::now();
    let logs = args.log_dir.as_ref().map(|dir| Logs::create(dir, args.log_raw)).transpose();
    let logs = match logs {
        Ok(logs) => logs,
        Err(e) => return not_run(args, &format!("cannot use --log-dir: {e}")),
    };
    raise_file_limit();
    let watcher = Watcher::new(args, &gathered, Reader::detect(), logs);
    let Gathered { batch, subject, .. } = gathered;
    let running = match batch.start() {
        Ok(running) => running,
        Err(e) => return not_run(args, &e.to_string()),
    };
    let halter = running.halter();
    let (done, mut watched) = tokio::sync::oneshot::channel();
    // Printing may block for as long as its reader likes: the engine must not.
    std::thread::spawn(move || done.send(Box::new(watcher.watch(running))).is_ok());
    let mut asked = 0;
    let watched = loop {
        tokio::select! {
            watched = &mut watched => break watched,
            interrupted = signals.at_prompt() => {
                asked += 1;
                if asked > PATIENCE {
                    args.reach.say("left at once, without a report: nobody knows how the batch ended");
                    return Status::Unknown.code();
                }
                halt(args, &halter, interrupted);
            }
        }
    };
    match watched {
        Ok(mut watched) => finish(args, &mut watched, subject, began.elapsed()),
        Err(_) => {
            args.reach.say(
                "the program broke off while it was printing; nobody knows how the batch ended",
            );
            Status::Unknown.code()
        }
    }
}

/// Every host takes a descriptor, and logs two more: as many as the system lets this account have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Whoever may have no more makes do with what there is.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The first signal stops what runs; the second does not even wait for its end.
fn halt(args: &Args, halter: &Halter, interrupted: bool) {
    let why = if interrupted { Why::Interrupted } else { Why::Terminated };
    let how = if halter.is_stopping() { How::Abandon } else { How::Stop };
    args.reach.say(match how {
        How::Abandon => "not waiting for the end of what runs; once more to leave without a report",
        How::Stop | How::Drain => "stopping what runs; once more to not wait for it",
    });
    halter.halt(why, how);
}

/// Tells people and machines how it ended; the exit status.
fn finish(args: &Args, watched: &mut Watched, subject: Subject, elapsed: Duration) -> u8 {
    let mut failed = Vec::from_iter(write_page(args, watched, elapsed).err());
    let (watched, ledger) = (&*watched, &watched.ledger);
    let status = ledger.status();
    if !args.reach.quiet {
        // Whoever closed stderr does not want to know.
        let table = summary::table(ledger, elapsed);
        let _ = write_all(rustix::stdio::stderr(), table.as_bytes());
    }
    if watched.is_no_program
        && let Some(meant) = meant(args.exact, &args.command, &HABITS)
    {
        args.reach.say(meant);
    }
    failed.extend(write_reports(args, watched, subject, elapsed));
    let broken = watched.broken.as_ref().map(|e| onto_stdout("output", e));
    // That it is closed has been said.
    let told = broken.iter().filter(|unwritten| unwritten.status != Status::Closed);
    failed.iter().chain(told).for_each(|unwritten| args.reach.say(&unwritten.line));
    failed.extend(broken);
    match failed.into_iter().map(|unwritten| unwritten.status).reduce(worse) {
        None => status,
        Some(Status::Closed) => Status::Closed.code(),
        Some(_) => ledger.status_with(Outcome::Lost(Loss::Output)),
    }
}

fn onto_stdout(what: &str, error: &io::Error) -> Unwritten {
    Unwritten::on_stdout(format!("cannot write the {what}: {error}"), error)
}

fn write_page(args: &Args, watched: &mut Watched, elapsed: Duration) -> Result<(), Unwritten> {
    let (Some(path), Some(kept)) = (&args.html, &mut watched.show.page) else { return Ok(()) };
    let written = report_file::write_by(path, |to| {
        let mut to = std::io::BufWriter::new(to);
        html::write(&mut to, &watched.ledger, kept, elapsed)?;
        std::io::Write::flush(&mut to)
    });
    written.map_err(|e| Unwritten::report("--html", path, &e))
}

/// Writes every report that was asked for; why one or the other cannot be written.
fn write_reports(
    args: &Args,
    watched: &Watched,
    subject: Subject,
    elapsed: Duration,
) -> Vec<Unwritten> {
    let ledger = &watched.ledger;
    let junit = args.junit.as_ref().map_or(Ok(()), |path| {
        report_file::write(path, junit::document(ledger).as_bytes())
            .map_err(|e| Unwritten::report("--junit", path, &e))
    });
    let page =
        std::env::var_os(STEP_SUMMARY).filter(|path| !path.is_empty()).map_or(Ok(()), |path| {
            markdown::append(path.as_ref(), ledger, elapsed)
                .map_err(|e| Unwritten::report(STEP_SUMMARY, path.as_ref(), &e))
        });
    let line = Line::Summary(rows::summary(ledger, subject, ledger.status(), elapsed));
    let report = args.report.as_ref().map_or(Ok(()), |path| {
        report_file::write(path, line.text().as_bytes())
            .map_err(|e| Unwritten::report("--report", path, &e))
    });
    let printed = match &watched.broken {
        // Nobody reads on.
        Some(_) => Ok(()),
        None => watched
            .show
            .line(&line)
            .and_then(|()| is_given_kept())
            .map_err(|e| onto_stdout("summary", &e)),
    };
    [junit, page, report, printed].into_iter().filter_map(Result::err).collect()
}

/// Whether the reports that were asked for can be written, as far as that is known now.
fn check_reports(args: &Args) -> Result<(), String> {
    let named = [("--report", &args.report), ("--junit", &args.junit), ("--html", &args.html)];
    let mut before: Vec<(&str, &PathBuf)> = Vec::new();
    for (option, path) in named {
        let Some(path) = path else { continue };
        report_file::check(path)
            .map_err(|e| format!("cannot write {option} {}: {e}", path.display()))?;
        if let Some((other, _)) = before.iter().find(|(_, other)| report_file::are_one(other, path))
        {
            return Err(format!("{other} and {option} name the same file"));
        }
        before.push((option, path));
    }
    Ok(())
}
