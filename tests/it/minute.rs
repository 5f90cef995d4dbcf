//! A minute in which a program stands still: longer than a silent connection lives.

use std::time::Duration;

use rustix::process::Signal;

use super::durable::gate;
use super::durable_bad::stop;
use super::support::server::{finish, line_of};
use super::support::{Client, Server, kill, supervisors};

const MINUTE: Duration = Duration::from_secs(60);

/// Who stands still.
#[derive(Debug, Clone, Copy)]
enum Who {
    Server,
    Supervisor,
    Client,
}

fn stands_still(who: Who, options: &[&str]) {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let text = format!("echo one; {wait}; seq 1 200000; exit 7");
    let client = Client::new(server.state()).args(options);
    let mut client = client.args(&[&server.addr, &text]).spawn();
    assert_eq!(line_of(&mut client), "one");
    let stopped = match who {
        Who::Server => server.pid(),
        Who::Supervisor => supervisors(server.state())[0],
        Who::Client => client.id(),
    };
    stop(stopped);
    std::fs::write(gate, "").unwrap();
    std::thread::sleep(MINUTE);
    kill(stopped, Signal::CONT);
    let ran = finish(client).expect(7);
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.text() == expected && ran.stderr.is_empty(), "{who:?} {options:?}: {}", ran.stderr);
}

#[test]
fn whoever_is_stopped_for_a_minute_goes_on_and_nothing_is_lost() {
    let durable: &[&str] = &["--durable"];
    let all = [
        (Who::Server, &[][..]),
        (Who::Client, &[]),
        (Who::Server, durable),
        (Who::Supervisor, durable),
        (Who::Client, durable),
    ];
    std::thread::scope(|scope| {
        for (who, options) in all {
            scope.spawn(move || stands_still(who, options));
        }
    });
}
