//! The tasks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rexec::{Client, Command};

use crate::Fallible;
use crate::contenders::{Contender, Peers, Ssh};
use crate::report::{Line, Mark, Row};
use crate::spawn::{self, Sample};
use crate::stats::median;

/// One way of the network of [`far`].
const DELAY: Duration = Duration::from_millis(20);
const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

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
    row.mark_ratio(1, "times the local shell", 4.0);
    Ok(row)
}

/// The same over a network that takes its time: how often a new connection has to wait for it.
pub(crate) fn far(peers: &Peers, rounds: usize) -> Fallible<Row> {
    let all: Vec<_> = peers.contenders().into_iter().filter(|c| c.server.is_some()).collect();
    let mut lines = lines(&all);
    for (contender, line) in all.iter().zip(&mut lines) {
        let relay = crate::relay::start(contender.port, DELAY)?;
        for _ in 0..rounds {
            let near = spawn::run(contender.run("true"))?.wall;
            let far = spawn::run((contender.command)(relay, "true"))?.wall;
            let waited = far.saturating_sub(near);
            line.samples.push(waited.as_secs_f64() / (2 * DELAY).as_secs_f64());
        }
    }
    let figure = median(&lines[0].samples);
    // Deliveries are late by the scheduler's grain, never early.
    let mark = Mark { line: 0, what: "round trips (to within a quarter)", limit: 2.25, figure };
    Ok(Row {
        title: format!("far: round trips after TCP's own, {} ms each", 2 * DELAY.as_millis()),
        unit: "RTT",
        notes: vec!["login, request, answer and, for ssh, the end of the connection".into()],
        lines,
        marks: vec![mark],
    })
}

/// Many commands, one after another, on one connection.
pub(crate) fn next(peers: &Peers, rounds: usize, commands: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut client = Client::local(&peers.rexec.addr)?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("master");
    let master = peers.ssh.as_ref().map(|ssh| Master::start(ssh, &socket)).transpose()?;
    let mut lines =
        vec![line("local sh -c"), line("rexec, Client of the library"), line("ssh, ControlMaster")];
    lines.truncate(if master.is_some() { 3 } else { 2 });
    for round in 0..=rounds {
        let mut took = vec![
            timed(commands, || {
                spawn::run(all[0].run("true"))?;
                Ok(())
            })?,
            timed(commands, || {
                let output = runtime.block_on(client.output(&Command::shell("true")))?;
                output.verdict.succeeded().then_some(()).ok_or_else(|| "true failed".into())
            })?,
        ];
        if let Some(ssh) = &peers.ssh {
            took.push(timed(commands, || {
                let mut command = ssh.through(&socket);
                command.args(["bench", "true"]);
                spawn::run(command)?;
                Ok(())
            })?);
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
    row.mark_ratio(1, "times the local shell", 1.3);
    Ok(row)
}

/// Milliseconds for one of so many.
fn timed(times: usize, mut run: impl FnMut() -> Fallible<()>) -> Fallible<f64> {
    let start = Instant::now();
    (0..times).try_for_each(|_| run())?;
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(u32::try_from(times)?))
}

/// A connection that others use; gone on drop.
struct Master(Child);

impl Master {
    fn start(ssh: &Ssh, socket: &Path) -> Fallible<Self> {
        let mut command = ssh.command(ssh.port);
        command.args(["-N", "-M", "-oPermitLocalCommand=yes", "-oLocalCommand=echo in", "-S"]);
        command.arg(socket).arg("bench").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut master = Self(command.spawn()?);
        let mut line = String::new();
        if let Some(stdout) = master.0.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        if line == "in\n" { Ok(master) } else { Err("the ssh master did not log in".into()) }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // One that ended by itself needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Much output, read into nothing by this program.
pub(crate) fn bulk(peers: &Peers, rounds: usize, mib: u64) -> Fallible<Row> {
    let all = peers.contenders();
    let text = format!("head -c {} /dev/zero", mib << 20);
    let mut measured: Vec<Vec<Bulk>> = all.iter().map(|_| Vec::new()).collect();
    peers.rexec.server.reset_peak()?;
    for _ in 0..rounds {
        for (contender, bulks) in all.iter().zip(&mut measured) {
            bulks.push(Bulk::measure(contender, &text, mib << 20)?);
        }
    }
    let server_peak = to_f64(peers.rexec.server.peak()?) / MIB;
    let lines: Vec<_> =
        all.iter().zip(&measured).map(|(contender, bulks)| bulk_line(contender, bulks)).collect();
    let client_peak =
        measured[1].iter().map(|bulk| to_f64(bulk.client.peak) / MIB).fold(0.0, f64::max);
    let mark = |what, figure| Mark { line: 1, what, limit: 32.0, figure };
    Ok(Row {
        title: format!("bulk: {mib} MiB of output, {rounds} rounds"),
        unit: "GB/s",
        notes: vec![
            "s/GiB: processor seconds; server: with its processes and the command itself".into(),
            "rexec compares the SHA-256 and size of each stream, made where the command's pipe is \
             read, with what its client wrote; ssh protects packets on their way, and a stream that \
             ends early looks complete"
                .into(),
        ],
        lines,
        marks: vec![
            mark("MiB at most, client", client_peak),
            mark("MiB at most, server", server_peak),
        ],
    })
}

struct Bulk {
    client: Sample,
    server: Option<Duration>,
}

impl Bulk {
    fn measure(contender: &Contender, text: &str, bytes: u64) -> Fallible<Self> {
        let (client, server) = match contender.server {
            None => (spawn::run(contender.run(text))?, None),
            Some(server) => {
                let (client, spent) = server.spends(|| spawn::run(contender.run(text)))?;
                (client?, Some(spent))
            }
        };
        if client.bytes != bytes {
            return Err(format!("{} brought {} bytes", contender.name, client.bytes).into());
        }
        Ok(Self { client, server })
    }
}

fn bulk_line(contender: &Contender, bulks: &[Bulk]) -> Line {
    let middle = |of: &dyn Fn(&Bulk) -> f64| median(&bulks.iter().map(of).collect::<Vec<_>>());
    let gib = |bulk: &Bulk| to_f64(bulk.client.bytes) / GIB;
    let mut beside =
        vec![("client s/GiB", middle(&|bulk| bulk.client.cpu.as_secs_f64() / gib(bulk)))];
    if contender.server.is_some() {
        let server = |bulk: &Bulk| bulk.server.unwrap_or_default().as_secs_f64() / gib(bulk);
        beside.push(("server s/GiB", middle(&server)));
    }
    beside.push(("client peak MiB", middle(&|bulk| to_f64(bulk.client.peak) / MIB)));
    let speed = |bulk: &Bulk| to_f64(bulk.client.bytes) / 1e9 / bulk.client.wall.as_secs_f64();
    Line { name: contender.name.into(), samples: bulks.iter().map(speed).collect(), beside }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}

fn line(name: &str) -> Line {
    Line { name: name.into(), samples: Vec::new(), beside: Vec::new() }
}

fn lines(all: &[Contender]) -> Vec<Line> {
    all.iter().map(|contender| line(contender.name)).collect()
}
