//! The first connection dies with the request unanswered, and what it carried may still arrive: a refusal
//! on the second one is not the last word, and `close` asks for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::support::Ran;
use super::support::fake::{self, Fake};

/// The second request is answered with `refusal` and the `close` that must follow with what `answer` makes
/// of the run's id.
fn refused_late(refusal: Value, answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> Ran {
    let turn = AtomicUsize::new(0);
    let closed = Arc::new(AtomicBool::new(false));
    let was_closed = Arc::clone(&closed);
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        if turn.fetch_add(1, Ordering::SeqCst) > 0 {
            raw.send(&refusal, b"");
            let (close, _) = raw.expect("close");
            assert_eq!(close["id"], id);
            assert!(close["first_sent_ms_ago"].as_u64().unwrap() >= 1, "{close}");
            closed.store(true, Ordering::SeqCst);
            raw.send(&answer(&id), b"");
            raw.next();
        }
    });
    let ran = fake.run();
    assert!(was_closed.load(Ordering::SeqCst), "not closed: {} {}", ran.status, ran.stderr);
    assert_eq!(fake.connections(), 2);
    ran
}

fn too_many_runs() -> Value {
    json!({"type": "refused", "code": "too_many_runs", "text": "no room"})
}

fn not_started() -> Value {
    json!({"type": "not_started", "run": "x", "code": "program_not_found", "text": "no program"})
}

fn never_started(id: &str) -> Value {
    json!({"type": "never_started", "run": id})
}

#[test]
fn a_refusal_is_believed_once_the_id_is_buried() {
    let ran = refused_late(too_many_runs(), never_started).expect(254);
    assert!(ran.stderr.contains("no room"), "{}", ran.stderr);
    let ran = refused_late(not_started(), never_started).expect(254);
    assert!(ran.stderr.contains("no program"), "{}", ran.stderr);
}

#[test]
fn what_was_started_by_the_late_request_is_not_called_never_started() {
    for refusal in [too_many_runs(), not_started()] {
        let ran = refused_late(refusal, |id| {
            let mut verdict = fake::verdict(id, 2, b"");
            verdict["stopped"] = json!({"by": "client", "after_ms": 1});
            verdict["end"] = json!({"signaled": {"signal": 15, "core_dumped": false}});
            verdict["stdout"]["end"] = json!("cut");
            verdict
        });
        assert!(ran.status != 254 && ran.status != 0, "{}: {}", ran.status, ran.stderr);
    }
}

#[test]
fn a_close_that_settles_nothing_leaves_it_unknown() {
    let lost = |id: &str| json!({"type": "lost", "run": id, "code": "forgotten", "text": "gone"});
    refused_late(too_many_runs(), lost).expect(253);
    refused_late(not_started(), |_| too_many_runs()).expect(253);
}

/// The id is another run's for as long as the late request can take: it is not this client's to stop.
#[test]
fn a_conflict_is_final_and_the_other_run_is_left_alone() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        fake::welcome(raw);
        if turn.fetch_add(1, Ordering::SeqCst) > 0 {
            raw.send(&json!({"type": "refused", "code": "conflict", "text": "taken"}), b"");
            assert!(raw.next().is_none(), "nothing is closed");
        }
    });
    fake.run().expect(250);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn a_run_that_was_started_is_not_called_never_started_by_a_later_answer() {
    for answer in [too_many_runs(), not_started(), never_started("x")] {
        let turn = AtomicUsize::new(0);
        let fake = Fake::start(move |raw| {
            let id = fake::welcome(raw);
            match turn.fetch_add(1, Ordering::SeqCst) {
                0 => raw.send(&fake::started(&id), b""),
                _ => {
                    raw.send(&answer, b"");
                    raw.next();
                }
            }
        });
        fake.run().expect(253);
    }
}
