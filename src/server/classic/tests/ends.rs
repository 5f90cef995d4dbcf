//! Clients that go, servers that go, and commands that are too much.

use std::path::PathBuf;

use super::*;

/// A command whose processes write their pids: one in the process group, one that has left it, and
/// one that only SIGKILL ends.
struct Stubborn {
    dir: tempfile::TempDir,
}

impl Stubborn {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> String {
        format!(
            "cd {}; setsid sh -c 'echo $$ > outside; exec sleep 600' & echo $$ > main; sleep 600; sleep 600",
            self.dir.path().display()
        )
    }

    async fn pids(&self) -> [String; 2] {
        [pid_in(&self.file("main")).await, pid_in(&self.file("outside")).await]
    }
}

/// A command that runs until it is released.
struct Held {
    dir: tempfile::TempDir,
}

impl Held {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("go")).status();
        assert!(made.unwrap().success());
        Self { dir }
    }

    fn command(&self) -> String {
        format!("cd {}; echo $$ > there; cat go", self.dir.path().display())
    }

    async fn runs(&self) {
        pid_in(&self.dir.path().join("there")).await;
    }

    /// Its reply is then `text`.
    fn release(&self, text: &str) {
        std::fs::write(self.dir.path().join("go"), text).unwrap();
    }
}

async fn are_gone(pids: &[String]) {
    until(|| pids.iter().all(|pid| is_gone(pid))).await;
}

#[tokio::test]
async fn a_client_that_goes_in_mid_command_has_it_stopped_and_nobody_else_feels_it() {
    let server = Server::start(Kind::Length);
    let mut other = server.connect().await;
    let held = Held::new();
    other.say(held.command()).await;
    held.runs().await;
    let stubborn = Stubborn::new();
    let mut peer = server.connect().await;
    peer.say(stubborn.command()).await;
    let pids = stubborn.pids().await;
    drop(peer);
    are_gone(&pids).await;
    held.release("not disturbed");
    assert_eq!(other.body().await, b"not disturbed");
    assert_eq!(other.ask("echo still here").await, "still here\n");
}

#[tokio::test]
async fn a_reset_is_a_going_too() {
    let server = Server::start(Kind::Length);
    let stubborn = Stubborn::new();
    let mut peer = server.connect().await;
    peer.say(stubborn.command()).await;
    let pids = stubborn.pids().await;
    peer.0.set_zero_linger().unwrap();
    drop(peer);
    are_gone(&pids).await;
}

#[tokio::test]
async fn a_client_that_is_killed_has_its_command_stopped() {
    let server = Server::start(Kind::Length);
    let stubborn = Stubborn::new();
    let port = server.socket_address().port().to_string();
    let mut client = Command::new("python3")
        .args(["-c", include_str!("client.py"), "length", &port, &stubborn.command()])
        .spawn()
        .unwrap();
    let pids = stubborn.pids().await;
    client.kill().unwrap();
    client.wait().unwrap();
    are_gone(&pids).await;
}

#[tokio::test]
async fn a_client_that_only_stops_sending_gets_its_reply() {
    let server = Server::start(Kind::Length);
    let mut peer = server.connect().await;
    peer.say("sleep 0.6; echo late").await;
    peer.0.shutdown().await.unwrap();
    assert_eq!(peer.body().await, b"late\n");
    peer.is_closed().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_and_then_goes_has_its_command_stopped() {
    let server = Server::start(Kind::Length);
    let stubborn = Stubborn::new();
    let mut peer = server.connect().await;
    peer.say(stubborn.command()).await;
    peer.0.shutdown().await.unwrap();
    let pids = stubborn.pids().await;
    drop(peer);
    are_gone(&pids).await;
}

#[tokio::test]
async fn a_unix_client_may_stop_sending_and_may_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = format!("unix:{}", path.display());
    let _server = Server::with(Kind::Raw, &address, fs::euid(), Limits::DEFAULT);
    let mut half = tokio::net::UnixStream::connect(&path).await.unwrap();
    half.write_all(b"sleep 0.3; echo late").await.unwrap();
    half.shutdown().await.unwrap();
    let mut reply = Vec::new();
    within(half.read_to_end(&mut reply)).await.unwrap();
    assert_eq!(reply, b"late\n");

    let stubborn = Stubborn::new();
    let mut peer = tokio::net::UnixStream::connect(&path).await.unwrap();
    peer.write_all(stubborn.command().as_bytes()).await.unwrap();
    let pids = stubborn.pids().await;
    drop(peer);
    are_gone(&pids).await;
}

#[tokio::test]
async fn a_command_sent_ahead_waits_for_its_turn() {
    let server = Server::start(Kind::Length);
    let held = Held::new();
    let mut peer = server.connect().await;
    peer.say(held.command()).await;
    held.runs().await;
    peer.say("echo second").await;
    held.release("first");
    assert_eq!(peer.body().await, b"first");
    assert_eq!(peer.body().await, b"second\n");
}

