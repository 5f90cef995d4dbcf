//! Connections that have logged in and ask for nothing.

use std::io;
use std::process::{Child, Stdio};

use rexec::Client;

use crate::Fallible;
use crate::cold::runtime;
use crate::contenders::{Rexec, Ssh};
use crate::report::{Limit, Line, Mark, Row};
use crate::spawn;

/// For an SSH server, which is two processes for each connection, so many are enough to divide by.
const SSH_CONNECTIONS: u32 = 20;
/// What the project allows itself.
const KIB_LIMIT: f64 = 24.0;

/// Memory of the servers for each idle connection.
pub(crate) fn row(rexec: &Rexec, ssh: Option<&Ssh>, connections: u32) -> Fallible<Row> {
    let runtime = runtime()?;
    let before = rexec.server.memory()?;
    let held = runtime.block_on(log_in_many(&rexec.addr, connections))?;
    let figure = kib_each(before, rexec.server.memory()?, connections);
    drop(held);
    let line = |name: String, figure| Line { name, samples: vec![figure], beside: Vec::new() };
    let mut lines = vec![line(format!("rexec, {connections}"), figure)];
    if let Some(ssh) = ssh {
        let before = ssh.server.memory()?;
        let held = hold(ssh)?;
        let figure = kib_each(before, ssh.server.memory()?, SSH_CONNECTIONS);
        held.into_iter().try_for_each(let_go)?;
        lines.push(line(format!("sshd, {SSH_CONNECTIONS}"), figure));
    }
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
            what: "KiB for each",
            limit: Limit::AtMost(KIB_LIMIT),
            figure,
        }],
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn kib_each(before: u64, after: u64, connections: u32) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / f64::from(connections)
}

async fn log_in_many(addr: &str, connections: u32) -> Fallible<Vec<Client>> {
    let mut held = Vec::new();
    for _ in 0..connections {
        let mut client = Client::local(addr)?;
        client.connect().await?;
        held.push(client);
    }
    Ok(held)
}

/// Clients that log in, say so, and stay.
fn hold(ssh: &Ssh) -> io::Result<Vec<Child>> {
    let mut held = Vec::new();
    for _ in 0..SSH_CONNECTIONS {
        let mut command = ssh.command(ssh.port);
        command.args(["-N", "-oPermitLocalCommand=yes", "-oLocalCommand=echo in", "bench"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let line = spawn::first_line(&mut child);
        held.push(child);
        if line? != "in" {
            held.into_iter().try_for_each(let_go)?;
            return Err(io::Error::other("ssh did not log in"));
        }
    }
    Ok(held)
}

fn let_go(mut child: Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}
