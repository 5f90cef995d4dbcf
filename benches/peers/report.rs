//! Rows of figures: as text for people, as JSON for comparisons.

use std::fmt;
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::stats::{median, quantile, spread};

/// A figure whose samples have a larger interquartile range over median is not to be relied upon, and not
/// shown. That of a ratio is its own: within a round the machine's moods cancel out.
const RELIABLE: f64 = 0.10;

fn is_reliable(samples: &[f64]) -> bool {
    samples.len() < 2 || spread(samples) <= RELIABLE
}

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
    /// How far the figure may go.
    pub(crate) limit: Limit,
    /// One for each round.
    pub(crate) figures: Vec<f64>,
}

/// How a mark came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    Kept,
    Missed,
    /// The samples are too far apart to tell.
    Open,
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
    /// By the median where the samples agree, else by the quartiles if both are on one side of the limit.
    pub(crate) fn judged(&self) -> Judged {
        let parts: &[f64] = if is_reliable(&self.figures) { &[0.5] } else { &[0.25, 0.75] };
        let kept = |part: &&f64| self.limit.is_kept(quantile(&self.figures, **part));
        match parts.iter().filter(kept).count() {
            0 => Judged::Missed,
            count if count == parts.len() => Judged::Kept,
            _ => Judged::Open,
        }
    }

    /// The median where the samples agree, else the quartiles.
    pub(crate) fn figure(&self) -> String {
        let at = |part| self.told(quantile(&self.figures, part));
        if is_reliable(&self.figures) { at(0.5) } else { format!("{}–{}", at(0.25), at(0.75)) }
    }

    /// Rounded, but never to the limit's other side.
    fn told(&self, figure: f64) -> String {
        let text = short(figure);
        let is_kept = |told: f64| self.limit.is_kept(told) == self.limit.is_kept(figure);
        if text.parse().is_ok_and(is_kept) { text } else { format!("{figure:.4}") }
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
            let figures = self.ratios(line, to);
            self.marks.push(Mark { line, what, limit, figures });
        }
    }

    /// Whether every figure is shown.
    pub(crate) fn is_reliable(&self) -> bool {
        let lines = 0..self.lines.len();
        let is_shown = |line: usize| {
            is_reliable(&self.lines[line].samples) && is_reliable(&self.ratios(line, 0))
        };
        self.is_settled() && lines.into_iter().all(is_shown)
    }

    /// Whether every mark is judged.
    pub(crate) fn is_settled(&self) -> bool {
        self.marks.iter().all(|mark| mark.judged() != Judged::Open)
    }

    /// How many of its lines' samples there are.
    pub(crate) fn rounds(&self) -> usize {
        self.lines.iter().map(|line| line.samples.len()).max().unwrap_or(0)
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\n{}", self.title)?;
        for (i, line) in self.lines.iter().enumerate() {
            writeln!(out, "  {}", self.line(i, line).trim_end())?;
        }
        for mark in &self.marks {
            let (name, figure) = (&self.lines[mark.line].name, mark.figure());
            let judged = match mark.judged() {
                Judged::Kept => "kept",
                Judged::Missed => "MISSED",
                Judged::Open => "open",
            };
            writeln!(out, "  mark {judged}: {name}: {} {figure}, {}", mark.what, mark.limit)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(out, "  note: {note}"))
    }

    fn line(&self, i: usize, line: &Line) -> String {
        let (unit, samples) = (self.unit, &line.samples);
        let (time, around_it) = (shown(samples, 3), around(samples));
        let mut text = format!("{:<28} {time:>9} {unit:<4}{around_it}", line.name);
        if i > 0 {
            let ratios = self.ratios(i, 0);
            text += &format!("  {:>8} x{}", shown(&ratios, 2), around(&ratios));
        }
        line.beside.iter().for_each(|(name, figure)| text += &format!("   {name} {figure:.2}"));
        text
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
                "ratio": median(&self.ratios(i, 0)),
                "ratio_spread": spread(&self.ratios(i, 0)),
                "samples": line.samples,
                "beside": beside,
            })
        };
        let mark = |mark: &Mark| {
            json!({
                "line": self.lines[mark.line].name,
                "what": mark.what,
                "limit": mark.limit.to_string(),
                "figure": median(&mark.figures),
                "spread": spread(&mark.figures),
                "judged": format!("{:?}", mark.judged()).to_lowercase(),
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

/// The median of samples that agree.
fn shown(samples: &[f64], digits: usize) -> String {
    match is_reliable(samples) {
        true => format!("{:.digits$}", median(samples)),
        false => "restless".to_owned(),
    }
}

/// Half of the interquartile range.
fn around(samples: &[f64]) -> String {
    match samples.len() {
        0 | 1 => String::new(),
        _ => format!(" +-{:>3.0} %", spread(samples) * 50.0),
    }
}

/// A figure as it is quoted elsewhere.
fn short(figure: f64) -> String {
    let digits = if figure < 10.0 { 2 } else { usize::from(figure < 100.0) };
    format!("{figure:.digits$}")
}
