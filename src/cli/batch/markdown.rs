//! The summary that GitHub shows on a job's page: Markdown, appended to the file that
//! `GITHUB_STEP_SUMMARY` names.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use super::ledger::Ledger;
use super::summary::{Row, rows, time};
use crate::cli::clean::escaped;
use crate::sys::kept::is_kept;

/// Most bytes of a summary; GitHub shows none above 1 MiB.
const LIMIT: usize = 900 * 1024;

/// Appends the summary.
pub(super) fn append(path: &Path, ledger: &Ledger, elapsed: Duration) -> std::io::Result<()> {
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(text(ledger, elapsed).as_bytes())?;
    is_kept(&file)
}

fn text(ledger: &Ledger, elapsed: Duration) -> String {
    let rows = rows(ledger);
    let failed: usize = rows.iter().filter(|row| !row.well).map(|row| row.hosts).sum();
    let all = ledger.names.hosts.len();
    let verdict = if failed == 0 { "ended well" } else { "did not all end well" };
    let mut text = format!("### rexec batch: {all} hosts {verdict}\n\n");
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} ok, {failed} not, in {}\n", all - failed, time(elapsed));
    text.push_str("| hosts | | how they ended |\n|---:|---|---|\n");
    // The worst first: they are what is looked for.
    for (at, Row { hosts, named, how, .. }) in rows.iter().rev().enumerate() {
        let row = format!("| {hosts} | {} | {} |\n", cell(named), cell(how));
        if text.len() + row.len() > LIMIT {
            let _ = writeln!(text, "\n{} more rows are in the log.", rows.len() - at);
            break;
        }
        text.push_str(&row);
    }
    text.push('\n');
    text
}

/// What Markdown, and GitHub in it, takes for more than text.
const MARKUP: [char; 12] = ['|', '`', '*', '_', '[', ']', '\\', '!', '#', '~', '@', ':'];

/// A text that Markdown and HTML take for nothing else.
fn cell(text: &str) -> String {
    escaped(&text.replace(['\n', '\r'], " "), &MARKUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_cell_is_markup() {
        let plain = cell("a|b`c`<script>[x](y)\n@me");
        assert!(!plain.contains(['|', '`', '<', '[', '\n', '@']), "{plain}");
    }
}
