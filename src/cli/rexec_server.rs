//! The server's program.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;

use rustix::process::Signal;
use tokio::runtime::Builder;
use tracing::{Level, info, warn};

use super::calls::{self, HEARD, Hangup};
use super::output::write_all;
use super::server_args::{Args, Command, LogFormat, Program, definition, sections};
use super::settings::{self, Settings};
use super::upgrade::{Upgrade, tell_reloaded};
use super::{SERVER, check, complain, gc, journal, log, print_definition, server_status};
use crate::exec::{self, shim};
use crate::runs::host;
use crate::runs::ready::SUPERVISE;
use crate::runs::retention::Retention;
use crate::server::users::own_files;
use crate::server::{Config, Ended, Kept, Options, Server};
use crate::sys::fs::open_state_dir;
use crate::sys::heap;
use crate::sys::listen_fds::{self, Passed, Slots};
use crate::sys::process::{self, Inherited, Terminal};
use crate::sys::signals::{self, Terminals};
use crate::sys::surroundings::EndsWith;

/// Exit status of a server that could not start.
const FAILED: u8 = 1;
/// Descriptors of a run: both ends of its output, its input, and its main process.
const RUN_DESCRIPTORS: u64 = 6;
/// Fewest descriptors with which a server can run anything.
const DESCRIPTORS: u64 = 32;
/// Descriptors that the server's own files and listeners need.
const OWN_DESCRIPTORS: u64 = 64;

/// Runs `rexec-server` with these arguments, the program's name first; the exit status.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    match args {
        [_, verb, runs, ready] if verb == SUPERVISE => return supervise(runs, ready),
        [_, verb, asked] if verb == own_files::READ_AS => return own_files::main(asked),
        [_, verb, rest @ ..] if verb == shim::LIMITED => return shim::main(rest),
        _ => {}
    }
    let program = match Program::read(args) {
        Ok(program) => program,
        Err(e) => return super::usage(SERVER, &e),
    };
    match program.command {
        Some(Command::Journal(command)) => journal::main(command),
        Some(Command::Gc(args)) => gc::main(&args),
        Some(Command::Status(args)) => server_status::main(&args),
        Some(Command::Check(check)) => match Settings::read(args) {
            Ok(settings) => check::main(&settings, check.json),
            Err(e) => unset(&e),
        },
        None => {
            let (shell, man) = (program.completions, program.man);
            print_definition(definition, sections, shell, man).unwrap_or_else(|| serve_as(args))
        }
    }
}

/// Says why there are no settings; the exit status.
fn unset(error: &settings::Error) -> u8 {
    match error {
        settings::Error::Usage(e) => super::usage(SERVER, e),
        settings::Error::File(line) => failed(line),
    }
}

/// Whether a text is a configuration of a server.
///
/// # Errors
/// One line that begins with line and column.
pub fn check_config(text: &str) -> Result<(), String> {
    settings::check_text(text)
}

fn serve_as(args: &[OsString]) -> u8 {
    shim::offer();
    let settings = match Settings::read(args) {
        Ok(settings) => settings,
        Err(e) => return unset(&e),
    };
    let options = &settings.args;
    // Besides the sockets, the lock of the instance is handed over.
    let (passed, slots) = match listen_fds::take(options.sockets() + 1) {
        Ok(taken) => taken,
        Err(e) => return failed(&e.to_string()),
    };
    if let Err(e) = options.check_addresses(passed.len()) {
        return super::usage(SERVER, &e);
    }
    match prepare_and_serve(args, settings, passed, slots) {
        Ok(()) => 0,
        Err(line) => failed(&line),
    }
}

fn failed(line: &str) -> u8 {
    complain(SERVER, line);
    FAILED
}

/// The supervisor of one durable run, or one that waits for it, which a server starts.
fn supervise(runs: &OsStr, ready: &OsStr) -> u8 {
    shim::offer();
    log::start(Level::INFO, LogFormat::Text);
    match crate::server::supervise::main(Path::new(runs), Path::new(ready)) {
        Ok(()) => 0,
        Err(line) => {
            tracing::error!("{line}");
            FAILED
        }
    }
}

/// Threads that may wait for the disk or for a database, beside those of the runs; they are made when they are needed.
const OWN_THREADS: usize = 512;

