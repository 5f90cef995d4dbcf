//! The server's limits: on connections, runs, descriptors and memory.

use std::net::TcpStream;
use std::time::Instant;

use serde_json::json;

use super::support::server::{finish, under};
use super::support::{PATIENCE, Server, memory_kib, raw::Raw, wait_until};

/// Arguments that fill a request almost up to its limit of 1 MiB.
fn long_request() -> Vec<String> {
    let mut words = vec!["--".to_owned(), "true".to_owned()];
    words.extend(std::iter::repeat_n("x".repeat(120_000), 8));
    words
}

#[track_caller]
fn run_long(server: &Server, more: &[&str]) -> super::support::Ran {
    let words = long_request();
    let words: Vec<_> = more.iter().copied().chain(words.iter().map(String::as_str)).collect();
    server.run(&words)
}

#[test]
fn one_connection_too_many_is_refused_in_words_although_its_request_lies_unread() {
    let server = Server::start(&["--max-connections", "1"]);
    let holder = Raw::login(&server);
    for _ in 0..20 {
        let ran = run_long(&server, &[]).expect(254);
        assert!(ran.stderr.contains("too_many_connections"), "{}", ran.stderr);
    }
    drop(holder);
    wait_until("the place to be free", || server.run(&["true"]).status == 0);
}

#[test]
fn a_key_that_is_not_let_in_is_refused_in_words_although_its_request_lies_unread() {
    let server = Server::start(&[]);
    let key = server.dir().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    for _ in 0..20 {
        let ran = run_long(&server, &["-i", key.to_str().unwrap()]).expect(254);
        assert!(ran.stderr.contains("not_authorized"), "{}", ran.stderr);
    }
}

#[test]
fn one_run_too_many_is_refused_in_words() {
    let server = Server::start(&["--max-runs", "1"]);
    let mut holder = Raw::login(&server);
    holder.run("holder", "read line", json!({"stdin": true}));
    holder.expect("started");
    for _ in 0..5 {
        let ran = run_long(&server, &[]).expect(254);
        assert!(ran.stderr.contains("too_many_runs"), "{}", ran.stderr);
    }
    holder.send(&json!({"type": "cancel"}), b"");
    holder.until("verdict");
    server.run(&["true"]).expect(0);
}

/// What may have been started is never said to be refused, however full or closed the server is.
#[test]
fn a_run_of_an_earlier_server_is_lost_and_not_refused_by_a_full_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut first = Server::at(&state, "127.0.0.1:0", &[], |_| ());
    let mut raw = Raw::login(&first);
    raw.run("old", "sleep 1000", json!({}));
    raw.expect("started");
    first.crash();
    let second = Server::at(&state, "127.0.0.1:0", &["--max-runs", "1"], |_| ());
    let mut holder = Raw::login(&second);
    holder.run("holder", "read line", json!({"stdin": true, "grace_ms": 0}));
    holder.expect("started");
    let mut raw = Raw::login(&second);
    raw.run("new", "true", json!({}));
    assert_eq!(raw.expect("refused").0["code"], "too_many_runs");
    raw.run("old", "sleep 1000", json!({"first_sent_ms_ago": 5000}));
    assert_eq!(raw.expect("lost").0["code"], "server_restarted");
}

#[test]
fn out_of_descriptors_new_connections_wait_and_then_are_served() {
    let server = Server::with(&[], under(&["prlimit", "--nofile=48:48", "--"]));
    let strangers: Vec<_> = (0..60).map(|_| TcpStream::connect(&server.addr).unwrap()).collect();
    wait_until("the server to run out", || server.log().contains("cannot accept a connection"));
    let start = Instant::now();
    let client = server.client().arg("echo served").spawn();
    drop(strangers);
    assert_eq!(finish(client).expect(0).text(), "served\n");
    assert!(start.elapsed() < PATIENCE / 2);
    let lines = server.log().lines().filter(|l| l.contains("cannot accept")).count();
    assert!(lines as u64 <= start.elapsed().as_secs() + 3, "{}", server.log());
    server.run(&["true"]).expect(0);
}

