//! A server that lies to those who look after durable runs: they end, and print nothing that a terminal
//! obeys.

use serde_json::{Value, json};

use super::support::Ran;
use super::support::fake::{Fake, output, started, verdict, welcome};
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

/// Only who wants to see what there is, is told that that was all.
#[test]
fn a_run_that_is_to_be_left_is_not_left_because_its_record_is_said_to_end() {
    for starts in [false, true] {
        let fake = Fake::start(move |raw| {
            let id = welcome(raw);
            if starts {
                raw.send(&before(&id), b"");
            }
            raw.send(&json!({"type": "so_far", "run": id, "seq": 0}), b"");
            while raw.next().is_some() {}
        });
        assert_eq!(fake.verb("-d", Some("true")).expect(253).text(), "");
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

fn looked_at(frames: &[(Value, &'static [u8])]) -> Ran {
    let frames = frames.to_vec();
    let fake = Fake::start(move |raw| {
        let id = asked(raw)["run"].as_str().unwrap().to_owned();
        raw.send(&started(&id), b"");
        for (header, body) in &frames {
            raw.send(header, body);
        }
        while raw.next().is_some() {}
    });
    fake.verb("logs", Some("one"))
}

/// Where a record is read while it grows, its last frame may be one that is not written anywhere.
#[test]
fn what_there_is_of_a_record_is_all_that_was_said_to_be_there_whatever_its_last_frame_is() {
    let mark = || (json!({"type": "mark", "seq": 2, "streams": []}), &b""[..]);
    let so_far = |seq: u64| (json!({"type": "so_far", "run": "one", "seq": seq}), &b""[..]);
    let piece = || (output("stdout", 1, 0, b"text"), &b"text"[..]);
    assert_eq!(looked_at(&[so_far(0)]).expect(0).text(), "");
    assert_eq!(looked_at(&[piece(), so_far(1)]).expect(0).text(), "text");
    assert_eq!(looked_at(&[piece(), mark(), so_far(2)]).expect(0).text(), "text");
    for seq in [0, 2, u64::MAX] {
        let ran = looked_at(&[piece(), so_far(seq)]).expect(252);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}
