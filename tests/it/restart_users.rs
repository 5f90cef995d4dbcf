//! SIGTERM to a server of several users whose sockets outlive it.

use std::process::Child;

use rustix::process::Signal;

use super::support::activate::Sockets;
use super::support::finish;
use super::support::user::User;
use super::support::wait_until;
use super::system::{Machine, listed};
use super::upgrade::wait_for_log;

/// A user's run, which ends when it finds `go`; it has begun.
fn under_way(machine: &Machine, user: &User) -> Child {
    let text = "touch ready; while [ ! -e go ]; do sleep 0.01; done; echo over > over; exit 6";
    let run = machine.client(&[], &user.name).arg(text).spawn();
    wait_until("its start", || user.home.join("ready").exists());
    run
}

fn effects(user: &User) -> String {
    std::fs::read_to_string(user.home.join("effects")).unwrap_or_default()
}

/// The rights are those that the next server finds.
#[test]
fn what_is_new_of_users_waits_for_the_next_server_which_looks_at_their_keys_anew() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    let sockets = Sockets::new();
    let users = format!("{},{}", alice.name, bob.name);
    let args = ["--verbose", "--drain-timeout", "1h", "--users", &users];
    let mut machine = Machine::adapted(&[], &[], sockets.handed(&args));
    [&alice, &bob].into_iter().for_each(|user| listed(&machine, user));
    let run = under_way(&machine, &alice);
    machine.server.signal(Signal::TERM);
    wait_for_log(&machine.server, "shutting down: new runs wait");
    let new = |user: &User, options: &[&str]| {
        let text = "echo x >> effects; id -un; cat over";
        machine.client(options, &user.name).arg(text).spawn()
    };
    let held = [&[][..], &["--durable"], &["--id", "mine"]].map(|options| new(&alice, options));
    let no_more = [&[][..], &["--durable"]].map(|options| new(&bob, options));
    let logins = 1 + held.len() + no_more.len();
    wait_until("logins", || machine.server.log().matches("logged in").count() == logins);
    assert_eq!((effects(&alice), effects(&bob)), (String::new(), String::new()));
    bob.list_as_root("");
    alice.write(&alice.home.join("go"), "");
    finish(run).expect(6);
    assert_eq!(machine.server.wait(), 0);
    machine.server.restart_as(&[], sockets.handed(&args));
    for client in held {
        let ran = finish(client).expect(0);
        let said = format!("{}\nover\n", alice.name);
        assert_eq!((ran.text(), &*ran.stderr), (said, ""));
    }
    for client in no_more {
        let ran = finish(client).expect(254);
        assert!(ran.stderr.contains("not_authorized"), "{}", ran.stderr);
    }
    assert_eq!((&*effects(&alice), &*effects(&bob)), ("x\nx\nx\n", ""));
}
