//! The one verdict on each step of each host, and what all of them amount to.

use super::Why;
use crate::client::{Error, OutputError};
use crate::proto::verdict::{End, HIGHEST_SIGNAL, StopBy, Verdict};

/// The verdict on a step of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The command exited with 0, and its output is whole.
    Ok,
    /// It exited with another code.
    Failed {
        /// The code.
        code: u8,
    },
    /// A signal killed it.
    Signalled {
        /// Its number.
        signal: u8,
    },
    /// It was stopped by its own deadline, or by the batch's.
    Deadline,
    /// The host was not reached: nothing was started.
    Unreachable,
    /// The host did not let this client in, or refused the command: nothing was started.
    Refused,
    /// It was stopped; by this batch, with the reason, or else by the server, a policy or an operator.
    Stopped(Option<Why>),
    /// Something that cannot be known any more.
    Lost(Loss),
    /// It was never asked for.
    NotStarted(Cause),
}

/// What was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// How it ended, perhaps also whether it ran.
    End,
    /// Part of its output, or the output was altered on the way.
    Output,
}

/// Why a step was never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// An earlier step of its host did not end well.
    Earlier,
    /// The batch ended early.
    Batch(Why),
}

impl Outcome {
    /// The name of the verdict, one of nine.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed { .. } => "failed",
            Self::Signalled { .. } => "signalled",
            Self::Deadline => "deadline",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Stopped(_) => "stopped",
            Self::Lost(_) => "lost",
            Self::NotStarted(_) => "not_started",
        }
    }

    /// Every name that [`Outcome::name`] gives.
    pub const NAMES: [&str; 9] = [
        "ok",
        "failed",
        "signalled",
        "deadline",
        "unreachable",
        "refused",
        "stopped",
        "lost",
        "not_started",
    ];

    /// What it adds to the exit status of the batch; 0 for what is another step's fault.
    #[must_use]
    pub fn status(self) -> u8 {
        self.weight().1
    }

    /// How bad it is, and the exit status for it. The order is that of what is known least.
    fn weight(self) -> (u8, u8) {
        match self {
            Self::Unreachable | Self::Refused => (7, 254),
            Self::Lost(Loss::End) => (6, 253),
            Self::Lost(Loss::Output) => (5, 252),
            Self::Stopped(None) => (4, 251),
            Self::Deadline => (3, 124),
            Self::Stopped(Some(why)) | Self::NotStarted(Cause::Batch(why)) => of_halt(why),
            Self::Signalled { signal } => (2, 128u8.saturating_add(signal)),
            Self::Failed { code } => (1, code),
            Self::Ok | Self::NotStarted(Cause::Earlier) => (0, 0),
        }
    }

    /// What the end of a run says. `halted` is why the batch stops what runs, if it does.
    pub(super) fn of(end: &Result<Verdict, Error>, halted: Option<Why>) -> Self {
        match end {
            Ok(verdict) => Self::of_verdict(verdict, halted),
            Err(error) => Self::of_error(error, halted),
        }
    }

    fn of_verdict(verdict: &Verdict, halted: Option<Why>) -> Self {
        if let Some(stopped) = verdict.stopped {
            return match stopped.by {
                StopBy::Deadline => Self::Deadline,
                StopBy::Client => Self::stopped(halted),
                StopBy::ClientLost
                | StopBy::Operator
                | StopBy::Policy
                | StopBy::Shutdown
                | StopBy::Unknown => Self::Stopped(None),
            };
        }
        match verdict.end {
            Some(End::Exited { code: 0 }) => Self::Ok,
            Some(End::Exited { code }) => Self::Failed { code },
            Some(End::Signaled { signal, .. }) if (1..=HIGHEST_SIGNAL).contains(&signal) => {
                Self::Signalled { signal }
            }
            Some(End::Signaled { .. }) | None => Self::Lost(Loss::End),
        }
    }

    fn of_error(error: &Error, halted: Option<Why>) -> Self {
        match error {
            Error::Unreached(_) => Self::Unreachable,
            Error::Usage(_) | Error::Refused { .. } => Self::Refused,
            Error::Interrupted => match halted {
                Some(why) => Self::NotStarted(Cause::Batch(why)),
                None => Self::Lost(Loss::End),
            },
            Error::Output { error: OutputError::GivenUp, .. } if halted.is_some() => {
                Self::stopped(halted)
            }
            Error::Output { .. } => Self::Lost(Loss::Output),
            // No id is used for two requests: something was started under it, and cannot be seen.
            Error::Conflict { .. }
            | Error::NoAnswer(_)
            | Error::Unknown { .. }
            | Error::Detached { .. } => Self::Lost(Loss::End),
        }
    }

    fn stopped(halted: Option<Why>) -> Self {
        if halted == Some(Why::Deadline) { Self::Deadline } else { Self::Stopped(halted) }
    }
}

