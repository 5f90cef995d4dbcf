//! What is known of each step of each host, for the summary and the reports.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::mask::Secrets;
use super::report::{Row, from_unix_ms};
use super::resume::Earlier;
use crate::cli::status::{Asked, of_end};
use crate::client::Error;
use crate::client::batch::{Batch, Before, Cause, Loss, Outcome, StepEnd, Why, worst, worst_of};
use crate::proto::verdict::{StopBy, Verdict};

/// Most characters of what a server or a command says of an end: a report is not to be as long as a host likes.
const SAID_LIMIT: usize = 4096;

/// Names of hosts and steps.
pub(super) struct Names {
    pub(super) hosts: Vec<String>,
    pub(super) steps: Vec<String>,
}

impl Names {
    pub(super) fn of(batch: &Batch, secrets: &Secrets) -> Self {
        let hosts = batch.hosts.iter().map(|host| host.name.clone()).collect();
        let steps = batch.steps.iter().map(|step| shown(&secrets.mask(&step.name))).collect();
        Self { hosts, steps }
    }
}

/// A name without what a terminal obeys.
pub(super) fn shown(name: &str) -> String {
    String::from_utf8_lossy(&crate::cli::clean::neutral(name.as_bytes())).into_owned()
}

/// How one step of one host ended.
pub(super) struct Entry {
    pub(super) outcome: Outcome,
    /// What there is to say about it, beyond the outcome's name.
    pub(super) detail: Option<String>,
    pub(super) run: Option<String>,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    /// When its run was asked for.
    pub(super) sent: Option<SystemTime>,
    pub(super) verdict: Option<Verdict>,
}

impl Entry {
    /// Of a step that ended well in an earlier batch.
    fn of(row: &Row) -> Self {
        Self {
            outcome: Outcome::Ok,
            detail: None,
            run: row.run.clone(),
            attempts: row.attempts,
            elapsed: Duration::from_millis(row.elapsed_ms),
            sent: row.sent_ms.and_then(from_unix_ms),
            verdict: row.end.clone(),
        }
    }
}

/// All of them.
pub(super) struct Ledger {
    pub(super) names: Names,
    /// By host, then by step.
    pub(super) entries: Vec<Vec<Option<Entry>>>,
    pub(super) began: SystemTime,
    /// The run that was asked for last, by host and step, and when.
    sent: HashMap<(usize, usize), (String, SystemTime)>,
    secrets: Secrets,
}

impl Ledger {
    pub(super) fn new(names: Names, secrets: &Secrets) -> Self {
        let row = || std::iter::repeat_with(|| None).take(names.steps.len()).collect();
        let entries = std::iter::repeat_with(row).take(names.hosts.len()).collect();
        Self {
            names,
            entries,
            began: SystemTime::now(),
            sent: HashMap::new(),
            secrets: secrets.clone(),
        }
    }

    /// Takes over from an earlier batch when its runs were sent, and what ended well there.
    pub(super) fn carry_on(&mut self, batch: &Batch, earlier: &Earlier) {
        for (at, host) in batch.hosts.iter().enumerate() {
            for (step, before) in host.before.iter().enumerate() {
                match before {
                    Before::Nothing => {}
                    Before::Ok => {
                        self.entries[at][step] = earlier.row(&host.name, step + 1).map(Entry::of);
                    }
                    Before::Asked { run, first_sent } => {
                        self.sent.insert((at, step), (run.clone(), *first_sent));
                    }
                }
            }
        }
    }

    /// Notes that a run is asked for; when. The same run keeps its first time.
    pub(super) fn asked(&mut self, host: usize, step: usize, run: &str) -> SystemTime {
        match self.sent.get(&(host, step)) {
            Some((before, at)) if before == run => *at,
            _ => {
                let now = SystemTime::now();
                self.sent.insert((host, step), (run.to_owned(), now));
                now
            }
        }
    }

    /// A text of a command's or a server's, as people may see it.
    pub(super) fn shown(&self, text: &str) -> String {
        let text = shown(&self.secrets.mask(text));
        match text.char_indices().nth(SAID_LIMIT) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }

