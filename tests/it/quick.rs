//! The main job, in a few lines.

use super::support::{Server, raw::Raw, relay::Relay};
use serde_json::json;

#[test]
fn a_command_runs_and_its_output_and_code_come_back() {
    let server = Server::start(&[]);
    let ran = server.run(&["echo out; echo err >&2; exit 3"]).expect(3);
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn stdin_goes_there_and_back() {
    let server = Server::start(&[]);
    let ran = server.client().arg("cat").run_with(b"a\0\xffb").expect(0);
    assert_eq!(ran.stdout, b"a\0\xffb");
}

#[test]
fn the_unix_socket_serves_too() {
    let server = Server::start(&[]);
    let ran =
        super::support::Client::new(server.state()).args(&[&server.unix, "echo $REXEC_RUN"]).run();
    assert_eq!(ran.expect(0).text().len(), 33);
}

#[test]
fn a_cut_link_is_resumed() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(super::support::relay::Way::Down, 100_000)]);
    let client = super::support::Client::new(server.state()).args(&[&relay.addr, "seq 1 200000"]);
    let ran = client.run().expect(0);
    assert_eq!((ran.text().lines().count(), relay.connections()), (200_000, 2));
}

#[test]
fn frames_made_by_hand_are_answered() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "printf hi", json!({}));
    let frames = raw.until("verdict");
    assert_eq!(frames[0].0["type"], "started");
    assert_eq!(frames[1].1, b"hi");
    assert_eq!(frames.last().unwrap().0["end"], json!({"exited": {"code": 0}}));
}
