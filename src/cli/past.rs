//! Runs of the past as a table for people.

use std::io;
use std::time::Duration;

use super::output::write_all;
use super::status::signal_name;
use super::visible::visible;
use crate::proto::verdict::{End, StopBy, Verdict};
use crate::runs::journal::history::{Outcome, Past};

/// Most characters of a cell.
const CELL_LIMIT: usize = 120;
/// So many rows are aligned together: a journal may have millions.
const BATCH: usize = 1024;
/// Characters of a random id.
const RANDOM_ID: usize = 32;
/// The last so many of them tell it from others.
const SHORT_ID: usize = 8;
const COLUMNS: usize = 6;

type Row = [String; COLUMNS];

/// Rows that are waiting to be printed. Columns only get wider.
pub(super) struct Table {
    widths: [usize; COLUMNS],
    rows: Vec<Row>,
}

impl Default for Table {
    fn default() -> Self {
        let mut table = Self { widths: [0; COLUMNS], rows: Vec::new() };
        table.add(["STARTED", "TOOK", "RUN", "WHO", "OUTCOME", "COMMAND"].map(String::from));
        table
    }
}

impl Table {
    /// Adds a run, and prints what has come together.
    pub(super) fn push(&mut self, past: &Past) -> io::Result<()> {
        self.add(row(past));
        if self.rows.len() < BATCH { Ok(()) } else { self.flush() }
    }

    /// Prints what is left.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let rows = std::mem::take(&mut self.rows);
        let text: String = rows.iter().map(|row| self.line(row)).collect();
        write_all(rustix::stdio::stdout(), text.as_bytes())
    }

    fn add(&mut self, row: Row) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.rows.push(row);
    }

    fn line(&self, row: &Row) -> String {
        let cells = row.iter().zip(self.widths);
        let line: String = cells.map(|(cell, width)| format!("{cell:width$}  ")).collect();
        format!("{}\n", line.trim_end())
    }
}

fn row(past: &Past) -> Row {
    let took = match &past.outcome {
        Outcome::Ended(verdict) => took(verdict.elapsed_ms),
        _ => "-".into(),
    };
    let command = past.command.as_deref().unwrap_or("-");
    [&past.time, &took, short(&past.run), &past.identity, &outcome(&past.outcome), command]
        .map(clean)
}

/// The end of an id that was made of random digits; all of one that somebody chose.
pub(super) fn short(run: &str) -> &str {
    let is_random = run.len() == RANDOM_ID && run.bytes().all(|b| b.is_ascii_hexdigit());
    if is_random { &run[RANDOM_ID - SHORT_ID..] } else { run }
}

/// `4ms`, `2s500ms`, `1h2m3s`: from 10 s on in whole seconds.
fn took(ms: u64) -> String {
    let exact = Duration::from_millis(ms);
    let shown = if ms < 10_000 { exact } else { Duration::from_secs(exact.as_secs()) };
    humantime::format_duration(shown).to_string().replace(' ', "")
}

fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Accepted => "accepted".into(),
        Outcome::Running => "running".into(),
        Outcome::Ended(verdict) => format!("{}{}", ended(verdict), left(verdict.left_running)),
        Outcome::NotStarted(code) => format!("not started: {code}"),
        Outcome::Lost { left_running } => format!("lost{}", left(*left_running)),
        Outcome::Buried => "given up".into(),
    }
}

fn ended(verdict: &Verdict) -> String {
    if let Some(stopped) = verdict.stopped {
        let by = match stopped.by {
            StopBy::Deadline => "deadline",
            StopBy::Client => "client",
            StopBy::ClientLost => "client lost",
            StopBy::Operator => "operator",
            StopBy::Policy => "policy",
            StopBy::Shutdown => "shutdown",
            StopBy::Unknown => "unknown",
        };
        return format!("stopped: {by}");
    }
    match verdict.end {
        Some(End::Exited { code }) => format!("exited {code}"),
        Some(End::Signaled { signal, .. }) => format!("signal {}", signal_name(signal)),
        None => "end unknown".into(),
    }
}

fn left(count: u32) -> String {
    if count == 0 { String::new() } else { format!(", {count} left running") }
}

/// A peer's text, shortened, with what a terminal obeys written out.
fn clean(text: &str) -> String {
    match text.char_indices().nth(CELL_LIMIT) {
        Some((end, _)) => format!("{}…", visible(&text[..end])),
        None => visible(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_shortened_and_obeyed_by_no_terminal() {
        assert_eq!(clean("a\tb\nc\u{1b}[2J\u{202e}é"), "a\\tb\\nc\\u{1b}[2J\\u{202e}é");
        assert_eq!(clean(&"x".repeat(CELL_LIMIT)), "x".repeat(CELL_LIMIT));
        assert_eq!(clean(&"x".repeat(CELL_LIMIT + 1)), format!("{}…", "x".repeat(CELL_LIMIT)));
    }

    #[test]
    fn times_and_ids_are_short() {
        for (ms, text) in [(0, "0s"), (4, "4ms"), (2500, "2s500ms"), (3_723_456, "1h2m3s")] {
            assert_eq!(took(ms), text);
        }
        assert_eq!(short("0123456789abcdef0123456789abcdef"), "89abcdef");
        assert_eq!(short("Deploy-2"), "Deploy-2");
        assert_eq!(short("é".repeat(16).as_str()), "é".repeat(16));
    }
}
