//! At most once: run ids, conflicts, identities, ownership on every verb.

use std::path::PathBuf;

use rexec::proto::digest::Digest;
use rexec::runs::credit::INPUT;
use serde_json::{Value, json};

use super::support::raw::Raw;
use super::support::{Client, Server, wait_until};

/// A file to which a command adds a line each time it runs.
struct Effect(PathBuf);

impl Effect {
    fn new(server: &Server) -> Self {
        Self(server.dir().join("effect"))
    }

    /// Text for the shell, which then goes on with `rest`.
    fn then(&self, rest: &str) -> String {
        format!("echo x >> {}; {rest}", self.0.display())
    }

    fn count(&self) -> usize {
        std::fs::read_to_string(&self.0).map_or(0, |text| text.lines().count())
    }

    fn seen(&self) {
        wait_until("the command's effect", || self.count() > 0);
    }
}

fn piece(kind: &str, offset: usize, whole: &[u8]) -> Value {
    json!({"type": kind, "offset": offset, "hash": Digest::of(whole).to_string()})
}

/// The next frame is an error of this code, and then the server closes.
#[track_caller]
fn expect_error(raw: &mut Raw, code: &str) -> String {
    let frames = raw.until("error");
    let (last, _) = frames.last().unwrap();
    assert_eq!(last["code"], code, "{last}");
    assert!(raw.next().is_none(), "the server goes on after an error");
    last["text"].as_str().unwrap().to_owned()
}

#[test]
fn the_same_request_attaches_and_does_not_run_twice() {
    let server = Server::start(&[]);
    let effect = Effect::new(&server);
    let mut first = Raw::login(&server);
    first.run("one", &effect.then("echo hi; read x"), json!({"stdin": true}));
    let (started, _) = first.expect("started");
    assert_eq!((&started["attached"], &started["stdin_offset"]), (&json!(false), &json!(0)));
    effect.seen();
    let mut second = Raw::login(&server);
    second.run("one", &effect.then("echo hi; read x"), json!({"stdin": true}));
    let (again, _) = second.expect("started");
    assert_eq!((&again["attached"], &again["pid"]), (&json!(true), &started["pid"]));
    assert_eq!(second.expect("output").1, b"hi\n");
    expect_error(&mut first, "taken_over");
    second.send(&piece("stdin_end", 0, b""), b"");
    assert_eq!(second.expect("verdict").0["end"], json!({"exited": {"code": 1}}));
    assert_eq!(effect.count(), 1);
}

#[test]
fn another_request_with_the_same_id_is_a_conflict_that_names_fields_and_no_values() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "read x; echo topsecret", json!({"stdin": true}));
    raw.expect("started");
    let more = json!({"stdin": true, "deadline_ms": 1234, "merge": true, "env": 1, "words": 1});
    let mut other = Raw::login(&server);
    let mut header = json!({"type": "run", "id": "one", "form": "shell"});
    header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    other.send(&header, b"echo othersecret\0PASSWORD=hunter2\0");
    let (refused, _) = other.expect("refused");
    assert_eq!(refused["code"], "conflict");
    let text = refused["text"].as_str().unwrap();
    for name in ["command", "env", "merge", "deadline"] {
        assert!(text.contains(name), "{name} is not in {text:?}");
    }
    for value in ["secret", "hunter2", "PASSWORD", "1234"] {
        assert!(!text.contains(value) && !server.log().contains("hunter2"), "{text}");
    }
    for same in ["cwd", "stdin", "grace"] {
        assert!(!text.contains(same), "{same} is in {text:?}");
    }
    // The one who has the run keeps it.
    raw.send(&piece("stdin_end", 0, b""), b"");
    raw.until("verdict");
}