/// What an early end adds: nothing where a step's failure was the reason, which adds its own.
fn of_halt(why: Why) -> (u8, u8) {
    match why {
        Why::FailFast | Why::TooManyFailures => (0, 0),
        Why::Deadline => (3, 124),
        Why::Interrupted => (2, 130),
        Why::Terminated => (2, 143),
        Why::OutputClosed => (2, 141),
        Why::OutputFailed => Outcome::Lost(Loss::Output).weight(),
    }
}

/// The worst of all outcomes, in the order of [`worst`]; none of none.
#[must_use]
pub fn worst_of(outcomes: impl IntoIterator<Item = Outcome>) -> Option<Outcome> {
    outcomes.into_iter().max_by_key(|outcome| (outcome.weight(), *outcome != Outcome::Ok))
}

/// The exit status of a batch: 0 if every outcome is [`Outcome::Ok`] and there is one, else the worst that
/// there is, in the order 254, 253, 252, 251, 124, 128+n, exit code.
#[must_use]
pub fn worst(outcomes: impl IntoIterator<Item = Outcome>) -> u8 {
    let Some(outcome) = worst_of(outcomes) else { return 2 };
    match outcome.status() {
        // Not everything is well, so 0 would be a lie: something was not started.
        0 if outcome != Outcome::Ok => 254,
        status => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISING: [Outcome; 9] = [
        Outcome::Ok,
        Outcome::Failed { code: 3 },
        Outcome::Failed { code: 255 },
        Outcome::Signalled { signal: 9 },
        Outcome::Deadline,
        Outcome::Stopped(None),
        Outcome::Lost(Loss::Output),
        Outcome::Lost(Loss::End),
        Outcome::Refused,
    ];

    #[test]
    fn the_worst_outcome_is_the_status() {
        let statuses = [0, 3, 255, 137, 124, 251, 252, 253, 254];
        for (at, status) in statuses.into_iter().enumerate() {
            let upto = RISING[..=at].iter().copied();
            assert_eq!(worst(upto.clone()), status);
            assert_eq!(worst(upto.rev()), status);
        }
        assert_eq!(worst([Outcome::Unreachable]), 254);
    }

    #[test]
    fn nothing_is_not_well_and_neither_is_what_was_left_out() {
        assert_eq!(worst([]), 2);
        assert_eq!(worst([Outcome::Ok, Outcome::NotStarted(Cause::Earlier)]), 254);
        let failed = Outcome::Failed { code: 7 };
        let left_out = Outcome::NotStarted(Cause::Batch(Why::FailFast));
        assert_eq!(worst([left_out, failed, Outcome::Stopped(Some(Why::FailFast))]), 7);
        assert_eq!(worst([Outcome::Ok, Outcome::NotStarted(Cause::Batch(Why::Interrupted))]), 130);
    }

    #[test]
    fn each_outcome_has_one_of_the_names() {
        let more = [Outcome::Unreachable, Outcome::NotStarted(Cause::Earlier)];
        for outcome in RISING.into_iter().chain(more) {
            assert!(Outcome::NAMES.contains(&outcome.name()));
        }
    }
}
