//! Finding, listing and removing runs by their ids.

use std::sync::Arc;
use std::time::SystemTime;

use super::disk::Outcome;
use super::durable::{Durable, State};
use super::host::{Host, Kept};
use super::id::RunId;
use super::record::encode;
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::proto::listing::{RunInfo, RunState};

/// So many characters of a command are listed.
const COMMAND_SHOWN: usize = 200;

impl Kept {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &RunId {
        match self {
            Self::Here(run) => &run.key.id,
            Self::There(run) => &run.key.id,
        }
    }
}

impl Host {
    /// The one run of an identity whose id has this part.
    ///
    /// # Errors
    /// There is none, or more than one; another's run is as good as none.
    pub fn find(&self, identity: &Arc<str>, part: &str) -> Result<Arc<Kept>, (Code, String)> {
        let mut found = self.table.find(identity, part);
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => Err((Code::NoSuchRun, "there is no such run".into())),
            (Some(_), more) => {
                Err((Code::Ambiguous, format!("{} runs have that in their ids", more + 1)))
            }
        }
    }

    /// The newest runs of an identity, at most `limit`, the newest last; and how many there are.
    #[must_use]
    pub fn list(&self, identity: &Arc<str>, limit: usize) -> (Vec<RunInfo>, usize) {
        let mut all = self.table.find(identity, "");
        let total = all.len();
        all.sort_by_cached_key(|kept| kept.accepted().to_owned());
        let newest = all.split_off(total.saturating_sub(limit));
        (newest.iter().map(|kept| info(kept)).collect(), total)
    }

    /// Deletes the record of a run that is over.
    ///
    /// # Errors
    /// It goes on, or has no record on disk, or that cannot be deleted.
    pub fn remove(&self, kept: &Kept) -> Result<(), (Code, String)> {
        let Kept::There(run) = kept else {
            return Err((Code::NotDurable, "the run has no record on disk".into()));
        };
        if !matches!(run.state(), State::Over(_)) {
            return Err((Code::StillRunning, "the run goes on".into()));
        }
        run.folder
            .remove_record()
            .map_err(|e| (Code::OutOfResources, format!("cannot delete the record: {e}")))
    }

    /// Hands an order to a run's supervisor. False if the run is over.
    pub async fn order(&self, run: &Arc<Durable>, order: ClientHeader) -> bool {
        let Ok(asked) = encode(&order, b"") else { return false };
        let answer = self.ask(run, asked).await;
        matches!(answer, Some(ServerHeader::Done { .. }))
    }
}

impl Kept {
    fn accepted(&self) -> &str {
        match self {
            Self::Here(run) => &run.accepted,
            Self::There(run) => &run.meta.accepted,
        }
    }
}

fn info(kept: &Kept) -> RunInfo {
    let (durable, command, state, bytes, disk, verdict) = match kept {
        Kept::Here(run) => (false, &run.command, RunState::Running, run.bytes(), 0, None),
        Kept::There(run) => {
            let disk = run.folder.disk();
            let (state, verdict) = match run.state() {
                State::Over(outcome) => match &*outcome {
                    Outcome::Ended { verdict, .. } => (RunState::Ended, Some(verdict.clone())),
                    Outcome::Lost { .. } => (RunState::Lost, None),
                },
                State::Starting | State::NotStarted { .. } | State::Live { .. } => {
                    (RunState::Running, None)
                }
                State::Forgotten => (RunState::Ended, None),
            };
            let written = |v: &crate::proto::verdict::Verdict| {
                [v.stdout, v.stderr, v.both].into_iter().flatten().map(|end| end.size).sum()
            };
            (
                true,
                &run.meta.command,
                state,
                verdict.as_deref().map_or(disk, written),
                disk,
                verdict,
            )
        }
    };
    RunInfo {
        run: kept.id().to_string(),
        state,
        durable,
        command: command.chars().take(COMMAND_SHOWN).collect(),
        accepted: kept.accepted().to_owned(),
        age_s: age(kept.accepted()),
        bytes,
        disk,
        verdict,
    }
}

fn age(accepted: &str) -> u64 {
    let then = humantime::parse_rfc3339(accepted).unwrap_or(SystemTime::UNIX_EPOCH);
    then.elapsed().map_or(0, |age| age.as_secs())
}
