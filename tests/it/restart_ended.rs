//! What a client says that is ended, or cut off, while one server follows another.

use rustix::process::Signal;

use super::restart::{Draining, effects};
use super::support::activate::Sockets;
use super::support::relay::{Relay, Way};
use super::support::server::{Server, finish};
use super::support::{Client, kill, wait_until};

/// What waits has not begun: the first Ctrl-C is its end.
#[test]
fn ctrl_c_takes_a_request_back_that_waits_for_the_next_server() {
    let draining = Draining::new();
    let addresses = [&draining.server.addr, &draining.server.unix];
    let mut clients: Vec<_> = [&[][..], &["--durable"]]
        .into_iter()
        .flat_map(|options| addresses.map(|address| (options, address)))
        .map(|(options, address)| {
            let client = Client::new(draining.server.state()).args(options);
            client.args(&[address, &draining.command()]).spawn()
        })
        .collect();
    draining.logged_in(1 + clients.len());
    for client in clients.drain(..) {
        kill(client.id(), Signal::INT);
        let ran = finish(client).expect(254);
        assert!(ran.stderr.contains("given up before it began"), "{}", ran.stderr);
    }
    let (server, _sockets) = draining.next();
    server.run(&["true"]).expect(0);
    assert_eq!(effects(&server), "");
}

/// Nothing of its request was sent: whoever comes next is asked.
#[test]
fn a_client_that_is_cut_off_while_tls_is_set_up_asks_the_next_server() {
    let sockets = Sockets::new();
    let mut server = Server::with(&[], sockets.handed(&[]));
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Up, 0), (Way::Up, 1), (Way::Down, 0), (Way::Down, 100)]);
    let client = || Client::new(server.state()).args(&["--verbose", &relay.addr, "echo let in"]);
    let ran = client().run().expect(0);
    assert_eq!(ran.text(), "let in\n");
    assert_eq!((ran.stderr.matches("reconnecting").count(), relay.connections()), (4, 5));
    // Nobody comes for a while.
    relay.close(true);
    let waits = client().spawn();
    wait_until("another try", || relay.connections() > 6);
    server.restart_as(&[], sockets.handed(&[]));
    relay.close(false);
    assert_eq!(finish(waits).expect(0).text(), "let in\n");
}

/// The same, of clients that only ask.
#[test]
fn a_verb_that_is_cut_off_while_tls_is_set_up_asks_the_next_server() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Up, 0), (Way::Up, 1), (Way::Down, 0), (Way::Down, 100)]);
    let list = |options: &[&str]| {
        Client::new(server.state()).args(&["ps", &relay.addr]).args(options).run()
    };
    assert_eq!((list(&[]).expect(0).stderr, relay.connections()), (String::new(), 5));
    relay.close(true);
    let tries = |options: &[&str]| {
        let before = relay.connections();
        assert!(list(options).expect(255).stderr.contains(&relay.addr));
        relay.connections() - before
    };
    assert_eq!(tries(&["--reconnect-timeout", "0s"]), 1);
    assert!(tries(&["--reconnect-timeout", "300ms"]) > 1);
    assert!(tries(&["--connect-timeout", "300ms"]) > 1);
}

#[test]
fn a_client_that_is_only_cut_off_while_tls_is_set_up_says_in_time_that_it_was_not_let_in() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.close(true);
    let tries = |options: &[&str]| {
        let before = relay.connections();
        let client = Client::new(server.state()).args(options).args(&[&relay.addr, "true"]);
        let ran = client.run().expect(255);
        assert!(ran.stderr.contains(&relay.addr), "{}", ran.stderr);
        relay.connections() - before
    };
    assert_eq!(tries(&["--reconnect-timeout", "0s"]), 1);
    assert!(tries(&["--reconnect-timeout", "300ms"]) > 1);
    assert!(tries(&["--connect-timeout", "300ms"]) > 1);
}

#[test]
fn ctrl_c_ends_a_client_that_is_cut_off_while_tls_is_set_up() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.close(true);
    let client =
        Client::new(server.state()).args(&["--connect-timeout", "1h", "--reconnect-timeout", "1h"]);
    let client = client.args(&[&relay.addr, "true"]).spawn();
    wait_until("another try", || relay.connections() > 1);
    kill(client.id(), Signal::INT);
    finish(client).expect(130);
}
