//! The server's program: everything that can go wrong at start goes wrong here, in one line.

use std::ffi::OsString;
use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::output::write_all;
use super::server_args::{Args, LogFormat, definition};
use super::status::Status;
use super::{complain, print_definition};
use crate::exec::{self, Scanner};
use crate::identity::{Authorized, Source, host_key, local_identity};
use crate::runs::host::{Host, Settings};
use crate::runs::recover::{self, Recovered};
use crate::server::{self, Config};
use crate::sys::fs::{Lock, Locked, StateDir, lock_exclusive, open_state_dir};
use crate::sys::process::{self, Terminal};
use crate::transport::{Bound, Endpoint, ListenAddr, TlsServer, bind};

/// Exit status of a server that could not start.
const FAILED: u8 = 1;
/// Most bytes of an instance's name.
const NAME_LIMIT: usize = 128;
/// Limit of the descriptors that the server's own files, pipes and listeners need.
const OWN_DESCRIPTORS: u64 = 64;

/// What a start brings together before the runtime exists.
struct Started {
    bound: Vec<Bound>,
    authorized: Arc<Authorized>,
    tls: TlsServer,
    recovered: Recovered,
    /// Held as long as the server lives.
    _lock: Lock,
}

/// Runs `rexec-server` with these arguments, the program's name first; the exit status.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    let args = match Args::read(args) {
        Ok(args) => args,
        Err(e) => return super::usage(&e),
    };
    if let Some(status) = print_definition(definition(), args.completions, args.man) {
        return status;
    }
    match prepare_and_serve(&args) {
        Ok(()) => Status::Code(0).code(),
        Err(line) => {
            complain("rexec-server", &line);
            FAILED
        }
    }
}

