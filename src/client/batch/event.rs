//! What happens in a batch.

use std::time::Duration;

use bytes::Bytes;

use super::{Outcome, Why};
use crate::client::Error;
use crate::proto::header::Stream;
use crate::proto::verdict::Verdict;

/// Something that happened. Hosts and steps are named by their place in the batch, from 0.
///
/// For each host and step there is exactly one [`Event::StepEnded`], whatever happens, and no
/// [`Event::Output`] behind it.
#[derive(Debug)]
pub enum Event {
    /// A host's first step is about to be asked for.
    HostBegun {
        /// The host.
        host: usize,
    },
    /// A step is about to be asked for: the request leaves when the caller comes for the next event. Whoever
    /// writes events down knows every id before there can be a run of it.
    StepBegun {
        /// The host.
        host: usize,
        /// The step.
        step: usize,
        /// The run's id.
        run: String,
        /// From 1; higher when it is tried again.
        attempt: u32,
    },
    /// A step is tried again after a pause.
    Retrying {
        /// The host.
        host: usize,
        /// The step.
        step: usize,
        /// How long the pause is.
        pause: Duration,
        /// What went wrong.
        why: String,
    },
    /// A step wrote something.
    Output {
        /// The host.
        host: usize,
        /// The step.
        step: usize,
        /// Where it wrote it.
        stream: Stream,
        /// At most [`super::output::PIECE_LIMIT`] bytes, checked.
        bytes: Bytes,
    },
    /// A step has its verdict.
    StepEnded {
        /// The host.
        host: usize,
        /// The step.
        step: usize,
        /// The verdict.
        end: Box<StepEnd>,
    },
    /// All steps of a host have their verdicts.
    HostEnded {
        /// The host.
        host: usize,
    },
    /// The batch is to end early.
    Halted {
        /// Why.
        why: Why,
    },
}

/// How a step of a host ended.
#[derive(Debug)]
pub struct StepEnd {
    /// The verdict on it.
    pub outcome: Outcome,
    /// What the run brought; none if none was asked for.
    pub end: Option<Result<Verdict, Error>>,
    /// The id of the run that was asked for last.
    pub run: Option<String>,
    /// How often it was asked for.
    pub attempts: u32,
    /// From the first request to the end, by this machine's clock.
    pub elapsed: Duration,
}

impl StepEnd {
    /// Whether it is that of an earlier batch, in which the step ended well.
    #[must_use]
    pub fn is_from_before(&self) -> bool {
        self.outcome == Outcome::Ok && self.attempts == 0
    }

    /// Of a step that was never asked for.
    pub(super) fn without_run(outcome: Outcome) -> Box<Self> {
        Box::new(Self { outcome, end: None, run: None, attempts: 0, elapsed: Duration::ZERO })
    }
}