#[test]
fn another_identity_finds_nothing_under_an_id_and_runs_its_own() {
    let key = tempfile::tempdir().unwrap();
    let path = key.path().join("id");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "other", "-f"])
        .arg(&path)
        .status();
    assert!(made.unwrap().success());
    let keys = path.with_extension("pub");
    let server = Server::start(&["--authorized-keys", keys.to_str().unwrap()]);
    let mut raw = Raw::login(&server);
    raw.run("one", "echo mine; read x", json!({"stdin": true}));
    raw.until("output");
    let identity = path.to_str().unwrap();
    let ran = tokio::runtime::Runtime::new().unwrap().block_on(async {
        use rexec::transport::{Endpoint, HostTrust};
        let state = rexec::sys::fs::StateDir::open(server.state()).unwrap();
        let own = rexec::identity::host_key(&state).unwrap().public().clone();
        let target = rexec::client::Target {
            user: None,
            endpoint: server.addr.parse::<Endpoint>().unwrap(),
            trust: std::sync::Arc::new(HostTrust { own: Some(own.into()), ..HostTrust::default() }),
            keys: rexec::identity::KeyRing::of([rexec::identity::Key::load(std::path::Path::new(
                identity,
            ))
            .unwrap()]),
            connect_timeout: super::support::PATIENCE,
        };
        let command = rexec::Command::shell("echo theirs").id("one");
        rexec::Client::new(target).output(&command).await.unwrap()
    });
    assert_eq!(ran.stdout, b"theirs\n");
    raw.send(&piece("stdin_end", 0, b""), b"");
    assert_eq!(raw.expect("verdict").0["stopped"], Value::Null);
}

#[test]
fn a_closed_id_is_buried_and_a_late_run_is_refused() {
    let mut server = Server::start(&[]);
    let effect = Effect::new(&server);
    let mut raw = Raw::login(&server);
    raw.send(&json!({"type": "close", "id": "one"}), b"");
    assert_eq!(raw.expect("never_started").0["run"], "one");
    for _ in 0..2 {
        raw.run("one", &effect.then(""), json!({"first_sent_ms_ago": 1}));
        assert_eq!(raw.expect("refused").0["code"], "buried");
        raw.send(&json!({"type": "close", "id": "one", "first_sent_ms_ago": 1}), b"");
        raw.expect("never_started");
        // The next server says so too.
        server.restart();
        raw = Raw::login(&server);
    }
    assert_eq!(effect.count(), 0);
}

#[test]
fn closing_a_running_run_stops_it_and_answers_with_its_verdict() {
    let server = Server::start(&[]);
    let mut first = Raw::login(&server);
    first.run("one", "echo out; sleep 1000", json!({}));
    first.until("output");
    let mut second = Raw::login(&server);
    second.send(&json!({"type": "close", "id": "one", "first_sent_ms_ago": 5}), b"");
    let frames = second.until("verdict");
    assert_eq!(frames[0].0["type"], "gap", "output that nobody wants is not sent");
    let verdict = &frames.last().unwrap().0;
    assert_eq!(verdict["stopped"]["by"], "client");
    expect_error(&mut first, "taken_over");
    second.send(&json!({"type": "ack", "seq": verdict["seq"]}), b"");
    second.run("one", "echo out; sleep 1000", json!({"first_sent_ms_ago": 9}));
    assert_eq!(second.expect("lost").0["code"], "forgotten");
}

#[test]
fn closing_a_run_that_has_ended_answers_with_the_verdict_it_had() {
    let server = Server::start(&[]);
    let mut first = Raw::login(&server);
    first.run("one", "exit 5", json!({}));
    let verdict = first.until("verdict").pop().unwrap().0;
    let mut second = Raw::login(&server);
    second.send(&json!({"type": "close", "id": "one", "first_sent_ms_ago": 5}), b"");
    assert_eq!(second.until("verdict").pop().unwrap().0, verdict);
}

#[test]
fn an_id_that_may_have_been_forgotten_is_lost_and_never_started() {
    let server = Server::start(&[]);
    let effect = Effect::new(&server);
    let mut raw = Raw::login(&server);
    // Before this server's first journal line; and longer ago than any server remembers.
    for ago in [120_000u64, 600_000, 9_007_199_254_740_991] {
        raw.run("old", &effect.then(""), json!({"first_sent_ms_ago": ago}));
        assert_eq!(raw.expect("lost").0["code"], "before_memory", "{ago}");
        raw.send(&json!({"type": "close", "id": "old", "first_sent_ms_ago": ago}), b"");
        assert_eq!(raw.expect("lost").0["code"], "before_memory", "{ago}");
    }
    // Whatever its clock says: this client has seen the run.
    for seen in [json!({"was_started": true}), json!({"after": 3})] {
        raw.run("seen", &effect.then(""), seen);
        assert_eq!(raw.expect("lost").0["code"], "before_memory");
    }
    assert_eq!(effect.count(), 0);
    // Sent for the first time while this server was there: it would know.
    raw.run("new", &effect.then(""), json!({"first_sent_ms_ago": 1}));
    raw.until("verdict");
    assert_eq!(effect.count(), 1);
}

