//! What a batch prints while it runs.

use std::io;

use super::args::{Args, Shown};
use super::clean::neutral;
use super::ledger::{Entry, Names};
use super::lines::Lines;
use super::mask::{Masker, Secrets};
use super::report::Line;
use crate::cli::output::write_all;
use crate::client::batch::Outcome;
use crate::proto::header::Stream;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text(Shown),
    Json,
}

/// Shows output, in the way that was asked for.
pub(super) struct Show {
    form: Form,
    /// Whether a terminal or a CI system reads it.
    tame: bool,
    secrets: Secrets,
    /// The streams of the step under way, for each host.
    lanes: Vec<[Option<Lane>; 2]>,
}

/// One stream of one step.
struct Lane {
    stream: Stream,
    masker: Masker,
    lines: Lines,
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

impl Show {
    pub(super) fn new(args: &Args, tame: bool, hosts: usize, secrets: &Secrets) -> Self {
        let lanes = std::iter::repeat_with(|| [None, None]).take(hosts).collect();
        let form = if args.json { Form::Json } else { Form::Text(args.output) };
        Self { form, tame, secrets: secrets.clone(), lanes }
    }

    /// Prints an event, if that is the form.
    pub(super) fn line(&self, line: &Line) -> io::Result<()> {
        match self.form {
            Form::Json => write_all(rustix::stdio::stdout(), &line.bytes()),
            Form::Text(_) => Ok(()),
        }
    }

    /// Takes a piece of output.
    pub(super) fn output(&mut self, names: &Names, piece: &Piece<'_>) -> io::Result<()> {
        if self.form == Form::Text(Shown::None) {
            return Ok(());
        }
        let lane = self.lanes[piece.host][index(piece.stream)].get_or_insert_with(|| Lane {
            stream: piece.stream,
            masker: Masker::new(&self.secrets),
            lines: Lines::default(),
        });
        let (mut masked, mut text) = (Vec::new(), Text::new(self.form, self.tame, names, piece));
        lane.masker.push(piece.bytes, &mut masked);
        lane.lines.push(&masked, |line| text.put(line, true));
        text.write()
    }

    /// The rest of a step's output.
    pub(super) fn step_ended(&mut self, names: &Names, host: usize, step: usize) -> io::Result<()> {
        for at in 0..2 {
            let Some(mut lane) = self.lanes[host][at].take() else { continue };
            let piece = Piece { host, step, stream: lane.stream, bytes: &[] };
            let (mut masked, mut text) =
                (Vec::new(), Text::new(self.form, self.tame, names, &piece));
            lane.masker.finish(&mut masked);
            lane.lines.push(&masked, |line| text.put(line, true));
            lane.lines.finish(|line| text.put(line, false));
            text.write()?;
        }
        Ok(())
    }
}

/// Some bytes of a step's output.
pub(super) struct Piece<'a> {
    pub(super) host: usize,
    pub(super) step: usize,
    pub(super) stream: Stream,
    pub(super) bytes: &'a [u8],
}

/// Lines that are written at once.
struct Text<'a> {
    form: Form,
    tame: bool,
    host: &'a str,
    step: usize,
    stream: Stream,
    prefix: String,
    bytes: Vec<u8>,
}

impl<'a> Text<'a> {
    fn new(form: Form, tame: bool, names: &'a Names, piece: &Piece<'_>) -> Self {
        let host = &names.hosts[piece.host];
        let prefix = prefix(host, piece.stream);
        let (step, stream) = (piece.step, piece.stream);
        Self { form, tame, host, step, stream, prefix, bytes: Vec::new() }
    }

    /// Adds a line; one without an end gets one, but in JSON, which says exactly what came.
    fn put(&mut self, line: &[u8], ended: bool) {
        if self.form == Form::Json {
            self.bytes.extend_from_slice(line);
            self.bytes.extend(ended.then_some(b'\n'));
            return;
        }
        self.bytes.extend_from_slice(self.prefix.as_bytes());
        if self.tame {
            self.bytes.extend(neutral(line));
        } else {
            self.bytes.extend_from_slice(line);
        }
        self.bytes.push(b'\n');
    }

    fn write(self) -> io::Result<()> {
        match (self.form, self.stream) {
            _ if self.bytes.is_empty() => Ok(()),
            (Form::Json, stream) => {
                let line = Line::output(self.host, self.step, stream, self.bytes);
                write_all(rustix::stdio::stdout(), &line.bytes())
            }
            (_, Stream::Stderr) => write_all(rustix::stdio::stderr(), &self.bytes),
            (_, Stream::Stdout | Stream::Both) => write_all(rustix::stdio::stdout(), &self.bytes),
        }
    }
}

/// A line for people about a verdict that is not well, or about any if `all` are wanted.
pub(super) fn line(
    names: &Names,
    host: usize,
    step: usize,
    entry: &Entry,
    all: bool,
) -> Option<String> {
    let is_news = match entry.outcome {
        Outcome::Ok | Outcome::NotStarted(_) => all,
        _ => true,
    };
    let outcome = entry.outcome.name().replace('_', " ");
    let detail = entry.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let step = if names.steps.len() > 1 {
        format!("step {:?} ", names.steps[step])
    } else {
        String::new()
    };
    is_news.then(|| format!("{}: {step}{outcome}{detail}", names.hosts[host]))
}

fn prefix(host: &str, stream: Stream) -> String {
    let stream = if stream == Stream::Stderr { "err" } else { "out" };
    format!("{host} {stream}: ")
}
