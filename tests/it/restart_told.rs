//! What a client does with the word of a server that leaves, from servers that say nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::support::fake::{self, Fake};

/// A server that leaves each time: nobody waits for ever, and nothing was ever started.
#[test]
fn servers_that_only_leave_are_asked_for_as_long_as_a_lost_one_is_looked_for() {
    let fake = Fake::start(|raw| {
        let id = fake::welcome(raw);
        assert_eq!(id.len(), 32);
        raw.send(&leaving(), b"");
        raw.next();
    });
    let ran = fake.run().expect(254);
    assert!(ran.stderr.contains("no other has begun it"), "{}", ran.stderr);
    assert!(fake.connections() > 1);
}

fn leaving() -> Value {
    json!({"type": "error", "code": "shutting_down", "text": "the server goes"})
}

/// Its new request does not leave the client before that.
#[test]
fn the_next_server_is_asked_once_it_has_let_the_client_in() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        if turn.fetch_add(1, Ordering::SeqCst) == 0 {
            fake::welcome(raw);
            raw.send(&leaving(), b"");
            raw.next();
        } else {
            raw.expect("hello");
        }
    });
    fake.run().expect(254);
    assert!(fake.connections() > 1);
}

/// So that it is refused for good, if it is.
#[test]
fn the_next_server_is_asked_as_if_for_the_first_time() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
        let (run, _) = raw.expect("run");
        let code = match run.get("first_sent_ms_ago").is_none_or(|ago| ago == 0) {
            true => "not_permitted",
            false => "bad_request",
        };
        match turn.fetch_add(1, Ordering::SeqCst) {
            0 => raw.send(&leaving(), b""),
            _ => raw.send(&json!({"type": "refused", "code": code, "text": "no"}), b""),
        }
        raw.next();
    });
    let ran = fake.run().expect(254);
    assert!(ran.stderr.contains("not_permitted"), "{}", ran.stderr);
    assert_eq!(fake.connections(), 2);
}

/// The word of the second server says nothing of a request that the first one may have.
#[test]
fn of_a_request_that_was_lost_before_the_word_of_a_leaving_server_is_not_enough() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        if turn.fetch_add(1, Ordering::SeqCst) > 0 {
            assert_eq!(id.len(), 32);
            raw.send(&leaving(), b"");
            raw.next();
        }
    });
    fake.run().expect(253);
    assert!(fake.connections() > 2);
}

#[test]
fn of_a_run_that_has_started_the_word_of_a_leaving_server_says_nothing() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        if turn.fetch_add(1, Ordering::SeqCst) == 0 {
            raw.send(&fake::started(&id), b"");
        }
        raw.send(&leaving(), b"");
        raw.next();
    });
    fake.run().expect(253);
}
