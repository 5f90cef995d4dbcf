//! Real servers and clients.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use rustix::process::Signal;
use tempfile::TempDir;

use super::{PATIENCE, allow_descriptors, kill, memory_kib, try_kill, wait_until, whole_lines};

/// A server on a free port of 127.0.0.1 and on a unix socket, with a state folder of its own. Stopped,
/// with its runs, on drop.
pub(crate) struct Server {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub(crate) addr: String,
    /// `unix:PATH`.
    pub(crate) unix: String,
    dir: Option<TempDir>,
    state: PathBuf,
    stdout: BufReader<ChildStdout>,
}

thread_local! {
    /// Ports of this test's servers.
    static PORTS: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// A free port of 127.0.0.1, which is bound, and not listened on, until the test's thread ends: a server can
/// take it (SO_REUSEADDR) again and again, and no connection of another test has it meanwhile for its own end.
pub(crate) fn own_port() -> String {
    let socket =
        net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.unwrap();
    net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = SocketAddr::try_from(net::getsockname(&socket).unwrap()).unwrap();
    PORTS.with_borrow_mut(|ports| ports.push(socket));
    address.to_string()
}

/// What a client did.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Server {
    /// Starts one with these further arguments.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::with(args, |_| ())
    }

    /// Starts one whose command `adapt` may change, for example its environment.
    pub(crate) fn with(args: &[&str], adapt: impl FnOnce(&mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let mut server = Self::at(&state, &own_port(), args, adapt);
        server.dir = Some(dir);
        server
    }

    /// Starts one with this state folder and TCP address.
    pub(crate) fn at(
        state: &Path,
        listen: &str,
        args: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Self {
        let socket = format!("unix:{}", state.with_extension("sock").display());
        Self::named("test", state, [listen, &socket], args, adapt)
    }

    /// Starts one with this state folder, TCP address and unix socket.
    pub(crate) fn at_both(
        state: &Path,
        addresses: [&str; 2],
        args: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Self {
        Self::named("test", state, addresses, args, adapt)
    }

    /// Starts another one beside this one, with the same state folder and so the same keys.
    pub(crate) fn beside(&self, name: &str, args: &[&str]) -> Self {
        let socket =
            format!("unix:{}", self.state.with_extension(format!("{name}.sock")).display());
        Self::named(name, &self.state, [&own_port(), &socket], args, |_| ())
    }

    fn named(
        name: &str,
        state: &Path,
        [listen, socket]: [&str; 2],
        args: &[&str],
        adapt: impl FnOnce(&mut Command),
    ) -> Self {
        allow_descriptors();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command
            .args(["--name", name, "--listen", listen, "--listen", socket])
            .args(args)
            .env("REXEC_STATE_DIR", state);
        adapt(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log(state));
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let addr = address(&mut stdout, state);
        let unix = address(&mut stdout, state);
        Self { child, addr, unix, dir: None, state: state.to_owned(), stdout }
    }

    /// The next address that it announces, after its first two.
    pub(crate) fn announced(&mut self) -> String {
        address(&mut self.stdout, &self.state)
    }

    /// The server's process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that this server and its clients share.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// A folder for the test's files, gone with the server.
    pub(crate) fn dir(&self) -> &Path {
        self.state.parent().unwrap()
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.state.with_extension("log")).unwrap_or_default()
    }

    /// Every whole line of its journal about runs so far, parsed.
    pub(crate) fn journal(&self) -> Vec<serde_json::Value> {
        let path = self.state.join("instances/test/journal/000001.jsonl");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = whole_lines(&text).map(|line| serde_json::from_str(line).unwrap());
        let of_runs =
            |line: &serde_json::Value| line["type"] != "login" && line["type"] != "refused";
        lines.filter(of_runs).collect()
    }

    /// A client command for this server over TCP.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.state).arg(&self.addr)
    }

    /// Runs `rexec ADDR args...` over TCP without a stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.client().args(args).run()
    }

    /// Kills it as a crash would, and waits until it is gone. Its runs are left alone.
    pub(crate) fn crash(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Crashes it, if it has not crashed, and starts another one on the same state folder and port.
    pub(crate) fn restart(&mut self) {
        self.restart_with(&[]);
    }

    /// The same, with these further arguments.
    pub(crate) fn restart_with(&mut self, args: &[&str]) {
        self.restart_as(args, |_| ());
    }

    /// The same, with a command that `adapt` may change.
    pub(crate) fn restart_as(&mut self, args: &[&str], adapt: impl FnOnce(&mut Command)) {
        self.crash();
        let next = Self::at(&self.state, &self.addr, args, adapt);
        let dir = self.dir.take();
        *self = next;
        self.dir = dir;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Waits for its end; its exit status.
    pub(crate) fn wait(&mut self) -> i32 {
        let mut status = None;
        wait_until("the end of the server", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code().unwrap_or(-1)
    }

    /// See [`memory_kib`].
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        memory_kib(self.pid(), field)
    }
}

/// The supervisors of durable runs below this folder that live now, without the one that waits for a run.
pub(crate) fn supervisors(state: &Path) -> Vec<u32> {
    let mut all = all_supervisors(state);
    all.retain(|pid| is_spare(*pid) == Some(false));
    all
}

/// The supervisor of the only run below this folder, once it has been given that run.
pub(crate) fn supervisor_of(state: &Path) -> u32 {
    let mut found = Vec::new();
    wait_until("the supervisor of a run", || {
        found = supervisors(state);
        found.len() == 1
    });
    found[0]
}

/// Those that wait for a run.
pub(crate) fn spare_supervisors(state: &Path) -> Vec<u32> {
    let mut all = all_supervisors(state);
    all.retain(|pid| is_spare(*pid) == Some(true));
    all
}

/// What it complains to is below the folder of those that wait, until that becomes its run's.
fn is_spare(pid: u32) -> Option<bool> {
    let log = std::fs::read_link(format!("/proc/{pid}/fd/2")).ok()?;
    Some(log.parent()?.parent()?.ends_with("ready"))
}

fn all_supervisors(state: &Path) -> Vec<u32> {
    let is_one = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|b| *b == 0).skip(1);
        let is_below = |path: &[u8]| path.starts_with(state.as_os_str().as_encoded_bytes());
        words.next() == Some(b"supervise") && words.next().is_some_and(is_below)
    };
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_one).collect()
}

