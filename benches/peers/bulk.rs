//! Much output, and much input.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Fallible;
use crate::contenders::{Contender, DROPBEAR, Peers};
use crate::durable::wait_for;
use crate::proc::Server;
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn::{self, Sample};
use crate::stats::median;

/// Part of the amount that is measured of a contender that would take most of the row's time.
const SLOW_PART: u64 = 8;
const GIB: f64 = (1u64 << 30) as f64;

/// Much output, read into nothing by this program.
pub(crate) fn out(peers: &Peers, rounds: Rounds, mib: u64) -> Fallible<Row> {
    let mut all = peers.contenders();
    let socat = Socat::start()?;
    all.extend(socat.as_ref().map(Socat::contender));
    let blake3 = by_blake3(&mut all, peers);
    let mut measured: Vec<Vec<Bulk>> = all.iter().map(|_| Vec::new()).collect();
    for _ in rounds.counted() {
        for (contender, bulks) in all.iter().zip(&mut measured) {
            let bytes = amount(contender, mib);
            bulks.push(Bulk::measure(contender, &format!("head -c {bytes} /dev/zero"), bytes)?);
        }
    }
    let lines: Vec<_> =
        all.iter().zip(&measured).map(|(contender, bulks)| bulk_line(contender, bulks)).collect();
    let spent = |bulk: &Bulk| (bulk.client.cpu + bulk.server.unwrap_or_default()).as_secs_f64();
    let gb = to_f64(mib << 20) / 1e9;
    let spent = Mark {
        line: 1,
        what: "processor seconds for a GB, both sides",
        limit: Limit::AtMost(2.3),
        figures: measured[1].iter().map(|bulk| spent(bulk) / gb).collect(),
    };
    let mut row = Row {
        title: format!("bulk: {mib} MiB of output"),
        unit: "GB/s",
        notes: vec![
            "s/GiB: processor seconds; server: with its processes and the command itself".into(),
            "rexec compares the SHA-256 and size of each stream, made where the command's pipe is \
             read, with what its client wrote; ssh protects packets on their way, and a stream that \
             ends early looks complete; socat protects nothing"
                .into(),
            slow_note(),
        ],
        lines,
        marks: vec![spent],
    };
    row.mark_ratio((1, 2), "times ssh as shipped", Limit::AtLeast(1.3));
    row.mark_ratio((1, 3), "times ssh with AES-GCM", Limit::AtLeast(0.75));
    row.mark_ratio((blake3, 3), "times ssh with AES-GCM", Limit::AtLeast(1.1));
    Ok(row)
}

/// Much input, counted at the other end.
pub(crate) fn input(peers: &Peers, rounds: Rounds, mib: u64) -> Fallible<Row> {
    let mut all = peers.contenders();
    let blake3 = by_blake3(&mut all, peers);
    let mut lines: Vec<_> = all.iter().map(|contender| Line::new(contender.name)).collect();
    for _ in rounds.counted() {
        for (contender, line) in all.iter().zip(&mut lines) {
            let bytes = amount(contender, mib);
            let text = format!("test \"$(wc -c)\" = {bytes}");
            let mut source = Command::new("head");
            source.arg("-c").arg(bytes.to_string()).arg("/dev/zero").stdout(Stdio::piped());
            let mut source = source.spawn()?;
            let stdin = source.stdout.take().map_or_else(Stdio::null, Stdio::from);
            let sample = spawn::run_with(contender.run(&text), stdin)?;
            source.wait()?;
            line.samples.push(to_f64(bytes) / 1e9 / sample.wall.as_secs_f64());
        }
    }
    let mut row = Row {
        title: format!("input: {mib} MiB of standard input"),
        unit: "GB/s",
        notes: vec![
            "each command counts what it gets and fails if that is not all".into(),
            slow_note(),
        ],
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 2), "times ssh as shipped", Limit::AtLeast(1.3));
    row.mark_ratio((1, 3), "times ssh with AES-GCM", Limit::AtLeast(0.75));
    row.mark_ratio((blake3, 3), "times ssh with AES-GCM", Limit::AtLeast(1.1));
    Ok(row)
}

fn slow_note() -> String {
    format!("{DROPBEAR}: 1/{SLOW_PART} of it")
}

/// Bytes for a contender: rates are compared, not amounts.
fn amount(contender: &Contender, mib: u64) -> u64 {
    let slow = contender.name == DROPBEAR;
    (mib << 20) / if slow { SLOW_PART } else { 1 }
}

/// Adds rexec with the faster digest; its place.
fn by_blake3(all: &mut Vec<Contender>, peers: &Peers) -> usize {
    all.push(peers.rexec.contender("rexec --hash blake3", &["--hash", "blake3"]));
    all.len() - 1
}

/// A shell behind a TCP port, open for the time of a row to whoever is on this machine; gone on drop.
struct Socat {
    child: Child,
    port: u16,
}

impl Socat {
    /// None if it is not installed.
    fn start() -> Fallible<Option<Self>> {
        // The port was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("TCP-LISTEN:{port},bind=127.0.0.1,reuseaddr,fork");
        let started = Command::new("socat").args(["-t", "60", &listen, "EXEC:/bin/sh"]).spawn();
        let child = match started {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            started => started?,
        };
        let socat = Self { child, port };
        wait_for(|| Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok(Some(socat))
    }

    fn contender(&self) -> Contender {
        let command = Box::new(|port, text: &str| {
            let mut command = Command::new("sh");
            let script = "printf '%s\n' \"$1\" | exec socat -t 60 - TCP:127.0.0.1:$2";
            command.args(["-c", script, "sh", text]).arg(u16::to_string(&port));
            command
        });
        let server = Some(Server(self.child.id()));
        Contender { name: "socat, raw TCP", server, port: self.port, command }
    }
}

impl Drop for Socat {
    fn drop(&mut self) {
        // One that ended by itself needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let speed = |bulk: &Bulk| to_f64(bulk.client.bytes) / 1e9 / bulk.client.wall.as_secs_f64();
    Line { name: contender.name.into(), samples: bulks.iter().map(speed).collect(), beside }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn to_f64(bytes: u64) -> f64 {
    bytes as f64
}
