//! Supervisors that are stopped: whoever waits for one is heard all the same.

use rexec::proto::frame::HEADER_LIMIT;
use rexec::server::BEHIND_LIMIT;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable_bad::stop;
use super::support::raw::Raw;
use super::support::{Server, kill, supervisors, wait_until};

/// More frames than fit into the socket to a supervisor.
const MANY: usize = 2000;

/// The owner of a run whose supervisor is stopped, and that supervisor.
fn stopped(server: &Server, text: &str) -> (Raw, u32) {
    let mut owner = Raw::login(server);
    owner.run("job", text, json!({"durable": true}));
    owner.expect("started");
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    stop(supervisor);
    (owner, supervisor)
}

/// Asks for what needs no supervisor.
fn is_heard(raw: &mut Raw) {
    raw.send(&json!({"type": "list"}), b"");
    raw.expect("runs");
}

fn stopped_by(verdict: &Value) -> &Value {
    &verdict["stopped"]["by"]
}

#[test]
fn its_owner_is_heard_whatever_waits_for_it_and_a_cancel_reaches_it_in_the_end() {
    let server = Server::start(&[]);
    let (mut owner, supervisor) = stopped(&server, "exec sleep 600");
    for _ in 0..MANY {
        owner.send(&json!({"type": "ack", "seq": 0}), b"");
    }
    owner.send(&json!({"type": "cancel"}), b"");
    is_heard(&mut owner);
    kill(supervisor, Signal::CONT);
    let frames = owner.until("verdict");
    assert_eq!(stopped_by(&frames.last().unwrap().0), "client");
}

#[test]
fn who_asks_for_its_run_is_heard_and_what_was_sent_behind_has_its_turn() {
    let server = Server::start(&[]);
    let (_owner, supervisor) = stopped(&server, "exec sleep 600");
    let mut again = Raw::login(&server);
    again.run("job", "exec sleep 600", json!({"durable": true}));
    again.send(&json!({"type": "cancel"}), b"");
    is_heard(&mut again);
    let mut viewer = Raw::login(&server);
    viewer.send(&json!({"type": "attach", "run": "job"}), b"");
    is_heard(&mut viewer);
    let mut operator = Raw::login(&server);
    operator.send(&json!({"type": "signal", "run": "job", "signal": "CONT"}), b"");
    is_heard(&mut operator);
    kill(supervisor, Signal::CONT);
    again.expect("started");
    assert_eq!(stopped_by(&again.until("verdict").last().unwrap().0), "client");
    viewer.expect("started");
    viewer.until("verdict");
    wait_until("an answer", || ["done", "already_ended"].contains(&&*kind(&mut operator)));
}

fn kind(raw: &mut Raw) -> String {
    raw.next().map_or_else(String::new, |(header, _)| header["type"].as_str().unwrap().to_owned())
}

#[test]
fn what_is_sent_to_it_beyond_all_credit_ends_the_connection_and_not_the_run() {
    let server = Server::start(&[]);
    let (mut owner, supervisor) = stopped(&server, "exec sleep 600");
    let body = vec![0; 1 << 19];
    // Beside what waits, the socket to the supervisor holds some.
    for _ in 0..BEHIND_LIMIT / body.len() + 4 {
        owner.send(&json!({"type": "stdin", "offset": 0, "hash": "0".repeat(64)}), &body);
    }
    assert_eq!(owner.expect("error").0["code"], "flooded");
    kill(supervisor, Signal::CONT);
    assert_eq!(supervisors(server.state()), [supervisor]);
}

#[test]
fn who_waits_for_it_is_held_to_the_limit_by_headers_as_by_bodies() {
    let server = Server::start(&[]);
    let (_owner, supervisor) = stopped(&server, "exec sleep 600");
    let mut viewer = Raw::login(&server);
    viewer.send(&json!({"type": "attach", "run": "job"}), b"");
    is_heard(&mut viewer);
    let part = "x".repeat(HEADER_LIMIT / 2);
    for _ in 0..=BEHIND_LIMIT / part.len() {
        viewer.send(&json!({"type": "cancel", "run": part}), b"");
    }
    viewer.send(&json!({"type": "list"}), b"");
    assert_eq!(viewer.expect("error").0["code"], "flooded");
    kill(supervisor, Signal::CONT);
}
