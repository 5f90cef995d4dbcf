//! The library: what a program gets that does not call the client but is one.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rexec::client::{Control, Error, Output, OutputError, RunIo, Target};
use rexec::proto::code::Code;
use rexec::proto::header::Stream;
use rexec::proto::verdict::{End, StopBy, Verdict};
use rexec::runs::request::Request;
use rexec::sys::fs::StateDir;
use rexec::{Client, Command};
use serde_json::json;
use tokio::sync::mpsc;

use super::support::fake::Fake;
use super::support::raw::Raw;
use super::support::relay::{Relay, Way};
use super::support::server::own_port;
use super::support::{Server, wait_until};

fn client_to(server: &Server, address: &str) -> Client {
    let state = StateDir::open(server.state()).unwrap();
    Client::new(Target::local(address.parse().unwrap(), &state).unwrap())
}

fn client(server: &Server) -> Client {
    client_to(server, &server.addr)
}

type Kept = Arc<Mutex<Vec<(Stream, Vec<u8>)>>>;

/// Keeps pieces as they come, and tells when there is one.
struct Pieces {
    kept: Kept,
    came: mpsc::UnboundedSender<()>,
}

impl Output for Pieces {
    fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        self.kept.lock().unwrap().push((stream, bytes.to_vec()));
        // Whoever does not listen does not want to know.
        let _ = self.came.send(());
        Ok(())
    }
}

/// An output that is full at once.
struct Full;

impl Output for Full {
    fn write(&mut self, _: Stream, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn finish(&mut self, _: &Verdict) -> io::Result<()> {
        unreachable!("an output that failed is not finished")
    }
}

#[tokio::test]
async fn output_is_collected_over_both_transports() {
    let server = Server::start(&[]);
    for address in [&server.addr, &server.unix] {
        let mut client = client_to(&server, address);
        for code in [0, 7] {
            let command = Command::shell(format!("echo out; echo err >&2; exit {code}"));
            let output = client.output(&command).await.unwrap();
            assert_eq!(
                (output.stdout.as_slice(), output.stderr.as_slice()),
                (&b"out\n"[..], &b"err\n"[..])
            );
            assert_eq!(output.verdict.end, Some(End::Exited { code }));
            assert_eq!(output.verdict.succeeded(), code == 0);
        }
        assert!(client.welcome().unwrap().identity.starts_with("local:"));
    }
}

#[tokio::test]
async fn output_streams_while_stdin_is_written() {
    use tokio::io::AsyncWriteExt as _;
    let server = Server::start(&[]);
    let kept = Kept::default();
    let (came, mut coming) = mpsc::unbounded_channel();
    let (mut keyboard, stdin) = tokio::io::duplex(64);
    let (_ask, control) = mpsc::unbounded_channel();
    let output = Box::new(Pieces { kept: Arc::clone(&kept), came });
    let io = RunIo { stdin: Some(Box::new(stdin)), output, control };
    let mut client = client(&server);
    let command = Command::shell("echo ready; cat; echo end >&2");
    let run = client.run(&command, io);
    let types = async {
        coming.recv().await.unwrap();
        keyboard.write_all(b"typed\n").await.unwrap();
        coming.recv().await.unwrap();
        drop(keyboard);
    };
    let (verdict, ()) = tokio::join!(run, types);
    assert!(verdict.unwrap().succeeded());
    let expected =
        [(Stream::Stdout, "ready\n"), (Stream::Stdout, "typed\n"), (Stream::Stderr, "end\n")];
    assert_eq!(*kept.lock().unwrap(), expected.map(|(stream, text)| (stream, text.into())));
}

#[tokio::test]
async fn a_run_is_cancelled_and_says_so() {
    let server = Server::start(&[]);
    let (came, mut coming) = mpsc::unbounded_channel();
    let (ask, control) = mpsc::unbounded_channel();
    let output = Box::new(Pieces { kept: Arc::default(), came });
    let mut client = client(&server);
    let command = Command::shell("echo ready; exec sleep 600");
    let run = client.run(&command, RunIo { stdin: None, output, control });
    let cancels = async {
        coming.recv().await.unwrap();
        ask.send(Control::Cancel).unwrap();
    };
    let (verdict, ()) = tokio::join!(run, cancels);
    assert_eq!(verdict.unwrap().stopped.unwrap().by, StopBy::Client);
}

#[tokio::test]
async fn a_cut_link_is_gone_on_from_where_it_was() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Down, 60_000), (Way::Down, 120_000)]);
    let output = client_to(&server, &relay.addr).output(&Command::argv(["seq", "100000"])).await;
    let lines = output.unwrap().stdout.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!((lines, relay.connections()), (100_000, 3));
}

#[tokio::test]
async fn each_way_to_fail_is_an_error_of_its_own() {
    let server = Server::start(&[]);
    let mut client = client(&server);
    let end = client.output(&Command::argv(["no-such-program"])).await;
    assert!(matches!(end, Err(Error::Refused { code: Code::ProgramNotFound, .. })), "{end:?}");
    let end = client.output(&Command::argv(["a\0b"])).await;
    assert!(matches!(end, Err(Error::Usage(_))), "{end:?}");
    let (_ask, control) = mpsc::unbounded_channel();
    let io = RunIo { stdin: None, output: Box::new(Full), control };
    let end = client.run(&Command::shell("echo x; exec sleep 600"), io).await;
    let Err(Error::Output { error: OutputError::Write(Stream::Stdout, e), verdict }) = end else {
        panic!("{end:?}")
    };
    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    assert_eq!(verdict.unwrap().stopped.unwrap().by, StopBy::Client);
    let verdict =
        client.output(&Command::shell("sleep 600").deadline(Duration::from_millis(50))).await;
    assert_eq!(verdict.unwrap().verdict.stopped.unwrap().by, StopBy::Deadline);
    let end = client_to(&server, &own_port()).output(&Command::shell("true")).await;
    assert!(matches!(end, Err(Error::Unreached(_))), "{end:?}");
}