    /// Notes a verdict. That of a step which an earlier batch saw end well is known already.
    pub(super) fn note(&mut self, host: usize, step: usize, end: StepEnd) {
        if end.is_from_before() && self.entries[host][step].is_some() {
            return;
        }
        let detail = detail(&end).map(|text| self.shown(&text));
        let verdict = match end.end {
            Some(Ok(verdict)) => Some(verdict),
            Some(Err(Error::Output { verdict, .. })) => verdict.map(|verdict| *verdict),
            _ => None,
        };
        let sent = self.sent.remove(&(host, step));
        let is_lost = matches!(end.outcome, Outcome::Lost(_));
        // Who lost a run may have lost its id too. It is in the books.
        let run = end.run.or_else(|| sent.as_ref().filter(|_| is_lost).map(|sent| sent.0.clone()));
        let sent = sent.filter(|sent| Some(&sent.0) == run.as_ref());
        self.entries[host][step] = Some(Entry {
            outcome: end.outcome,
            detail,
            run,
            attempts: end.attempts,
            elapsed: end.elapsed,
            sent: sent.map(|(_, at)| at),
            verdict,
        });
    }

    /// Every outcome.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        self.entries.iter().flatten().map(outcome)
    }

    /// The worst outcome of a host's steps.
    pub(super) fn worst_of(&self, host: usize) -> Outcome {
        worst_of(self.entries[host].iter().map(outcome)).unwrap_or(Outcome::Lost(Loss::End))
    }

    /// Whether any of a host's steps was asked for.
    pub(super) fn was_begun(&self, host: usize) -> bool {
        self.entries[host].iter().flatten().any(|entry| entry.attempts > 0)
    }

    /// The exit status, if something else went wrong too.
    pub(super) fn status_with(&self, more: Outcome) -> u8 {
        worst(self.outcomes().chain([more]))
    }

    pub(super) fn status(&self) -> u8 {
        worst(self.outcomes())
    }
}

/// A verdict that never came would be a fault of this program, and is told as what it is: nobody knows.
fn outcome(entry: &Option<Entry>) -> Outcome {
    entry.as_ref().map_or(Outcome::Lost(Loss::End), |entry| entry.outcome)
}

/// One line about an end that is not well.
fn detail(end: &StepEnd) -> Option<String> {
    match end.outcome {
        Outcome::Ok => None,
        Outcome::Failed { code } => Some(format!("exit {code}")),
        Outcome::NotStarted(Cause::Earlier) => Some("an earlier step did not end well".into()),
        Outcome::Stopped(Some(why)) | Outcome::NotStarted(Cause::Batch(why)) => {
            Some(of_why(why).into())
        }
        Outcome::Deadline if !is_its_own(end) => Some(of_why(Why::Deadline).into()),
        Outcome::Lost(Loss::End) if end.end.is_none() && end.run.is_some() => {
            Some("asked for by an earlier batch, and nobody knows how it ended".into())
        }
        _ => {
            let answer = of_end(end.end.as_ref()?, Asked::Nothing);
            let line = answer.line?;
            Some(line.strip_prefix("not started: ").unwrap_or(&line).to_owned())
        }
    }
}

/// Whether the deadline that ended it was the step's, and not the batch's.
fn is_its_own(end: &StepEnd) -> bool {
    let Some(Ok(Verdict { stopped: Some(stopped), .. })) = &end.end else { return false };
    stopped.by == StopBy::Deadline
}

/// Why the batch ended early, for people.
pub(super) fn of_why(why: Why) -> &'static str {
    match why {
        Why::FailFast => "the batch ended at its first failure (--fail-fast)",
        Why::TooManyFailures => "too many hosts failed (--max-failures)",
        Why::Deadline => "the batch met its deadline (--deadline)",
        Why::Interrupted => "interrupted",
        Why::Terminated => "terminated",
        Why::OutputClosed => "the output was closed",
        Why::OutputFailed => "the output cannot be written",
    }
}
