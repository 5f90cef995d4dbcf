//! rexec beside the local shell and OpenSSH. Run by `scripts/bench`, which starts the servers and
//! takes them down.
//!
//! All contenders of a row take turns, and a ratio is the median over rounds of the ratio within a
//! round: what else the machine does hits all of them alike.

mod batch;
mod broken;
mod bulk;
mod cold;
mod compare;
mod contenders;
mod crowd;
mod durable;
mod idle;
mod lines;
mod login;
mod many;
mod page;
mod proc;
mod relay;
mod report;
mod size;
mod spawn;
mod stats;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use contenders::{Dropbear, Peers, Rexec, Ssh};
use proc::Server;
use report::Row;

/// Whatever goes wrong ends the measurement.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// See `scripts/bench --help`.
#[derive(Debug, Parser)]
struct Args {
    /// Every row, once and tiny.
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    smoke: bool,
    /// Fewer and smaller rounds.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// 10 GiB once more, and 10,000 connections.
    #[arg(long)]
    full: bool,
    /// Only these rows, by the first words of their titles.
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    only: Vec<String>,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a page for people to this file.
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// Says what has moved since a file that --json wrote.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Instead of measuring: the writer of the row `delay`.
    #[arg(long, hide = true, value_name = "COUNT", exclusive = true)]
    write_lines: Option<usize>,
    /// Where the rexec server listens.
    #[arg(long, required_unless_present = "write_lines", default_value = "")]
    addr: String,
    /// Its process id.
    #[arg(long, value_name = "PID", required_unless_present = "write_lines", default_value_t = 0)]
    server: u32,
    /// A client configuration with a host called bench.
    #[arg(long, value_name = "FILE", requires_all = ["ssh_port", "sshd"])]
    ssh_config: Option<PathBuf>,
    /// Where the SSH server listens.
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,
    /// Its process id.
    #[arg(long, value_name = "PID")]
    sshd: Option<u32>,
    /// Where Dropbear's server listens.
    #[arg(long, value_name = "PORT", requires_all = ["dropbear", "dropbear_key", "dropbear_user"])]
    dropbear_port: Option<u16>,
    /// Its process id.
    #[arg(long, value_name = "PID")]
    dropbear: Option<u32>,
    /// The private key, in its format.
    #[arg(long, value_name = "FILE")]
    dropbear_key: Option<PathBuf>,
    /// Who logs in there.
    #[arg(long, value_name = "NAME")]
    dropbear_user: Option<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn peers(&self) -> Peers {
        let ssh = match (&self.ssh_config, self.ssh_port, self.sshd) {
            (Some(config), Some(port), Some(pid)) => {
                Some(Ssh { config: config.clone(), port, server: Server(pid) })
            }
            _ => None,
        };
        let dropbear = self.dropbear();
        let rexec = Rexec { addr: self.addr.clone(), server: Server(self.server) };
        Peers { rexec, ssh, dropbear }
    }

