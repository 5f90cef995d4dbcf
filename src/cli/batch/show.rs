//! What a batch prints while it runs.

use std::io::{self, IsTerminal as _};

use super::args::{Args, Shown};
use super::blocks::{Blocks, Groups};
use super::html::Kept;
use super::ledger::{Entry, Names};
use super::lines::Lines;
use super::live::Live;
use super::logs::{Log, Logs};
use super::mask::{Masker, Secrets};
use super::report::Line;
use crate::cli::clean::{in_ci, neutral};
use crate::cli::is_dumb;
use crate::cli::output::{is_given_kept, write_all};
use crate::cli::visible::json_for_stdout;
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
    /// What is shown host by host.
    blocks: Option<Blocks>,
    logs: Option<Logs>,
    pub(super) live: Live,
    /// Output for the page, if one is wanted.
    pub(super) page: Option<Kept>,
}

/// Who reads what is printed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader {
    /// A terminal or a CI system, which obey some of what they read.
    pub(super) tame: bool,
    /// Stdout and stderr are a terminal, and no CI system is known to be behind it.
    pub(super) terminal: bool,
}

impl Reader {
    /// As this process was started.
    pub(super) fn detect() -> Self {
        let (stdout, stderr) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let tame = in_ci() || stdout || stderr;
        Self { tame, terminal: stdout && stderr && !in_ci() && !is_dumb() }
    }
}

/// One stream of one step.
struct Lane {
    stream: Stream,
    masker: Masker,
    lines: Lines,
    log: Option<Log>,
}

fn index(stream: Stream) -> usize {
    usize::from(stream == Stream::Stderr)
}

impl Show {
    pub(super) fn new(
        args: &Args,
        reader: Reader,
        names: &Names,
        secrets: &Secrets,
        logs: Option<Logs>,
    ) -> Self {
        let hosts = names.hosts.len();
        let lanes = std::iter::repeat_with(|| [None, None]).take(hosts).collect();
        let live = !args.json && !args.reach.quiet && reader.terminal;
        let default = if live { Shown::Grouped } else { Shown::Prefix };
        let shown = args.output.unwrap_or(default);
        let form = if args.json { Form::Json } else { Form::Text(shown) };
        let later = matches!(form, Form::Text(Shown::Grouped | Shown::Fold));
        let blocks = later.then(|| Blocks::new(Groups::detect(), shown == Shown::Fold));
        let live = if live { Live::on_terminal(hosts) } else { Live::default() };
        let tame = reader.tame;
        let page = args.html.is_some().then(|| Kept::new(names.steps.len()));
        Self { form, tame, secrets: secrets.clone(), lanes, blocks, logs, live, page }
    }

    /// Prints an event, if that is the form.
    pub(super) fn line(&self, line: &Line) -> io::Result<()> {
        match self.form {
            Form::Json => print_json(line),
            Form::Text(_) => Ok(()),
        }
    }

    /// Whether nobody wants the output.
    fn is_unseen(&self) -> bool {
        let unwanted = self.logs.is_none() && self.page.is_none() && !self.live.is_on();
        self.form == Form::Text(Shown::None) && unwanted
    }

    /// Takes a piece of output.
    pub(super) fn output(&mut self, names: &Names, piece: &Piece<'_>) -> io::Result<()> {
        if self.is_unseen() {
            return Ok(());
        }
        let host = &names.hosts[piece.host];
        let place = &mut self.lanes[piece.host][index(piece.stream)];
        let lane = match place {
            Some(lane) => lane,
            None => place.insert(Lane {
                stream: piece.stream,
                masker: Masker::new(&self.secrets),
                lines: Lines::default(),
                log: match &self.logs {
                    Some(logs) => Some(logs.open(host, piece.step, piece.stream)?),
                    None => None,
                },
            }),
        };
        let mut masked = Vec::new();
        lane.masker.push(piece.bytes, &mut masked);
        let raw = self.logs.as_ref().is_some_and(|logs| logs.raw);
        if let Some(log) = &mut lane.log {
            log.write(if raw { piece.bytes } else { &masked })?;
        }
        let mut text = Text::new(self.form, self.tame, names, piece);
        let mut kept = Ok(());
        lane.lines.push(&masked, |line, ended| {
            self.live.line(piece.host, line);
            keep(&mut self.page, &mut kept, piece, line);
            text.put(line, ended);
        });
        kept?;
        text.write(self.blocks.as_mut(), &self.live)
    }

