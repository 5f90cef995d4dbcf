//! A ledger as machines read it: the rows of a report.

use std::time::Duration;

use super::ledger::{Entry, Ledger};
use super::report::{LOST_END, Row, Subject, Summary, unix_ms};
use super::summary::tally;
use crate::client::batch::{Cause, Loss, Outcome};
use crate::units::millis;

/// The row for an entry.
pub(super) fn row(ledger: &Ledger, host: usize, step: usize, entry: &Entry) -> Row {
    let (exit_code, signal) = match entry.outcome {
        Outcome::Ok if entry.attempts > 0 => (Some(0), None),
        Outcome::Failed { code } => (Some(code), None),
        Outcome::Signalled { signal } => (None, Some(signal)),
        _ => (None, None),
    };
    Row {
        host: ledger.names.hosts[host].clone(),
        step: step + 1,
        verdict: entry.outcome.name().into(),
        cause: cause(entry.outcome).map(str::to_owned),
        exit_code,
        signal,
        message: entry.detail.clone(),
        run: entry.run.clone(),
        sent_ms: entry.sent.map(unix_ms),
        attempts: entry.attempts,
        elapsed_ms: millis(entry.elapsed),
        end: entry.verdict.clone(),
    }
}

/// The whole report.
pub(super) fn summary(ledger: &Ledger, subject: Subject, status: u8, elapsed: Duration) -> Summary {
    let mut verdicts = Vec::new();
    for (host, entries) in ledger.entries.iter().enumerate() {
        for (step, entry) in entries.iter().enumerate() {
            verdicts.extend(entry.as_ref().map(|entry| row(ledger, host, step, entry)));
        }
    }
    let counts = tally(ledger);
    Summary {
        status,
        began_ms: unix_ms(ledger.began),
        elapsed_ms: millis(elapsed),
        counts: counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        subject,
        verdicts,
    }
}

/// What a name of a verdict leaves open.
fn cause(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Stopped(Some(why)) | Outcome::NotStarted(Cause::Batch(why)) => Some(why.name()),
        Outcome::NotStarted(Cause::Earlier) => Some("earlier_step"),
        Outcome::Lost(Loss::End) => Some(LOST_END),
        Outcome::Lost(Loss::Output) => Some("output"),
        _ => None,
    }
}
