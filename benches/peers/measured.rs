//! A whole measurement: every row, and the restless ones again.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Fallible;
use crate::contenders::Peers;
use crate::report::Row;
use crate::rows::Size;

/// A row that is not as it should be is measured again at the end, while there is time: first for the sake
/// of its marks, then of every figure.
const AGAIN: [fn(&Row) -> bool; 2] = [Row::is_settled, Row::is_reliable];

/// A row, and what it took.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) row: Row,
    /// Of the last time.
    took: Duration,
    /// How often it was measured.
    pub(crate) times: usize,
}

impl Measured {
    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        self.row.print(out)?;
        write!(out, "  took {:.1} s", self.took.as_secs_f64())?;
        let rounds = self.row.rounds();
        if rounds > 1 {
            write!(out, ", {rounds} rounds")?;
        }
        if self.times > 1 {
            write!(out, ", measured {} times: it was restless before", self.times)?;
        }
        writeln!(out)
    }

    pub(crate) fn json(&self) -> Value {
        let mut row = self.row.json();
        row["name"] = json!(self.name);
        row["seconds"] = json!(self.took.as_secs_f64());
        row["measured_times"] = json!(self.times);
        row
    }

    fn again(&mut self, measure: impl Fn() -> Fallible<Row>) -> Fallible<()> {
        let begun = Instant::now();
        self.row = measure()?;
        self.took = begun.elapsed();
        self.times += 1;
        Ok(())
    }
}

/// Measures rows by their names, all of them if there are none; `tell` is told of each.
pub(crate) fn measure(
    size: &Size,
    only: &[String],
    peers: &Peers,
    mut tell: impl FnMut(&Measured) -> Fallible<()>,
) -> Fallible<Vec<Measured>> {
    let begun = Instant::now();
    let mut rows = size.rows();
    let unknown = |only: &&String| !rows.iter().any(|(name, _)| name == only);
    if let Some(unknown) = only.iter().find(unknown) {
        let known: Vec<_> = rows.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no row {unknown}; rows: {}", known.join(", ")).into());
    }
    rows.retain(|(name, _)| only.is_empty() || only.iter().any(|only| only == name));
    let measure = |at: usize| {
        let (name, row) = &rows[at];
        row(peers).map_err(|e| format!("{name}: {e}").into())
    };
    let mut done = Vec::new();
    for (at, (name, _)) in rows.iter().enumerate() {
        let before = Instant::now();
        let row = measure(at)?;
        let measured = Measured { name, row, took: before.elapsed(), times: 1 };
        tell(&measured)?;
        done.push(measured);
    }
    for is_good in AGAIN {
        for (at, measured) in done.iter_mut().enumerate() {
            let has_time = begun.elapsed() + measured.took < size.limit;
            if !is_good(&measured.row) && has_time {
                match measured.again(|| measure(at)) {
                    Ok(()) => tell(measured)?,
                    // What was measured before holds, and so do the other rows.
                    Err(e) => writeln!(io::stderr(), "bench: not measured again: {e}")?,
                }
            }
        }
    }
    Ok(done)
}
