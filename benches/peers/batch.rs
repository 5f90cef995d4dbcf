//! A short command on many hosts: the processor time of everybody who takes part.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::Fallible;
use crate::contenders::Peers;
use crate::over_ssh;
use crate::proc::{Server, spends};
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn::{self, Sample};
use crate::stats::median;

/// Server processes; each one is several hosts.
pub(crate) const SERVERS: usize = 100;
/// Hosts at once.
pub(crate) const AT_ONCE: &str = "32";
/// Batches between two looks at the servers, whose times are told in hundredths of a second, each rounded
/// down.
const BATCHES: u32 = 2;
const MIB: f64 = (1u64 << 20) as f64;

/// `true` on so many hosts, in rounds; once with ssh's clients, on their share.
pub(crate) fn row(peers: &Peers, rounds: Rounds, hosts: usize, ssh_hosts: usize) -> Fallible<Row> {
    let servers = hosts.min(SERVERS);
    let each = hosts.div_ceil(servers);
    let dir = tempfile::tempdir()?;
    let rexec = Fleet::start(servers, |server| rexec_server(dir.path(), server, each))?;
    let list = dir.path().join("rexec.hosts");
    fs::write(&list, rexec.list(hosts))?;
    let batch = || rexec_batch(dir.path(), &list);
    let mut local = Contender::new("local xargs -P, sh -c", hosts);
    let mut in_turn = Contender::new("local loop, sh -c", hosts);
    let mut ours = Contender::new("rexec batch", hosts);
    // The first round fills the caches, and is not counted.
    for round in rounds.after_warm_up() {
        let counted = round > 0;
        local.measure(&[], BATCHES, counted, || local_shells(hosts))?;
        in_turn.measure(&[], BATCHES, counted, || local_loop(hosts))?;
        ours.measure(&rexec.servers, BATCHES, counted, batch)?;
    }
    drop(rexec);
    let mut row = Row {
        title: format!("batch: `true` on {hosts} hosts, {AT_ONCE} at once, {servers} servers"),
        unit: "ms",
        notes: vec!["processor time for each host: of client, servers and command together".into()],
        lines: Vec::new(),
        marks: Vec::new(),
    };
    let peak = ours.samples.iter().map(|sample| mib(sample.peak)).fold(0.0, f64::max);
    row.lines = vec![local.line(), in_turn.line(), ours.line()];
    row.mark_ratio((2, 0), "times the local shells, as many at once", Limit::AtMost(1.8));
    let limit = Limit::AtMost(64.0);
    row.marks.push(Mark { line: 2, what: "MiB, client", limit, figures: vec![peak] });
    match &peers.ssh {
        Some(ssh) => over_ssh::lines(&mut row, ssh, dir.path(), ssh_hosts)?,
        None => row.notes.push("OpenSSH is not here: what goes over ssh is left out".into()),
    }
    Ok(row)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

/// One way to do it.
pub(crate) struct Contender {
    name: &'static str,
    hosts: usize,
    samples: Vec<Sample>,
}

impl Contender {
    pub(crate) fn new(name: &'static str, hosts: usize) -> Self {
        Self { name, hosts, samples: Vec::new() }
    }

    /// Runs it so often and notes the mean, with what that cost the servers.
    pub(crate) fn measure(
        &mut self,
        servers: &[Server],
        times: u32,
        counted: bool,
        mut command: impl FnMut() -> Command,
    ) -> Fallible<()> {
        let task =
            || (0..times).map(|_| spawn::run_apart(&command())).collect::<Result<Vec<_>, _>>();
        // rexec's servers wait for all of their commands.
        let (samples, spent) = spends(servers, times == 1, task)?;
        let samples = samples?;
        let cpu = samples.iter().map(|sample| sample.cpu).sum::<Duration>() + spent;
        let wall = samples.iter().map(|sample| sample.wall).sum::<Duration>();
        let peak = samples.iter().map(|sample| sample.peak).max().unwrap_or(0);
        if counted {
            self.samples.push(Sample { wall: wall / times, cpu: cpu / times, peak, bytes: 0 });
        }
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "a few thousand hosts")]
    pub(crate) fn line(&self) -> Line {
        let of = |of: &dyn Fn(&Sample) -> f64| self.samples.iter().map(of).collect::<Vec<_>>();
        let beside = vec![
            ("hosts", self.hosts as f64),
            ("wall s", median(&of(&|sample| sample.wall.as_secs_f64()))),
            ("client peak MiB", median(&of(&|sample| mib(sample.peak)))),
        ];
        let each = |sample: &Sample| sample.cpu.as_secs_f64() * 1e3 / self.hosts as f64;
        Line { name: self.name.into(), samples: of(&each), beside }
    }
}

