//! How much each identity has under way, and in system mode each user: what limits on its runs go by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::table::holder;
use crate::sys::mutex::lock;

/// The time over which a pace is counted.
pub const MINUTE: Duration = Duration::from_secs(60);
/// More identities than this, and those with nothing to remember are dropped.
const PRUNE_AT: usize = 1024;

/// What an identity has under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Runs that go on.
    pub running: u64,
    /// How far its starts are ahead of its pace: each start takes its part of a minute, and they follow each
    /// other (the generic cell rate algorithm, ITU-T I.371).
    pub ahead: Duration,
}

/// The shares of all identities.
#[derive(Debug, Default)]
pub struct Shares(Mutex<HashMap<Arc<str>, Account>>);

#[derive(Debug)]
struct Account {
    running: u64,
    /// When the last start has had its part of the minute.
    paid: Instant,
}

/// One run of an identity, as long as this is kept.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    holder: Arc<str>,
}

impl Shares {
    /// Counts another run, if `judge` says so from what there is. `judge` gives the part of a minute that the
    /// start takes.
    ///
    /// # Errors
    /// Those of `judge`; nothing is counted then.
    pub fn take<T, E>(
        self: &Arc<Self>,
        identity: &Arc<str>,
        judge: impl FnOnce(Usage) -> Result<(T, Duration), E>,
    ) -> Result<(T, Share), E> {
        let (now, holder) = (Instant::now(), holder(identity));
        let mut entries = self.lock();
        let usage = entries.get(holder).map_or_else(Usage::default, |entry| Usage {
            running: entry.running,
            ahead: entry.paid.saturating_duration_since(now),
        });
        let (judged, part) = judge(usage)?;
        if entries.len() >= PRUNE_AT && !entries.contains_key(holder) {
            entries.retain(|_, entry| entry.running > 0 || entry.paid > now);
        }
        let holder: Arc<str> =
            if holder == &**identity { Arc::clone(identity) } else { holder.into() };
        let entry = entries.entry(Arc::clone(&holder)).or_insert(Account { running: 0, paid: now });
        entry.running += 1;
        entry.paid = entry.paid.max(now) + part;
        Ok((judged, Share { shares: Arc::clone(self), holder }))
    }

    /// Counts a run that was there before.
    #[must_use]
    pub fn adopt(self: &Arc<Self>, identity: &Arc<str>) -> Share {
        let taken =
            self.take(identity, |_| Ok::<_, std::convert::Infallible>(((), Duration::ZERO)));
        match taken {
            Ok(((), share)) => share,
            Err(never) => match never {},
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Account>> {
        lock(&self.0)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(entry) = self.shares.lock().get_mut(&self.holder) {
            entry.running -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(shares: &Arc<Shares>, identity: &Arc<str>) -> Usage {
        let seen = shares.take(identity, Err::<((), Duration), _>);
        seen.unwrap_err()
    }

    #[tokio::test(start_paused = true)]
    async fn runs_are_counted_while_they_last_and_starts_for_their_part_of_a_minute() {
        let (shares, a, b): (Arc<Shares>, Arc<str>, Arc<str>) =
            (Arc::default(), "a".into(), "b".into());
        let part = Duration::from_secs(20);
        let first = shares.take(&a, |_| Ok::<_, ()>(((), part))).unwrap().1;
        let second = shares.take(&a, |_| Ok::<_, ()>(((), part))).unwrap().1;
        assert_eq!(usage(&shares, &a), Usage { running: 2, ahead: 2 * part });
        assert_eq!(usage(&shares, &b), Usage::default());
        drop(first);
        tokio::time::advance(part).await;
        assert_eq!(usage(&shares, &a), Usage { running: 1, ahead: part });
        drop(second);
        tokio::time::advance(part).await;
        assert_eq!(usage(&shares, &a), Usage::default());
    }

    #[tokio::test]
    async fn another_key_of_a_user_is_no_way_around_a_limit() {
        let shares: Arc<Shares> = Arc::default();
        let [one, two, bob] = ["alice@key:1", "alice@key:2", "bob@key:1"].map(Arc::<str>::from);
        let _first = shares.adopt(&one);
        let second = shares.adopt(&two);
        assert_eq!([&one, &two, &bob].map(|who| usage(&shares, who).running), [2, 2, 0]);
        drop(second);
        assert_eq!(usage(&shares, &one).running, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_under_way_is_forgotten() {
        let shares: Arc<Shares> = Arc::default();
        for n in 0..2 * PRUNE_AT {
            drop(shares.adopt(&n.to_string().into()));
        }
        assert!(shares.lock().len() <= PRUNE_AT);
    }
}
