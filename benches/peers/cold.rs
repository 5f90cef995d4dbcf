//! One short command: in a process of its own, over a slow network, and on a connection that is there.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rexec::client::Target;
use rexec::sys::fs::open_state_dir;
use rexec::{Client, Command};
use tokio::runtime::{Builder, Runtime};

use crate::Fallible;
use crate::contenders::{Contender, Peers, Ssh};
use crate::relay::Relay;
use crate::report::{Limit, Line, Mark, Row};
use crate::spawn;
use crate::stats::median;

/// One way of the network of [`far`].
const DELAY: Duration = Duration::from_millis(25);

/// A whole client process for one short command.
pub(crate) fn cold(peers: &Peers, rounds: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let mut lines = lines(&all);
    // The first round fills the caches, and is not counted.
    for round in 0..=rounds {
        for (contender, line) in all.iter().zip(&mut lines) {
            let sample = spawn::run(contender.run("true"))?;
            if round > 0 {
                line.samples.push(sample.wall.as_secs_f64() * 1e3);
            }
        }
    }
    let mut row = Row {
        title: format!("cold: a client process that runs `true`, {rounds} rounds"),
        unit: "ms",
        notes: vec!["sshd runs without PAM, which as shipped it would use".into()],
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 0), "times the local shell", Limit::AtMost(3.5));
    row.mark_ratio((2, 1), "times rexec", Limit::AtLeast(60.0));
    Ok(row)
}

/// The same over a network that takes its time.
pub(crate) fn far(peers: &Peers, rounds: usize) -> Fallible<Row> {
    let all: Vec<_> = peers.contenders().into_iter().filter(|c| c.server.is_some()).collect();
    let mut lines = lines(&all);
    let mut flights = vec![Vec::new(); all.len()];
    let relays = all.iter().map(|contender| Relay::start(contender.port, DELAY));
    let relays = relays.collect::<Result<Vec<_>, _>>()?;
    for _ in 0..rounds {
        for (at, contender) in all.iter().enumerate() {
            relays[at].reset();
            let far = spawn::run((contender.command)(relays[at].port, "true"))?.wall;
            lines[at].samples.push(far.as_secs_f64() * 1e3);
            flights[at].push(f64::from(relays[at].flights()));
        }
    }
    for (line, flights) in lines.iter_mut().zip(&flights) {
        line.beside.push(("flights", median(flights)));
    }
    lines.push(warm(peers, rounds)?);
    let whole = (median(&flights[0]) / 2.0).floor();
    let what = "round trips after TCP's own, login and request included";
    let trips = Mark { line: 0, what, limit: Limit::AtMost(2.0), figure: whole };
    let mut row = Row {
        title: format!("far: a client process that runs `true`, {} ms away", 2 * DELAY.as_millis()),
        unit: "ms",
        notes: vec![
            "a flight: packets one way with none the other way between them; two are a round trip"
                .into(),
            "rexec's last flight confirms the verdict, and nobody waits for it".into(),
        ],
        lines,
        marks: vec![trips],
    };
    row.mark_ratio((1, 0), "times rexec", Limit::AtLeast(4.5));
    Ok(row)
}

/// As far, on a connection that is there.
fn warm(peers: &Peers, rounds: usize) -> Fallible<Line> {
    let relay = Relay::start(peers.rexec.port(), DELAY)?;
    let runtime = runtime()?;
    let endpoint = format!("127.0.0.1:{}", relay.port).parse()?;
    let mut client = Client::new(Target::local(endpoint, &open_state_dir()?)?);
    let mut line = Line::new("rexec, next on a connection");
    for round in 0..=rounds {
        let took = timed(1, || runtime.block_on(succeed(&mut client)))?;
        if round > 0 {
            line.samples.push(took);
        }
    }
    Ok(line)
}

pub(crate) fn runtime() -> Fallible<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

pub(crate) async fn succeed(client: &mut Client) -> Fallible<()> {
    let output = client.output(&Command::shell("true")).await?;
    output.verdict.succeeded().then_some(()).ok_or_else(|| "true failed".into())
}

/// Many commands, one after another, on one connection.
pub(crate) fn next(peers: &Peers, rounds: usize, commands: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let runtime = runtime()?;
    let mut client = Client::local(&peers.rexec.addr)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("master");
    let master = peers.ssh.as_ref().map(|ssh| Master::start(ssh, &socket)).transpose()?;
    let mut lines = vec![Line::new("local sh -c"), Line::new("rexec, Client of the library")];
    lines.extend(master.is_some().then(|| Line::new("ssh, ControlMaster")));
    for round in 0..=rounds {
        let mut took = vec![
            timed(commands, || {
                spawn::run(all[0].run("true"))?;
                Ok(())
            })?,
            timed(commands, || runtime.block_on(succeed(&mut client)))?,
        ];
        if let Some(ssh) = &peers.ssh {
            took.push(timed(commands, || through(ssh, &socket))?);
        }
        if round > 0 {
            lines.iter_mut().zip(took).for_each(|(line, took)| line.samples.push(took));
        }
    }
    let mut row = Row {
        title: format!("next: `true` on one connection, {rounds} rounds of {commands}, each"),
        unit: "ms",
        notes: vec!["ssh starts a client process for each, which speaks to the master".into()],
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

/// Milliseconds for one of so many.
fn timed(times: usize, mut run: impl FnMut() -> Fallible<()>) -> Fallible<f64> {
    let start = Instant::now();
    (0..times).try_for_each(|_| run())?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(u32::try_from(times)?))
}

/// A connection that others use; gone on drop.
pub(crate) struct Master(Child);

impl Master {
    pub(crate) fn start(ssh: &Ssh, socket: &Path) -> Fallible<Self> {
        let mut command = ssh.command(ssh.port);
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

fn lines(all: &[Contender]) -> Vec<Line> {
    all.iter().map(|contender| Line::new(contender.name)).collect()
}
