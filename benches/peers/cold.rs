//! One short command: in a process of its own, and on a connection that is there.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use rexec::{Client, Command};
use tokio::runtime::{Builder, Runtime};

use crate::Fallible;
use crate::contenders::{Contender, Peers, Ssh};
use crate::report::{Limit, Line, Row};
use crate::rounds::Rounds;
use crate::spawn;
use crate::stats::median;
use crate::turns::{self, Run, TURNS};

/// A whole client process for one short command.
pub(crate) fn cold(peers: &Peers, rounds: Rounds) -> Fallible<Row> {
    let all = peers.contenders();
    let mut lines = lines(&all);
    let runs =
        all.iter().map(|contender| -> Run { Box::new(|| Ok(spawn::ms(contender.run("true"))?)) });
    turns::measure(rounds, TURNS, &mut runs.collect::<Vec<_>>(), &mut lines)?;
    let mut row = Row {
        title: "cold: a client process that runs `true`".into(),
        unit: "ms",
        notes: vec![
            turns::NOTE.into(),
            "sshd runs without PAM, which as shipped it would use".into(),
        ],
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 0), "times the local shell", Limit::AtMost(3.5));
    row.mark_ratio((2, 1), "times rexec", Limit::AtLeast(60.0));
    Ok(row)
}

pub(crate) fn runtime() -> Fallible<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

pub(crate) async fn succeed(client: &mut Client) -> Fallible<()> {
    let output = client.output(&Command::shell("true")).await?;
    output.verdict.succeeded().then_some(()).ok_or_else(|| "true failed".into())
}

/// Commands of one line before the next line has its turn.
const IN_A_ROW: usize = 10;

/// Many commands, one after another, on one connection.
pub(crate) fn next(peers: &Peers, rounds: Rounds, commands: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let runtime = runtime()?;
    let mut client = Client::local(&peers.rexec.addr)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("master");
    let master = peers.ssh.as_ref().map(|ssh| Master::start(ssh, ssh.port, &socket)).transpose()?;
    let mut lines = vec![Line::new("local sh -c"), Line::new("rexec, Client of the library")];
    lines.extend(master.is_some().then(|| Line::new("ssh, ControlMaster")));
    let mut runs: Vec<Run> = vec![
        in_a_row(|| Ok(spawn::ms(all[0].run("true"))?)),
        in_a_row(|| timed(|| runtime.block_on(succeed(&mut client)))),
    ];
    if let Some(ssh) = &peers.ssh {
        runs.push(in_a_row(|| timed(|| through(ssh, &socket))));
    }
    turns::measure(rounds, commands.div_ceil(IN_A_ROW), &mut runs, &mut lines)?;
    drop(runs);
    let mut row = Row {
        title: format!("next: `true` on one connection, {commands} of each"),
        unit: "ms",
        notes: vec![
            format!(
                "{IN_A_ROW} of each line after another; a sample is of the middle of a round's commands"
            ),
            "ssh starts a client process for each, which speaks to the master".into(),
        ],
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 0), "times the local shell", Limit::AtMost(1.15));
    row.mark_ratio((2, 1), "times rexec", Limit::AtLeast(5.5));
    Ok(row)
}

/// One `true` through a master.
pub(crate) fn through(ssh: &Ssh, socket: &Path) -> Fallible<()> {
    let mut command = ssh.through(socket);
    command.args(["bench", "true"]);
    spawn::run(command)?;
    Ok(())
}

/// The one in the middle of so many, one directly after the other.
fn in_a_row<'a>(mut run: impl FnMut() -> Fallible<f64> + 'a) -> Run<'a> {
    Box::new(move || {
        let took: Fallible<Vec<_>> = (0..IN_A_ROW).map(|_| run()).collect();
        Ok(median(&took?))
    })
}

/// Milliseconds.
pub(crate) fn timed(run: impl FnOnce() -> Fallible<()>) -> Fallible<f64> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// A connection that others use; gone on drop.
pub(crate) struct Master(Child);

impl Master {
    pub(crate) fn start(ssh: &Ssh, port: u16, socket: &Path) -> Fallible<Self> {
        let mut command = ssh.command(port);
        command.args(["-N", "-M", "-oPermitLocalCommand=yes", "-oLocalCommand=echo in", "-S"]);
        command.arg(socket).arg("bench").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut master = Self(command.spawn()?);
        if spawn::first_line(&mut master.0)? == "in" {
            Ok(master)
        } else {
            Err("the ssh master did not log in".into())
        }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // One that ended by itself needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn lines(all: &[Contender]) -> Vec<Line> {
    all.iter().map(|contender| Line::new(contender.name)).collect()
}
