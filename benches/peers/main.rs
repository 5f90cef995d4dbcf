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
mod far;
mod fleet;
mod idle;
mod lines;
mod login;
mod machine;
mod many;
mod measured;
mod memory;
mod over_ssh;
mod page;
mod proc;
mod relay;
mod report;
mod rounds;
mod rows;
mod size;
mod spawn;
mod stats;
mod turns;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use serde_json::json;

use contenders::{Dropbear, Peers, Rexec, Ssh};
use machine::Machine;
use measured::Measured;
use proc::Server;
use rows::Size;

/// Whatever goes wrong ends the measurement.
type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// See `scripts/bench --help`.
#[derive(Debug, Parser)]
struct Args {
    /// Every row, once and tiny.
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Fewer and smaller rounds.
    #[arg(long)]
    quick: bool,
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
    /// Instead of measuring: so many idle connections of the row `idle`.
    #[arg(long, hide = true, value_name = "COUNT")]
    hold: Option<usize>,
    /// Instead of measuring: runs a program, see `spawn::apart`.
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true, exclusive = true)]
    apart: Vec<OsString>,
    /// Where the rexec server listens.
    #[arg(long, required_unless_present = "write_lines", default_value = "")]
    addr: String,
    /// Its process id.
    #[arg(long, value_name = "PID", required_unless_present_any = ["write_lines", "hold", "apart"], default_value_t = 0)]
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
    fn size(&self) -> Size {
        if self.smoke {
            Size::smoke()
        } else if self.quick {
            Size::quick()
        } else {
            Size::full()
        }
    }

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
    let done = match (args.write_lines, args.hold) {
        (Some(count), _) => lines::write_times(count).map_err(Into::into).map(|()| true),
        (_, Some(count)) => idle::hold(&args.addr, count).map(|()| true),
        _ if !args.apart.is_empty() => spawn::apart(&args.apart).map_err(Into::into).map(|()| true),
        _ => measure(&args),
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
    let old = args.compare.as_deref().map(compare::read).transpose()?;
    let (begun, size) = (Instant::now(), args.size());
    let mut out = io::stdout();
    let machine = Machine::this();
    writeln!(out, "{machine}")?;
    writeln!(out, "median, half the interquartile range, ratio to the first line of each row")?;
    let done = measured::measure(&size, &args.only, &args.peers(), |measured| {
        measured.print(&mut out)?;
        if let Some(old) = &old {
            compare::print(old, &measured.row, &mut out)?;
        }
        Ok(out.flush()?)
    })?;
    writeln!(out, "\nall of it took {:.0} s", begun.elapsed().as_secs_f64())?;
    if let Some(path) = &args.json {
        let rows: Vec<_> = done.iter().map(Measured::json).collect();
        let all = json!({ "machine": machine.to_string(), "rows": rows });
        std::fs::write(path, format!("{all:#}\n"))?;
    }
    if let Some(path) = &args.page {
        std::fs::write(path, page::page(&machine, &done))?;
    }
    Ok(done.iter().all(|measured| measured.row.is_reliable()))
}