/// An output with a bug, in place or in the thread that writes.
struct Panics {
    in_place: bool,
}

impl Output for Panics {
    fn write(&mut self, _: Stream, _: &[u8]) -> io::Result<()> {
        panic!("a bug in the caller's output")
    }

    fn is_ready(&self, _: Stream) -> bool {
        self.in_place
    }
}

#[tokio::test]
async fn an_output_that_panics_stops_the_run_and_does_not_hang_it() {
    let server = Server::start(&[]);
    for in_place in [false, true] {
        let (_ask, control) = mpsc::unbounded_channel();
        let io = RunIo { stdin: None, output: Box::new(Panics { in_place }), control };
        let mut client = client(&server);
        let command = Command::shell("echo x; exec sleep 600");
        let end = tokio::time::timeout(Duration::from_secs(30), client.run(&command, io)).await;
        let Err(Error::Output { error: OutputError::Write(Stream::Stdout, e), verdict }) =
            end.expect("the run hangs")
        else {
            panic!("no word of the output")
        };
        assert!(e.to_string().contains("panicked"), "{e}");
        assert_eq!(verdict.unwrap().stopped.unwrap().by, StopBy::Client);
    }
}

/// The answer to a question that was given up is not taken for that to the next one.
#[tokio::test]
async fn a_question_that_was_given_up_answers_no_other() {
    let (asked, mut is_asked) = mpsc::unbounded_channel();
    let fake = Fake::start(move |raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
        let Some((first, _)) = raw.next() else { return };
        asked.send(()).unwrap();
        if first["run"] == "first" && raw.next().is_some() {
            raw.send(&json!({"type": "done", "run": "first"}), b"");
        }
        raw.send(&json!({"type": "already_ended", "run": "second"}), b"");
        raw.next();
    });
    let state = tempfile::tempdir().unwrap();
    let state = StateDir::open(state.path()).unwrap();
    let mut client = Client::new(Target::local(fake.address().parse().unwrap(), &state).unwrap());
    client.connect().await.unwrap();
    tokio::select! {
        answer = client.stop("first") => panic!("{answer:?}"),
        _ = is_asked.recv() => {}
    }
    assert!(!client.stop("second").await.unwrap());
    assert_eq!(fake.connections(), 2);
}

/// The same id never runs twice, also when it comes from another client.
#[tokio::test]
async fn an_id_stands_for_one_request() {
    let server = Server::start(&[]);
    let first = Command::shell("echo once").id("the-one");
    client(&server).output(&first).await.unwrap();
    // Until its end is confirmed, whoever asks for the run again is told that.
    let mut raw = Raw::login(&server);
    wait_until("the confirmation", || {
        raw.send(&json!({"type": "list"}), b"");
        raw.expect("runs").1 == b"[]"
    });
    let again = client(&server).output(&first).await;
    assert!(matches!(again, Err(Error::Unknown { code: Some(Code::Forgotten), .. })), "{again:?}");
}

#[tokio::test]
async fn the_longest_time_is_no_time_too_long() {
    let server = Server::start(&[]);
    let state = StateDir::open(server.state()).unwrap();
    let mut target = Target::local(server.addr.parse().unwrap(), &state).unwrap();
    target.connect_timeout = Duration::MAX;
    let mut client = Client::new(target).reconnect_timeout(Duration::MAX);
    client.connect().await.unwrap();
    let command = Command::shell("echo hi").deadline(Duration::MAX);
    assert_eq!(client.output(&command).await.unwrap().stdout, b"hi\n");
}

#[tokio::test]
async fn connecting_logs_in_and_the_run_that_follows_uses_it() {
    let server = Server::start(&["--verbose"]);
    let mut client = client(&server);
    client.connect().await.unwrap();
    assert!(client.welcome().unwrap().identity.starts_with("local:"));
    assert_eq!(client.last_run(), None);
    let verdict = client.output(&Command::shell("true").id("mine")).await.unwrap().verdict;
    assert_eq!((verdict.run.as_str(), client.last_run()), ("mine", Some("mine")));
    assert_eq!(server.log().matches("logged in").count(), 1, "{}", server.log());
    let relay = Relay::to(&server.addr);
    let mut lines = Vec::new();
    for bytes in (0..1000).step_by(50) {
        relay.cut_after(&[(Way::Down, bytes)]);
        match client_to(&server, &relay.addr).connect().await {
            Err(Error::Unreached(e)) => lines.push(e.to_string()),
            other => other.unwrap(),
        }
    }
    assert!(lines.iter().any(|line| line.starts_with("cannot log in to ")), "{lines:?}");
}

/// Names of variables are shown, values never.
#[test]
fn debug_shows_no_secret() {
    let command = Command::argv(["deploy"]).env("TOKEN", "hunter2");
    let shown = format!("{command:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn debug_shows_no_secret_of_a_request() {
    let header = json!({"id": "one", "form": "shell", "words": 1, "env": 1});
    let body = Bytes::from_static(b"login hunter2\0TOKEN=hunter2\0");
    let request = Request::parse(serde_json::from_value(header).unwrap(), body).unwrap();
    let shown = format!("{request:?}");
    assert!(shown.contains("one") && !shown.contains("hunter2"), "{shown}");
}
