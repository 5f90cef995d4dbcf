//! What a server says of runs of which it cannot know more.

use rustix::process::Signal;
use serde_json::json;

use super::support::{Server, raw::Raw, wait_until};

#[test]
fn a_server_that_takes_nothing_new_still_says_lost_of_what_may_have_run() {
    let mut server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("a", "sleep 60", json!({}));
    raw.expect("started");
    server.restart();
    let mut holder = Raw::login(&server);
    holder.run("holds-the-shutdown-up", "sleep 60", json!({}));
    holder.expect("started");
    server.signal(Signal::TERM);
    wait_until("the shutdown", || server.log().contains("shutting down"));
    let mut raw = Raw::login(&server);
    raw.run("b", "true", json!({}));
    assert_eq!(raw.expect("refused").0["code"], "shutting_down");
    raw.run("a", "sleep 60", json!({"first_sent_ms_ago": 1}));
    assert_eq!(raw.expect("lost").0["code"], "server_restarted");
}

#[test]
fn a_place_beyond_the_record_of_a_run_is_no_refusal_of_the_run() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("a", "sleep 60", json!({"grace_ms": 0}));
    raw.expect("started");
    let mut raw = Raw::login(&server);
    raw.run("a", "sleep 60", json!({"grace_ms": 0, "first_sent_ms_ago": 1, "after": 7}));
    assert_eq!(raw.expect("error").0["code"], "bad_frame");
}