    /// The rest of a step's output; `verdict` is what there is to say in a host's block.
    pub(super) fn step_ended(
        &mut self,
        names: &Names,
        host: usize,
        step: usize,
        verdict: Option<&str>,
    ) -> io::Result<()> {
        for at in 0..2 {
            let Some(mut lane) = self.lanes[host][at].take() else { continue };
            let mut masked = Vec::new();
            lane.masker.finish(&mut masked);
            if let (Some(log), Some(Logs { raw, .. })) = (&mut lane.log, &self.logs) {
                log.write(if *raw { b"" } else { &masked })?;
                log.is_kept()?;
            }
            let piece = Piece { host, step, stream: lane.stream, bytes: &[] };
            let mut text = Text::new(self.form, self.tame, names, &piece);
            let mut kept = Ok(());
            lane.lines.push(&masked, |line, ended| {
                keep(&mut self.page, &mut kept, &piece, line);
                text.put(line, ended);
            });
            lane.lines.finish(|line| {
                keep(&mut self.page, &mut kept, &piece, line);
                text.put(line, false);
            });
            kept?;
            text.write(self.blocks.as_mut(), &self.live)?;
        }
        match (&mut self.blocks, verdict) {
            (Some(blocks), Some(verdict)) => blocks.remark(host, verdict),
            _ => Ok(()),
        }
    }

    /// All steps of a host have ended.
    pub(super) fn host_ended(&mut self, names: &Names, host: usize) -> io::Result<()> {
        match &mut self.blocks {
            Some(blocks) => blocks.host_ended(host, &names.hosts[host], &self.live),
            None => Ok(()),
        }
    }

    /// All hosts have ended.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.live.clear();
        self.blocks.as_mut().map_or(Ok(()), Blocks::finish)?;
        is_given_kept()
    }
}

fn print_json(line: &Line) -> io::Result<()> {
    write_all(rustix::stdio::stdout(), json_for_stdout(line.text()).as_bytes())
}

/// Keeps a line for the page; what went wrong first stays in `kept`.
fn keep(page: &mut Option<Kept>, kept: &mut io::Result<()>, piece: &Piece<'_>, line: &[u8]) {
    if let (Some(page), Ok(())) = (page, &kept) {
        *kept = page.line(piece.host, piece.step, line);
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
    at: usize,
    host: &'a str,
    step: usize,
    stream: Stream,
    prefix: String,
    bytes: Vec<u8>,
}

impl<'a> Text<'a> {
    fn new(form: Form, tame: bool, names: &'a Names, piece: &Piece<'_>) -> Self {
        let host = &names.hosts[piece.host];
        let prefix = match form {
            Form::Text(Shown::Prefix) => prefix(host, piece.stream),
            _ if piece.stream == Stream::Stderr => "err: ".into(),
            _ => String::new(),
        };
        let (step, stream) = (piece.step, piece.stream);
        Self { form, tame, at: piece.host, host, step, stream, prefix, bytes: Vec::new() }
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

    fn write(self, blocks: Option<&mut Blocks>, live: &Live) -> io::Result<()> {
        match (self.form, self.stream) {
            _ if self.bytes.is_empty() => Ok(()),
            (Form::Json, stream) => {
                print_json(&Line::output(self.host, self.step, stream, self.bytes))
            }
            (Form::Text(Shown::None), _) => Ok(()),
            (Form::Text(Shown::Grouped | Shown::Fold), _) => {
                blocks.map_or(Ok(()), |blocks| blocks.push(self.at, &self.bytes))
            }
            (_, Stream::Stderr) => live.around(|| write_all(rustix::stdio::stderr(), &self.bytes)),
            (_, Stream::Stdout | Stream::Both) => {
                live.around(|| write_all(rustix::stdio::stdout(), &self.bytes))
            }
        }
    }
}

/// A line for people about a verdict: which step, and how it ended.
pub(super) fn verdict(names: &Names, step: usize, entry: &Entry) -> String {
    let outcome = entry.outcome.name().replace('_', " ");
    let detail = entry.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    match names.steps.len() {
        1 => format!("{outcome}{detail}"),
        _ => format!("step {:?} {outcome}{detail}", names.steps[step]),
    }
}

fn prefix(host: &str, stream: Stream) -> String {
    let stream = if stream == Stream::Stderr { "err" } else { "out" };
    format!("{host} {stream}: ")
}
