//! `rexec-server journal`: what a server wrote down, for people and programs.

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::output::write_all;
use super::trouble::Trouble;
use super::visible::{visible, visible_json};
use super::{SERVER, complain, past};
use crate::proto::digest::Digest;
use crate::proto::verdict::Anchor;
use crate::runs::journal::history::{History, Past};
use crate::runs::journal::read::{Chain, Found, Place, Reader};
use crate::runs::journal::verify::{Report, verify};
use crate::runs::journal::{Event, Line, Refused};
use crate::server::find_journal;
use crate::sys::fs::state_dir_path;
use crate::units::duration;

/// Exit status: the chain is broken.
const BROKEN: u8 = 1;
/// So many bytes are gathered before they are written.
const GATHERED: usize = 64 * 1024;

/// Look at what a server wrote down: who ran what, when, and how it ended
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the runs of a journal, one a line, in the order in which they ended; those without an end come
    /// last
    Show(Show),
    /// Check that a journal is what its server wrote, and name the first line that was changed, removed, moved
    /// or cut off. Exit status: 0 intact, 1 broken, 2 wrong usage or unreadable
    #[command(after_help = ANCHORS)]
    Verify(Verify),
}

/// What a chain alone does not show.
pub(super) const ANCHORS: &str = "\
Each line holds the hash of the line before. Nothing in a journal tells that its last lines are missing, and \
whoever can write the folder can write a whole new journal: against both, keep the printed head, or a verdict's \
`journal`, on another machine, and give it as --anchor.";

/// Which journal is meant.
#[derive(Debug, Args)]
struct Which {
    /// The journal of the server that was started under this name; not needed if there is only one
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// The journal in this folder, for example a copy
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    folder: Option<PathBuf>,
}

/// `journal show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    which: Which,

    /// Print the lines as they were written, each one JSON object
    #[arg(long)]
    json: bool,

    /// List logins and refusals instead of runs
    #[arg(long, conflicts_with_all = ["json", "run"])]
    logins: bool,

    /// Only runs whose id contains this
    #[arg(long, value_name = "ID")]
    run: Option<String>,

    /// Only runs that were accepted since then (with --json: lines written since then): a time in UTC, such as
    /// 2026-11-20T10:00:00Z or 2026-11-20, or an age, such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<SystemTime>,
}

/// `journal verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    #[command(flatten)]
    which: Which,

    /// The journal must have this line with this hash, as a verdict's `journal` or an earlier check told them;
    /// repeatable
    #[arg(long, value_name = "SEQ:HASH", value_parser = anchor)]
    anchor: Vec<Anchor>,
}

/// Does what was asked for; the exit status.
pub(super) fn main(command: Command) -> u8 {
    let done = match command {
        Command::Show(args) => show(&args),
        Command::Verify(args) => check(&args),
    };
    done.unwrap_or_else(|trouble| trouble.tell())
}

impl Which {
    fn folder(&self) -> Result<PathBuf, Trouble> {
        match &self.folder {
            Some(folder) => Ok(folder.clone()),
            None => Ok(find_journal(&state_dir_path()?, self.name.as_deref())?),
        }
    }
}

fn check(args: &Verify) -> Result<u8, Trouble> {
    let report = verify(&args.which.folder()?, &args.anchor)?;
    if let Some(fault) = &report.fault {
        let intact = match report.lines {
            0 => String::new(),
            1 => "; the line before is intact".into(),
            count => format!("; the {count} lines before are intact"),
        };
        complain(SERVER, &format!("{fault}{intact}"));
        return Ok(BROKEN);
    }
    write_all(rustix::stdio::stdout(), intact(&report, args.anchor.len()).as_bytes())?;
    Ok(0)
}

/// The lines that tell that a journal is intact.
fn intact(report: &Report, anchors: usize) -> String {
    let time = |time: &Option<String>| visible(time.as_deref().unwrap_or("-"));
    let lines = if report.lines == 1 { "line" } else { "lines" };
    let mut text = format!("intact: {} {lines}", report.lines);
    if report.lines > 0 {
        text += &format!(", {} to {}", time(&report.first), time(&report.last));
    }
    text.push('\n');
    if anchors > 0 {
        text += &format!("anchors: {anchors}, each on its line\n");
    }
    if let Some((Place { path, line }, bytes)) = &report.torn {
        let path = visible(&path.display().to_string());
        text += &format!(
            "unfinished: {path}, line {line}: {bytes} bytes; a server is writing them, or the machine went down\n"
        );
    }
    if let Some(Anchor { seq, hash }) = report.head {
        text += &format!("head: {seq}:{hash}\n");
    }
    text
}

fn show(args: &Show) -> Result<u8, Trouble> {
    let folder = args.which.folder()?;
    let damaged = match args {
        Show { json: true, .. } => show_lines(args, &folder)?,
        Show { logins: true, .. } => show_logins(args, &folder)?,
        _ => show_runs(args, &folder)?,
    };
    let Some(Place { path, line }) = damaged else { return Ok(0) };
    let place = format!("{}, line {line}", path.display());
    complain(
        SERVER,
        &format!("{place}: the journal is not as it was written; `journal verify` says more"),
    );
    Ok(BROKEN)
}

/// Prints one line for each run; where the chain is broken, if it is.
fn show_runs(args: &Show, folder: &Path) -> Result<Option<Place>, Trouble> {
    let mut table = past::Table::default();
    let mut history = History::default();
    let mut print = |past: &Past| match args.wants(&past.run, &past.time) {
        true => table.push(past),
        false => Ok(()),
    };
    let damaged = each_line(folder, |line, _| match history.take(line) {
        Some(past) => print(&past),
        None => Ok(()),
    })?;
    for past in history.rest() {
        print(&past)?;
    }
    table.flush()?;
    Ok(damaged)
}

