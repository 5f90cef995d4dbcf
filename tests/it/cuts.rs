//! Every cut point: a session whose link dies after byte N, for all N, in both directions.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rexec::Command;
use rexec::proto::verdict::End;
use tokio::sync::Semaphore;

use super::support::Server;
use super::support::cutter::{Cutter, session};
use super::support::relay::Way;

const STDIN: &[u8] = b"in\0\xff\n";
/// Sessions at one time: each waits most of its time for its reconnection.
const AT_ONCE: usize = 64;
/// The length of a conversation varies by the digits of times and places.
const VARIES: u64 = 48;
/// A cut inside the last frame to the server, which confirms the verdict, is not felt by the client.
const LAST_ACK: u64 = 96;

/// One session, cut as told: it must end as if nothing had happened, and must have run once.
async fn cut_session(
    server: &str,
    dir: &Path,
    name: &str,
    cuts: Vec<(Way, u64)>,
    stdin: &'static [u8],
) -> [u64; 3] {
    let what = format!("{cuts:?}");
    let effect = dir.join(format!("{name}.effect"));
    let cutter = Cutter::new(dir.join(format!("{name}.sock")), Path::new(server), cuts);
    let text = format!("echo x >> {}; cat; echo e >&2; exit 7", effect.display());
    let command = Command::shell(text).id(name);
    let (end, [stdout, stderr]) = session(cutter.target(), &command, stdin).await;
    let verdict = end.unwrap_or_else(|e| panic!("{what}: {e:?}"));
    assert_eq!(verdict.end, Some(End::Exited { code: 7 }), "{what}");
    assert!(stdout == stdin && stderr == b"e\n", "{what}: {} bytes", stdout.len());
    let ran = std::fs::read_to_string(&effect).unwrap();
    assert_eq!(ran, "x\n", "{what}: executions");
    std::fs::remove_file(&effect).unwrap();
    let carried = |at: usize| cutter.carried[at].load(Ordering::Relaxed);
    [carried(0), carried(1), cutter.connections.load(Ordering::Relaxed) as u64]
}

/// All of these sessions, many at one time; how many of them needed more than one connection.
async fn cut_sessions(server: &Server, all: Vec<Vec<(Way, u64)>>, stdin: &'static [u8]) -> usize {
    let socket: Arc<str> = server.unix.strip_prefix("unix:").unwrap().into();
    let dir: Arc<Path> = server.dir().into();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = tokio::task::JoinSet::new();
    for (n, cuts) in all.into_iter().enumerate() {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        let (socket, dir) = (Arc::clone(&socket), Arc::clone(&dir));
        tasks.spawn(async move {
            let [.., connections] = cut_session(&socket, &dir, &format!("c{n}"), cuts, stdin).await;
            drop(place);
            usize::from(connections > 1)
        });
    }
    tasks.join_all().await.into_iter().sum()
}

async fn length(server: &Server, stdin: &'static [u8]) -> [u64; 3] {
    let socket = server.unix.strip_prefix("unix:").unwrap();
    cut_session(socket, server.dir(), "whole", Vec::new(), stdin).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_at_any_byte_towards_the_server_is_resumed_and_runs_once() {
    let server = Server::start(&[]);
    let [up, ..] = length(&server, STDIN).await;
    let all: Vec<_> = (0..up + VARIES).map(|n| vec![(Way::Up, n)]).collect();
    let resumed = cut_sessions(&server, all, STDIN).await as u64;
    assert!(resumed + LAST_ACK >= up, "only {resumed} of {up} cuts were felt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_cut_at_any_byte_towards_the_client_is_resumed_and_runs_once() {
    let server = Server::start(&[]);
    let [_, down, _] = length(&server, STDIN).await;
    let all: Vec<_> = (0..down + VARIES).map(|n| vec![(Way::Down, n)]).collect();
    let resumed = cut_sessions(&server, all, STDIN).await as u64;
    assert!(resumed + VARIES >= down, "only {resumed} of {down} cuts were felt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_that_are_cut_again_and_again_are_resumed_and_run_once() {
    let server = Server::start(&[]);
    let [up, down, _] = length(&server, STDIN).await;
    let mut random = super::support::Random::new();
    let mut cut = || match random.below(2) {
        0 => (Way::Up, random.below(up)),
        _ => (Way::Down, random.below(down)),
    };
    let all = (0..300).map(|_| (0..4).map(|_| cut()).collect()).collect();
    assert!(cut_sessions(&server, all, STDIN).await > 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_longer_than_their_windows_survive_links_that_are_cut_again_and_again() {
    let server = Server::start(&[]);
    let mut random = super::support::Random::new();
    let bytes =
        std::iter::repeat_with(|| random.below(256) as u8).take(700_000).collect::<Vec<_>>();
    let stdin: &'static [u8] = bytes.leak();
    let [up, down, _] = length(&server, stdin).await;
    let mut cut = || match random.below(2) {
        0 => (Way::Up, random.below(up)),
        _ => (Way::Down, random.below(down)),
    };
    let all = (0..100).map(|_| (0..6).map(|_| cut()).collect()).collect();
    assert!(cut_sessions(&server, all, stdin).await > 80);
}
