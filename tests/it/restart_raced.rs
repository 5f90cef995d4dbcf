//! A server on sockets that outlive it ends, by any signal, while clients come and go at any time: no command runs
//! twice, and no client says anything else than what happened.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::support::activate::Sockets;
use super::support::server::{Server, finish};
use super::support::{Client, Random, try_kill};

const ROUNDS: u64 = 8;
const CLIENTS: u64 = 6;
/// What is done in a round happens within so long, each at a time of its own.
const SPAN: u64 = 80_000;

/// What becomes of a client.
#[derive(Debug, Clone, Copy)]
struct Fate {
    number: u64,
    /// Microseconds from the beginning of the round, and from its start to the signal.
    starts: u64,
    signal: Option<(u64, Signal)>,
    over_unix: bool,
    is_durable: bool,
}

/// What becomes of the server: signals, each some microseconds after the one before.
fn end_of_server(random: &mut Random) -> Vec<(u64, Signal)> {
    let signals: &[Signal] = match random.below(5) {
        0 => &[Signal::KILL],
        1 => &[Signal::TERM, Signal::TERM],
        2 => &[Signal::HUP, Signal::TERM],
        _ => &[Signal::TERM],
    };
    signals.iter().map(|signal| (random.below(SPAN), *signal)).collect()
}

fn fate(number: u64, random: &mut Random) -> Fate {
    let signal = match random.below(6) {
        0 => Some(Signal::KILL),
        1 => Some(Signal::TERM),
        _ => None,
    };
    Fate {
        number,
        starts: random.below(SPAN),
        signal: signal.map(|signal| (random.below(SPAN), signal)),
        over_unix: random.below(2) == 0,
        is_durable: random.below(3) == 0,
    }
}

fn after(microseconds: u64) {
    thread::sleep(Duration::from_micros(microseconds));
}

/// The status of a client with this fate.
fn live(fate: Fate, state: &Path, addresses: &[String; 2], effects: &Path) -> i32 {
    after(fate.starts);
    let text = format!("echo {} >> {}; sleep 0.03", fate.number, effects.display());
    let client = Client::new(state).args(if fate.is_durable { &["--durable"] } else { &[] });
    let child = client.args(&[&addresses[usize::from(fate.over_unix)], &text]).spawn();
    if let Some((when, signal)) = fate.signal {
        after(when);
        try_kill(child.id(), signal);
    }
    finish(child).status
}

/// Whether a client that has left so many traces may say this, in a round in which the server had these signals.
fn is_honest(status: i32, traces: usize, fate: Fate, signals: &[(u64, Signal)]) -> bool {
    let was_killed = signals.iter().any(|(_, signal)| *signal == Signal::KILL);
    let was_hurried = signals.iter().filter(|(_, signal)| *signal == Signal::TERM).count() > 1;
    let was_ended = fate.signal.is_some();
    match status {
        0 => traces == 1,
        // Given up before it began.
        254 => traces == 0 && was_ended,
        253 => traces <= 1 && (was_killed || was_ended),
        251 => traces <= 1 && was_hurried,
        143 | -15 | -9 => traces <= 1 && was_ended,
        _ => false,
    }
}

#[test]
fn whatever_comes_while_one_server_follows_another_no_command_runs_twice_and_no_client_lies() {
    let mut random = Random::new();
    let sockets = Sockets::new();
    let addresses = sockets.addresses();
    let args = ["--drain-timeout", "1h"];
    let mut server = Server::with(&[], sockets.handed(&args));
    let (state, effects) = (server.state().to_owned(), server.dir().join("effects"));
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        let fates: Vec<_> = (0..CLIENTS).map(|n| fate(round * CLIENTS + n, &mut random)).collect();
        let signals = end_of_server(&mut random);
        let statuses = thread::scope(|scope| {
            let live = |fate| live(fate, &state, &addresses, &effects);
            let lives: Vec<_> = fates.iter().map(|fate| scope.spawn(move || live(*fate))).collect();
            for (when, signal) in &signals {
                after(*when);
                try_kill(server.pid(), *signal);
            }
            server.wait();
            server.restart_as(&[], sockets.handed(&args));
            lives.into_iter().map(|life| life.join().unwrap()).collect::<Vec<_>>()
        });
        let ends = fates.into_iter().zip(statuses);
        told.extend(ends.map(|(fate, status)| (fate, status, signals.clone())));
    }
    let text = std::fs::read_to_string(effects).unwrap();
    for (fate, status, signals) in told {
        let trace = fate.number.to_string();
        let traces = text.lines().filter(|line| **line == *trace).count();
        assert!(
            is_honest(status, traces, fate, &signals),
            "{status}, {traces}: {fate:?} {signals:?}"
        );
    }
}
