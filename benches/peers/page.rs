//! The measurement as a page for people, docs/benchmarks.md.

use std::fmt::Write as _;

use crate::machine::Machine;
use crate::measured::Measured;
use crate::report::Judged;

const METHOD: &str = "\
Everything runs on loopback, in one run of `scripts/bench`. The contenders of a row take turns, and a ratio is the
median, over rounds, of the ratio to the first line within a round, so that what else the machine does hits all
of them alike. One spawner starts every program, the local shell included. `+-` is half of the interquartile range. A
time or a ratio whose own interquartile range is more than a tenth of its median is not shown: it says `restless`. A
mark whose figure is that restless is judged only if both of its quartiles, which are then shown, are on one side of the
limit, and otherwise left open. ssh and sshd are Debian's; where it says \"as shipped\" nothing about speed is
configured. The sessions of sshd run as a user whose shell is the same `/bin/sh`, without start-up files.
";

/// The page.
pub(crate) fn page(machine: &Machine, rows: &[Measured]) -> String {
    let mut page = format!(
        "# Measured against its peers\n\nWritten by `scripts/bench --page docs/benchmarks.md`; do not edit.\n\n\
         ## Machine\n\n{machine}.\n\n## Method\n\n{METHOD}\n{}\n\n{}",
        again(rows),
        marks(rows),
    );
    for measured in rows {
        let mut text = Vec::new();
        // A Vec takes everything.
        let _ = measured.print(&mut text);
        let text = String::from_utf8_lossy(&text);
        let (title, rest) = text.trim_start().split_once('\n').unwrap_or((&text, ""));
        // As is writing to a String.
        let _ = write!(page, "\n## {title}\n\n```text\n{rest}```\n");
    }
    page
}

/// How often a short disturbance had to be waited for.
fn again(rows: &[Measured]) -> String {
    let needed = rows.iter().filter(|measured| measured.times > 1).count();
    let lost = rows.iter().filter(|measured| !measured.row.is_reliable()).count();
    format!(
        "A row with an open mark or a restless figure is measured again at the end, and all that it showed before is \
         dropped.\nOf these {} rows {needed} were measured again, and {lost} have something restless all the same.",
        rows.len()
    )
}

/// What the project has set itself, in one table.
fn marks(rows: &[Measured]) -> String {
    let mut table =
        "## Marks\n\nThe project's own, missed or not.\n\n| row | line | mark | figure | |\n|---|---|---|---|---|\n".to_owned();
    for measured in rows {
        let row = &measured.row;
        let name = measured.name;
        for mark in &row.marks {
            let (line, what, limit) = (&row.lines[mark.line].name, mark.what, mark.limit);
            let verdict = match mark.judged() {
                Judged::Kept => "kept",
                Judged::Missed => "**missed**",
                Judged::Open => "open",
            };
            let figure = mark.figure();
            // As is writing to a String.
            let _ = writeln!(table, "| {name} | {line} | {what}: {limit} | {figure} | {verdict} |");
        }
    }
    table
}
