//! One short command over a slow network, on a new connection and on one that is there.

use std::path::PathBuf;
use std::time::Duration;

use rexec::Client;
use rexec::client::Target;
use rexec::sys::fs::open_state_dir;

use crate::Fallible;
use crate::cold::{Master, lines, runtime, succeed, through, timed};
use crate::contenders::{Contender, Peers, Ssh};
use crate::relay::Relay;
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn;
use crate::stats::median;

/// One way.
const DELAY: Duration = Duration::from_millis(25);

/// A command over a connection of its own relay.
struct Route<'a> {
    relay: Relay,
    run: Box<dyn FnMut() -> Fallible<()> + 'a>,
    flights: Vec<f64>,
}

impl<'a> Route<'a> {
    fn new(relay: Relay, run: impl FnMut() -> Fallible<()> + 'a) -> Self {
        Self { relay, run: Box::new(run), flights: Vec::new() }
    }

    /// Milliseconds.
    fn measure(&mut self) -> Fallible<f64> {
        self.relay.reset();
        let took = timed(&mut self.run)?;
        self.flights.push(f64::from(self.relay.flights()));
        Ok(took)
    }
}

/// Commands over a network that takes its time.
pub(crate) fn row(peers: &Peers, rounds: Rounds) -> Fallible<Row> {
    let all: Vec<_> = peers.contenders().into_iter().filter(|c| c.server.is_some()).collect();
    let folder = tempfile::tempdir()?;
    let mut lines = lines(&all);
    let mut paths = all.iter().map(cold).collect::<Fallible<Vec<_>>>()?;
    let next_at = lines.len();
    lines.push(Line::new("rexec, next on a connection"));
    paths.push(next(peers)?);
    if let Some(ssh) = &peers.ssh {
        lines.push(Line::new("ssh, ControlMaster, next"));
        paths.push(through_master(ssh, folder.path().join("master"))?);
    }
    // The first round makes the connections that stay.
    for round in rounds.after_warm_up() {
        for (path, line) in paths.iter_mut().zip(&mut lines) {
            let took = path.measure()?;
            if round > 0 {
                line.samples.push(took);
            }
        }
    }
    for (line, path) in lines.iter_mut().zip(&paths) {
        line.beside.push(("flights", median(&path.flights[1..])));
    }
    let whole =
        |line: usize| paths[line].flights[1..].iter().map(|flights| (flights / 2.0).floor());
    let trips = |line, what, most| Mark {
        line,
        what,
        limit: Limit::AtMost(most),
        figures: whole(line).collect(),
    };
    let first = "round trips after TCP's own, login and request included";
    let marks = vec![trips(0, first, 2.0), trips(next_at, "round trips", 1.0)];
    let mut row = Row {
        title: format!("far: a client process that runs `true`, {} ms away", 2 * DELAY.as_millis()),
        unit: "ms",
        notes: vec![
            "a flight: packets one way with none the other way between them; two are a round trip"
                .into(),
            "rexec's last flight confirms the verdict, and nobody waits for it".into(),
        ],
        lines,
        marks,
    };
    row.mark_ratio((1, 0), "times rexec", Limit::AtLeast(4.5));
    Ok(row)
}

/// A whole client process.
fn cold(contender: &Contender) -> Fallible<Route<'_>> {
    let relay = Relay::start(contender.port, DELAY)?;
    let port = relay.port;
    Ok(Route::new(relay, move || {
        spawn::run((contender.command)(port, "true"))?;
        Ok(())
    }))
}

/// As far, on a connection that is there.
fn next(peers: &Peers) -> Fallible<Route<'static>> {
    let relay = Relay::start(peers.rexec.port(), DELAY)?;
    let endpoint = format!("127.0.0.1:{}", relay.port).parse()?;
    let runtime = runtime()?;
    let mut client = Client::new(Target::local(endpoint, &open_state_dir()?)?);
    Ok(Route::new(relay, move || runtime.block_on(succeed(&mut client))))
}

/// The same with ssh, whose master is started by the first one.
fn through_master(ssh: &Ssh, socket: PathBuf) -> Fallible<Route<'_>> {
    let relay = Relay::start(ssh.port, DELAY)?;
    let master = Master::start(ssh, relay.port, &socket)?;
    Ok(Route::new(relay, move || {
        let _held = &master;
        through(ssh, &socket)
    }))
}