#[tokio::test]
async fn shutting_down_waits_until_everything_is_gone() {
    let mut server = Server::start(Kind::Length);
    let stubborn = Stubborn::new();
    let mut peer = server.connect().await;
    peer.say(stubborn.command()).await;
    let pids = stubborn.pids().await;
    server.shut_down().await;
    assert!(pids.iter().all(|pid| is_gone(pid)));
    peer.is_closed().await;
}

#[tokio::test]
async fn an_aborted_listener_stops_its_commands() {
    let server = Server::start(Kind::Length);
    let stubborn = Stubborn::new();
    let mut peer = server.connect().await;
    peer.say(stubborn.command()).await;
    let pids = stubborn.pids().await;
    server.task.abort();
    are_gone(&pids).await;
    peer.is_closed().await;
}

#[test]
fn a_runtime_that_ends_kills_its_commands() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let stubborn = Stubborn::new();
    let (server, _peer, main) = runtime.block_on(async {
        let server = Server::start(Kind::Length);
        let mut peer = server.connect().await;
        peer.say(stubborn.command()).await;
        let [main, _] = stubborn.pids().await;
        (server, peer, main)
    });
    drop(runtime);
    drop(server);
    let again = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    again.block_on(until(|| is_gone(&main)));
    let outside = std::fs::read_to_string(stubborn.file("outside")).unwrap();
    let outside = rustix::process::Pid::from_raw(outside.trim().parse().unwrap()).unwrap();
    // Only the process group can be killed at once.
    let _ = rustix::process::kill_process(outside, rustix::process::Signal::KILL);
}

#[tokio::test]
async fn one_byte_past_a_reply_stops_the_command_and_says_so() {
    let limits = Limits { reply: 100_000, ..Limits::DEFAULT };
    let server = Server::limited(Kind::Length, limits);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let mut peer = server.connect().await;
    assert_eq!(peer.ask("head -c 100000 /dev/zero").await.len(), 100_000);
    for stream in ["", " >&2"] {
        let reply = peer.ask(&format!("head -c 100001 /dev/zero{stream}")).await;
        assert!(
            reply.starts_with("rexec-server: the output is longer than 100000 bytes"),
            "{reply}"
        );
        assert_eq!(reply.lines().count(), 1);
    }
    // Standard output that is not sent does not count: the pipes are read in turn.
    assert_eq!(peer.ask("echo wrong >&2; head -c 10000000 /dev/zero").await, "wrong\n");
    let endless = format!("echo $$ > {}; exec yes", file.display());
    assert!(peer.ask(&endless).await.contains("the command was stopped"));
    assert!(is_gone(&pid_in(&file).await), "before the reply");
    assert_eq!(peer.ask("echo next").await, "next\n");
}

#[tokio::test]
async fn one_byte_past_the_memory_of_all_stops_the_command_and_says_so() {
    let limits = Limits { reply: 60_000, memory: 100_000, ..Limits::DEFAULT };
    let server = Server::limited(Kind::Length, limits);
    let held = Held::new();
    let mut holder = server.connect().await;
    holder.say(format!("head -c 60000 /dev/zero; {}", held.command())).await;
    held.runs().await;
    let mut other = server.connect().await;
    let more = |n: usize| format!("head -c {n} /dev/zero");
    // The pid is written when the pipe has the bytes; that they were taken shows in the refusal.
    within(async { while other.ask(&more(40_001)).await.len() == 40_001 {} }).await;
    let refused = other.ask(&more(40_001)).await;
    assert!(refused.contains("hold 100000 bytes of output together"), "{refused}");
    assert_eq!(refused.lines().count(), 1);
    assert_eq!(other.ask(&more(40_000)).await.len(), 40_000);
    held.release("");
    assert_eq!(holder.body().await.len(), 60_000);
    // Given back with the reply.
    within(async { while other.ask(&more(60_000)).await.len() != 60_000 {} }).await;
}

/// What comes of a command that is sent while another runs, so that one read has all of it. Over a
/// unix socket, because TCP has a window.
async fn sent_in_one_read(command: &[u8]) -> Vec<u8> {
    let held = Held::new();
    let path = held.dir.path().join("s");
    let address = format!("unix:{}", path.display());
    let _server = Server::with(Kind::Raw, &address, fs::euid(), Limits::DEFAULT);
    let mut peer = tokio::net::UnixStream::connect(&path).await.unwrap();
    peer.write_all(held.command().as_bytes()).await.unwrap();
    held.runs().await;
    within(peer.write_all(command)).await.unwrap();
    peer.shutdown().await.unwrap();
    held.release("first;");
    let mut replies = Vec::new();
    within(peer.read_to_end(&mut replies)).await.unwrap();
    replies
}

#[tokio::test]
async fn one_byte_past_a_command_closes_the_connection_unexecuted() {
    let text = format!("echo done #{}", "x".repeat(COMMAND_LIMIT));
    assert_eq!(sent_in_one_read(&text.as_bytes()[..COMMAND_LIMIT]).await, b"first;done\n");
    assert_eq!(sent_in_one_read(&text.as_bytes()[..=COMMAND_LIMIT]).await, b"first;");
}