/// What starts so many shells one after another, with the least ado.
fn local_loop(count: usize) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("for i in $(seq {count}); do sh -c true; done"));
    command
}

/// What starts so many shells here, as many at once as the others.
fn local_shells(count: usize) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("seq {count} | xargs -P {AT_ONCE} -I N sh -c true"));
    command
}

fn rexec_batch(dir: &Path, hosts: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec"));
    command.args(["batch", "-q", "-j", AT_ONCE, "--hosts"]).arg(hosts).arg("true");
    command.env("REXEC_STATE_DIR", dir.join("state")).env_remove("GITHUB_STEP_SUMMARY");
    command
}

/// Servers of this row's own; gone on drop.
pub(crate) struct Fleet {
    children: Vec<Child>,
    pub(crate) servers: Vec<Server>,
    /// Where they listen, as their clients name it.
    hosts: Vec<String>,
}

/// A server's process, and its hosts.
pub(crate) type Started = (Child, Vec<String>);

impl Fleet {
    pub(crate) fn start(
        count: usize,
        mut start: impl FnMut(usize) -> Fallible<Started>,
    ) -> Fallible<Self> {
        let mut fleet = Self { children: Vec::new(), servers: Vec::new(), hosts: Vec::new() };
        for server in 0..count {
            let (child, hosts) = start(server)?;
            fleet.servers.push(Server(child.id()));
            fleet.children.push(child);
            fleet.hosts.extend(hosts);
        }
        Ok(fleet)
    }

    /// The first hosts, one a line.
    pub(crate) fn list(&self, count: usize) -> String {
        self.hosts.iter().take(count).flat_map(|host| [host.as_str(), "\n"]).collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in &mut self.children {
            // One that ended by itself needs neither.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The addresses of a server: of this machine, and of nobody else's.
pub(crate) fn addresses(server: usize, count: usize) -> impl Iterator<Item = Ipv4Addr> {
    let number = move |at: usize| u32::try_from(server * count + at).unwrap_or(0);
    let base = u32::from(Ipv4Addr::new(127, 1, 0, 1));
    (0..count).map(move |at| Ipv4Addr::from(base + number(at)))
}

fn rexec_server(dir: &Path, server: usize, hosts: usize) -> Fallible<Started> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.env("REXEC_STATE_DIR", dir.join("state")).args(["--name", &format!("batch{server}")]);
    for address in addresses(server, hosts) {
        command.args(["--listen", &format!("{address}:0")]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().ok_or("no stdout")?;
    let told = lines(stdout, hosts, "listening on ")?;
    Ok((child, told))
}

/// The first lines of a server, without what each begins with.
fn lines(stdout: ChildStdout, count: usize, prefix: &str) -> Fallible<Vec<String>> {
    let lines = BufReader::new(stdout).lines().take(count);
    let told: Vec<String> =
        lines.map_while(|line| Some(line.ok()?.strip_prefix(prefix)?.to_owned())).collect();
    if told.len() == count { Ok(told) } else { Err("a server did not start".into()) }
}