#[test]
fn what_was_not_started_or_refused_does_not_use_up_its_id() {
    let server = Server::start(&["--max-runs", "1"]);
    let mut raw = Raw::login(&server);
    raw.run("one", "exit 0", json!({"cwd": true}));
    assert_eq!(raw.expect("refused").0["code"], "bad_request");
    let header = json!({"type": "run", "id": "one", "form": "argv", "words": 1});
    raw.send(&header, b"/no/such/program\0");
    assert_eq!(raw.expect("not_started").0["code"], "program_not_found");
    let mut other = Raw::login(&server);
    other.run("busy", "read x", json!({"stdin": true}));
    other.expect("started");
    raw.run("one", "exit 3", json!({}));
    assert_eq!(raw.expect("refused").0["code"], "too_many_runs");
    other.send(&piece("stdin_end", 0, b""), b"");
    other.until("verdict");
    raw.run("one", "exit 3", json!({}));
    assert_eq!(raw.until("verdict").pop().unwrap().0["end"], json!({"exited": {"code": 3}}));
}

#[test]
fn a_full_server_does_not_call_a_lost_run_never_started() {
    let mut server = Server::start(&[]);
    let effect = Effect::new(&server);
    let mut raw = Raw::login(&server);
    raw.run("one", &effect.then("sleep 1000"), json!({}));
    raw.expect("started");
    effect.seen();
    server.restart_with(&["--max-runs", "1"]);
    let mut busy = Raw::login(&server);
    busy.run("busy", "read x", json!({"stdin": true}));
    busy.expect("started");
    let mut raw = Raw::login(&server);
    raw.run("one", &effect.then("sleep 1000"), json!({"first_sent_ms_ago": 1}));
    assert_eq!(raw.expect("lost").0["code"], "server_restarted");
    assert_eq!(effect.count(), 1);
}

#[test]
fn a_confirmation_of_what_was_never_made_ends_the_connection_and_not_the_run() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "echo hi; read x", json!({"stdin": true}));
    raw.until("output");
    raw.send(&json!({"type": "ack", "seq": 2}), b"");
    expect_error(&mut raw, "bad_frame");
    let mut raw = Raw::login(&server);
    raw.run("one", "echo hi; read x", json!({"stdin": true, "after": 2}));
    // Not `refused`: that would say that nothing was started.
    expect_error(&mut raw, "bad_frame");
    let mut raw = Raw::login(&server);
    raw.run("one", "echo hi; read x", json!({"stdin": true, "after": 1}));
    assert_eq!(raw.expect("started").0["attached"], true);
    raw.send(&piece("stdin_end", 0, b""), b"");
    assert_eq!(raw.expect("verdict").0["seq"], 2);
}

#[test]
fn stdin_out_of_place_altered_or_beyond_its_credit_is_refused_and_can_be_resumed() {
    let server = Server::start(&[]);
    let much = vec![b'a'; INPUT.first + 1];
    let text = "exec cat";
    let cases: [(Value, &[u8]); 4] = [
        (piece("stdin", 1, b"a"), b"a"),
        (piece("stdin", 0, b"b"), b"a"),
        (piece("stdin", 0, &much), &much),
        (piece("stdin_end", 1, b""), b""),
    ];
    for (header, body) in cases {
        let mut raw = Raw::login(&server);
        raw.run("one", text, json!({"stdin": true}));
        assert_eq!(raw.expect("started").0["stdin_grant"], INPUT.first);
        raw.send(&header, body);
        expect_error(&mut raw, "corrupt");
    }
    let mut raw = Raw::login(&server);
    raw.run("one", text, json!({"stdin": true}));
    let (started, _) = raw.expect("started");
    assert_eq!((&started["attached"], &started["stdin_offset"]), (&json!(true), &json!(0)));
    raw.send(&piece("stdin", 0, b"ok"), b"ok");
    raw.send(&piece("stdin_end", 2, b"ok"), b"");
    assert_eq!(raw.until("verdict").pop().unwrap().0["stdout"]["size"], 2);
}

