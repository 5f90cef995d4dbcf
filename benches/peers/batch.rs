//! A short command on many hosts: the processor time of everybody who takes part.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use crate::Fallible;
use crate::contenders::Peers;
use crate::fleet::{AT_ONCE, Contender, Fleet, SERVERS, Started, addresses};
use crate::over_ssh;
use crate::report::{Limit, Mark, Row};
use crate::rounds::Rounds;

/// Batches between two looks at the servers, whose times are told in hundredths of a second, each rounded
/// down.
const BATCHES: u32 = 2;

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
    let peak = ours.peak_mib();
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
