//! `rexec attach` and `logs`: the output of a run that others have started.

use tokio::sync::mpsc;

use super::{At, answer_of, failed, printed, tell};
use crate::cli::output::{Kept, Standard, is_given_kept};
use crate::cli::report::Report;
use crate::cli::signals::{AskedSoFar, Signals};
use crate::cli::status::{Answer, Status};
use crate::cli::unprinted;
use crate::client::{Client, Control, Error, Output, RunIo};
use crate::proto::verdict::Verdict;

/// Who looks at a run until its end.
pub(super) struct View<'a> {
    pub(super) at: &'a At,
    pub(super) run: &'a str,
    /// What is to be one object with how it ended.
    pub(super) kept: Option<Kept>,
}

impl View<'_> {
    pub(super) async fn attach(self, mut client: Client, from_end: bool, forward: bool) -> u8 {
        let asked = AskedSoFar::default();
        let (order, control) = mpsc::unbounded_channel::<Control>();
        let mut signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(e) => {
                let line = format!("cannot listen to signals: {e}");
                return self.told(&answer(Status::Unreached, line), None);
            }
        };
        let io = RunIo { stdin: None, output: self.output(), control };
        let left = async {
            if forward {
                signals.pass_on(&order, &asked, true).await;
                return Status::Interrupted;
            }
            if signals.at_prompt().await { Status::Interrupted } else { Status::Terminated }
        };
        let end = tokio::select! {
            end = client.attach(self.run, from_end, io) => end,
            status = left => {
                return self.told(&answer(status, format!("run {} goes on", self.run)), None);
            }
        };
        self.told(&answer_of(&end, asked.get()), verdict_of(&end))
    }

    fn output(&self) -> Box<dyn Output> {
        match &self.kept {
            Some(kept) => Box::new(kept.clone()),
            None => Box::new(Standard),
        }
    }

    /// Tells people and programs how it ended, or why nobody looks any more; the exit status.
    fn told(&self, answer: &Answer, verdict: Option<&Verdict>) -> u8 {
        let status = tell(self.at, None, answer);
        let output = self.kept.as_ref().map(Kept::take);
        let report = output.map(|output| Report::new(answer, verdict, Some(output)).of(self.run));
        printed(self.at, report, status)
    }
}

fn answer(status: Status, line: String) -> Answer {
    Answer { status, line: Some(line), code: None }
}

fn verdict_of(end: &Result<Verdict, Error>) -> Option<&Verdict> {
    match end {
        Ok(verdict) => Some(verdict),
        Err(Error::Output { verdict, .. }) => verdict.as_deref(),
        Err(_) => None,
    }
}

pub(super) async fn logs(at: &At, mut client: Client, run: &str) -> u8 {
    let (_ask, control) = mpsc::unbounded_channel();
    let io = RunIo { stdin: None, output: Box::new(Standard), control };
    match client.logs(run, io).await {
        // Without a verdict nobody has looked.
        Ok(_) => is_given_kept().map_or_else(|e| unprinted("rexec", &e), |()| 0),
        Err(e) => failed(at, e),
    }
}
