//! The claim table: which ids are taken, by what, and what is remembered of those that are over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use crate::proto::code::Code;
use crate::proto::id::RunId;
use crate::sys::mutex::lock;

/// How long a final answer is kept for a client that has not confirmed it, and how old a request may be
/// to be started: whoever may still ask is still remembered.
pub const KEEP: Duration = Duration::from_secs(600);
/// How long an id is remembered after its client confirmed the end, or gave it up. No connection lives
/// through 45 s of silence, so a request that the network holds back for longer has no way in.
pub const REMEMBER: Duration = Duration::from_secs(60);
/// Most ids in the table. When it is full new runs are refused rather than old ones forgotten.
pub const IDS_LIMIT: usize = 1_048_576;
/// Most ids of one identity, or of all identities of one user, so that none fills the table for the others.
pub const IDENTITY_IDS_LIMIT: usize = 262_144;

/// An id under the identity that claimed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The identity's stable name.
    pub identity: Arc<str>,
    /// The id.
    pub id: RunId,
}

/// Against whose share what an identity has counts: a user's, who may have any number of keys and so of identities
/// (`alice@key:SHA256:…`), else the identity's own.
#[must_use]
pub fn holder(identity: &str) -> &str {
    identity.split_once('@').map_or(identity, |(user, _)| user)
}

/// What an id stands for.
#[derive(Debug)]
enum Slot<R> {
    /// A run that goes on, or whose end is not confirmed yet.
    Live(Arc<R>),
    /// A run that is over, or an id that was given up: why nothing more can be said.
    Past(Code),
}

/// The answer to a claim.
#[derive(Debug)]
pub enum Claim<R> {
    /// The id is now this new run's.
    New(Arc<R>),
    /// It is this run's already.
    Existing(Arc<R>),
    /// It cannot be claimed, and nothing can be said about what it did.
    Past(Code),
    /// It is free, and there is no room for it.
    Full(Full),
    /// It is free, and its run may not be made, for the reason that the caller gave.
    Refused(Code),
}

/// The answer to giving an id up.
#[derive(Debug)]
pub enum Burial<R> {
    /// It was free, and is given up from now on.
    Buried,
    /// It is this run's.
    Existing(Arc<R>),
    /// It is over, and nothing can be said about what it did.
    Past(Code),
    /// It is free, and there is no room for it.
    Full(Full),
}

/// Why there is no room for another id. Some are forgotten as time goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The identity, or its user, has its share.
    #[error(
        "this identity or user has {IDENTITY_IDS_LIMIT} run ids that are still remembered, which is the limit; try again in a \
         minute, or have the server remember durable runs for a shorter time (--keep-for)"
    )]
    Identity,
    /// All identities together have all that there are.
    #[error(
        "the server still remembers {IDS_LIMIT} run ids, which is the limit; try again in a minute, or have it \
         remember durable runs for a shorter time (--keep-for)"
    )]
    Table,
}

/// What the table needs to know of a run.
pub trait Held {
    /// Whether it is forgotten some time after its end, as what is kept in memory is.
    fn passes(&self) -> bool;
}

/// The table of one server.
#[derive(Debug)]
pub struct Table<R> {
    inner: Mutex<Inner<R>>,
    /// Milliseconds since boot: ids first sent before it may have been forgotten.
    memory_begins: Duration,
}

#[derive(Debug)]
struct Inner<R> {
    entries: HashMap<Key, Slot<R>>,
    /// How many of them each [`holder`] has; never 0.
    shares: HashMap<Box<str>, usize>,
    /// When to forget what is past, soonest first.
    expiry: BTreeSet<(Instant, Key)>,
    /// How many live entries are of the kind that passes.
    passing: usize,
}

impl<R: Held> Table<R> {
    /// An empty table. Of ids first sent before `memory_begins` (time since boot) it knows nothing.
    #[must_use]
    pub fn new(memory_begins: Duration) -> Self {
        let inner = Inner {
            entries: HashMap::new(),
            shares: HashMap::new(),
            expiry: BTreeSet::new(),
            passing: 0,
        };
        Self { inner: Mutex::new(inner), memory_begins }
    }

    /// Claims an id. `make` makes the run if the id is free, or says why it may not be made. What is known of an id comes before any such reason: it says that nothing was started.
    pub fn claim(
        &self,
        key: &Key,
        first_sent_ago: Duration,
        make: impl FnOnce() -> Result<Arc<R>, Code>,
    ) -> Claim<R> {
        let mut inner = self.lock();
        inner.expire();
        match inner.entries.get(key) {
            Some(Slot::Live(run)) => return Claim::Existing(Arc::clone(run)),
            Some(Slot::Past(code)) => return Claim::Past(*code),
            None if self.may_have_forgotten(first_sent_ago) => {
                return Claim::Past(Code::BeforeMemory);
            }
            None => {}
        }
        if let Some(full) = inner.full(&key.identity) {
            return Claim::Full(full);
        }
        let run = match make() {
            Ok(run) => run,
            Err(code) => return Claim::Refused(code),
        };
        inner.passing += usize::from(run.passes());
        inner.insert(key.clone(), Slot::Live(Arc::clone(&run)));
        Claim::New(run)
    }

