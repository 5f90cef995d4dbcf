//! How much memory each program takes at most.

use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::Fallible;
use crate::contenders::{Contender, Peers, Rexec};
use crate::proc::Server;
use crate::report::{Limit, Line, Mark, Row};
use crate::spawn;

/// Between two looks at a server's memory.
const LOOK: Duration = Duration::from_millis(20);
const MIB: f64 = (1u64 << 20) as f64;

/// The client's largest resident set for a short command; beside it, for much output, the client's and
/// that of the server with its processes. Once for very much output.
pub(crate) fn row(peers: &Peers, mib: u64, most_mib: u64) -> Fallible<Row> {
    let all = peers.contenders();
    let mut lines = all.iter().map(|one| line(one, mib)).collect::<Fallible<Vec<_>>>()?;
    let (client, server) = rexec_peaks(&peers.rexec, &all[1], most_mib)?;
    let beside = vec![("server process", server)];
    lines.push(Line { name: format!("rexec, {most_mib} MiB"), samples: vec![client], beside });
    let line = lines.len() - 1;
    let mark =
        |what, most, figure| Mark { line, what, limit: Limit::AtMost(most), figures: vec![figure] };
    let marks = vec![mark("MiB, client", 24.0, client), mark("MiB, server process", 32.0, server)];
    Ok(Row {
        title: format!("memory: of a client process at most; beside: with {mib} MiB of output"),
        unit: "MiB",
        notes: vec![
            "client: largest resident set, first for `true`; the kernel counts that of the small \
             program that starts it, and so none is less than the first line's"
                .into(),
            "server: growth of the proportional set size of it and its processes, the command \
             included, seen every 20 ms; server process: its largest resident set, which is all of it"
                .into(),
        ],
        lines,
        marks,
    })
}

fn line(contender: &Contender, mib: u64) -> Fallible<Line> {
    let short = spawn::run_apart(&contender.run("true"))?;
    let much = contender.run(&zeros(mib));
    let (much, grown) = match contender.server {
        None => (spawn::run_apart(&much)?, None),
        Some(server) => {
            server.settle()?;
            let before = server.memory()?;
            let (much, most) = most_memory(server, &much)?;
            (much, Some(most.saturating_sub(before)))
        }
    };
    let mut line = Line { samples: vec![to_mib(short.peak)], ..Line::new(contender.name) };
    line.beside.push(("client", to_mib(much.peak)));
    line.beside.extend(grown.map(|grown| ("server", to_mib(grown))));
    Ok(line)
}

fn rexec_peaks(rexec: &Rexec, contender: &Contender, mib: u64) -> Fallible<(f64, f64)> {
    rexec.server.reset_peak()?;
    let client = spawn::run_apart(&contender.run(&zeros(mib)))?;
    Ok((to_mib(client.peak), to_mib(rexec.server.peak()?)))
}

fn zeros(mib: u64) -> String {
    format!("head -c {} /dev/zero", mib << 20)
}

/// The most memory that a server is seen to have while a command runs, bytes.
fn most_memory(server: Server, command: &Command) -> Fallible<(spawn::Sample, u64)> {
    thread::scope(|scope| {
        let running = scope.spawn(|| spawn::run_apart(command));
        let mut most = 0;
        while !running.is_finished() {
            most = server.memory()?.max(most);
            thread::sleep(LOOK);
        }
        Ok((running.join().map_err(|_| "a client's thread failed")??, most))
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn to_mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
