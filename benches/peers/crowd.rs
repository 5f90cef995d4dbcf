//! Many short commands at once, from one client process.

use std::thread;
use std::time::Instant;

use rexec::Client;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::Fallible;
use crate::cold::{Master, succeed, through};
use crate::contenders::Peers;
use crate::report::{Limit, Line, Row};
use crate::rounds::Rounds;
use crate::spawn;

/// ssh is asked for so many times fewer: it takes its time.
const SSH_SHARE: usize = 5;

/// Runs per second, so many under way at any moment.
pub(crate) fn row(peers: &Peers, rounds: Rounds, at_once: usize, total: usize) -> Fallible<Row> {
    let local = &peers.contenders()[0];
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("master");
    let master = peers.ssh.as_ref().map(|ssh| Master::start(ssh, ssh.port, &socket)).transpose()?;
    let mut lines = vec![Line::new("local sh -c"), Line::new("rexec, Client of the library")];
    lines.extend(master.is_some().then(|| Line::new("ssh, ControlMaster")));
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut clients: Vec<_> =
        (0..at_once).map(|_| Client::local(&peers.rexec.addr)).collect::<Result<_, _>>()?;
    for round in rounds.after_warm_up() {
        let here = Instant::now();
        workers(at_once, total, || {
            spawn::run(local.run("true")).map(drop).map_err(|e| e.to_string())
        })?;
        let here = rate(total, here);
        let there = Instant::now();
        clients = runtime.block_on(all(clients, total))?;
        let mut rates = vec![here, rate(total, there)];
        if let Some(ssh) = &peers.ssh {
            let (before, total) = (Instant::now(), total / SSH_SHARE);
            workers(at_once, total, || through(ssh, &socket).map_err(|e| e.to_string()))?;
            rates.push(rate(total, before));
        }
        // The first round makes the connections.
        if round > 0 {
            lines.iter_mut().zip(rates).for_each(|(line, rate)| line.samples.push(rate));
        }
    }
    let name = if at_once > 16 { "crowds" } else { "crowd" };
    let mut row = Row {
        title: format!("{name}: `true`, {at_once} at once, {total} in all"),
        unit: "/s",
        notes: vec!["rexec: one thread with a connection for each at once".into()],
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 0), "of the local rate", Limit::AtLeast(0.9));
    Ok(row)
}

/// Runs something so many times in so many threads.
fn workers(
    threads: usize,
    total: usize,
    run: impl Fn() -> Result<(), String> + Sync,
) -> Fallible<()> {
    thread::scope(|scope| {
        let (run, share) = (&run, total);
        let share = move |at: usize| (at..share).step_by(threads).try_for_each(|_| run());
        let started: Vec<_> = (0..threads).map(|at| scope.spawn(move || share(at))).collect();
        let mut ended = started.into_iter().map(thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| Ok(ended.map_err(|_| "a worker failed")??))
    })
}

async fn all(clients: Vec<Client>, total: usize) -> Fallible<Vec<Client>> {
    let mut tasks = JoinSet::new();
    let count = clients.len();
    for (at, mut client) in clients.into_iter().enumerate() {
        tasks.spawn(async move {
            for _ in (at..total).step_by(count) {
                succeed(&mut client).await.map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(client)
        });
    }
    let mut back = Vec::new();
    while let Some(client) = tasks.join_next().await {
        back.push(client??);
    }
    Ok(back)
}

fn rate(total: usize, since: Instant) -> f64 {
    f64::from(u32::try_from(total).unwrap_or(u32::MAX)) / since.elapsed().as_secs_f64()
}
