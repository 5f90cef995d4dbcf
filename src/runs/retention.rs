//! What is kept of durable runs that are over, and for how long.
//!
//! A record goes when it is too old, or when there are too many or they are too large together: then one of whoever has
//! most of them, the one whose run ended first before the others, so that nobody pushes out what another keeps. What
//! says that the run was there stays until [`Retention::memory`] is over, so that its id is not used again.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Now, When};
use super::disk::folder::{read_json, write_json};
use super::table::KEEP;

/// The file in an instance's folder that says what its server keeps.
const KEPT: &str = "retention.json";

/// How much is kept. The oldest goes first; what goes on is never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How long a record is kept after the end of its run, and its id is remembered.
    pub age: Duration,
    /// Most records of runs that are over.
    pub count: usize,
    /// Most bytes of them.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { age: Duration::from_secs(7 * 24 * 3600), count: 10_000, bytes: 16 << 30 }
    }
}

/// A run that is over.
#[derive(Debug, Clone)]
pub struct Past<T> {
    /// Which.
    pub run: T,
    /// Against whose share its record counts.
    pub holder: Box<str>,
    /// When its end was written down.
    pub ended: When,
    /// Bytes that its record takes; none if it is gone already.
    pub record: Option<u64>,
}

/// What is to go of a run that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Going<T> {
    /// Which.
    pub run: T,
    /// Bytes that its record takes; none if it is gone already.
    pub record: Option<u64>,
    /// Everything else goes too, and its id is free again.
    pub id: bool,
}

impl Retention {
    /// Notes in an instance's folder what its server keeps.
    ///
    /// # Errors
    /// What the system says.
    pub fn save(&self, instance: &Path) -> io::Result<()> {
        write_json(instance, KEPT, self)
    }

    /// What the last server of an instance kept; the default if it did not say.
    ///
    /// # Errors
    /// What the system says, or that the file is something else.
    pub fn saved(instance: &Path) -> io::Result<Self> {
        match File::open(instance.join(KEPT)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            opened => read_json(&opened?),
        }
    }

    /// How long after a run's end its id is taken. Whoever asked for it for the first time while its record
    /// was kept may ask again for [`KEEP`], and is not to start it anew.
    #[must_use]
    pub fn memory(&self) -> Duration {
        self.age.saturating_add(KEEP)
    }

    /// What is to go of these.
    #[must_use]
    pub fn plan<T>(&self, mut past: Vec<Past<T>>, now: Now) -> Vec<Going<T>> {
        past.sort_by_key(|one| one.ended);
        let (mut going, mut kept) = (Vec::new(), Kept::default());
        for Past { run, holder, ended, record } in past {
            let age = ended.age(now);
            let id = age >= self.memory();
            if id || (record.is_some() && age >= self.age) {
                going.push(Going { run, record, id });
            } else if let Some(bytes) = record {
                kept.add(holder, (run, bytes));
            }
        }
        kept.level(u64::try_from(self.count).unwrap_or(u64::MAX), |_| 1, &mut going);
        kept.level(self.bytes, |bytes| bytes, &mut going);
        going
    }
}

/// The records of each holder, those of runs that ended first in front, and the holder of the first of all in front.
struct Kept<T> {
    places: HashMap<Box<str>, usize>,
    holders: Vec<VecDeque<(T, u64)>>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { places: HashMap::new(), holders: Vec::new() }
    }
}

impl<T> Kept<T> {
    fn add(&mut self, holder: Box<str>, record: (T, u64)) {
        let at = *self.places.entry(holder).or_insert(self.holders.len());
        if at == self.holders.len() {
            self.holders.push(VecDeque::new());
        }
        self.holders[at].push_back(record);
    }

