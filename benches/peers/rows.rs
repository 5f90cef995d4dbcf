//! Every row, and how much of everything it measures.

use std::time::Duration;

use crate::contenders::Peers;
use crate::report::Row;
use crate::rounds::Rounds;
use crate::{
    Fallible, batch, broken, bulk, cold, crowd, durable, far, idle, lines, login, many, memory,
    size,
};

/// How a row is measured.
type Measure = Box<dyn Fn(&Peers) -> Fallible<Row>>;

/// How much of everything.
#[derive(Debug, Clone)]
pub(crate) struct Size {
    /// What the whole measurement may take: a restless row is measured again only within it.
    pub(crate) limit: Duration,
    /// Part of the time that a row has for its rounds in a full measurement.
    pace: f64,
    /// The bounds of the number of rounds.
    least: usize,
    most: usize,
    /// Commands in one round of many at once; five times as many as one after another.
    commands: usize,
    /// Logins in one round.
    logins: usize,
    /// Bulk.
    mib: u64,
    /// Short lines.
    millions: u32,
    /// Idle connections, stalled runs, durable runs.
    connections: Vec<usize>,
    stalled: usize,
    many: usize,
    /// Hosts of a batch, and those of them that are reached over ssh too.
    hosts: usize,
    ssh_hosts: usize,
}

impl Size {
    pub(crate) fn full() -> Self {
        Self {
            limit: Duration::from_secs(14 * 60),
            pace: 1.0,
            least: 3,
            most: 200,
            commands: 500,
            logins: 1000,
            mib: 4096,
            millions: 10,
            connections: vec![1000, 10_000],
            stalled: 256,
            many: 1000,
            hosts: 1000,
            ssh_hosts: 100,
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            limit: Duration::from_secs(110),
            pace: 0.12,
            commands: 200,
            mib: 256,
            millions: 1,
            connections: vec![1000],
            many: 50,
            hosts: 200,
            ssh_hosts: 20,
            ..Self::full()
        }
    }

    pub(crate) fn smoke() -> Self {
        Self {
            least: 1,
            most: 1,
            commands: 20,
            logins: 20,
            mib: 8,
            connections: vec![20],
            stalled: 4,
            many: 4,
            hosts: 20,
            ssh_hosts: 4,
            ..Self::quick()
        }
    }

    /// Rounds of a row that has so many seconds for them in a full measurement.
    fn rounds(&self, seconds: u64) -> Rounds {
        let time = Duration::from_secs(seconds).mul_f64(self.pace);
        Rounds { least: self.least, most: self.most, time }
    }

    /// Every row: how its title begins, and how it is measured.
    pub(crate) fn rows(&self) -> Vec<(&'static str, Measure)> {
        let rounds = |seconds| self.rounds(seconds);
        let Self { commands, logins, mib, millions, stalled, many, hosts, ssh_hosts, .. } = *self;
        let (kept, in_turn, connections) = (mib.min(1024), commands / 5, self.connections.clone());
        let [cold, far, next, crowd, crowds] = [40, 30, 20, 20, 20].map(rounds);
        let [bulk, input, lines, delay, echo] = [150, 130, 25, 25, 15].map(rounds);
        let [resume, login, durable, record, attach] = [10, 10, 15, 25, 30].map(rounds);
        let [batch, size] = [50, 10].map(rounds);
        vec![
            ("cold", Box::new(move |peers| cold::cold(peers, cold))),
            ("far", Box::new(move |peers| far::row(peers, far))),
            ("next", Box::new(move |peers| cold::next(peers, next, in_turn))),
            ("memory", Box::new(move |peers| memory::row(peers, kept / 2, mib / 2 * 5))),
            ("crowd", Box::new(move |peers| crowd::row(peers, crowd, 16, commands))),
            ("crowds", Box::new(move |peers| crowd::row(peers, crowds, 256, commands * 4))),
            ("bulk", Box::new(move |peers| bulk::out(peers, bulk, mib))),
            ("input", Box::new(move |peers| bulk::input(peers, input, mib))),
            ("lines", Box::new(move |peers| lines::many(peers, lines, millions))),
            ("delay", Box::new(move |peers| lines::delay(peers, delay, in_turn))),
            ("echo", Box::new(move |peers| lines::echo(peers, echo, commands))),
            ("resume", Box::new(move |peers| broken::resume(peers, resume, mib.min(256)))),
            ("login", Box::new(move |peers| login::row(&peers.rexec, login, logins))),
            ("idle", Box::new(move |peers| idle::row(peers, &connections))),
            ("stalled", Box::new(move |_| broken::stalled(stalled))),
            ("durable", Box::new(move |peers| durable::cold(peers, durable))),
            ("record", Box::new(move |peers| durable::record(peers, record, kept))),
            ("attach", Box::new(move |peers| durable::attach(peers, attach, kept))),
            ("many", Box::new(move |_| many::row(many))),
            ("batch", Box::new(move |peers| batch::row(peers, batch, hosts, ssh_hosts))),
            ("size", Box::new(move |peers| size::row(peers, size))),
        ]
    }
}
