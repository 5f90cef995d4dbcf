//! The measurement as a page for people, docs/benchmarks.md.

use std::fmt::Write as _;

use crate::report::Row;

const METHOD: &str = "\
Everything runs on loopback, in one run of `scripts/bench`. The contenders of a row take turns, and a ratio is the
median, over rounds, of the ratio to the first line within a round, so that what else the machine does hits all
of them alike. One spawner starts every program, the local shell included. A line whose interquartile range is
more than a tenth of its median is not shown. `+-` is half of that range. ssh and sshd are Debian's; where it says
\"as shipped\" nothing about speed is configured. The sessions of sshd run as a user whose shell is the same
`/bin/sh`, without start-up files.
";

/// The page.
pub(crate) fn page(machine: &str, rows: &[Row]) -> String {
    let mut page = format!(
        "# Measured against its peers\n\nWritten by `scripts/bench --page docs/benchmarks.md`; do not edit.\n\n\
         {machine}\n\n{METHOD}"
    );
    for row in rows {
        let mut text = Vec::new();
        // A Vec takes everything.
        let _ = row.print(&mut text);
        let text = String::from_utf8_lossy(&text);
        let (title, rest) = text.trim_start().split_once('\n').unwrap_or((&text, ""));
        // As is writing to a String.
        let _ = write!(page, "\n## {title}\n\n```text\n{rest}```\n");
    }
    page
}