/// Each stalled run keeps its share of the budget and no more.
#[test]
fn two_hundred_stalled_runs_stay_within_the_memory_budget() {
    const BUDGET_KIB: u64 = 64 * 1024;
    let server = Server::start(&["--memory-budget", "64M"]);
    server.run(&["true"]).expect(0);
    let before = server.memory_kib("VmRSS");
    let mut stalled = Vec::new();
    for n in 0..200 {
        let mut raw = Raw::login(&server);
        raw.run(&format!("stalled-{n}"), "exec cat /dev/zero", json!({"grace_ms": 0}));
        raw.expect("started");
        stalled.push(raw);
    }
    let (mut last, mut same) = (0, 0);
    wait_until("half of it to be used", || server.memory_kib("VmRSS") > before + BUDGET_KIB / 2);
    wait_until("the server to fill up", || {
        let now = server.memory_kib("VmRSS");
        same = if now == last { same + 1 } else { 0 };
        last = now;
        same > 100
    });
    let grown = server.memory_kib("VmHWM") - before;
    assert!(grown < BUDGET_KIB + 32 * 1024, "{grown} KiB");
    server.run(&["echo the others go on"]).expect(0);
}

#[test]
fn a_large_output_passes_through_small_programs() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.command.arg("head -c 256M /dev/zero").stdout(std::process::Stdio::null());
    let mut client = client.command.spawn().unwrap();
    let mut most = 0;
    wait_until("the end of the client", || {
        most = most.max(memory_kib(client.id(), "VmHWM"));
        client.try_wait().unwrap().is_some()
    });
    assert!(client.wait().unwrap().success());
    let server = server.memory_kib("VmHWM");
    // A debug build's text alone is larger than a release build's.
    let limit = if cfg!(debug_assertions) { 64 * 1024 } else { 32 * 1024 };
    assert!(most > 0 && most < limit, "the client had {most} KiB");
    assert!(server < limit, "the server had {server} KiB");
}

#[test]
fn a_thousand_idle_connections_cost_little() {
    const COUNT: u64 = 1000;
    let server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    let state = rexec::sys::fs::StateDir::open(&server.state().canonicalize().unwrap()).unwrap();
    let target = rexec::client::Target::local(server.addr.parse().unwrap(), &state).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = server.memory_kib("VmRSS");
    let clients = runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..COUNT {
            let mut client = rexec::Client::new(target.clone());
            let id = format!("idle-{}", clients.len());
            let output = client.output(&rexec::Command::argv(["true"]).id(id)).await.unwrap();
            assert!(output.verdict.succeeded());
            clients.push(client);
        }
        clients
    });
    let each = server.memory_kib("VmRSS").saturating_sub(before) / COUNT;
    assert!(each > 0 && each < 40, "{each} KiB for each connection");
    drop(clients);
    server.run(&["true"]).expect(0);
}

#[test]
fn limits_as_high_as_a_number_may_be_are_none() {
    let most = u64::MAX.to_string();
    let counts = ["--max-connections", "--max-runs", "--keep-count"];
    let bytes = ["--memory-budget", "--record-limit", "--keep-bytes"];
    let times = ["--keep-for", "--drain-timeout", "--idle-timeout"];
    let of = |names: [&'static str; 3], most| names.into_iter().flat_map(move |name| [name, most]);
    let args: Vec<_> =
        of(counts, &*most).chain(of(bytes, &most)).chain(of(times, "100y")).collect();
    let server = Server::start(&args);
    assert_eq!(server.run(&["--timeout", "100y", "seq 3"]).expect(0).text(), "1\n2\n3\n");
    assert_eq!(server.run(&["--durable", "seq 3"]).expect(0).text(), "1\n2\n3\n");
}
