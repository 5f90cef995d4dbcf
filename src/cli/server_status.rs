//! `rexec-server status`: what a running server counts.

use std::time::Duration;

use super::trouble::Trouble;
use super::{SERVER, print};
use crate::server::status::{Status, ask};
use crate::server::{FindError, find_running};
use crate::sys::fs::state_dir_path;
use crate::units::{self, counted};

/// Exit status: no such server runs.
const DOWN: u8 = 1;

/// Print what a running server counts: connections, logins, refused ones by their reason, runs, memory
///
/// Asks over a socket in the server's state folder, so it is for the server's own account and root. Counts are
/// since the start, or since the last upgrade in place. Exit status: 0 done, 1 no such server runs, 2 wrong usage
/// or unreadable.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The server that was started under this name; not needed if only one runs
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Does what was asked for; the exit status.
pub(super) fn main(args: &Args) -> u8 {
    let status = match args.ask() {
        Ok(status) => status,
        Err(trouble) => {
            let status = trouble.tell();
            let is_down = matches!(trouble, Trouble::Find(FindError::Down(_) | FindError::None(_)));
            return if is_down { DOWN } else { status };
        }
    };
    print(SERVER, &if args.json { json(&status) } else { told(&status) })
}

impl Args {
    fn ask(&self) -> Result<Status, Trouble> {
        let path = find_running(&state_dir_path()?, self.name.as_deref())?;
        ask(&path).map_err(|error| Trouble::Ask { path, error })
    }
}

fn json(status: &Status) -> String {
    // A struct of numbers and one text.
    serde_json::to_string(status).unwrap_or_default() + "\n"
}

fn told(status: &Status) -> String {
    let Status { refused, runs, memory, .. } = status;
    let lines = [
        ("server", format!("{} (process {})", status.server, status.pid)),
        ("uptime", units::spelt(Duration::from_secs(status.uptime_s))),
        ("connections", status.connections.to_string()),
        ("logins", format!("{}, {} now", status.logins, status.logged_in)),
        (
            "refused logins",
            format!(
                "{} not authorized, {} otherwise refused, {} broken off, {} not this protocol, {} too late, \
                 {} shown out, {} by penalty",
                refused.not_authorized,
                refused.refused,
                refused.broken,
                refused.protocol,
                refused.late,
                refused.shown_out,
                refused.penalty
            ),
        ),
        ("penalties", format!("{} now", counted(status.penalties, "network"))),
        (
            "runs",
            format!("{} now, {} started, {} refused", runs.running, runs.started, runs.refused),
        ),
        ("output", counted(runs.output_bytes, "byte")),
        (
            "memory",
            format!("{}, {} of the budget", counted(memory.resident, "byte"), memory.budget),
        ),
    ];
    lines.iter().map(|(name, value)| format!("{name:<15} {value}\n")).collect()
}
