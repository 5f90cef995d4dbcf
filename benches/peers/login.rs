//! What a whole login costs the server: TLS, the proof of an Ed25519 key, the look into the lists of keys.

use std::io;
use std::time::Duration;

use rexec::Client;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Fallible;
use crate::cold::runtime;
use crate::contenders::Rexec;
use crate::proc::{Server, spends};
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;

/// What the project allows itself.
const MS_LIMIT: f64 = 0.25;

/// Processor time of the server for each login, in rounds of so many, one after another. Left alone, the system puts the
/// client now on the server's processor and now on another one, where all that both touch of a socket moves from cache to
/// cache: so each has its line.
pub(crate) fn row(rexec: &Rexec, rounds: Rounds, logins: usize) -> Fallible<Row> {
    let (runtime, processors) = (runtime()?, Processors::take(rexec.server)?);
    let places = processors.places();
    let mut lines: Vec<_> = places.iter().map(|(name, _)| Line::new(*name)).collect();
    for round in rounds.after_warm_up() {
        for (line, (_, client)) in lines.iter_mut().zip(&places) {
            processors.keep_to(*client)?;
            let log_in = || runtime.block_on(log_in_often(&rexec.addr, logins));
            let (done, spent) = spends(&[rexec.server], false, log_in)?;
            done?;
            if round > 0 {
                line.samples.push(ms(spent) / count(logins));
            }
        }
    }
    let mark = |(line, from): (usize, &Line)| {
        let figures = from.samples.clone();
        Mark { line, what: "ms for each", limit: Limit::AtMost(MS_LIMIT), figures }
    };
    let marks = lines.iter().enumerate().map(mark).collect();
    Ok(Row {
        title: format!(
            "login: server processor time for each of {logins} logins, one after another"
        ),
        unit: "ms",
        notes: vec!["by an Ed25519 key; the clock that the kernel shows ticks every 10 ms".into()],
        lines,
        marks,
    })
}

/// Those that client and server may use; they may use all of them again on drop.
struct Processors {
    server: Server,
    all: CpuSet,
    first: usize,
    last: usize,
}

impl Processors {
    fn take(server: Server) -> Fallible<Self> {
        let all = sched_getaffinity(None)?;
        let mut numbers = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number));
        let first = numbers.next().ok_or("there is no processor")?;
        Ok(Self { server, all, first, last: numbers.next_back().unwrap_or(first) })
    }

    /// Where the client may be, while the server is on the first.
    fn places(&self) -> Vec<(&'static str, usize)> {
        let another = (self.last != self.first).then_some(("rexec, client on another", self.last));
        [("rexec, client on its processor", self.first)].into_iter().chain(another).collect()
    }

    /// Puts the client there.
    fn keep_to(&self, client: usize) -> io::Result<()> {
        sched_setaffinity(None, &only(client))?;
        self.server.keep_to(&only(self.first))
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        // Where one is gone nothing is to be done.
        let _ = sched_setaffinity(None, &self.all);
        let _ = self.server.keep_to(&self.all);
    }
}

fn only(number: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(number);
    set
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn count(logins: usize) -> f64 {
    logins as f64
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

async fn log_in_often(addr: &str, logins: usize) -> Fallible<()> {
    let mut client = Client::local(addr)?;
    for _ in 0..logins {
        client.connect().await?;
    }
    Ok(())
}
