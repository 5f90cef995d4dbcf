//! The claim table: which ids are taken, by what, and what is remembered of those that are over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::clock;
use super::id::RunId;
use crate::proto::code::Code;

/// How long a final answer is kept for a client that has not confirmed it, and how old a request may be
/// to be started: whoever may still ask is still remembered.
pub const KEEP: Duration = Duration::from_secs(600);
/// How long an id is remembered after its client confirmed the end, or gave it up. No connection lives
/// through 45 s of silence, so a request that the network holds back for longer has no way in.
pub const REMEMBER: Duration = Duration::from_secs(60);
/// Most ids in the table. When it is full new runs are refused rather than old ones forgotten.
pub const IDS_LIMIT: usize = 262_144;

/// An id under the identity that claimed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The identity's stable name.
    pub identity: Arc<str>,
    /// The id.
    pub id: RunId,
}

/// What an id stands for.
#[derive(Debug)]
pub enum Entry<R> {
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
    /// It is free, and is not to be claimed now: see the code.
    Refused(Code),
    /// It was free, and is given up from now on.
    Buried,
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
    entries: HashMap<Key, Entry<R>>,
    /// When to forget what is past, soonest first.
    expiry: BTreeSet<(Instant, Key)>,
    live: usize,
}

impl<R> Table<R> {
    /// An empty table. Of ids first sent before `memory_begins` (time since boot) it knows nothing.
    #[must_use]
    pub fn new(memory_begins: Duration) -> Self {
        let inner = Inner { entries: HashMap::new(), expiry: BTreeSet::new(), live: 0 };
        Self { inner: Mutex::new(inner), memory_begins }
    }

    /// Claims an id, first sent so long ago. `make` makes the run if the id is free, or says why it may
    /// not be made. What is known of an id comes before any such reason: it says that nothing was started.
    pub fn claim(
        &self,
        key: &Key,
        first_sent_ago: Duration,
        make: impl FnOnce() -> Result<Arc<R>, Code>,
    ) -> Claim<R> {
        let mut inner = self.lock();
        inner.expire();
        match inner.entries.get(key) {
            Some(Entry::Live(run)) => return Claim::Existing(Arc::clone(run)),
            Some(Entry::Past(code)) => return Claim::Past(*code),
            None if self.may_have_forgotten(first_sent_ago) => {
                return Claim::Past(Code::BeforeMemory);
            }
            None if inner.entries.len() >= IDS_LIMIT => return Claim::Refused(Code::TooManyRuns),
            None => {}
        }
        let run = match make() {
            Ok(run) => run,
            Err(code) => return Claim::Refused(code),
        };
        inner.entries.insert(key.clone(), Entry::Live(Arc::clone(&run)));
        inner.live += 1;
        Claim::New(run)
    }

    fn may_have_forgotten(&self, first_sent_ago: Duration) -> bool {
        let first_sent = clock::boottime().checked_sub(first_sent_ago);
        !first_sent_ago.is_zero()
            && (first_sent_ago >= KEEP || first_sent < Some(self.memory_begins))
    }

    /// Gives an id up. Buries it if it is free, so that a late request finds it taken; otherwise
    /// says what it stands for.
    pub fn bury(&self, key: &Key, first_sent_ago: Duration) -> Claim<R> {
        let mut inner = self.lock();
        inner.expire();
        match inner.entries.get(key) {
            Some(Entry::Live(run)) => Claim::Existing(Arc::clone(run)),
            Some(Entry::Past(code)) => Claim::Past(*code),
            None if self.may_have_forgotten(first_sent_ago) => Claim::Past(Code::BeforeMemory),
            None if inner.entries.len() >= IDS_LIMIT => Claim::Refused(Code::TooManyRuns),
            None => {
                inner.remember(key, Code::Buried, REMEMBER);
                Claim::Buried
            }
        }
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
        if let Some(Entry::Live(_)) = inner.entries.get(key) {
            inner.live -= 1;
            inner.remember(key, code, keep);
        }
    }

    /// What a server before this one left behind; kept as long as this server lives.
    pub fn inherit(&self, key: Key, code: Code) {
        self.lock().entries.insert(key, Entry::Past(code));
    }

    /// A run could not be started: its id is free again.
    pub fn release(&self, key: &Key) {
        let mut inner = self.lock();
        if let Some(Entry::Live(_)) = inner.entries.remove(key) {
            inner.live -= 1;
        }
    }

