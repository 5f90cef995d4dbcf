//! rexec beside the local shell and OpenSSH. Run by `scripts/bench`, which starts the servers and
//! takes them down.
//!
//! All contenders of a row take turns, and a ratio is the median over rounds of the ratio within a
//! round: what else the machine does hits all of them alike.

mod batch;
mod contenders;
mod durable;
mod idle;
mod many;
mod proc;
mod relay;
mod report;
mod rows;
mod spawn;
mod stats;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use contenders::{Peers, Rexec, Ssh};
use proc::Server;
use report::Row;

/// Whatever goes wrong ends the measurement.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// See `scripts/bench --help`.
#[derive(Debug, Parser)]
struct Args {
    /// Fewer and smaller rounds.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// 10 GiB once more.
    #[arg(long)]
    full: bool,
    /// Only the rows whose titles begin with this.
    #[arg(long, value_name = "TITLE", default_value = "")]
    only: String,
    /// Writes every sample to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the rexec server listens.
    #[arg(long)]
    addr: String,
    /// Its process id.
    #[arg(long, value_name = "PID")]
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
        let rexec = Rexec { addr: self.addr.clone(), server: Server(self.server) };
        Peers { rexec, ssh }
    }
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nobody is left to tell when stderr is closed.
            let _ = writeln!(io::stderr(), "bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Fallible<()> {
    let peers = args.peers();
    let mut out = io::stdout();
    let machine = machine();
    writeln!(out, "{machine}")?;
    writeln!(out, "median, half the interquartile range, ratio to the first line of each row")?;
    let mut done = Vec::new();
    for (title, row) in rows(args) {
        if !title.starts_with(&args.only) {
            continue;
        }
        let row = row(&peers)?;
        row.print(&mut out)?;
        out.flush()?;
        done.push(row.json());
    }
    if let Some(path) = &args.json {
        let all = json!({ "machine": machine, "rows": done });
        rexec::sys::fs::atomic_write(path, 0o644, format!("{all:#}\n").as_bytes())?;
    }
    Ok(())
}

type Measure = Box<dyn Fn(&Peers) -> Fallible<Row>>;

/// Every row: how its title begins, and how it is measured.
fn rows(args: &Args) -> Vec<(&'static str, Measure)> {
    // Rounds of cold and far; rounds of next, and commands in one; rounds of bulk, and MiB; hosts of batch.
    let (cold, far, next, commands, bulk, mib, hosts) =
        if args.quick { (30, 5, 3, 50, 3, 512, 200) } else { (200, 9, 7, 200, 5, 2048, 1000) };
    let mut rows: Vec<(_, Measure)> = vec![
        ("cold", Box::new(move |peers| rows::cold(peers, cold))),
        ("far", Box::new(move |peers| rows::far(peers, far))),
        ("next", Box::new(move |peers| rows::next(peers, next, commands))),
        ("bulk", Box::new(move |peers| rows::bulk(peers, bulk, mib))),
        ("idle", Box::new(|peers| idle::row(&peers.rexec, peers.ssh.as_ref(), 1000))),
        ("durable", Box::new(move |peers| durable::cold(peers, cold))),
        ("record", Box::new(move |peers| durable::record(peers, bulk, mib.min(1024)))),
        ("attach", Box::new(move |peers| durable::attach(peers, bulk, mib.min(1024)))),
        ("many", Box::new(|_| many::row(500))),
        ("batch", Box::new(move |peers| batch::row(peers, hosts, bulk))),
    ];
    if args.full {
        rows.push(("bulk", Box::new(|peers| rows::bulk(peers, 1, 10 * 1024))));
        rows.push(("many", Box::new(|_| many::row(1000))));
    }
    rows
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
