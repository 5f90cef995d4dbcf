//! Rows of figures: as text for people, as JSON for comparisons.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::stats::{median, spread};

/// With a larger interquartile range over median a line is not to be relied upon.
const RELIABLE: f64 = 0.10;

/// One figure of one contender.
pub(crate) struct Line {
    /// Who.
    pub(crate) name: String,
    /// One sample for each round.
    pub(crate) samples: Vec<f64>,
    /// Other figures, already medians: their name with its unit, and the figure.
    pub(crate) beside: Vec<(&'static str, f64)>,
}

/// A limit that the project has set itself for a line.
pub(crate) struct Mark {
    /// Which line.
    pub(crate) line: usize,
    /// What is compared, in words.
    pub(crate) what: &'static str,
    /// At most.
    pub(crate) limit: f64,
    /// The figure.
    pub(crate) figure: f64,
}

/// Contenders at one task, in turns. The first line is what the others are compared with.
pub(crate) struct Row {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// What to know when reading it.
    pub(crate) notes: Vec<String>,
    pub(crate) lines: Vec<Line>,
    pub(crate) marks: Vec<Mark>,
}

impl Row {
    /// The ratio of a line to the first one, round by round: the machine's moods cancel out.
    pub(crate) fn ratios(&self, line: usize) -> Vec<f64> {
        let pairs = self.lines[line].samples.iter().zip(&self.lines[0].samples);
        pairs.map(|(sample, first)| sample / first).collect()
    }

    /// Adds a mark on a line's median ratio to the first.
    pub(crate) fn mark_ratio(&mut self, line: usize, what: &'static str, limit: f64) {
        let figure = median(&self.ratios(line));
        self.marks.push(Mark { line, what, limit, figure });
    }

    /// Adds a mark on another figure of a line.
    pub(crate) fn mark(&mut self, line: usize, what: &'static str, limit: f64, figure: f64) {
        self.marks.push(Mark { line, what, limit, figure });
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.title)?;
        for (i, line) in self.lines.iter().enumerate() {
            self.print_line(out, i, line)?;
        }
        for mark in &self.marks {
            let verdict = if mark.figure <= mark.limit { "kept" } else { "MISSED" };
            let name = &self.lines[mark.line].name;
            let (what, limit, figure) = (mark.what, mark.limit, mark.figure);
            writeln!(out, "  mark {verdict}: {name}: {what} {figure:.2}, at most {limit}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
    }

    fn print_line(&self, out: &mut impl Write, i: usize, line: &Line) -> io::Result<()> {
        let (unit, samples) = (self.unit, &line.samples);
        write!(out, "  {:<28} {:>9.3} {unit:<4}", line.name, median(samples))?;
        if samples.len() > 1 {
            write!(out, " +-{:>3.0} %", spread(samples) * 50.0)?;
        }
        if i > 0 {
            write!(out, "  {:>6.2} x", median(&self.ratios(i)))?;
        }
        for (name, figure) in &line.beside {
            write!(out, "   {name} {figure:.2}")?;
        }
        let unreliable = samples.len() > 1 && spread(samples) > RELIABLE;
        writeln!(out, "{}", if unreliable { "   UNRELIABLE" } else { "" })
    }

    pub(crate) fn json(&self) -> Value {
        let line = |(i, line): (usize, &Line)| {
            let beside: serde_json::Map<_, _> = line
                .beside
                .iter()
                .map(|(name, figure)| ((*name).to_owned(), json!(figure)))
                .collect();
            json!({
                "name": line.name,
                "median": median(&line.samples),
                "spread": spread(&line.samples),
                "ratio": median(&self.ratios(i)),
                "samples": line.samples,
                "beside": beside,
            })
        };
        let mark = |mark: &Mark| {
            json!({
                "line": self.lines[mark.line].name,
                "what": mark.what,
                "limit": mark.limit,
                "figure": mark.figure,
            })
        };
        json!({
            "title": self.title,
            "unit": self.unit,
            "lines": self.lines.iter().enumerate().map(line).collect::<Vec<_>>(),
            "marks": self.marks.iter().map(mark).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}
