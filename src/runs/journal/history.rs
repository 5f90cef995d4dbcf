//! What became of each run, put together from its lines.

use std::collections::HashMap;

use super::{Accepted, Event, Line};
use crate::proto::verdict::Verdict;

/// One run, as far as its lines tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    /// The run.
    pub run: String,
    /// Under which identity.
    pub identity: String,
    /// When it was accepted, or what is nearest to that in its lines, RFC 3339.
    pub time: String,
    /// The command's words, shortened; none if no line tells them.
    pub command: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It may have been started; nothing more is written.
    Accepted,
    /// It was started; no end is written.
    Running,
    /// It ended so.
    Ended(Box<Verdict>),
    /// It could not be started, for the reason of this code.
    NotStarted(String),
    /// Nobody knows how it ended.
    Lost {
        /// Processes of it that could not be stopped.
        left_running: u32,
    },
    /// The client gave its id up before it was used.
    Buried,
}

/// Takes the lines of a journal in order. It holds no more runs than are without an end.
#[derive(Debug, Default)]
pub struct History {
    open: HashMap<(String, String), Open>,
}

#[derive(Debug)]
struct Open {
    seq: u64,
    time: String,
    accepted: Accepted,
    running: bool,
}

impl History {
    /// Takes a line; the run of which it is the last one, if it is one.
    pub fn take(&mut self, line: Line) -> Option<Past> {
        let (seq, time) = (line.seq, line.time);
        match line.event {
            Event::Opened(_) | Event::Login { .. } | Event::Refused(_) => None,
            Event::Accepted(accepted) => self.accept(seq, time, accepted),
            Event::Running { run, identity, .. } => {
                if let Some(open) = self.open.get_mut(&(identity, run)) {
                    open.running = true;
                }
                None
            }
            Event::NotStarted { run, identity, code } => {
                Some(self.end(run, identity, time, Outcome::NotStarted(code)))
            }
            Event::Ended { identity, verdict, .. } => {
                let (run, started) = (verdict.run.clone(), verdict.started.clone());
                Some(self.end(run, identity, started, Outcome::Ended(verdict)))
            }
            Event::Lost { run, identity, left_running } => {
                Some(self.end(run, identity, time, Outcome::Lost { left_running }))
            }
            Event::Buried { run, identity } => Some(self.end(run, identity, time, Outcome::Buried)),
        }
    }

    /// The runs without an end, in the order in which they were accepted.
    #[must_use]
    pub fn rest(self) -> Vec<Past> {
        let mut open: Vec<_> = self.open.into_values().collect();
        open.sort_by_key(|open| open.seq);
        open.into_iter().map(Open::unfinished).collect()
    }

    /// A segment begins with the lines of the runs that are under way, once more: those have the mark that is
    /// known. Another mark is another run, for which the id was free again although no line says so.
    fn accept(&mut self, seq: u64, time: String, accepted: Accepted) -> Option<Past> {
        let key = (accepted.identity.clone(), accepted.run.clone());
        if self.open.get(&key).is_some_and(|open| open.accepted.mark == accepted.mark) {
            return None;
        }
        let before = self.open.insert(key, Open { seq, time, accepted, running: false });
        before.map(Open::unfinished)
    }

    fn end(&mut self, run: String, identity: String, time: String, outcome: Outcome) -> Past {
        let key = (identity, run);
        let open = self.open.remove(&key);
        let (identity, run) = key;
        let (time, command) = match open {
            Some(open) => (open.time, open.accepted.command),
            None => (time, None),
        };
        Past { run, identity, time, command, outcome }
    }
}

impl Open {
    fn unfinished(self) -> Past {
        let Accepted { run, identity, command, .. } = self.accepted;
        let outcome = if self.running { Outcome::Running } else { Outcome::Accepted };
        Past { run, identity, time: self.time, command, outcome }
    }
}

impl Event {
    /// The run of which it tells, if it is of one.
    #[must_use]
    pub fn run(&self) -> Option<&str> {
        match self {
            Self::Opened(_) | Self::Login { .. } | Self::Refused(_) => None,
            Self::Accepted(Accepted { run, .. })
            | Self::Running { run, .. }
            | Self::NotStarted { run, .. }
            | Self::Lost { run, .. }
            | Self::Buried { run, .. } => Some(run),
            Self::Ended { verdict, .. } => Some(&verdict.run),
        }
    }
}
