//! `rexec-server gc`: removing what is not to be kept of durable runs that are over.

use std::time::Duration;

use super::trouble::Trouble;
use super::{SERVER, complain, print};
use crate::runs::retention::Retention;
use crate::runs::sweep::{Removed, collect};
use crate::server::{RUNS, find_instance};
use crate::sys::fs::{StateDir, state_dir_path};
use crate::sys::process::boot_id;
use crate::units::{bytes, counted, duration};

/// Exit status: something could not be removed.
const FAILED: u8 = 1;

/// Remove records of durable runs that are over and too old, or too many or too large together
///
/// Of too many, or too large ones, whoever has most of them loses those that ended first.
/// A server does the same by itself. What goes on is never touched; who reads a record that is removed reads
/// on. The id of a run stays taken until --keep-for and 10 minutes are over. Exit status: 0 done, 1
/// something could not be removed, 2 wrong usage or unreadable.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The runs of the server that was started under this name; not needed if there is only one
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,

    /// Keep records for so long after the end of their run; by default what the server was last started with
    #[arg(long, value_name = "TIME", value_parser = duration)]
    keep_for: Option<Duration>,

    /// Keep at most so many records; by default what the server was last started with
    #[arg(long, value_name = "N")]
    keep_count: Option<usize>,

    /// Keep at most so many bytes of them; by default what the server was last started with
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep_bytes: Option<u64>,
}

/// Does what was asked for; the exit status.
pub(super) fn main(args: &Args) -> u8 {
    let removed = match args.collect() {
        Ok(removed) => removed,
        Err(trouble) => return trouble.tell(),
    };
    let printed = print(SERVER, &told(&removed, args.dry_run));
    if printed != 0 {
        return printed;
    }
    let Some(error) = &removed.error else { return 0 };
    let failed = counted(removed.failed, "durable run");
    complain(SERVER, &format!("{failed} cannot be removed: {error}"));
    FAILED
}

impl Args {
    fn collect(&self) -> Result<Removed, Trouble> {
        let found = find_instance(&state_dir_path()?, self.name.as_deref())?;
        let instance = StateDir::open(&found)?;
        let saved = Retention::saved(instance.path())
            .map_err(|error| Trouble::Read { path: found.clone(), error })?;
        let retention = Retention {
            age: self.keep_for.unwrap_or(saved.age),
            count: self.keep_count.unwrap_or(saved.count),
            bytes: self.keep_bytes.unwrap_or(saved.bytes),
        };
        let (runs, boot) = (found.join(RUNS), boot_id().map_err(Trouble::Boot)?);
        collect(&runs, &boot, &retention, self.dry_run)
            .map_err(|error| Trouble::Read { path: runs, error })
    }
}

fn told(removed: &Removed, dry_run: bool) -> String {
    let Removed { records, bytes, ids, .. } = removed;
    let would = if dry_run { "would be removed" } else { "removed" };
    let (records, bytes) = (counted(*records, "record"), counted(*bytes, "byte"));
    format!("{would}: {records}, {bytes}; {} free again\n", counted(*ids, "id"))
}
