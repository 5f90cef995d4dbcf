//! Rows of figures: as text for people, as JSON for comparisons.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::stats::{median, spread};

/// A line with a larger interquartile range over median is not to be relied upon, and not shown; nor is a
/// comparison with it.
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
    /// The line that it is compared with, if there is one.
    pub(crate) to: Option<usize>,
    /// What is compared, in words.
    pub(crate) what: &'static str,
    /// How far the figure may go.
    pub(crate) limit: Limit,
    /// The figure.
    pub(crate) figure: f64,
}

/// How far a figure may go.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Limit {
    fn is_kept(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl Mark {
    /// Whether the figure keeps within the limit.
    pub(crate) fn is_kept(&self) -> bool {
        self.limit.is_kept(self.figure)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "at most {most}"),
            Self::AtLeast(least) => write!(f, "at least {least}"),
        }
    }
}

impl Line {
    /// A line without samples yet.
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), samples: Vec::new(), beside: Vec::new() }
    }

    /// Whether its samples agree enough to be shown.
    fn is_reliable(&self) -> bool {
        self.samples.len() < 2 || spread(&self.samples) <= RELIABLE
    }
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
    /// The ratios of a line to another one, round by round: the machine's moods cancel out.
    pub(crate) fn ratios(&self, line: usize, to: usize) -> Vec<f64> {
        let pairs = self.lines[line].samples.iter().zip(&self.lines[to].samples);
        pairs.map(|(sample, other)| sample / other).collect()
    }

    /// Adds a mark on the median of the ratios of a line to another one, if both are here.
    pub(crate) fn mark_ratio(
        &mut self,
        (line, to): (usize, usize),
        what: &'static str,
        limit: Limit,
    ) {
        if line.max(to) < self.lines.len() {
            let figure = median(&self.ratios(line, to));
            self.marks.push(Mark { line, to: Some(to), what, limit, figure });
        }
    }

    /// Whether every line can be relied upon.
    pub(crate) fn is_reliable(&self) -> bool {
        self.lines.iter().all(Line::is_reliable)
    }

    /// Whether the lines that a mark is about can be relied upon.
    pub(crate) fn measures(&self, mark: &Mark) -> bool {
        [Some(mark.line), mark.to].into_iter().flatten().all(|line| self.lines[line].is_reliable())
    }

    /// How many of its lines' samples there are.
    pub(crate) fn rounds(&self) -> usize {
        self.lines.iter().map(|line| line.samples.len()).max().unwrap_or(0)
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.title)?;
        for (i, line) in self.lines.iter().enumerate() {
            match line.is_reliable() {
                true => self.print_line(out, i, line)?,
                false => print_unreliable(out, line)?,
            }
        }
        for mark in &self.marks {
            let name = &self.lines[mark.line].name;
            let (what, limit, figure) = (mark.what, mark.limit, mark.figure);
            match (self.measures(mark), mark.is_kept()) {
                (false, _) => writeln!(out, "  mark not measured: {name}: {what}, {limit}")?,
                (true, true) => writeln!(out, "  mark kept: {name}: {what} {figure:.2}, {limit}")?,
                (true, false) => {
                    writeln!(out, "  mark MISSED: {name}: {what} {figure:.2}, {limit}")?;
                }
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
    }

    fn print_line(&self, out: &mut impl Write, i: usize, line: &Line) -> io::Result<()> {
        let (unit, samples) = (self.unit, &line.samples);
        write!(out, "  {:<28} {:>9.3} {unit}", line.name, median(samples))?;
        if samples.len() > 1 {
            write!(out, "{:<1$} +-{2:>3.0} %", "", 4 - unit.len().min(4), spread(samples) * 50.0)?;
        }
        if i > 0 && self.lines[0].is_reliable() {
            write!(out, "  {:>6.2} x", median(&self.ratios(i, 0)))?;
        }
        for (name, figure) in &line.beside {
            write!(out, "   {name} {figure:.2}")?;
        }
        writeln!(out)
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
                "reliable": line.is_reliable(),
                "ratio": median(&self.ratios(i, 0)),
                "samples": line.samples,
                "beside": beside,
            })
        };
        let mark = |mark: &Mark| {
            json!({
                "line": self.lines[mark.line].name,
                "what": mark.what,
                "limit": mark.limit.to_string(),
                "figure": mark.figure,
                "measured": self.measures(mark),
                "kept": mark.is_kept(),
            })
        };
        json!({
            "title": self.title,
            "reliable": self.is_reliable(),
            "unit": self.unit,
            "lines": self.lines.iter().enumerate().map(line).collect::<Vec<_>>(),
            "marks": self.marks.iter().map(mark).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

fn print_unreliable(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let (name, spread) = (&line.name, spread(&line.samples) * 100.0);
    writeln!(out, "  {name:<28} not shown: half of the samples span {spread:.0} % of their median")
}