    /// How many runs are live.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.lock().live
    }

    /// All live runs.
    #[must_use]
    pub fn all_live(&self) -> Vec<Arc<R>> {
        let live = |entry: &Entry<R>| match entry {
            Entry::Live(run) => Some(Arc::clone(run)),
            Entry::Past(_) => None,
        };
        self.lock().entries.values().filter_map(live).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Inner<R> {
    fn remember(&mut self, key: &Key, code: Code, keep: Duration) {
        self.entries.insert(key.clone(), Entry::Past(code));
        self.expiry.insert((Instant::now() + keep, key.clone()));
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while self.expiry.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.expiry.pop_first() {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(identity: &str, id: &str) -> Key {
        Key { identity: identity.into(), id: RunId::new(id).unwrap() }
    }

    fn table() -> Table<u8> {
        Table::new(Duration::ZERO)
    }

    const NOW: Duration = Duration::ZERO;

    #[tokio::test(start_paused = true)]
    async fn an_id_is_claimed_once_and_remembered_past_its_end() {
        let table = table();
        assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))), Claim::New(_)));
        assert!(
            matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(2))), Claim::Existing(r) if *r == 1)
        );
        assert!(matches!(table.claim(&key("b", "x"), NOW, || Ok(Arc::new(3))), Claim::New(_)));
        table.confirm(&key("a", "x"));
        tokio::time::advance(REMEMBER - Duration::from_millis(1)).await;
        assert!(matches!(
            table.claim(&key("a", "x"), NOW, || Ok(Arc::new(4))),
            Claim::Past(Code::Forgotten)
        ));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(5))), Claim::New(_)));
        assert_eq!(table.live_count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_nobody_confirmed_is_remembered_as_long_as_its_client_may_ask() {
        let table = table();
        for (n, id) in ["x", "y"].into_iter().enumerate() {
            table.claim(&key("a", id), NOW, || Ok(Arc::new(u8::try_from(n).unwrap())));
        }
        table.end(&key("a", "x"), Code::Forgotten);
        table.confirm(&key("a", "y"));
        let ago = KEEP - Duration::from_millis(1);
        tokio::time::advance(ago).await;
        let again = table.claim(&key("a", "x"), ago, || Ok(Arc::new(2)));
        assert!(matches!(again, Claim::Past(Code::Forgotten)), "{again:?}");
    }

    #[tokio::test]
    async fn what_may_have_been_forgotten_is_never_started() {
        let old = table();
        assert!(matches!(
            old.claim(&key("a", "x"), KEEP, || Ok(Arc::new(1))),
            Claim::Past(Code::BeforeMemory)
        ));
        let young: Table<u8> = Table::new(clock::boottime());
        let ago = Duration::from_secs(1);
        assert!(matches!(
            young.claim(&key("a", "x"), ago, || Ok(Arc::new(1))),
            Claim::Past(Code::BeforeMemory)
        ));
        assert!(matches!(young.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))), Claim::New(_)));
    }

    #[tokio::test]
    async fn a_buried_id_stays_buried() {
        let table = table();
        assert!(matches!(table.bury(&key("a", "x"), NOW), Claim::Buried));
        assert!(matches!(table.bury(&key("a", "x"), NOW), Claim::Past(Code::Buried)));
        assert!(matches!(
            table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))),
            Claim::Past(Code::Buried)
        ));
        table.claim(&key("a", "y"), NOW, || Ok(Arc::new(1)));
        assert!(matches!(table.bury(&key("a", "y"), NOW), Claim::Existing(_)));
    }

    #[tokio::test]
    async fn a_run_that_did_not_start_frees_its_id() {
        let table = table();
        table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1)));
        table.release(&key("a", "x"));
        assert!(matches!(table.claim(&key("a", "x"), NOW, || Ok(Arc::new(2))), Claim::New(_)));
    }

    #[tokio::test]
    async fn a_full_table_refuses_and_forgets_nothing() {
        let table = table();
        for n in 0..IDS_LIMIT {
            table.inherit(key("a", &n.to_string()), Code::ServerRestarted);
        }
        assert!(matches!(
            table.claim(&key("a", "x"), NOW, || Ok(Arc::new(1))),
            Claim::Refused(Code::TooManyRuns)
        ));
        assert!(matches!(
            table.claim(&key("a", "0"), NOW, || Ok(Arc::new(1))),
            Claim::Past(Code::ServerRestarted)
        ));
    }
}