    fn dropbear(&self) -> Option<Dropbear> {
        Some(Dropbear {
            key: self.dropbear_key.clone()?,
            user: self.dropbear_user.clone()?,
            port: self.dropbear_port?,
            server: Server(self.dropbear?),
        })
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.write_lines {
        Some(count) => lines::write_times(count).map_err(Into::into).map(|()| true),
        None => measure(&args),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(io::stderr(), "bench: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every row that was measured can be relied upon.
fn measure(args: &Args) -> Fallible<bool> {
    let rows = rows(args);
    let unknown = |only: &&String| !rows.iter().any(|(title, _)| title == only);
    if let Some(unknown) = args.only.iter().find(unknown) {
        let known: Vec<_> = rows.iter().map(|(title, _)| *title).collect();
        return Err(format!("there is no row {unknown}; rows: {}", known.join(", ")).into());
    }
    let old = args.compare.as_deref().map(compare::read).transpose()?;
    let peers = args.peers();
    let mut out = io::stdout();
    let machine = machine();
    writeln!(out, "{machine}")?;
    writeln!(out, "median, half the interquartile range, ratio to the first line of each row")?;
    let mut done = Vec::new();
    for (title, row) in rows {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == title) {
            continue;
        }
        let row = row(&peers).map_err(|e| format!("{title}: {e}"))?;
        row.print(&mut out)?;
        if let Some(old) = &old {
            compare::print(old, &row, &mut out)?;
        }
        out.flush()?;
        done.push(row);
    }
    if let Some(path) = &args.json {
        let all =
            json!({ "machine": machine, "rows": done.iter().map(Row::json).collect::<Vec<_>>() });
        rexec::sys::fs::atomic_write(path, 0o644, format!("{all:#}\n").as_bytes())?;
    }
    if let Some(path) = &args.page {
        rexec::sys::fs::atomic_write(path, 0o644, page::page(&machine, &done).as_bytes())?;
    }
    Ok(done.iter().all(Row::is_reliable))
}

type Measure = Box<dyn Fn(&Peers) -> Fallible<Row>>;

/// How much of everything.
struct Size {
    /// Rounds of the rows with a client process for each sample, and of those over the slow network.
    cold: usize,
    far: usize,
    /// Rounds of the others, and of those that take long.
    rounds: usize,
    few: usize,
    /// Commands in one round of many at once; five times as many as one after another.
    commands: usize,
    /// Bulk.
    mib: u64,
    /// Short lines.
    millions: u32,
    /// Idle connections, stalled runs, durable runs.
    connections: u32,
    stalled: usize,
    many: usize,
    /// Hosts of a batch.
    hosts: usize,
}

impl Args {
    fn size(&self) -> Size {
        let normal = Size {
            cold: 200,
            far: 9,
            rounds: 7,
            few: 5,
            commands: 1000,
            mib: 2048,
            millions: 10,
            connections: 1000,
            stalled: 256,
            many: 500,
            hosts: 1000,
        };
        if self.full {
            Size { mib: 4096, connections: 10_000, many: 1000, ..normal }
        } else if self.quick {
            Size {
                cold: 40,
                far: 3,
                few: 3,
                commands: 250,
                mib: 256,
                millions: 1,
                many: 50,
                hosts: 200,
                ..normal
            }
        } else if self.smoke {
            let few = Size { cold: 1, far: 1, rounds: 1, few: 1, commands: 20, ..normal };
            Size { mib: 8, millions: 1, connections: 20, stalled: 4, many: 4, hosts: 20, ..few }
        } else {
            normal
        }
    }
}

/// Every row: how its title begins, and how it is measured.
fn rows(args: &Args) -> Vec<(&'static str, Measure)> {
    let Size { cold, far, rounds, few, commands, mib, millions, connections, stalled, many, hosts } =
        args.size();
    let kept = mib.min(1024);
    vec![
        ("cold", Box::new(move |peers| cold::cold(peers, cold))),
        ("far", Box::new(move |peers| cold::far(peers, far))),
        ("next", Box::new(move |peers| cold::next(peers, rounds, commands / 5))),
        ("crowd", Box::new(move |peers| crowd::row(peers, rounds, 16, commands))),
        ("crowds", Box::new(move |peers| crowd::row(peers, rounds, 256, commands))),
        ("bulk", Box::new(move |peers| bulk::out(peers, few, mib))),
        ("input", Box::new(move |peers| bulk::input(peers, few, mib))),
        ("lines", Box::new(move |peers| lines::many(peers, few, millions))),
        ("delay", Box::new(move |peers| lines::delay(peers, few, commands / 5))),
        ("echo", Box::new(move |peers| lines::echo(peers, rounds, commands / 5))),
        ("resume", Box::new(move |peers| broken::resume(peers, rounds, mib.min(256)))),
        ("login", Box::new(move |peers| login::row(&peers.rexec, rounds, commands))),
        ("idle", Box::new(move |peers| idle::row(&peers.rexec, peers.ssh.as_ref(), connections))),
        ("stalled", Box::new(move |_| broken::stalled(stalled))),
        ("durable", Box::new(move |peers| durable::cold(peers, cold))),
        ("record", Box::new(move |peers| durable::record(peers, few, kept))),
        ("attach", Box::new(move |peers| durable::attach(peers, few, kept))),
        ("many", Box::new(move |_| many::row(many))),
        ("batch", Box::new(move |peers| batch::row(peers, few, hosts))),
        ("size", Box::new(move |peers| size::row(peers, cold))),
    ]
}

/// What the figures depend on.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let system = rustix::system::uname();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "rexec {}, {cpus} x {}, {} {}, load {}",
        env!("CARGO_PKG_VERSION"),
        model.unwrap_or("unknown processor"),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        load.split(' ').next().unwrap_or_default(),
    )
}
