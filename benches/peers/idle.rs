//! Connections that have logged in and ask for nothing.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rexec::client::Target;
use rexec::conn::{FrameReader, FrameWriter};
use rexec::handshake::{Answer, Channel, ClientLogin};
use rexec::proto::frame::Limits;
use rexec::sys::fs::open_state_dir;
use rexec::transport::{Stream, connect};
use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::Instant;

use crate::Fallible;
use crate::contenders::{Rexec, Ssh};
use crate::report::{Limit, Line, Mark, Row};

/// For an SSH server, which is two processes for each connection, so many are enough to divide by.
const SSH_CONNECTIONS: u32 = 20;
/// What the project allows itself.
const KIB_LIMIT: f64 = 24.0;
/// A whole login may take so long on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type LoggedIn = (FrameReader<ReadHalf<Stream>>, FrameWriter<WriteHalf<Stream>>);

/// Memory of the servers for each idle connection.
pub(crate) fn row(rexec: &Rexec, ssh: Option<&Ssh>, connections: u32) -> Fallible<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
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

async fn log_in_many(addr: &str, connections: u32) -> Fallible<Vec<LoggedIn>> {
    let target = Target::local(addr.parse()?, &open_state_dir()?)?;
    let mut held = Vec::new();
    for _ in 0..connections {
        held.push(log_in(&target).await?);
    }
    Ok(held)
}

pub(crate) async fn log_in(target: &Target) -> Fallible<LoggedIn> {
    let trust = Arc::clone(&target.trust);
    let dialled = connect(&target.endpoint, Instant::now() + PATIENCE, trust).await?;
    let channel =
        dialled.channel.map(|c| Channel { host_key: c.fingerprint(), exporter: c.exporter });
    let (read, write) = split(dialled.stream);
    let (mut reader, mut writer) = (FrameReader::new(read, Limits::FULL), FrameWriter::new(write));
    let keys = match &channel {
        Some(channel) => target.keys.keys(&channel.host_key).await?,
        None => Vec::new(),
    };
    let mut login = ClientLogin::new(keys);
    writer.send(&login.hello(channel.as_ref(), target.keys.ask()).await?, b"").await?;
    match login.answer(&mut reader).await? {
        Answer::Welcome(_) => Ok((reader, writer)),
        Answer::Again => Err("the server knows another key".into()),
    }
}

/// Clients that log in, say so, and stay.
fn hold(ssh: &Ssh) -> io::Result<Vec<Child>> {
    let mut held = Vec::new();
    for _ in 0..SSH_CONNECTIONS {
        let mut command = ssh.command(ssh.port);
        command.args(["-N", "-oPermitLocalCommand=yes", "-oLocalCommand=echo in", "bench"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take();
        held.push(child);
        let mut line = String::new();
        stdout.map(|out| BufReader::new(out).read_line(&mut line)).transpose()?;
        if line != "in\n" {
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
