//! The table on a terminal: a row for each host under way, the last that failed, and a row that counts.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::clean::neutral;
use crate::units::counted;

/// Most hosts under way that have rows at once, and most that failed; the others are counted. Less on a
/// terminal that is not high: all of it must fit.
const ROWS_LIMIT: usize = 20;
const FAILED_LIMIT: usize = 8;
/// Lines of a terminal that does not say how high it is.
const HEIGHT: u16 = 24;
/// How often what has elapsed is drawn anew.
const TICK: Duration = Duration::from_millis(500);
/// Most bytes of a line that a row looks at: no terminal is wider.
const LINE_SHOWN: usize = 1024;
/// Most characters of a step's name: a long command is not to hide the last line.
const STEP_SHOWN: usize = 24;

/// The table, if there is a terminal.
#[derive(Default)]
pub(super) struct Live(Option<Table>);

struct Table {
    multi: MultiProgress,
    /// The row that counts.
    total: ProgressBar,
    rows: HashMap<usize, Row>,
    rows_limit: usize,
    /// The rows of the hosts that failed last.
    lost: VecDeque<ProgressBar>,
    lost_limit: usize,
    hosts: usize,
    under_way: usize,
    well: usize,
    failed: usize,
}

/// A host under way: `elapsed  state  host  step: last line`.
struct Row {
    bar: ProgressBar,
    host: String,
    step: String,
}

impl Row {
    fn show(&self, state: &str, line: &str) {
        let Self { host, step, .. } = self;
        let colon = if line.is_empty() { "" } else { ": " };
        self.bar.set_message(format!("{state:<9} {host}  {step}{colon}{line}"));
    }
}

impl Live {
    /// On stderr, which is a terminal.
    pub(super) fn on_terminal(hosts: usize) -> Self {
        let multi = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let total =
            multi.add(ProgressBar::new(hosts as u64).with_style(style("{elapsed:>6}  {wide_msg}")));
        total.enable_steady_tick(TICK);
        let size = rustix::termios::tcgetwinsize(rustix::stdio::stderr());
        let height = size.ok().map(|size| size.ws_row).filter(|rows| *rows > 0);
        let height = usize::from(height.unwrap_or(HEIGHT));
        let mut table = Table {
            multi,
            total,
            rows: HashMap::new(),
            rows_limit: (height / 2).clamp(1, ROWS_LIMIT),
            lost: VecDeque::new(),
            lost_limit: (height / 4).clamp(1, FAILED_LIMIT),
            hosts,
            under_way: 0,
            well: 0,
            failed: 0,
        };
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
        if !table.rows.contains_key(&host) && table.rows.len() < table.rows_limit {
            let bar = table.before_rest(style("{elapsed:>6}  {wide_msg}"));
            bar.enable_steady_tick(TICK);
            table.rows.insert(host, Row { bar, host: name.to_owned(), step: String::new() });
        }
        if let Some(row) = table.rows.get_mut(&host) {
            row.step = match step.char_indices().nth(STEP_SHOWN) {
                Some((end, _)) => format!("{}...", &step[..end]),
                None => step.to_owned(),
            };
            row.show("running", "");
        }
    }

    fn row(&self, host: usize) -> Option<&Row> {
        self.0.as_ref()?.rows.get(&host)
    }

    /// A host has written a line, from which secrets were taken out.
    pub(super) fn line(&self, host: usize, line: &[u8]) {
        if let Some(row) = self.row(host).filter(|_| !line.is_empty()) {
            let plain = neutral(&line[..line.len().min(LINE_SHOWN)]);
            row.show("running", &String::from_utf8_lossy(&plain));
        }
    }

    /// A host's step is tried again.
    pub(super) fn retrying(&self, host: usize, why: &str) {
        if let Some(row) = self.row(host) {
            row.show("retrying", why);
        }
    }

    pub(super) fn host_begun(&mut self) {
        if let Some(table) = &mut self.0 {
            table.under_way += 1;
            table.count();
        }
    }

    /// All of a host's steps have ended; `how` is for one that failed.
    pub(super) fn host_ended(
        &mut self,
        host: usize,
        name: &str,
        how: Option<&str>,
        was_begun: bool,
    ) {
        let Some(table) = &mut self.0 else { return };
        if let Some(row) = table.rows.remove(&host) {
            table.take_away(&row.bar);
        }
        table.under_way -= usize::from(was_begun).min(table.under_way);
        match how {
            None => table.well += 1,
            Some(how) => table.fail(name, how),
        }
        table.count();
    }

    /// Takes the table away: the summary follows.
    pub(super) fn clear(&mut self) {
        if let Some(table) = self.0.take() {
            table.rows.values().for_each(|row| row.bar.finish_and_clear());
            table.lost.iter().chain([&table.total]).for_each(ProgressBar::finish_and_clear);
        }
    }
}

impl Table {
    /// A new row, above those of the hosts that failed.
    fn before_rest(&self, style: ProgressStyle) -> ProgressBar {
        let rest = self.lost.front().unwrap_or(&self.total);
        self.multi.insert_before(rest, ProgressBar::new_spinner().with_style(style))
    }

    fn take_away(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.multi.remove(bar);
    }

    /// Keeps a host that failed in sight.
    fn fail(&mut self, name: &str, how: &str) {
        self.failed += 1;
        if self.lost.len() == self.lost_limit
            && let Some(first) = self.lost.pop_front()
        {
            self.take_away(&first);
        }
        let bar = ProgressBar::new_spinner().with_style(style("        {wide_msg}"));
        let bar = self.multi.insert_before(&self.total, bar);
        bar.set_message(format!("{:<9} {name}  {how}", "failed"));
        self.lost.push_back(bar);
    }

    fn count(&mut self) {
        let Self { hosts, under_way, well, failed, .. } = self;
        let waiting = *hosts - (*well + *failed + *under_way).min(*hosts);
        let text = format!(
            "{}: {well} ok, {failed} failed, {under_way} under way, {waiting} waiting",
            counted(*hosts, "host")
        );
        self.total.set_message(text);
    }
}

/// A row's style; the templates are this file's own.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