#[test]
fn every_verb_of_a_connection_that_lost_its_run_is_answered_with_taken_over() {
    let server = Server::start(&[]);
    let verbs = [
        piece("stdin", 0, b"a"),
        piece("stdin_end", 0, b""),
        json!({"type": "ack", "seq": 1}),
        json!({"type": "signal", "signal": "TERM"}),
        json!({"type": "cancel"}),
    ];
    let mut owner: Option<Raw> = None;
    for verb in verbs {
        let mut next = Raw::login(&server);
        next.run("one", "echo hi; read x; exit 9", json!({"stdin": true}));
        next.until("output");
        if let Some(mut earlier) = owner.replace(next) {
            earlier.send(&verb, if verb["type"] == "stdin" { b"a" } else { b"" });
            expect_error(&mut earlier, "taken_over");
        }
    }
    let mut owner = owner.unwrap();
    owner.send(&piece("stdin_end", 0, b""), b"");
    let (verdict, _) = owner.expect("verdict");
    assert_eq!(
        (&verdict["end"], &verdict["stopped"]),
        (&json!({"exited": {"code": 9}}), &Value::Null)
    );
}

#[test]
fn frames_that_have_no_place_end_the_connection() {
    let server = Server::start(&[]);
    let no_run = [
        piece("stdin", 0, b""),
        piece("stdin_end", 0, b""),
        json!({"type": "hello", "client": "x"}),
    ];
    for header in no_run {
        let mut raw = Raw::login(&server);
        raw.send(&header, b"");
        expect_error(&mut raw, "bad_frame");
    }
    let busy = [
        json!({"type": "run", "id": "two", "form": "script", "words": 0, "stdin": true}),
        json!({"type": "close", "id": "two"}),
    ];
    for header in busy {
        let mut raw = Raw::login(&server);
        raw.run("one", "read x", json!({"stdin": true}));
        raw.expect("started");
        raw.send(&header, b"");
        expect_error(&mut raw, "bad_frame");
    }
    // Orders and confirmations that cross the end of a run are nobody's fault.
    let mut raw = Raw::login(&server);
    for header in ["cancel", "heartbeat", "pause", "of_a_newer_version"] {
        raw.send(&json!({"type": header}), b"");
    }
    raw.send(&json!({"type": "ack", "seq": 7}), b"");
    raw.run("three", "exit 0", json!({}));
    raw.until("verdict");
}

#[test]
fn a_cancel_after_the_end_is_answered_with_already_ended_and_changes_nothing() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "exit 4", json!({}));
    let verdict = raw.until("verdict").pop().unwrap().0;
    assert_eq!(
        (&verdict["end"], &verdict["stopped"]),
        (&json!({"exited": {"code": 4}}), &Value::Null)
    );
    raw.send(&json!({"type": "cancel"}), b"");
    assert_eq!(raw.expect("already_ended").0["run"], "one");
    raw.send(&json!({"type": "signal", "signal": "INT"}), b"");
    raw.expect("already_ended");
}

#[test]
fn two_servers_of_one_name_are_kept_apart_and_two_names_are_fine() {
    let server = Server::start(&[]);
    let start = |name: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["--name", name, "--listen", "127.0.0.1:0"]);
        command.env("REXEC_STATE_DIR", server.state());
        command
    };
    let refused = start("test").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    let [waits, line] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(waits.contains("waiting up to") && waits.contains("the name \"test\""), "{waits}");
    assert_eq!(refused.status.code(), Some(1), "{line}");
    assert!(
        line.contains("another server uses the name \"test\"") && line.contains("--name"),
        "{line}"
    );
    let other = Server::at(server.state(), "127.0.0.1:0", &[], |command| {
        let socket = server.dir().join("other.sock");
        *command = start("other");
        command.args(["--listen", &format!("unix:{}", socket.display())]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    });
    for addr in [&server.addr, &other.addr] {
        Client::new(server.state()).args(&[addr, "exit 6"]).run().expect(6);
    }
}
