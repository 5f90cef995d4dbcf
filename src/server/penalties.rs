//! Penalties for failed logins: who fails again and again is not spoken to for a while, and each time for
//! longer. Those who are logged in already, and all other addresses, do not feel it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::identity::Network;
use crate::sys::mutex::lock;

/// So many failed logins are free: a wrong key, then the right one.
pub const FREE: u32 = 5;
/// The first penalty. Each failed login after it doubles it.
pub const SHORTEST: Duration = Duration::from_secs(1);
/// The longest penalty.
pub const LONGEST: Duration = Duration::from_secs(600);
/// How long a network has to behave after its penalty to be forgotten.
pub const FORGET: Duration = Duration::from_secs(600);
/// Most networks that are remembered. When there are more, the one that would be forgotten first is.
pub const REMEMBERED: usize = 65_536;

/// Who is punished, and for how long.
#[derive(Debug)]
pub(super) struct Penalties {
    exempt: Vec<Network>,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Network, Entry>,
    /// When each is forgotten, the first one first.
    expiry: BTreeSet<(Instant, Network)>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    until: Instant,
    forgotten: Instant,
}

impl Penalties {
    pub(super) fn new(exempt: Vec<Network>) -> Self {
        Self { exempt, book: Mutex::default() }
    }

    /// Whether an address is not to be spoken to now.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let book = self.lock();
        book.entries.get(&host(address)).is_some_and(|entry| entry.until > Instant::now())
    }

    /// Somebody there has failed to log in.
    pub(super) fn failed(&self, address: IpAddr) {
        if self.exempt.iter().any(|network| network.contains(address)) {
            return;
        }
        let (network, now) = (host(address), Instant::now());
        let mut book = self.lock();
        book.forget(now);
        let failures = book.remove(network).map_or(0, |entry| entry.failures).saturating_add(1);
        let until = now + penalty(failures);
        let forgotten = until + FORGET;
        if book.entries.len() >= REMEMBERED
            && let Some((_, oldest)) = book.expiry.first().copied()
        {
            book.remove(oldest);
        }
        book.entries.insert(network, Entry { failures, until, forgotten });
        book.expiry.insert((forgotten, network));
    }

    /// How many networks are punished now.
    pub(super) fn count(&self) -> usize {
        let now = Instant::now();
        self.lock().entries.values().filter(|entry| entry.until > now).count()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }
}

/// What is punished together with an address: the address itself, or the /64 that one host has all of.
fn host(address: IpAddr) -> Network {
    let address = address.to_canonical();
    Network::new(address, if address.is_ipv4() { 32 } else { 64 })
}

/// The penalty for a network's n-th failure.
fn penalty(failures: u32) -> Duration {
    match failures.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => SHORTEST.saturating_mul(1 << doublings.min(31)).min(LONGEST),
    }
}

impl Book {
    fn remove(&mut self, network: Network) -> Option<Entry> {
        let entry = self.entries.remove(&network)?;
        self.expiry.remove(&(entry.forgotten, network));
        Some(entry)
    }

    fn forget(&mut self, now: Instant) {
        while let Some((at, network)) = self.expiry.first().copied().filter(|(at, _)| *at <= now) {
            self.expiry.remove(&(at, network));
            self.entries.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_is_its_address_or_all_of_its_64() {
        assert_eq!(host(ip("2001:db8::1:2:3:4")).to_string(), "2001:db8::/64");
        assert_eq!(host(ip("::ffff:192.0.2.1")).to_string(), "192.0.2.1");
    }

    #[tokio::test(start_paused = true)]
    async fn penalties_grow_end_and_are_forgotten() {
        let penalties = Penalties::new(Network::LOOPBACK.to_vec());
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        (0..FREE).for_each(|_| penalties.failed(bad));
        assert!(!penalties.holds(bad));
        let mut expected = SHORTEST;
        for _ in 0..20 {
            penalties.failed(bad);
            assert!(penalties.holds(bad) && !penalties.holds(good) && penalties.count() == 1);
            tokio::time::advance(expected - Duration::from_millis(1)).await;
            assert!(penalties.holds(bad));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(!penalties.holds(bad));
            expected = (2 * expected).min(LONGEST);
        }
        tokio::time::advance(FORGET).await;
        penalties.failed(bad);
        assert!(!penalties.holds(bad));
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_64_is_one_and_loopback_is_exempt() {
        let penalties = Penalties::new(Network::LOOPBACK.to_vec());
        for n in 0..=FREE {
            penalties.failed(ip(&format!("2001:db8::{n}")));
            penalties.failed(ip("127.0.0.2"));
            penalties.failed(ip("::ffff:127.0.0.1"));
            penalties.failed(ip("::1"));
        }
        assert!(penalties.holds(ip("2001:db8::ffff")) && !penalties.holds(ip("2001:db8:0:1::1")));
        assert!(!penalties.holds(ip("127.0.0.2")) && !penalties.holds(ip("::1")));
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_than_are_remembered_forgets_the_one_that_would_be_first() {
        let penalties = Penalties::new(Vec::new());
        let address = |n: usize| IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(n).unwrap()));
        for n in 0..=REMEMBERED {
            if n == 1 {
                tokio::time::advance(SHORTEST).await;
            }
            penalties.failed(address(n));
        }
        let book = penalties.lock();
        assert_eq!((book.entries.len(), book.expiry.len()), (REMEMBERED, REMEMBERED));
        assert!(!book.entries.contains_key(&host(address(0))));
        assert!(book.entries.contains_key(&host(address(REMEMBERED))));
    }
}
