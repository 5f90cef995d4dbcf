//! Takes a batch's events, in a thread that may block: shows, notes, reports.

use std::io;

use super::args::Args;
use super::gather::Gathered;
use super::ledger::{Ledger, Names, of_why};
use super::logs::Logs;
use super::report::{Line, Subject, unix_ms};
use super::rows::row;
use super::show::{Piece, Reader, Show, verdict};
use super::summary;
use crate::cli::reach::Reach;
use crate::client::Error;
use crate::client::batch::{Event, Halter, How, Outcome, Running, StepEnd, Why};
use crate::proto::code::Code;
use crate::units::millis;

/// What watches a batch.
pub(super) struct Watcher {
    ledger: Ledger,
    show: Show,
    reach: Reach,
    subject: Subject,
    /// Why nothing more can be shown.
    broken: Option<io::Error>,
    is_no_program: bool,
}

/// What was seen.
pub(super) struct Watched {
    pub(super) ledger: Ledger,
    pub(super) show: Show,
    /// Why not everything could be shown.
    pub(super) broken: Option<io::Error>,
    /// Whether a host had no program of a step's name.
    pub(super) is_no_program: bool,
}

impl Watcher {
    pub(super) fn new(
        args: &Args,
        gathered: &Gathered,
        reader: Reader,
        logs: Option<Logs>,
    ) -> Self {
        let Gathered { batch, subject, secrets, earlier } = gathered;
        let names = Names::of(batch, secrets);
        let show = Show::new(args, reader, &names, secrets, logs);
        let mut ledger = Ledger::new(names, secrets);
        if let Some(earlier) = earlier {
            ledger.carry_on(batch, earlier);
        }
        let (reach, subject) = (args.reach.clone(), subject.clone());
        Self { ledger, show, reach, subject, broken: None, is_no_program: false }
    }

    /// Sees all of it.
    pub(super) fn watch(mut self, mut running: Running) -> Watched {
        let halter = running.halter();
        let begun = self.show.line(&Line::Batch(self.subject.clone()));
        self.unless_shown(begun, &halter);
        while let Some(event) = running.blocking_next() {
            let shown = self.take(event);
            self.unless_shown(shown, &halter);
        }
        if self.broken.is_none() {
            self.broken = self.show.finish().err();
        }
        self.show.live.clear();
        let Self { ledger, show, broken, is_no_program, .. } = self;
        Watched { ledger, show, broken, is_no_program }
    }

    /// Commands whose output nobody sees are stopped, as a closed pipe stops a local one.
    fn unless_shown(&mut self, shown: io::Result<()>, halter: &Halter) {
        if let Err(e) = shown {
            let is_closed = e.kind() == io::ErrorKind::BrokenPipe;
            let why = if is_closed { Why::OutputClosed } else { Why::OutputFailed };
            halter.halt(why, How::Stop);
            self.broken.get_or_insert(e);
        }
    }

    /// A line for people, above the table.
    fn say(&self, line: &str) {
        self.show.live.around(|| self.reach.say(line));
    }

    fn host(&self, host: usize) -> String {
        self.ledger.names.hosts[host].clone()
    }

    fn take(&mut self, event: Event) -> io::Result<()> {
        let line = match event {
            Event::Output { .. } if self.broken.is_some() => return Ok(()),
            Event::Output { host, step, stream, bytes } => {
                let piece = Piece { host, step, stream, bytes: &bytes };
                return self.show.output(&self.ledger.names, &piece);
            }
            Event::StepEnded { host, step, end } => return self.step_ended(host, step, *end),
            Event::HostBegun { host } => {
                self.show.live.host_begun();
                Line::HostBegun { host: self.host(host) }
            }
            Event::StepBegun { host, step, run, attempt } => {
                let names = &self.ledger.names;
                self.show.live.step(host, &names.hosts[host], &names.steps[step]);
                let sent_ms = unix_ms(self.ledger.asked(host, step, &run));
                Line::StepBegun { host: self.host(host), step: step + 1, run, attempt, sent_ms }
            }
            Event::HostEnded { host } => {
                self.table_row_ended(host);
                if self.broken.is_none() {
                    self.show.host_ended(&self.ledger.names, host)?;
                }
                Line::HostEnded { host: self.host(host) }
            }
            Event::Retrying { host, step, pause, why } => {
                let message = self.ledger.shown(&why);
                self.show.live.retrying(host, &message);
                let host = self.host(host);
                self.say(&format!("{host}: {message}; again in {} ms", pause.as_millis()));
                Line::Retrying { host, step: step + 1, pause_ms: millis(pause), message }
            }
            Event::Halted { why } => {
                self.say(of_why(why));
                Line::Halted { why: why.name().into() }
            }
        };
        self.show.line(&line)
    }

    fn table_row_ended(&mut self, host: usize) {
        if self.show.live.is_on() {
            let (well, how) = summary::how(&self.ledger, host, true);
            let how = (!well).then_some(how.as_str());
            let was_begun = self.ledger.was_begun(host);
            self.show.live.host_ended(host, &self.ledger.names.hosts[host], how, was_begun);
        }
    }

    fn step_ended(&mut self, host: usize, step: usize, end: StepEnd) -> io::Result<()> {
        self.is_no_program |=
            matches!(end.end, Some(Err(Error::Refused { code: Code::ProgramNotFound, .. })));
        self.ledger.note(host, step, end);
        let Some(entry) = &self.ledger.entries[host][step] else { return Ok(()) };
        let verdict = verdict(&self.ledger.names, step, entry);
        let quiet = matches!(entry.outcome, Outcome::Ok | Outcome::NotStarted(_));
        let many = self.ledger.names.steps.len() > 1 || entry.outcome != Outcome::Ok;
        let in_block = many.then_some(verdict.as_str());
        let shown = self.show.step_ended(&self.ledger.names, host, step, in_block);
        if !quiet || self.reach.verbose {
            self.say(&format!("{}: {verdict}", self.ledger.names.hosts[host]));
        }
        let row = Box::new(row(&self.ledger, host, step, entry));
        shown.and(self.show.line(&Line::StepEnded(row)))
    }
}