    /// Takes from whoever has most until all together have no more than `limit`.
    fn level(&mut self, limit: u64, weigh: fn(u64) -> u64, going: &mut Vec<Going<T>>) {
        let has = |records: &VecDeque<(T, u64)>| {
            records.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(weigh(*bytes)))
        };
        let shares = self.holders.iter().map(has).zip((0..).map(Reverse));
        let mut shares: BTreeSet<(u64, Reverse<usize>)> = shares.collect();
        let mut all = shares.iter().fold(0, |sum: u64, (has, _)| sum.saturating_add(*has));
        while all > limit
            && let Some((has, at)) = shares.pop_last()
        {
            let Some((run, bytes)) = self.holders[at.0].pop_front() else { continue };
            going.push(Going { run, record: Some(bytes), id: false });
            all = all.saturating_sub(weigh(bytes));
            shares.insert((has.saturating_sub(weigh(bytes)), at));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const ALL: Retention = Retention { age: Duration::MAX, count: usize::MAX, bytes: u64::MAX };

    /// Runs that ended so many hours after the boot, with records of so many bytes.
    fn plan(retention: &Retention, ended: &[(u32, Option<u64>)], now: u32) -> Vec<Going<u32>> {
        let past = ended.iter().map(|(hours, record)| Past {
            run: *hours,
            holder: "alice".into(),
            ended: When::ThisBoot(HOUR * *hours),
            record: *record,
        });
        let now = Now { boottime: HOUR * now, time: SystemTime::UNIX_EPOCH };
        retention.plan(past.collect(), now)
    }

    #[test]
    fn one_past_each_limit_goes_and_the_one_that_ended_first() {
        let three = [(3, Some(10)), (1, Some(30)), (2, Some(20))];
        let gone = |retention: Retention, now| {
            let going = plan(&retention, &three, now).into_iter();
            going.map(|one| (one.run, one.record.unwrap_or(0))).collect::<Vec<_>>()
        };
        assert_eq!(gone(ALL, 1000), []);
        assert_eq!(gone(Retention { count: 3, ..ALL }, 4), []);
        assert_eq!(gone(Retention { count: 2, ..ALL }, 4), [(1, 30)]);
        assert_eq!(gone(Retention { bytes: 60, ..ALL }, 4), []);
        assert_eq!(gone(Retention { bytes: 59, ..ALL }, 4), [(1, 30)]);
        assert_eq!(gone(Retention { bytes: 29, ..ALL }, 4), [(1, 30), (2, 20)]);
        assert_eq!(gone(Retention { age: HOUR * 2, ..ALL }, 2), []);
        assert_eq!(gone(Retention { age: HOUR * 2, ..ALL }, 3), [(1, 30)]);
        let both = Retention { age: HOUR * 2, count: 1, ..ALL };
        assert_eq!(gone(both, 3), [(1, 30), (2, 20)], "what went by age does not count");
        assert_eq!(gone(Retention { count: 0, ..ALL }, 4), [(1, 30), (2, 20), (3, 10)]);
    }

    /// The runs of these holders that go, each with a record of so many bytes and ended after those before it.
    fn gone_of(retention: &Retention, records: &[(&'static str, u64)]) -> Vec<usize> {
        let past = records.iter().enumerate().map(|(n, (holder, bytes))| Past {
            run: n,
            holder: (*holder).into(),
            ended: When::ThisBoot(HOUR + Duration::from_secs(n as u64)),
            record: Some(*bytes),
        });
        let now = Now { boottime: 2 * HOUR, time: SystemTime::UNIX_EPOCH };
        retention.plan(past.collect(), now).into_iter().map(|one| one.run).collect()
    }

    #[test]
    fn whoever_has_most_loses_first_and_nobody_pushes_out_what_another_keeps() {
        let count = |count| Retention { count, ..ALL };
        // Old ones of bob's, and then a flood of alice's.
        let (bob, alice, carol) = (("bob", 10), ("alice", 10), ("carol", 10));
        let flood = [bob, bob, alice, alice, alice, alice, alice, carol];
        assert_eq!(gone_of(&count(8), &flood), [0; 0]);
        assert_eq!(gone_of(&count(5), &flood), [2, 3, 4]);
        assert_eq!(gone_of(&count(4), &flood), [2, 3, 4, 0], "of those with as many the first");
        assert_eq!(gone_of(&count(3), &flood), [2, 3, 4, 0, 5], "a share each");
        assert_eq!(gone_of(&count(2), &flood), [2, 3, 4, 0, 5, 1]);
        assert_eq!(gone_of(&count(0), &flood), [2, 3, 4, 0, 5, 1, 6, 7]);
        // One large record of alice's against many small ones.
        let large = [bob, bob, bob, ("alice", 100), ("alice", 5)];
        let bytes = |bytes| Retention { bytes, ..ALL };
        assert_eq!(gone_of(&bytes(135), &large), [0; 0]);
        assert_eq!(gone_of(&bytes(134), &large), [3]);
        assert_eq!(gone_of(&bytes(34), &large), [3, 0]);
        let both = Retention { count: 4, bytes: 30, ..ALL };
        assert_eq!(gone_of(&both, &large), [0, 3], "of the bytes only those of what is left");
    }

    #[test]
    fn an_id_is_taken_for_longer_than_its_record_may_be_asked_for() {
        let retention = Retention { age: HOUR, ..ALL };
        let (holder, ended) = (Box::<str>::from("alice"), When::ThisBoot(HOUR));
        let past = |record| vec![Past { run: (), holder: holder.clone(), ended, record }];
        let now = |since| Now { boottime: HOUR + since, time: SystemTime::UNIX_EPOCH };
        let late = now(retention.memory());
        let just_before = now(retention.memory().saturating_sub(Duration::from_millis(1)));
        assert_eq!(retention.plan(past(None), just_before), []);
        let record = Some(1);
        for (past, now, record, id) in [
            (past(record), just_before, record, false),
            (past(None), late, None, true),
            (past(record), late, record, true),
        ] {
            assert_eq!(retention.plan(past, now), [Going { run: (), record, id }]);
        }
    }
}
