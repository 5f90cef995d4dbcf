//! Finding, listing and removing runs by their ids.

use std::sync::Arc;
use std::time::SystemTime;

use super::disk::{Outcome, Size};
use super::durable::{Durable, State};
use super::entry::Entry;
use super::host::Host;
use super::run::Run;
use super::table::Key;
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::proto::listing::{RunInfo, RunState};
use crate::proto::verdict::Verdict;

/// So many characters of a command are listed.
const COMMAND_SHOWN: usize = 200;

impl Host {
    /// The one run of an identity, or of them all, whose id has this part.
    ///
    /// # Errors
    /// There is none, or more than one; another's run is as good as none. No part is none of every run's: it is a
    /// variable that was not set, in a script that would stop its only run.
    pub fn find(
        &self,
        identity: Option<&Arc<str>>,
        part: &str,
    ) -> Result<Arc<Entry>, (Code, String)> {
        if part.is_empty() {
            return Err((Code::NoSuchRun, "the id is empty, so it names no run".into()));
        }
        let mut found = self.table.find(identity, part);
        match (found.pop(), found.len()) {
            (Some(one), 0) => Ok(one),
            (None, _) => Err((Code::NoSuchRun, "there is no such run".into())),
            (Some(_), more) => {
                Err((Code::Ambiguous, format!("{} runs have that in their ids", more + 1)))
            }
        }
    }

    /// Waits until it is known of each run of an identity, or of them all, whether it goes on: those that a server
    /// before this one has left are looked for from its start on.
    pub async fn looked_for(&self, identity: Option<&Arc<str>>) {
        for kept in self.table.find(identity, "") {
            kept.looked_for().await;
        }
    }

    /// The newest runs of an identity, or of them all, whose records are kept, at most `limit`, the newest last; and how many
    /// there are. Looks at the disk.
    #[must_use]
    pub fn list(&self, identity: Option<&Arc<str>>, limit: usize) -> (Vec<RunInfo>, usize) {
        let found = self.table.find(identity, "");
        let mut all: Vec<_> = found.iter().filter_map(|kept| Listed::of(kept)).collect();
        let total = all.len();
        all.sort_by_key(Listed::accepted);
        let newest = all.split_off(total.saturating_sub(limit));
        let told = |listed: &Listed<'_>| RunInfo {
            identity: identity.is_none().then(|| listed.key().identity.to_string()),
            ..listed.info()
        };
        (newest.iter().map(told).collect(), total)
    }

    /// Deletes the record of a run that is over. Looks at the disk.
    ///
    /// # Errors
    /// It goes on, or has no record on disk, or that cannot be deleted.
    pub fn remove(&self, kept: &Entry) -> Result<(), (Code, String)> {
        let run = match kept {
            Entry::Here(_) => {
                return Err((Code::NotDurable, "the run has no record on disk".into()));
            }
            Entry::Gone(_) => return Ok(()),
            Entry::There(run) => run,
        };
        if !matches!(run.state(), State::Over(_) | State::Forgotten(_)) {
            return Err((Code::StillRunning, "the run goes on".into()));
        }
        self.forget(run)
            .map_err(|e| (Code::OutOfResources, format!("cannot delete the record: {e}")))
    }

    /// Hands an order to a run's supervisor. False if the run is over.
    pub async fn order(&self, run: &Arc<Durable>, order: ClientHeader) -> bool {
        let Ok(asked) = encoded(&order, b"") else { return false };
        let answer = self.ask(run, asked).await;
        matches!(answer, Some(ServerHeader::Done { .. }))
    }
}

/// A run that is listed.
enum Listed<'a> {
    Here(&'a Run),
    There(&'a Durable, Size),
}

impl<'a> Listed<'a> {
    fn of(kept: &'a Entry) -> Option<Self> {
        match kept {
            Entry::Here(run) => Some(Self::Here(run)),
            Entry::There(run) => match (run.folder.disk().unwrap_or(None), run.state()) {
                // Somebody has removed it, and its server has not seen that yet.
                (None, State::Over(_) | State::Forgotten(_)) => None,
                (size, _) => Some(Self::There(run, size.unwrap_or_default())),
            },
            Entry::Gone(_) => None,
        }
    }

    fn key(&self) -> &'a Key {
        match self {
            Self::Here(run) => &run.key,
            Self::There(run, _) => &run.key,
        }
    }

    fn accepted(&self) -> &'a str {
        match self {
            Self::Here(run) => &run.accepted,
            Self::There(run, _) => &run.meta.accepted,
        }
    }

    fn info(&self) -> RunInfo {
        match self {
            Self::Here(run) => {
                let verdict = run.verdict();
                let state = if verdict.is_some() { RunState::Ended } else { RunState::Running };
                let bytes = verdict.as_deref().map_or_else(|| run.bytes(), Verdict::output_bytes);
                RunInfo { bytes, verdict, ..info(&run.key, &run.command, &run.accepted, state) }
            }
            Self::There(run, size) => info_there(run, *size),
        }
    }
}

fn info_there(run: &Durable, record: Size) -> RunInfo {
    let (state, verdict) = match run.state() {
        State::Over(outcome) | State::Forgotten(outcome) => match &*outcome {
            Outcome::Ended { verdict, .. } => (RunState::Ended, Some(verdict.clone())),
            Outcome::Lost { .. } => (RunState::Lost, None),
        },
        State::Starting | State::NotStarted { .. } | State::Found | State::Live { .. } => {
            (RunState::Running, None)
        }
    };
    RunInfo {
        durable: true,
        bytes: verdict.as_deref().map_or(record.length, Verdict::output_bytes),
        disk: record.disk,
        verdict,
        ..info(&run.key, &run.meta.command, &run.meta.accepted, state)
    }
}

fn info(key: &Key, command: &str, accepted: &str, state: RunState) -> RunInfo {
    RunInfo {
        run: key.id.to_string(),
        identity: None,
        state,
        durable: false,
        command: command.chars().take(COMMAND_SHOWN).collect(),
        accepted: accepted.to_owned(),
        age_s: age(accepted),
        bytes: 0,
        disk: 0,
        verdict: None,
    }
}

fn age(accepted: &str) -> u64 {
    let then = humantime::parse_rfc3339(accepted).unwrap_or(SystemTime::UNIX_EPOCH);
    then.elapsed().map_or(0, |age| age.as_secs())
}
