//! The table at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::Ledger;
use crate::client::batch::{Outcome, hosts};
use crate::units::counted;

/// Most hosts of a row that are named; a longer row says how many more there are.
const NAMED_LIMIT: usize = 400;

/// Most rows that give every reason.
const DETAILED_LIMIT: usize = 20;

/// Hosts that ended in the same way.
pub(super) struct Row {
    pub(super) well: bool,
    pub(super) how: String,
    pub(super) hosts: usize,
    /// Their names in short.
    pub(super) named: String,
}

/// A row for each way in which hosts ended, those that ended well first. Where that would be many rows,
/// reasons that name their host are left out: they were told when it ended.
pub(super) fn rows(ledger: &Ledger) -> Vec<Row> {
    let detailed = rows_of(ledger, true);
    if detailed.len() <= DETAILED_LIMIT { detailed } else { rows_of(ledger, false) }
}

fn rows_of(ledger: &Ledger, detailed: bool) -> Vec<Row> {
    let mut rows: BTreeMap<(bool, String), Vec<&str>> = BTreeMap::new();
    for (host, name) in ledger.names.hosts.iter().enumerate() {
        let (well, text) = how(ledger, host, detailed);
        rows.entry((!well, text)).or_default().push(name);
    }
    let row = |((bad, how), hosts): ((bool, String), Vec<&str>)| Row {
        well: !bad,
        how,
        hosts: hosts.len(),
        named: named(&hosts),
    };
    rows.into_iter().map(row).collect()
}

/// The whole table, the worst last, and a line that counts.
pub(super) fn table(ledger: &Ledger, elapsed: Duration) -> String {
    let rows = rows(ledger);
    let failed: usize = rows.iter().filter(|row| !row.well).map(|row| row.hosts).sum();
    let mut text = String::new();
    // Writing to a String cannot fail.
    for Row { hosts, named, how, .. } in &rows {
        let _ = writeln!(text, "{hosts:>6}  {named}: {how}");
    }
    let all = ledger.names.hosts.len();
    let counts = counts(ledger);
    let _ = writeln!(
        text,
        "{} of {} ended well, {failed} did not; {} each: {counts}; {}",
        all - failed,
        counted(all, "host"),
        counted(ledger.names.steps.len(), "step"),
        time(elapsed)
    );
    text
}

/// How a host ended: its first step that did not end well, and what that left out.
pub(super) fn how(ledger: &Ledger, host: usize, detailed: bool) -> (bool, String) {
    let mut bad = Vec::new();
    let many = ledger.names.steps.len() > 1;
    let mut left_out = 0;
    for (step, entry) in ledger.entries[host].iter().enumerate() {
        let name = &ledger.names.steps[step];
        match entry {
            Some(entry) if entry.outcome == Outcome::Ok => {}
            Some(entry) if matches!(entry.outcome, Outcome::NotStarted(_)) && !bad.is_empty() => {
                left_out += 1;
            }
            Some(entry) => {
                let own = matches!(
                    entry.outcome,
                    Outcome::Unreachable
                        | Outcome::Refused
                        | Outcome::Lost(_)
                        | Outcome::Stopped(None)
                );
                let detail = entry.detail.as_deref().filter(|_| detailed || !own);
                let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
                let name = if many { format!(" {name:?}") } else { String::new() };
                bad.push(format!("{}{name}{detail}", entry.outcome.name().replace('_', " ")));
            }
            None => bad.push(format!("lost {name:?}: no verdict")),
        }
    }
    if bad.is_empty() {
        return (true, "ok".into());
    }
    let more = match left_out {
        0 => String::new(),
        1 => "; 1 step not started".into(),
        n => format!("; {n} steps not started"),
    };
    (false, bad.join("; ") + &more)
}

fn named(names: &[&str]) -> String {
    let shown = hosts::fold(&names[..names.len().min(NAMED_LIMIT)]);
    match names.len().saturating_sub(NAMED_LIMIT) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Every kind of verdict that there is, with its number.
pub(super) fn tally(ledger: &Ledger) -> Vec<(&'static str, usize)> {
    let count = |name| ledger.outcomes().filter(|outcome| outcome.name() == name).count();
    Outcome::NAMES.into_iter().map(|name| (name, count(name))).filter(|(_, n)| *n > 0).collect()
}

fn counts(ledger: &Ledger) -> String {
    let counts = tally(ledger).into_iter();
    let words = counts.map(|(name, count)| format!("{count} {}", name.replace('_', " ")));
    words.collect::<Vec<_>>().join(", ")
}

/// A duration for people, in tenths of a second.
pub(super) fn time(elapsed: Duration) -> String {
    let tenths = elapsed.as_millis() / 100;
    let (minutes, rest) = (tenths / 600, tenths % 600);
    let seconds = format!("{}.{} s", rest / 10, rest % 10);
    if minutes == 0 { seconds } else { format!("{minutes} min {seconds}") }
}
