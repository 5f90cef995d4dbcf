//! Ending a batch before all of it was run.

use std::sync::Arc;

use tokio::sync::watch;

/// Why a batch ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A step did not end well, and [`super::Options::fail_fast`] was set.
    FailFast,
    /// More hosts failed than [`super::Options::max_failures`] allows.
    TooManyFailures,
    /// The batch's own deadline.
    Deadline,
    /// The caller was interrupted.
    Interrupted,
    /// The caller was told to end.
    Terminated,
    /// The caller's output was closed: nobody reads on.
    OutputClosed,
    /// The caller's output cannot be written.
    OutputFailed,
}

impl Why {
    /// Its name, for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FailFast => "fail_fast",
            Self::TooManyFailures => "too_many_failures",
            Self::Deadline => "deadline",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::OutputClosed => "output_closed",
            Self::OutputFailed => "output_failed",
        }
    }
}

/// How a batch ends early; each way includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// No further host is begun; those that were run all of their steps.
    Drain,
    /// What runs is stopped, and its end is waited for.
    Stop,
    /// Not even the end is waited for.
    Abandon,
}

/// What was asked for so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halt {
    pub(super) why: Why,
    pub(super) how: How,
}

/// Ends a batch early.
#[derive(Debug, Clone)]
pub struct Halter(Arc<watch::Sender<Option<Halt>>>);

impl Halter {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Asks for the end. The first reason for a way to end stays; a way once asked for is not taken back.
    pub fn halt(&self, why: Why, how: How) {
        self.0.send_if_modified(|halt| match halt {
            Some(before) if before.how >= how => false,
            _ => {
                *halt = Some(Halt { why, how });
                true
            }
        });
    }

    pub(super) fn asked(&self) -> Option<Halt> {
        *self.0.borrow()
    }

    /// Whether running commands are being stopped.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop().is_some()
    }

    /// The reason why running commands are to be stopped, if they are.
    pub(super) fn stop(&self) -> Option<Why> {
        self.asked().filter(|halt| halt.how >= How::Stop).map(|halt| halt.why)
    }

    /// Waits until at least this is asked for; the reason.
    pub(super) async fn reached(&self, how: How) -> Why {
        let mut seen = self.0.subscribe();
        let asked = seen.wait_for(|halt| halt.is_some_and(|halt| halt.how >= how)).await;
        let why = asked.ok().and_then(|halt| *halt).map(|halt| halt.why);
        match why {
            Some(why) => why,
            // The sender is this one, so it is there and the wait ends with a reason.
            None => std::future::pending().await,
        }
    }
}
