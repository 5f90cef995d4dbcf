//! A server that lies to those who look after durable runs: they end, and print nothing that a terminal
//! obeys.

use serde_json::{Value, json};

use super::support::fake::{Fake, started, verdict, welcome};
use super::support::raw::Raw;

const EVIL: &str = "\u{1b}[2Jrexec\u{9b}31m\u{202e}";

/// Lets a client in and reads its first request.
fn asked(raw: &mut Raw) -> Value {
    raw.expect("hello");
    raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
    raw.next().unwrap().0
}

fn run(id: &str) -> Value {
    json!({
        "run": id, "state": "running", "durable": true, "command": "true", "accepted": "", "age_s": 0,
        "bytes": 0, "disk": 0, "identity": EVIL
    })
}

fn is_clean(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

#[test]
fn a_list_without_an_end_is_not_read_on() {
    for runs in [json!([]), Value::Array(vec![run("x"); 100])] {
        let runs = runs.to_string();
        let fake = Fake::start(move |raw| {
            asked(raw);
            let mut frame = Vec::new();
            let header = json!({"type": "runs", "more": true, "total": 1});
            rexec::proto::frame::encode(&header, runs.as_bytes(), &mut frame).unwrap();
            while std::io::Write::write_all(&mut raw.stream, &frame).is_ok() {}
        });
        let ran = fake.verb("ps", None).expect(253);
        assert!(ran.stderr.contains("more runs than were asked for"), "{}", ran.stderr);
    }
}

#[test]
fn a_list_shows_nothing_that_a_terminal_obeys() {
    let fake = Fake::start(|raw| {
        asked(raw);
        let runs = json!([run(EVIL)]).to_string();
        raw.send(&json!({"type": "runs", "more": false, "total": 1}), runs.as_bytes());
        raw.next();
    });
    let ran = fake.verb("ps", None).expect(0);
    assert!(ran.text().contains("rexec") && is_clean(&ran.text()), "{:?}", ran.text());
}

#[test]
fn a_look_at_one_run_is_not_shown_another() {
    for id in ["another", "one\n", "one two"] {
        let fake = Fake::start(move |raw| {
            asked(raw);
            raw.send(&started(id), b"");
            raw.send(&verdict(id, 1, b""), b"");
            raw.next();
        });
        let ran = fake.verb("wait", Some("one")).expect(253);
        assert!(ran.stderr.contains("another run"), "{}", ran.stderr);
    }
}

#[test]
fn a_run_is_left_only_after_that_was_asked_and_under_its_own_name() {
    for (starts, named) in [(false, None), (true, Some(EVIL))] {
        let fake = Fake::start(move |raw| {
            let id = welcome(raw);
            if starts {
                raw.send(&before(&id), b"");
            }
            raw.send(&json!({"type": "detached", "run": named.unwrap_or(&id)}), b"");
            raw.next();
        });
        let ran = fake.verb("-d", Some("true")).expect(253);
        assert_eq!(ran.text(), "");
    }
}

fn before(id: &str) -> Value {
    let mut header = started(id);
    header["attached"] = json!(true);
    header
}

/// The request has said that nobody stays. A run that was there before may be another's to keep.
#[test]
fn a_run_that_is_new_is_left_with_its_start_and_another_when_that_is_answered() {
    let fake = Fake::started(|raw, _| while raw.next().is_some() {});
    assert_eq!(fake.verb("-d", Some("true")).expect(0).text().lines().count(), 1);
    let fake = Fake::start(|raw| {
        let id = welcome(raw);
        raw.send(&before(&id), b"");
        raw.expect("detach");
        raw.send(&json!({"type": "detached", "run": &id}), b"");
        raw.next();
    });
    assert_eq!(fake.verb("-d", Some("true")).expect(0).text().lines().count(), 1);
}
