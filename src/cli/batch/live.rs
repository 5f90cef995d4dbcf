//! The table on a terminal: a row for each host under way, and one that counts.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::clean::neutral;

/// Most hosts that have rows at once; the others are counted.
const ROWS_LIMIT: usize = 20;
/// How often what has elapsed is drawn anew.
const TICK: Duration = Duration::from_millis(500);
/// Most bytes of a line that a row looks at: no terminal is wider.
const LINE_SHOWN: usize = 1024;

/// The table, if there is a terminal.
#[derive(Default)]
pub(super) struct Live(Option<Table>);

struct Table {
    multi: MultiProgress,
    /// The row that counts.
    total: ProgressBar,
    rows: HashMap<usize, ProgressBar>,
    hosts: usize,
    under_way: usize,
    well: usize,
    failed: usize,
}

impl Live {
    /// On stderr, which is a terminal.
    pub(super) fn on_terminal(hosts: usize) -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total =
            multi.add(ProgressBar::new(hosts as u64).with_style(style("{elapsed:>6}  {wide_msg}")));
        total.enable_steady_tick(TICK);
        let rows = HashMap::new();
        let mut table = Table { multi, total, rows, hosts, under_way: 0, well: 0, failed: 0 };
        table.count();
        Self(Some(table))
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Prints something else, above the table.
    pub(super) fn around<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(table) => table.multi.suspend(print),
            None => print(),
        }
    }

    /// A host's step begins.
    pub(super) fn step(&mut self, host: usize, name: &str, step: &str) {
        let Some(table) = &mut self.0 else { return };
        if let Some(row) = table.rows.get(&host) {
            row.set_message(step.to_owned());
        } else if table.rows.len() < ROWS_LIMIT {
            let row =
                ProgressBar::new_spinner().with_style(style("{elapsed:>6}  {prefix}  {wide_msg}"));
            let row = table.multi.insert_before(&table.total, row);
            row.set_prefix(name.to_owned());
            row.set_message(step.to_owned());
            row.enable_steady_tick(TICK);
            table.rows.insert(host, row);
        }
    }

    /// A host has written a line, from which secrets were taken out.
    pub(super) fn line(&self, host: usize, line: &[u8]) {
        let row = self.0.as_ref().and_then(|table| table.rows.get(&host));
        if let Some(row) = row.filter(|_| !line.is_empty()) {
            let plain = neutral(&line[..line.len().min(LINE_SHOWN)]);
            row.set_message(String::from_utf8_lossy(&plain).into_owned());
        }
    }

    pub(super) fn host_begun(&mut self) {
        if let Some(table) = &mut self.0 {
            table.under_way += 1;
            table.count();
        }
    }

    pub(super) fn host_ended(&mut self, host: usize, well: bool, was_begun: bool) {
        let Some(table) = &mut self.0 else { return };
        if let Some(row) = table.rows.remove(&host) {
            row.finish_and_clear();
            table.multi.remove(&row);
        }
        table.under_way -= usize::from(was_begun).min(table.under_way);
        *(if well { &mut table.well } else { &mut table.failed }) += 1;
        table.count();
    }

    /// Takes the table away: the summary follows.
    pub(super) fn clear(&mut self) {
        if let Some(table) = self.0.take() {
            table.rows.values().for_each(ProgressBar::finish_and_clear);
            table.total.finish_and_clear();
        }
    }
}

impl Table {
    fn count(&mut self) {
        let Self { hosts, under_way, well, failed, .. } = self;
        let waiting = *hosts - (*well + *failed + *under_way).min(*hosts);
        let text = format!(
            "{hosts} hosts: {well} ok, {failed} failed, {under_way} under way, {waiting} waiting"
        );
        self.total.set_message(text);
    }
}

/// A row's style; the templates are this file's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