    fn may_have_forgotten(&self, first_sent_ago: Duration) -> bool {
        let first_sent = clock::boottime().checked_sub(first_sent_ago);
        !first_sent_ago.is_zero()
            && (first_sent_ago >= KEEP || first_sent < Some(self.memory_begins))
    }

    /// Gives an id up. Buries it if it is free, so that a late request finds it taken; otherwise
    /// says what it stands for.
    pub fn bury(&self, key: &Key, first_sent_ago: Duration) -> Burial<R> {
        let mut inner = self.lock();
        inner.expire();
        match inner.entries.get(key) {
            Some(Slot::Live(run)) => return Burial::Existing(Arc::clone(run)),
            Some(Slot::Past(code)) => return Burial::Past(*code),
            None if self.may_have_forgotten(first_sent_ago) => {
                return Burial::Past(Code::BeforeMemory);
            }
            None => {}
        }
        if let Some(full) = inner.full(&key.identity) {
            return Burial::Full(full);
        }
        inner.remember(key.clone(), Code::Buried, REMEMBER);
        Burial::Buried
    }

    /// A run is over and its client knows how it ended.
    pub fn confirm(&self, key: &Key) {
        self.past(key, Code::Forgotten, REMEMBER);
    }

    /// Nothing more can be said of a run, for the reason that `code` gives, to a client that may still ask.
    pub fn end(&self, key: &Key, code: Code) {
        self.past(key, code, KEEP);
    }

    fn past(&self, key: &Key, code: Code, keep: Duration) {
        let mut inner = self.lock();
        if let Some(Slot::Live(run)) = inner.entries.get(key) {
            inner.passing -= usize::from(run.passes());
            inner.remember(key.clone(), code, keep);
        }
    }

    /// What a server before this one left behind, whatever the limits; kept for a client that may still
    /// ask.
    pub fn inherit(&self, key: Key, code: Code) {
        self.lock().remember(key, code, KEEP);
    }

    /// A run could not be started, or is over and forgotten: its id is free again.
    pub fn release(&self, key: &Key) {
        let mut inner = self.lock();
        if let Some(Slot::Live(run)) = inner.remove(key) {
            inner.passing -= usize::from(run.passes());
        }
    }

    /// A durable run of a server before this one, or what is left of one of this server: its id is taken
    /// whatever the limits.
    pub fn keep(&self, key: Key, run: Arc<R>) {
        self.lock().insert(key, Slot::Live(run));
    }

    /// How many live runs are of the kind that passes.
    #[must_use]
    pub fn passing_count(&self) -> usize {
        self.lock().passing
    }

    /// The live runs of an identity, or of them all, whose ids have this part; those whose id it is come
    /// alone.
    #[must_use]
    pub fn find(&self, identity: Option<&Arc<str>>, part: &str) -> Vec<Arc<R>> {
        let inner = self.lock();
        if let (Ok(id), Some(identity)) = (RunId::new(part), identity)
            && let Some(Slot::Live(run)) =
                inner.entries.get(&Key { identity: Arc::clone(identity), id })
        {
            return vec![Arc::clone(run)];
        }
        let (mut exact, mut found) = (Vec::new(), Vec::new());
        for (key, entry) in &inner.entries {
            let Slot::Live(run) = entry else { continue };
            if identity.is_some_and(|identity| key.identity != *identity) {
                continue;
            }
            if key.id.as_str() == part {
                exact.push(Arc::clone(run));
            } else if key.id.as_str().contains(part) {
                found.push(Arc::clone(run));
            }
        }
        if exact.is_empty() { found } else { exact }
    }

    /// All live runs.
    #[must_use]
    pub fn all_live(&self) -> Vec<Arc<R>> {
        let live = |entry: &Slot<R>| match entry {
            Slot::Live(run) => Some(Arc::clone(run)),
            Slot::Past(_) => None,
        };
        self.lock().entries.values().filter_map(live).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        lock(&self.inner)
    }
}

impl<R: Held> Inner<R> {
    /// Whether there is no room for another id of this identity.
    fn full(&self, identity: &str) -> Option<Full> {
        let share = self.shares.get(holder(identity)).copied().unwrap_or_default();
        if share >= IDENTITY_IDS_LIMIT {
            Some(Full::Identity)
        } else {
            (self.entries.len() >= IDS_LIMIT).then_some(Full::Table)
        }
    }

    fn insert(&mut self, key: Key, entry: Slot<R>) {
        let identity = Arc::clone(&key.identity);
        if self.entries.insert(key, entry).is_some() {
            return;
        }
        let holder = holder(&identity);
        match self.shares.get_mut(holder) {
            Some(share) => *share += 1,
            None => drop(self.shares.insert(holder.into(), 1)),
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Slot<R>> {
        let removed = self.entries.remove(key)?;
        let holder = holder(&key.identity);
        if let Some(share) = self.shares.get_mut(holder) {
            *share -= 1;
            if *share == 0 {
                self.shares.remove(holder);
            }
        }
        Some(removed)
    }

    fn remember(&mut self, key: Key, code: Code, keep: Duration) {
        self.insert(key.clone(), Slot::Past(code));
        self.expiry.insert((Instant::now() + keep, key));
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while self.expiry.first().is_some_and(|(at, _)| *at <= now) {
            // The id may be a run's by now.
            if let Some((_, key)) = self.expiry.pop_first()
                && matches!(self.entries.get(&key), Some(Slot::Past(_)))
            {
                self.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