fn prepare_and_serve(args: &Args) -> Result<(), String> {
    let inherited = process::prepare().map_err(|e| e.to_string())?;
    start_log(args);
    if inherited.terminal == Terminal::Kept {
        info!(
            "this process leads its session and keeps its terminal; commands may read from /dev/tty"
        );
    }
    let needed = args.max_connections as u64 + 4 * args.max_runs as u64 + OWN_DESCRIPTORS;
    if inherited.open_files.is_some_and(|limit| limit < needed) {
        info!(
            "`ulimit -n` is below the {needed} descriptors that --max-connections and --max-runs may need \
             together; when they run out, connections wait"
        );
    }
    let started = start(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start threads: {e}"))?;
    let served = runtime.block_on(serve(args, started));
    runtime.shutdown_background();
    served
}

fn start_log(args: &Args) {
    let level = if args.verbose { tracing::Level::DEBUG } else { tracing::Level::INFO };
    let log =
        tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    match args.log_format {
        LogFormat::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => log.json().init(),
    }
}

fn start(args: &Args) -> Result<Started, String> {
    let state = open_state_dir().map_err(|e| e.to_string())?;
    let key = host_key(&state).map_err(|e| e.to_string())?;
    let local = local_identity(&state).map_err(|e| e.to_string())?;
    let sources =
        args.authorized_keys.iter().map(|path| Source { path: path.clone(), required: true });
    let authorized = Arc::new(Authorized::new(sources.collect(), local.public()));
    check_authorized(args, &authorized)?;
    let instance = instance(args, &state)?;
    let lock = lock(&instance)?;
    let bound = bind_all(&args.listen)?;
    let origin =
        recover::origin().map_err(|e| format!("/proc does not tell where this is: {e}"))?;
    let journal = instance.subdir("journal").map_err(|e| e.to_string())?;
    let recovered = recover::open(journal.path(), origin).map_err(|e| e.to_string())?;
    let tls =
        TlsServer::new(&key).map_err(|e| format!("the host key cannot be used for TLS: {e}"))?;
    Ok(Started { bound, authorized, tls, recovered, _lock: lock })
}

/// A server that others can reach and that would let nobody in is a mistake.
fn check_authorized(args: &Args, authorized: &Authorized) -> Result<(), String> {
    let (count, news) = authorized.count();
    for line in &news {
        warn!("{line}");
    }
    let open = args.listen.iter().find(|ListenAddr(endpoint)| !endpoint.is_local());
    match open {
        Some(address) if count == 0 => Err(format!(
            "{} can be reached from other machines, but no key is authorized: give --authorized-keys FILE, \
             or listen on 127.0.0.1",
            address.0
        )),
        _ => Ok(()),
    }
}

fn instance(args: &Args, state: &StateDir) -> Result<StateDir, String> {
    let first = args.listen.first().map_or_else(String::new, |a| a.0.to_string());
    let name = args.name.clone().unwrap_or_else(|| first.replace('/', "_"));
    let allowed = |c: char| !c.is_control() && c != '/';
    if name.is_empty()
        || name.len() > NAME_LIMIT
        || name.starts_with('.')
        || !name.chars().all(allowed)
    {
        return Err(format!(
            "{name:?} cannot be the name of an instance: give --name with up to {NAME_LIMIT} characters, no / \
             and no dot in front"
        ));
    }
    let instances = state.subdir("instances").map_err(|e| e.to_string())?;
    instances.subdir(&name).map_err(|e| e.to_string())
}

fn lock(instance: &StateDir) -> Result<Lock, String> {
    let file = instance.open_append("lock").map_err(|e| e.to_string())?;
    lock_exclusive(file).map_err(|e| match e {
        Locked::Held => format!(
            "another server uses the name {:?} already: stop it, or give this one another --name",
            instance.path().file_name().unwrap_or_default()
        ),
        Locked::Io(e) => format!("cannot lock {}: {e}", instance.path().display()),
    })
}

fn bind_all(addresses: &[ListenAddr]) -> Result<Vec<Bound>, String> {
    let mut all = Vec::new();
    for address in addresses {
        all.extend(bind(address).map_err(|e| e.to_string())?);
    }
    Ok(all)
}

async fn serve(args: &Args, started: Started) -> Result<(), String> {
    let shutdown = shutdown_signals().map_err(|e| format!("cannot listen to signals: {e}"))?;
    tokio::spawn(adopt());
    let scanner = Scanner::new().map_err(|e| format!("cannot start threads: {e}"))?;
    let Recovered { journal, table, origin, unfinished } = started.recovered;
    let settings = Settings {
        shell: args.shell.clone(),
        max_runs: args.max_runs,
        memory_budget: args.memory_budget,
    };
    let host = Host::new(settings, (journal, origin, table), scanner.clone());
    let mut listeners = Vec::new();
    for bound in started.bound {
        listeners.push(bound.register().map_err(|e| format!("cannot wait for connections: {e}"))?);
    }
    announce(listeners.iter().map(crate::transport::Listener::address));
    let config = Config {
        max_connections: args.max_connections,
        idle_timeout: args.idle_timeout,
        drain_timeout: args.drain_timeout,
    };
    let settling = Arc::clone(&host);
    tokio::spawn(async move { recover::settle(unfinished, &settling, &scanner).await });
    server::run(listeners, config, host, started.tls, started.authorized, shutdown).await;
    Ok(())
}

/// Says on stdout where clients may come, and tells systemd.
fn announce<'a>(addresses: impl Iterator<Item = &'a Endpoint>) {
    for address in addresses {
        let line = format!("listening on {address}\n");
        // A server whose stdout is closed serves all the same.
        let _ = write_all(rustix::stdio::stdout(), line.as_bytes());
        info!("listening on {address}");
    }
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

/// Reaps what runs leave behind; without it their zombies would stay as long as the server.
async fn adopt() {
    if let Err(e) = exec::adopt().await {
        warn!("cannot reap what runs leave behind: {e}");
    }
}

/// One message for each SIGTERM or SIGINT.
fn shutdown_signals() -> io::Result<mpsc::Receiver<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // More than two say nothing new.
            let _ = sender.try_send(());
        }
    });
    Ok(receiver)
}