/// Stops the durable runs that a test has left.
pub(crate) fn stop_supervisors(state: &Path) {
    let deadline = std::time::Instant::now() + PATIENCE / 4;
    loop {
        let left = supervisors(state);
        if left.is_empty() {
            return;
        }
        for pid in left {
            // It may end meanwhile.
            try_kill(pid, Signal::CONT);
            let late = std::time::Instant::now() > deadline;
            try_kill(pid, if late { Signal::KILL } else { Signal::TERM });
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        // A server that another one follows hands its folder on.
        if self.dir.is_some() {
            stop_supervisors(&self.state);
        }
    }
}

impl Server {
    fn end(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        kill(self.child.id(), Signal::CONT);
        let deadline = std::time::Instant::now() + PATIENCE / 4;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // More than once: at once. Then it stops its runs, however a failed test left them. Two that
            // come together count as one.
            kill(self.child.id(), Signal::TERM);
            if std::time::Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Has a command started by another one: `prefix` gets it as its last words.
pub(crate) fn under(prefix: &[&str]) -> impl FnOnce(&mut Command) {
    move |command| {
        let mut outer = Command::new(prefix[0]);
        outer.args(&prefix[1..]).arg(command.get_program()).args(command.get_args());
        outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = outer;
    }
}

fn log(state: &Path) -> std::fs::File {
    let mut options = std::fs::File::options();
    options.create(true).append(true).open(state.with_extension("log")).unwrap()
}

fn address(stdout: &mut BufReader<ChildStdout>, state: &Path) -> String {
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    match line.trim_end().strip_prefix("listening on ") {
        Some(address) => address.to_owned(),
        None => panic!(
            "the server did not start: {}",
            std::fs::read_to_string(state.with_extension("log")).unwrap_or_default()
        ),
    }
}

/// A client command that is being put together.
pub(crate) struct Client {
    pub(crate) command: Command,
}

impl Client {
    /// `rexec` with a state folder.
    pub(crate) fn new(state: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec"));
        command.env("REXEC_STATE_DIR", state).env("HOME", state).stdin(Stdio::null());
        for name in ["SSH_AUTH_SOCK", "REXEC_ASKPASS", "REXEC_IDENTITY"] {
            command.env_remove(name);
        }
        Self { command }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// With this stdin instead of none.
    pub(crate) fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Runs it to its end, without a stdin.
    pub(crate) fn run(mut self) -> Ran {
        Ran::of(self.command.output().unwrap())
    }

    /// Runs it to its end with this stdin.
    pub(crate) fn run_with(mut self, stdin: &[u8]) -> Ran {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pipe = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A command that does not read to the end breaks the pipe.
            scope.spawn(move || drop(pipe.write_all(stdin)));
            Ran::of(child.wait_with_output().unwrap())
        })
    }

    /// Starts it with piped output and goes on.
    pub(crate) fn spawn(mut self) -> Child {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let killed = || -output.status.signal().unwrap_or(0);
        Self {
            status: output.status.code().unwrap_or_else(killed),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Stdout as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The status, or the failure of the test with all that was printed.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, status, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

/// The next line of a client that was started, without its end.
#[track_caller]
pub(crate) fn line_of(child: &mut Child) -> String {
    // One by one: what follows the line stays in the pipe for whoever reads next.
    let (stdout, mut byte) = (child.stdout.as_mut().unwrap(), [0]);
    let mut line = Vec::new();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap()
}

/// Waits for a client that was started, and for all of its output.
pub(crate) fn finish(mut child: Child) -> Ran {
    let mut stdout = Vec::new();
    let mut pipe = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        pipe.read_to_end(&mut stdout).unwrap();
        stdout
    });
    let mut output = child.wait_with_output().unwrap();
    output.stdout = reader.join().unwrap();
    Ran::of(output)
}