/// Prints one line for each login and each refusal.
fn show_logins(args: &Show, folder: &Path) -> Result<Option<Place>, Trouble> {
    let mut gathered = String::new();
    let damaged = each_line(folder, |line, _| {
        let Some(told) = login(&line).filter(|_| args.wants("", &line.time)) else { return Ok(()) };
        gathered += &visible(&told);
        gathered.push('\n');
        if gathered.len() < GATHERED {
            return Ok(());
        }
        write_all(rustix::stdio::stdout(), std::mem::take(&mut gathered).as_bytes())
    })?;
    write_all(rustix::stdio::stdout(), gathered.as_bytes())?;
    Ok(damaged)
}

/// What a line tells of a login or of a refusal.
fn login(line: &Line) -> Option<String> {
    let time = &line.time;
    match &line.event {
        Event::Login { identity, from, client } => {
            Some(format!("{time}  login    {identity}  from {from}  with {client}"))
        }
        Event::Refused(Refused { identity, from, code, text, others }) => {
            let who = identity.as_deref().unwrap_or("-");
            let more = if *others > 0 { format!("  (and {others} more)") } else { String::new() };
            Some(format!("{time}  refused  {who}  from {from}  {code}: {text}{more}"))
        }
        _ => None,
    }
}

/// Prints the lines as they are. On a terminal what that would obey is escaped as JSON escapes it; the value
/// is the same.
fn show_lines(args: &Show, folder: &Path) -> Result<Option<Place>, Trouble> {
    let terminal = io::stdout().is_terminal();
    let mut gathered = Vec::new();
    let damaged = each_line(folder, |line, text| {
        let of_run = line.event.run().unwrap_or_default();
        if !args.wants(of_run, &line.time) {
            return Ok(());
        }
        if terminal {
            gathered.extend(visible_json(&String::from_utf8_lossy(text)).bytes());
        } else {
            gathered.extend(text);
        }
        gathered.push(b'\n');
        if gathered.len() < GATHERED {
            return Ok(());
        }
        write_all(rustix::stdio::stdout(), &std::mem::take(&mut gathered))
    })?;
    write_all(rustix::stdio::stdout(), &gathered)?;
    Ok(damaged)
}

/// Hands on each line with its bytes; the first place that does not go on from the one before, if there is one.
fn each_line(
    folder: &Path,
    mut each: impl FnMut(Line, &[u8]) -> io::Result<()>,
) -> Result<Option<Place>, Trouble> {
    let mut reader = Reader::open(folder)?;
    let (mut chain, mut damaged, mut torn) = (Chain::default(), None, None);
    let mut is_empty = true;
    while let Some((place, found)) = reader.advance()? {
        is_empty = false;
        if let Some(torn) = torn.take() {
            damaged.get_or_insert(torn);
        }
        match found {
            Found::Line(line, hash) => {
                if !chain.goes_on_with(&line) {
                    damaged.get_or_insert(place);
                }
                chain.take(&line, hash);
                each(*line, reader.text())?;
            }
            Found::Bad(_) => {
                damaged.get_or_insert(place);
            }
            Found::Torn(_) => torn = Some(place),
        }
    }
    if is_empty {
        return Err(Trouble::Empty(folder.to_owned()));
    }
    Ok(damaged)
}

impl Show {
    /// Whether what has this id and time was asked for. What has no time that can be read is shown.
    fn wants(&self, run: &str, time: &str) -> bool {
        let is_meant = self.run.as_deref().is_none_or(|part| run.contains(part));
        let is_late = |since| humantime::parse_rfc3339(time).map_or(true, |time| time >= since);
        is_meant && self.since.is_none_or(is_late)
    }
}

fn since(text: &str) -> Result<SystemTime, String> {
    let whole = if text.len() == 10 { format!("{text}T00:00:00") } else { text.to_owned() };
    if let Ok(time) = humantime::parse_rfc3339_weak(&whole) {
        return Ok(time);
    }
    let ago = duration(text).ok().and_then(|age| SystemTime::now().checked_sub(age));
    ago.ok_or_else(|| {
        "a time in UTC, such as 2026-11-20T10:00:00Z or 2026-11-20, or an age, such as 2h".into()
    })
}

fn anchor(text: &str) -> Result<Anchor, String> {
    let read = || {
        let (seq, hash) = text.split_once(':')?;
        let seq = seq.parse().ok().filter(|seq| *seq > 0)?;
        Some(Anchor { seq, hash: Digest::from_hex(hash)? })
    };
    read().ok_or_else(|| "a line's number, a colon and 64 hexadecimal digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages() {
        let time = humantime::parse_rfc3339("2026-11-20T00:00:00Z").unwrap();
        for text in ["2026-11-20", "2026-11-20T00:00:00Z", "2026-11-20 00:00:00"] {
            assert_eq!(since(text), Ok(time), "{text}");
        }
        assert!(since("2h").unwrap() < SystemTime::now());
        for bad in ["", "soon", "2026-13-20", "2026-11-20T10", "10000y", "aaaaaaaaé"] {
            assert!(since(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn anchors_are_a_number_and_a_hash() {
        let hash = Digest::of(b"");
        assert_eq!(anchor(&format!("7:{hash}")), Ok(Anchor { seq: 7, hash }));
        for bad in
            ["", "7", "7:", &format!("0:{hash}"), &format!("-1:{hash}"), &format!("7:{hash}0")]
        {
            assert!(anchor(bad).is_err(), "{bad}");
        }
    }
}
