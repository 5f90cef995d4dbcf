//! The server under test, its folder, and the processes that belong to it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::Fallible;
use crate::relay::Relay;

/// Nothing here may take longer; what does, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Every command of the soak has its folder in this variable, and by it is found what was left.
pub(crate) const OURS: &str = "REXEC_SOAK";

/// One server, a network before it, and a folder for both.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
    server: Mutex<Child>,
    /// Where the server listens.
    pub(crate) addr: String,
    /// What clients go through.
    pub(crate) relay: Relay,
}

impl World {
    pub(crate) fn new() -> Fallible<Self> {
        let dir = tempfile::Builder::new().prefix("rexec-soak.").tempdir()?;
        fs::create_dir(dir.path().join("effects"))?;
        let (server, addr) = start(dir.path(), "127.0.0.1:0")?;
        let relay = Relay::to(&addr)?;
        Ok(Self { dir, server: server.into(), addr, relay })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The folder of the server's journal, runs and sockets.
    pub(crate) fn instance(&self) -> PathBuf {
        self.dir().join("state/instances/soak")
    }

    /// Where a run leaves a line each time that it is executed.
    pub(crate) fn effect(&self, key: &str) -> PathBuf {
        self.dir().join("effects").join(key)
    }

    /// A client that goes through the network.
    pub(crate) fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec"));
        command.args(args).env("REXEC_STATE_DIR", self.dir().join("state"));
        command.env("HOME", self.dir()).env(OURS, self.dir());
        command
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Child> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the server a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        send(self.server().id(), signal);
    }

    /// Ends the server by a signal and starts the next one.
    pub(crate) fn restart(&self, signal: Signal) -> Fallible<()> {
        let mut server = self.server();
        send(server.id(), signal);
        reap(&mut server)?;
        let late = Instant::now() + PATIENCE;
        loop {
            match start(self.dir(), &self.addr) {
                Ok((next, _)) => {
                    *server = next;
                    return Ok(());
                }
                // Meanwhile the port may be that of somebody's connection.
                Err(_) if self.is_port_taken() && Instant::now() < late => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn is_port_taken(&self) -> bool {
        self.log().lines().last().is_some_and(|line| line.contains("in use"))
    }

    /// Ends the server as an operator does; its exit status.
    pub(crate) fn stop(&self) -> Fallible<i32> {
        self.signal(Signal::TERM);
        reap(&mut self.server())
    }

    /// The supervisors of runs that live.
    pub(crate) fn supervisors(&self) -> Vec<u32> {
        pids()
            .into_iter()
            .filter(|pid| self.is_supervisor(*pid) && !waits_for_a_run(*pid))
            .collect()
    }

    fn is_supervisor(&self, pid: u32) -> bool {
        let folder = self.instance();
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).skip(1);
        words.next() == Some(b"supervise")
            && words.next().is_some_and(|w| w.starts_with(folder.as_os_str().as_encoded_bytes()))
    }

    /// Commands, clients and supervisors of runs that live: all but the server, and the supervisor that it
    /// keeps ready.
    pub(crate) fn busy(&self) -> Vec<u32> {
        let server = self.server().id();
        let is_kept = |pid: u32| pid == server || (self.is_supervisor(pid) && waits_for_a_run(pid));
        self.processes().into_iter().filter(|pid| !is_kept(*pid)).collect()
    }

    /// Commands, clients, servers and supervisors of this soak that live.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let wanted = format!("{OURS}={}", self.dir().display()).into_bytes();
        let is_ours = |pid: &u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|b| *b == 0).any(|entry| entry == wanted)
        };
        let own = std::process::id();
        pids().into_iter().filter(|pid| *pid != own).filter(is_ours).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What a failed check has left is not left to the machine.
        for pid in self.processes() {
            send(pid, Signal::KILL);
        }
        let _ = self.server().wait();
    }
}

/// What a supervisor complains to is below the folder of those that wait, until that becomes its run's.
fn waits_for_a_run(pid: u32) -> bool {
    let log = fs::read_link(format!("/proc/{pid}/fd/2")).unwrap_or_default();
    log.ancestors().nth(2).is_some_and(|folder| folder.ends_with("ready"))
}

/// A process that is gone needs no signal.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn start(dir: &Path, listen: &str) -> Fallible<(Child, String)> {
    let log = File::options().create(true).append(true).open(dir.join("log"))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["--name", "soak", "--listen", listen, "--drain-timeout", "1s"]);
    command.env("REXEC_STATE_DIR", dir.join("state")).env(OURS, dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut server = command.spawn()?;
    let mut line = String::new();
    if let Some(stdout) = server.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    match line.trim_end().strip_prefix("listening on ") {
        Some(addr) => Ok((server, addr.to_owned())),
        None => Err(format!("the server did not start: {:?}", server.wait()?).into()),
    }
}

/// Waits for the end of a process; its exit status, or minus the signal that killed it.
pub(crate) fn reap(child: &mut Child) -> Fallible<i32> {
    let late = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(-status.signal().unwrap_or_default()));
        }
        if Instant::now() > late {
            send(child.id(), Signal::KILL);
            child.wait()?;
            return Err("a process did not end in time".into());
        }
        std::thread::sleep(LOOK);
    }
}
