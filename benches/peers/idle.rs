//! Connections that have logged in and ask for nothing.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};

use rexec::Client;
use tokio::runtime::Builder;

use crate::Fallible;
use crate::contenders::{Peers, Ssh};
use crate::proc::Server;
use crate::report::{Limit, Line, Mark, Row};
use crate::spawn::first_line;

/// For an SSH server, which is two processes for each connection, so many are enough to divide by.
const SSH_CONNECTIONS: usize = 20;
/// One process holds so many: each takes two descriptors while it logs in, and few systems allow more
/// than 20,000.
const HELD: usize = 2_500;
/// What a process says once all of its connections have logged in.
const HELD_LINE: &str = "in";
/// What the project allows itself.
const KIB_LIMIT: f64 = 24.0;

/// Memory of the servers for each idle connection.
pub(crate) fn row(peers: &Peers, counts: &[usize]) -> Fallible<Row> {
    let (rexec, mut lines) = (&peers.rexec, Vec::new());
    for count in counts {
        let held = || hold_rexec(&rexec.addr, *count);
        lines.push(line("rexec", *count, kib_each(rexec.server, *count, held)?));
    }
    let figure = lines.iter().flat_map(|line| &line.samples).copied().fold(0.0, f64::max);
    if let Some(ssh) = &peers.ssh {
        let figure = kib_each(ssh.server, SSH_CONNECTIONS, || hold_ssh(ssh))?;
        lines.push(line("sshd", SSH_CONNECTIONS, figure));
    }
    let limit = Limit::AtMost(KIB_LIMIT);
    Ok(Row {
        title: "idle: server memory for each connection that has logged in".into(),
        unit: "KiB",
        notes: vec![
            "growth of the proportional set size of the server and its processes; the \
                     kernel's own memory for sockets and processes is not in it"
                .into(),
        ],
        lines,
        marks: vec![Mark {
            line: 0,
            what: "KiB for each, at any count",
            limit,
            figures: vec![figure],
        }],
    })
}

fn line(name: &str, count: usize, figure: f64) -> Line {
    Line { name: format!("{name}, {count}"), samples: vec![figure], beside: Vec::new() }
}

/// How much a server grows for each of so many connections, which are gone again at the end.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn kib_each(
    server: Server,
    count: usize,
    hold: impl FnOnce() -> Fallible<Holders>,
) -> Fallible<f64> {
    let before = server.memory()?;
    let held = hold()?;
    let after = server.memory()?;
    drop(held);
    Ok(after.saturating_sub(before) as f64 / 1024.0 / count as f64)
}

/// Processes that hold connections; gone on drop.
#[derive(Default)]
struct Holders(Vec<Child>);

impl Holders {
    fn add(&mut self, mut command: Command) -> Fallible<()> {
        self.0.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        Ok(())
    }

    /// Waits until the last one that was added has logged in.
    fn is_in(&mut self) -> Fallible<()> {
        let said = self.0.last_mut().map(first_line).transpose()?;
        let is_in = said.is_some_and(|said| said == HELD_LINE);
        is_in.then_some(()).ok_or_else(|| "a client did not log in".into())
    }
}

impl Drop for Holders {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // One that ended by itself needs neither.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn hold_rexec(addr: &str, count: usize) -> Fallible<Holders> {
    let mut holders = Holders::default();
    for first in (0..count).step_by(HELD) {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--addr", addr, "--hold", &HELD.min(count - first).to_string()]);
        holders.add(command)?;
        holders.is_in()?;
    }
    Ok(holders)
}

/// A process of [`hold_rexec`]: so many connections, until its standard input ends.
pub(crate) fn hold(addr: &str, count: usize) -> Fallible<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::local(addr)?;
        runtime.block_on(client.connect())?;
        clients.push(client);
    }
    writeln!(io::stdout(), "{HELD_LINE}")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Clients that log in, say so, and stay.
fn hold_ssh(ssh: &Ssh) -> Fallible<Holders> {
    let mut holders = Holders::default();
    for _ in 0..SSH_CONNECTIONS {
        let mut command = ssh.command(ssh.port);
        let say = format!("-oLocalCommand=echo {HELD_LINE}");
        command.args(["-N", "-oPermitLocalCommand=yes", &say, "bench"]);
        holders.add(command)?;
        holders.is_in()?;
    }
    Ok(holders)
}
