//! What a cut costs, and what a client that does not read costs.

use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::io::ioctl_fionread;

use crate::Fallible;
use crate::contenders::Peers;
use crate::durable::wait_for;
use crate::proc::Server;
use crate::relay::Relay;
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn;

/// What a run of [`stalled`] would write if it could.
const STALLED_BYTES: u64 = 64 << 20;
/// The server is at rest when it has spent nothing for so long.
const AT_REST: Duration = Duration::from_millis(500);

/// A connection that breaks in the middle of the output.
pub(crate) fn resume(peers: &Peers, rounds: Rounds, mib: u64) -> Fallible<Row> {
    let relay = Relay::start(peers.rexec.port(), Duration::ZERO)?;
    let addr = format!("127.0.0.1:{}", relay.port);
    let text = format!("head -c {} /dev/zero", mib << 20);
    let mut lines = vec![Line::new("rexec, whole"), Line::new("rexec, cut in the middle")];
    for _ in rounds.counted() {
        for (line, cut) in lines.iter_mut().zip([0, mib << 19]) {
            relay.break_after(cut);
            let sample = spawn::run(crate::durable::client(&["-q", &addr, &text]))?;
            if sample.bytes != mib << 20 {
                return Err(format!("the client brought {} bytes", sample.bytes).into());
            }
            line.samples.push(sample.wall.as_secs_f64() * 1e3);
        }
    }
    Ok(Row {
        title: format!("resume: {mib} MiB of output, the connection cut once"),
        unit: "ms",
        notes: vec!["verified as always; ssh has nothing to put beside it".into()],
        lines,
        marks: Vec::new(),
    })
}

/// Runs whose clients do not read what comes.
pub(crate) fn stalled(runs: usize) -> Fallible<Row> {
    let dir = tempfile::tempdir()?;
    let mut server = Own::start(dir.path(), runs)?;
    let text = format!("head -c {STALLED_BYTES} /dev/zero");
    let mut clients = Vec::new();
    for _ in 0..runs {
        let mut command = crate::durable::client(&[&server.addr, &text]);
        command.env("REXEC_STATE_DIR", dir.path().join("state"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        clients.push(Own { child: command.spawn()?, addr: String::new() });
    }
    let stdouts: Vec<_> =
        clients.iter().filter_map(|client| client.child.stdout.as_ref()).collect();
    let has_some = |stdout: &&ChildStdout| ioctl_fionread(stdout).is_ok_and(|bytes| bytes > 0);
    wait_for(|| Ok(stdouts.iter().all(has_some)))?;
    let watched = Server(server.child.id());
    watched.rests(AT_REST)?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let figure = watched.peak()? as f64 / f64::from(1 << 20);
    let line = Line { name: "rexec-server".into(), samples: vec![figure], beside: Vec::new() };
    server.child.kill()?;
    server.child.wait()?;
    Ok(Row {
        title: format!("stalled: {runs} runs whose clients do not read, --memory-budget 32M"),
        unit: "MiB",
        notes: vec!["largest resident set of the server".into()],
        lines: vec![line],
        marks: vec![Mark {
            line: 0,
            what: "MiB",
            limit: Limit::AtMost(64.0),
            figures: vec![figure],
        }],
    })
}

/// A process of this row; gone on drop.
struct Own {
    child: Child,
    addr: String,
}

impl Own {
    fn start(dir: &Path, runs: usize) -> Fallible<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["--name", "stalled", "--listen", "127.0.0.1:0", "--memory-budget", "32M"]);
        command.arg("--max-runs").arg(runs.to_string());
        command.env("REXEC_STATE_DIR", dir.join("state"));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut own = Self { child, addr: String::new() };
        let line = spawn::first_line(&mut own.child)?;
        line.strip_prefix("listening on ")
            .ok_or("the server did not start")?
            .clone_into(&mut own.addr);
        Ok(own)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that ended by itself needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
