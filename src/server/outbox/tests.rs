use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use serde_json::json;

use super::*;
use crate::proto::header::Refusal;
use crate::proto::id::RunId;
use crate::runs::credit::Budget;
use crate::runs::owner::{Outgoing, Owner};
use crate::runs::request::Request;
use crate::runs::run::Run;
use crate::runs::store::Store;
use crate::runs::table::Key;

fn owner() -> Owner {
    let header = json!({"id": "x", "form": "shell", "words": 1});
    let request =
        Request::parse(serde_json::from_value(header).unwrap(), Bytes::from_static(b"x\0"))
            .unwrap();
    let key = Key { identity: "local:0".into(), id: RunId::new("x").unwrap() };
    let budget = Arc::new(Budget::new(0));
    Arc::new(Run::new(key, &request, &budget, Store::memory(&budget))).take_over()
}

fn poll(waiting: impl Future<Output = ()>) -> Poll<()> {
    pin!(waiting).poll(&mut Context::from_waker(Waker::noop()))
}

fn refusal(text: &str) -> ServerHeader {
    ServerHeader::Lost(Refusal { run: "x".into(), code: Code::Forgotten, text: text.into() })
}

/// Or the run would live on, with an owner, for as long as nothing else happens on the connection.
#[test]
fn letting_go_of_a_run_wakes_the_one_who_waits_for_its_frames() {
    let outbox = Outbox::default();
    outbox.follow(Serving::Owned(owner()), 0);
    let current = outbox.take().run;
    assert_eq!(poll(outbox.wait(current.as_ref())), Poll::Ready(()), "for the run itself");
    let mut waiting = pin!(outbox.wait(current.as_ref()));
    assert_eq!(poll(waiting.as_mut()), Poll::Pending);
    outbox.leave();
    assert_eq!(poll(waiting.as_mut()), Poll::Ready(()));
    assert!(outbox.take().run.is_none());
}

/// Or the next request of the connection would be told that this run is still under way.
#[test]
fn a_look_after_the_verdict_does_not_take_it_back() {
    let outbox = Outbox::default();
    outbox.follow(Serving::Owned(owner()), 0);
    let current = outbox.take().run;
    let outgoing = Outgoing { last: 1, ended: true, ..Outgoing::default() };
    outbox.sent(current.as_ref().unwrap(), &Batch { outgoing, ..Batch::default() });
    assert!(!outbox.is_busy());
    let outgoing = Outgoing { last: 1, ..Outgoing::default() };
    outbox.sent(current.as_ref().unwrap(), &Batch { outgoing, ..Batch::default() });
    assert!(!outbox.is_busy() && outbox.serving().is_some());
}

#[test]
fn one_answer_over_the_limit_ends_the_session() {
    let outbox = Outbox::default();
    for _ in 0..ANSWERS_LIMIT {
        outbox.answer(&refusal("no")).unwrap();
    }
    let end = outbox.answer(&refusal("no")).unwrap_err();
    assert!(matches!(end, SessionEnd::Word { code: Code::Flooded, .. }), "{end}");
    assert_eq!(outbox.take().answers.len(), ANSWERS_LIMIT);
    outbox.answer(&refusal("no")).unwrap();
}

#[test]
fn debug_shows_no_answer() {
    let outbox = Outbox::default();
    outbox.answer(&refusal("hunter2")).unwrap();
    let shown = format!("{outbox:?}");
    assert!(shown.contains("answers: 1") && !shown.contains("hunter2"), "{shown}");
    let bytes = format!("{:?}", Bytes::from_static(b"hunter2"));
    assert!(bytes.contains("hunter2"), "shown unless it is hidden");
}

/// A start that another thread sees to.
#[test]
fn a_welcome_may_wait_for_an_answer_that_is_on_its_way() {
    let outbox = Outbox::greeting();
    outbox.expect();
    assert!(!outbox.take().is_urgent);
    outbox.answer(&refusal("a")).unwrap();
    assert!(outbox.take().is_urgent);
}

/// A client that has asked for nothing yet still waits for its welcome.
#[test]
fn a_welcome_goes_at_once_unless_there_is_an_answer_that_may_wait() {
    assert!(Outbox::greeting().take().is_urgent);
    let outbox = Outbox::greeting();
    outbox.answer_soon(&ServerHeader::Heartbeat).unwrap();
    let taken = outbox.take();
    assert!(taken.answers.len() == 1 && !taken.is_urgent);
    outbox.answer_soon(&ServerHeader::Heartbeat).unwrap();
    outbox.answer(&ServerHeader::Heartbeat).unwrap();
    assert!(outbox.take().is_urgent);
    assert!(!outbox.take().is_urgent);
}