fn prepare_and_serve(
    words: &[OsString],
    settings: Settings,
    passed: Vec<Passed>,
    mut slots: Slots,
) -> Result<(), String> {
    let hangup = match signals::is_ignored(Signal::HUP.as_raw()) {
        true => Hangup::Ignored,
        false => Hangup::Heard(Terminals::now()),
    };
    heap::keep(super::HEAP_KEPT);
    super::enough_descriptors(DESCRIPTORS)?;
    let inherited = process::prepare().map_err(|e| e.to_string())?;
    let args = &settings.args;
    log::start(if args.verbose { Level::DEBUG } else { Level::INFO }, args.log_format);
    let upgrade =
        Upgrade::new(words).map_err(|e| format!("/proc does not tell what this is: {e}"))?;
    tell_of_surroundings(args, &inherited);
    let max_runs = args.max_runs;
    let mut server = Server::prepare(options(settings, passed)?).map_err(|e| e.to_string())?;
    if !server.place(&mut slots).map_err(|e| e.to_string())? {
        info!("there are too many addresses to hand over: restart this server to upgrade it");
    }
    drop(slots);
    // Before there are other threads, and not earlier: a start that hangs can be ended.
    signals::hold(&HEARD).map_err(|e| format!("cannot hold signals: {e}"))?;
    // What each run may wait for with a thread of its own holds up nothing else.
    let mut builder = runtime();
    builder.max_blocking_threads(OWN_THREADS.saturating_add(max_runs));
    let runtime = builder.enable_all().build().map_err(|e| format!("cannot start threads: {e}"))?;
    let served = runtime.block_on(serve(server, upgrade, hangup));
    runtime.shutdown_background();
    served
}

fn tell_of_surroundings(args: &Args, inherited: &Inherited) {
    if let Some(what) = EndsWith::of_this_process() {
        warn!("{what}");
    }
    if inherited.terminal == Terminal::Kept {
        info!(
            "this process leads its session and keeps its terminal; commands of its own account may read from /dev/tty"
        );
    }
    let runs = RUN_DESCRIPTORS.saturating_mul(args.max_runs as u64);
    let needed = runs.saturating_add(args.max_connections as u64).saturating_add(OWN_DESCRIPTORS);
    if inherited.open_files.is_some_and(|limit| limit < needed) {
        info!(
            "`ulimit -n` is below the {needed} descriptors that --max-connections and --max-runs may need \
             together; when they run out, connections wait"
        );
    }
}

/// A thread for every second processor: the commands need the others, and a wake-up that stays on its
/// thread is what makes a short run short. A single one needs no scheduler that shares work out.
fn runtime() -> Builder {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
    if threads == 1 {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads);
    builder
}

fn options(settings: Settings, inherited: Vec<Passed>) -> Result<Options, String> {
    let Settings { args, policy, .. } = settings;
    Ok(Options {
        state: open_state_dir().map_err(|e| e.to_string())?,
        listen: args.listen,
        inherited,
        name: args.name,
        access: args.access.files(),
        system: args.access.system()?,
        classic: args.classic,
        config: Config {
            max_connections: args.max_connections,
            idle_timeout: args.idle_timeout,
            drain_timeout: args.drain_timeout,
            no_penalty: args.no_penalty.into_iter().flatten().collect(),
            cgroup: args.cgroup,
        },
        policy,
        settings: host::Settings {
            shell: args.shell,
            max_runs: args.max_runs,
            memory_budget: args.memory_budget,
        },
        journal: args.journal.rules(),
        kept: Some(Kept {
            record_limit: args.record_limit,
            retention: Retention {
                age: args.keep_for,
                count: args.keep_count,
                bytes: args.keep_bytes,
            },
        }),
    })
}

async fn serve(server: Server, upgrade: Upgrade, hangup: Hangup) -> Result<(), String> {
    let listen = |first| {
        calls::listen(upgrade.clone(), hangup, first)
            .map_err(|e| format!("cannot listen to signals: {e}"))
    };
    let mut hearing = listen(None)?;
    tokio::spawn(adopt());
    announce(&server);
    let running = server.start().map_err(|e| e.to_string())?;
    loop {
        let served = running.serve(&mut hearing.calls).await;
        match served.map_err(|e| format!("cannot serve: {e}"))? {
            Ended::Stopped => return Ok(()),
            Ended::Drained => {
                let stop = hearing.end().await;
                if stop.is_none() {
                    let why = running.hand_over(|handed| upgrade.replace(handed));
                    warn!("no upgrade, going on: {why}");
                    tell_reloaded();
                }
                hearing = listen(stop)?;
            }
        }
    }
}

/// Says on stdout where clients may come, and tells systemd.
fn announce(server: &Server) {
    info!("host key {}", server.host_key());
    let classic = server.classic_addresses().map(|(kind, address)| format!("{kind} on {address}"));
    let places = server.addresses().map(|address| format!("on {address}")).chain(classic);
    let lines: Vec<_> = places.map(|place| format!("listening {place}\n")).collect();
    lines.iter().for_each(|line| info!("{}", line.trim_end()));
    match write_all(rustix::stdio::stdout(), lines.concat().as_bytes()) {
        // Who does not wait any more needs no word, and is served all the same.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            warn!("stdout does not take that, and who waits for it there does so in vain: {e}");
        }
        _ => {}
    }
    tell_reloaded();
}

/// Reaps what runs leave behind; without it their zombies would stay as long as the server.
async fn adopt() {
    if let Err(e) = exec::adopt().await {
        warn!("cannot reap what runs leave behind: {e}");
    }
}
