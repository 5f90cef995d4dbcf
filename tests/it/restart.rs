//! SIGTERM to a server whose sockets outlive it: what is new waits for the next server, and is started there, once.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rexec::server::HELD_LIMIT;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{leave, verb};
use super::support::activate::Sockets;
use super::support::raw::Raw;
use super::support::relay::Relay;
use super::support::server::{Server, finish};
use super::support::{Client, kill, wait_until};
use super::upgrade::{under_way, wait_for_log};

/// A server on sockets that outlive it, which has been told to stop and waits for the end of a run.
pub(crate) struct Draining {
    pub(crate) server: Server,
    pub(crate) sockets: Sockets,
    run: Child,
    go: PathBuf,
}

impl Draining {
    pub(crate) fn new() -> Self {
        let draining = Self::not_yet();
        draining.terminate();
        draining
    }

    fn not_yet() -> Self {
        let sockets = Sockets::new();
        let args = ["--verbose", "--drain-timeout", "1h"];
        let server = Server::with(&[], sockets.handed(&args));
        let (run, go) = under_way(&server, "go");
        Self { server, sockets, run, go }
    }

    fn terminate(&self) {
        self.server.signal(Signal::TERM);
        wait_for_log(&self.server, "shutting down: new runs wait");
    }

    /// A client over TCP or the unix socket.
    fn client(&self, address: &str) -> Client {
        Client::new(self.server.state()).arg(address)
    }

    /// A command that says whether the run under way is over, and leaves a trace.
    pub(crate) fn command(&self) -> String {
        let dir = self.server.dir().display();
        format!("echo x >> {dir}/effects; cat {}.over", self.go.display())
    }

    fn effects(&self) -> usize {
        let effects = std::fs::read_to_string(self.server.dir().join("effects"));
        effects.unwrap_or_default().lines().count()
    }

    /// Waits until so many clients have logged in since the start, and what each of them has asked for with that is
    /// being looked at.
    pub(crate) fn logged_in(&self, count: usize) {
        let log = || self.server.log();
        wait_until("logins", || log().matches("logged in").count() >= count);
    }

    /// Lets the run under way end, and the server with it. The sockets.
    pub(crate) fn end(mut self) -> (Server, Sockets) {
        std::fs::write(&self.go, "").unwrap();
        finish(self.run).expect(6);
        assert_eq!(self.server.wait(), 0);
        (self.server, self.sockets)
    }

    /// The same, and starts the next server.
    pub(crate) fn next(self) -> (Server, Sockets) {
        let (mut server, sockets) = self.end();
        server.restart_as(&[], sockets.handed(&["--verbose"]));
        (server, sockets)
    }
}

pub(crate) fn effects(server: &Server) -> String {
    std::fs::read_to_string(server.dir().join("effects")).unwrap_or_default()
}

#[test]
fn what_is_new_waits_for_the_next_server_and_is_started_there_once() {
    let draining = Draining::new();
    let command = draining.command();
    let addresses = [draining.server.addr.clone(), draining.server.unix.clone()];
    let mut clients = Vec::new();
    for address in &addresses {
        for options in [&[][..], &["--durable"], &["--id", "of-mine"]] {
            // The same id at both addresses would be the same run.
            let id = format!("{}-{}", options.last().unwrap_or(&""), address.len());
            let options = match options {
                ["--id", _] => vec!["--id", &id],
                options => options.to_vec(),
            };
            let client = Client::new(draining.server.state()).args(&options);
            clients.push(client.args(&[address, &command]).spawn());
        }
    }
    draining.logged_in(1 + clients.len());
    assert_eq!(draining.effects(), 0);
    let (server, _sockets) = draining.next();
    let count = clients.len();
    for client in clients {
        let ran = finish(client).expect(0);
        assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("over\n", ""));
    }
    assert_eq!(effects(&server).lines().count(), count);
}

#[test]
fn a_run_that_is_to_be_left_and_a_batch_wait_too() {
    let draining = Draining::new();
    let command = draining.command();
    let left = Client::new(draining.server.state()).args(&["-d", &draining.server.addr, &command]);
    let left = left.spawn();
    let steps = ["batch", "-H", &draining.server.addr, "-s", &command, "-s", &command];
    let batch = Client::new(draining.server.state()).args(&steps).spawn();
    draining.logged_in(3);
    let (server, _sockets) = draining.next();
    let id = finish(left).expect(0).text();
    verb(&server, "wait", &[id.trim()]).expect(0);
    assert_eq!(finish(batch).expect(0).text().matches("over").count(), 2);
    assert_eq!(effects(&server).lines().count(), 3);
}

#[test]
fn its_input_is_read_by_the_next_server() {
    let draining = Draining::new();
    let text = format!("{}; cat", draining.command());
    let (reader, writer) = std::io::pipe().unwrap();
    let child = draining.client(&draining.server.addr).arg(text).stdin(reader).spawn();
    std::io::Write::write_all(&mut &writer, b"typed before\n").unwrap();
    draining.logged_in(2);
    let (_server, _sockets) = draining.next();
    drop(writer);
    assert_eq!(finish(child).expect(0).text(), "over\ntyped before\n");
}

/// Who comes over a socket of the server's own is told at once: nobody will listen there.
#[test]
fn over_a_socket_that_goes_with_the_server_what_is_new_is_refused() {
    let sockets = Sockets::new();
    let dir = tempfile::tempdir().unwrap();
    let own = format!("unix:{}", dir.path().join("own").display());
    let args = ["--verbose", "--listen", &own, "--drain-timeout", "1h"];
    let address = sockets.addresses();
    let args = [&args[..], &["--listen", &address[0], "--listen", &address[1]]].concat();
    let mut server = Server::with(&[], sockets.handed(&args));
    // Announced in the order in which they were asked for.
    assert_eq!(server.addr, own);
    let managed = server.unix.clone();
    server.announced();
    let (run, go) = under_way(&server, "go");
    server.signal(Signal::TERM);
    wait_for_log(&server, "shutting down: new runs wait");
    let ran = server.run(&["true"]).expect(254);
    assert!(ran.stderr.contains("the server is shutting down (shutting_down"), "{}", ran.stderr);
    let held = Client::new(server.state()).args(&[&managed, "echo held"]).spawn();
    wait_until("its login", || server.log().matches("logged in").count() == 3);
    std::fs::write(go, "").unwrap();
    finish(run).expect(6);
    assert_eq!(server.wait(), 0);
    server.restart_as(&[], sockets.handed(&[]));
    assert_eq!(finish(held).expect(0).text(), "held\n");
}

#[test]
fn what_is_under_way_is_served_while_the_server_drains() {
    let draining = Draining::not_yet();
    let server = &draining.server;
    let relay = Relay::to(&server.addr);
    let dir = server.dir().display();
    let text = format!("echo > {dir}/ready; while [ ! -e {dir}/end ]; do sleep 0.01; done; exit 3");
    let lost = Client::new(server.state()).args(&[&relay.addr, &text]).spawn();
    wait_until("its start", || server.dir().join("ready").exists());
    let [one, two] = [(); 2].map(|()| leave(server, "sleep 600"));
    draining.terminate();
    relay.cut();
    wait_until("the reconnection", || relay.connections() == 2);
    verb(server, "stop", &[&one]).expect(0);
    verb(server, "wait", &[&one]).expect(251);
    assert!(verb(server, "ps", &[]).expect(0).text().contains(&two[24..]));
    verb(server, "signal", &[&two, "KILL"]).expect(0);
    verb(server, "wait", &[&two]).expect(137);
    // The id is known: to ask again is to go on with it.
    let again = Client::new(server.state()).args(&["--id", &two, &server.addr, "sleep 600"]);
    again.run().expect(137);
    std::fs::write(server.dir().join("end"), "").unwrap();
    finish(lost).expect(3);
    draining.end();
}

#[test]
fn after_a_second_sigterm_the_next_server_is_asked_at_once() {
    let mut draining = Draining::new();
    let held = draining.client(&draining.server.addr).arg("echo held").spawn();
    draining.logged_in(2);
    draining.server.signal(Signal::TERM);
    finish(draining.run).expect(251);
    assert_eq!(draining.server.wait(), 0);
    draining.server.restart_as(&[], draining.sockets.handed(&[]));
    assert_eq!(finish(held).expect(0).text(), "held\n");
}

#[test]
fn sigterm_during_an_upgrade_sends_what_waited_for_that_to_the_next_server() {
    let draining = Draining::not_yet();
    draining.server.signal(Signal::HUP);
    wait_for_log(&draining.server, "upgrading");
    let before = draining.client(&draining.server.addr).arg(draining.command()).spawn();
    draining.logged_in(2);
    draining.terminate();
    let after = draining.client(&draining.server.unix).arg(draining.command()).spawn();
    draining.logged_in(3);
    let (server, _sockets) = draining.next();
    for held in [before, after] {
        assert_eq!(finish(held).expect(0).text(), "over\n");
    }
    assert_eq!(effects(&server).lines().count(), 2);
}

/// The request says all at once, as clients do, and comes when nobody is listened to any more.
#[test]
fn a_client_that_is_logging_in_when_the_server_goes_is_sent_to_the_next_one() {
    let sockets = Sockets::new();
    let mut server = Server::with(&[], sockets.handed(&[]));
    let mut late = Raw::connect(&server);
    // Whoever comes after it is let in after it.
    drop(Raw::login(&server));
    server.signal(Signal::TERM);
    wait_for_log(&server, "shutting down");
    let hello = json!({"type": "hello", "client": "raw"});
    let run = json!({"type": "run", "id": "late", "form": "shell", "words": 1});
    late.send_at_once(&[(&hello, b""), (&run, b"true\0")]);
    late.expect("welcome");
    assert_eq!(late.expect("error").0["code"], "shutting_down");
    drop(late);
    assert_eq!(server.wait(), 0);
}

#[test]
fn without_a_next_server_it_was_never_started_and_the_client_says_so() {
    let draining = Draining::new();
    let clients = [&draining.server.addr, &draining.server.unix].map(|address| {
        let client = Client::new(draining.server.state()).args(&["--reconnect-timeout", "300ms"]);
        client.args(&[address, &draining.command()]).spawn()
    });
    draining.logged_in(3);
    let (server, sockets) = draining.end();
    drop(sockets);
    for client in clients {
        let ran = finish(client).expect(254);
        let said = "not started: the server shut down before it began the run";
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
    }
    assert_eq!(effects(&server), "");
}

/// The sockets are there, and take connections for whoever comes.
#[test]
fn what_was_given_up_before_the_next_server_came_is_not_started_by_it() {
    let draining = Draining::new();
    let patience = ["--reconnect-timeout", "300ms", "--connect-timeout", "5s"];
    let clients = [&draining.server.addr, &draining.server.unix].map(|address| {
        let client = Client::new(draining.server.state()).args(&patience);
        client.args(&[address, &draining.command()]).spawn()
    });
    draining.logged_in(3);
    let (mut server, sockets) = draining.end();
    for client in clients {
        let ran = finish(client).expect(254);
        assert!(ran.stderr.contains("no other has begun it"), "{}", ran.stderr);
    }
    server.restart_as(&[], sockets.handed(&["--verbose"]));
    for address in [&server.addr, &server.unix] {
        Client::new(server.state()).args(&[address, "true"]).run().expect(0);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    assert_eq!(effects(&server), "");
    let ids = |kind: &str| server.journal().iter().filter(|line| line["type"] == kind).count();
    assert_eq!(ids("running"), 3);
}

#[test]
fn a_server_that_is_killed_while_requests_wait_has_started_none_of_them() {
    let mut draining = Draining::new();
    let clients = [&draining.server.addr, &draining.server.unix]
        .map(|address| draining.client(address).arg(draining.command()).spawn());
    let impatient = Client::new(draining.server.state()).args(&["--reconnect-timeout", "0s"]);
    let impatient = impatient.args(&[&draining.server.addr, &draining.command()]).spawn();
    draining.logged_in(4);
    draining.server.crash();
    // Its client has no word of it: nobody can know, until there is a server that can.
    let ran = finish(impatient).expect(253);
    assert!(ran.stderr.contains("cannot know"), "{}", ran.stderr);
    // What the run under way would have said.
    std::fs::write(draining.go.with_extension("over"), "over\n").unwrap();
    draining.server.restart_as(&[], draining.sockets.handed(&[]));
    for client in clients {
        assert_eq!(finish(client).expect(0).text(), "over\n");
    }
    assert_eq!(draining.effects(), 2);
    finish(draining.run).expect(253);
}

#[test]
fn a_client_that_is_ended_while_it_waits_has_started_nothing() {
    let draining = Draining::new();
    let mut gone = draining.client(&draining.server.addr).arg(draining.command()).spawn();
    let cancelled = draining.client(&draining.server.addr).arg(draining.command()).spawn();
    draining.logged_in(3);
    gone.kill().unwrap();
    gone.wait().unwrap();
    kill(cancelled.id(), Signal::TERM);
    let ran = finish(cancelled).expect(254);
    assert!(ran.stderr.contains("given up before it began"), "{}", ran.stderr);
    let (server, _sockets) = draining.next();
    server.run(&["true"]).expect(0);
    assert_eq!(effects(&server), "");
}

/// Ctrl-C and SIGTERM to a client that looks for the next server: nobody has its request.
#[test]
fn a_client_that_is_ended_while_no_server_is_there_has_started_nothing() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let draining = Draining::new();
        let client = draining.client(&draining.server.unix).arg(draining.command()).spawn();
        draining.logged_in(2);
        let (mut server, sockets) = draining.end();
        let found = sockets.accept();
        kill(client.id(), signal);
        finish(client).expect(status);
        drop(found);
        server.restart_as(&[], sockets.handed(&[]));
        server.run(&["true"]).expect(0);
        assert_eq!(effects(&server), "");
    }
}

/// Each is as long as a request can be.
#[test]
fn what_waits_is_bounded_in_memory() {
    let draining = Draining::new();
    let most = 1 << 20;
    let fit = HELD_LIMIT / (most + 64);
    let long = vec![b'x'; most - 1];
    let text = String::from_utf8(long).unwrap();
    let mut held: Vec<_> = (0..=fit)
        .map(|number| {
            let mut raw = Raw::login(&draining.server);
            raw.run(&format!("run-{number}"), &text, json!({}));
            // The answer to what came behind it says that it waits.
            raw.send(&json!({"type": "list"}), b"");
            raw
        })
        .collect();
    let mut last = held.pop().unwrap();
    let mut kinds: Vec<_> = (0..2).map(|_| last.next().unwrap().0["type"].clone()).collect();
    kinds.sort_by_key(Value::to_string);
    assert_eq!(kinds, ["refused", "runs"]);
    for raw in &mut held {
        raw.expect("runs");
    }
    // Whoever goes makes room.
    drop(held.pop());
    wait_until("room", || {
        last.run("again", &text, json!({}));
        last.send(&json!({"type": "list"}), b"");
        last.next().unwrap().0["type"] == "runs"
    });
    drop(last);
    drop(held);
    draining.end();
}

#[test]
fn clients_that_come_while_the_server_is_restarted_five_times_notice_nothing() {
    let sockets = Sockets::new();
    let args = ["--drain-timeout", "1h"];
    let mut server = Server::with(&[], sockets.handed(&args));
    let effects = server.dir().join("effects");
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (state, addresses) =
        (server.state().to_owned(), [server.addr.clone(), server.unix.clone()]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (address, state) = (&addresses[thread % 2], &state);
            let (effects, over, next) = (&effects, &over, &next);
            scope.spawn(move || {
                let options: &[&str] = if thread < 2 { &[] } else { &["--durable"] };
                while !over.load(Ordering::Relaxed) {
                    run_one(state, address, options, effects, next);
                }
            });
        }
        for _ in 0..5 {
            let before = next.load(Ordering::Relaxed);
            wait_until("runs", || next.load(Ordering::Relaxed) >= before + 8);
            server.signal(Signal::TERM);
            assert_eq!(server.wait(), 0);
            server.restart_as(&[], sockets.handed(&args));
        }
        over.store(true, Ordering::Relaxed);
    });
    let text = std::fs::read_to_string(effects).unwrap();
    let mut done: Vec<usize> = text.lines().map(|number| number.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..next.into_inner()).collect::<Vec<_>>());
}

fn run_one(state: &Path, address: &str, options: &[&str], effects: &Path, next: &AtomicUsize) {
    let number = next.fetch_add(1, Ordering::Relaxed);
    let text = format!("echo {number} >> {}; seq 1 3000", effects.display());
    let ran = Client::new(state).args(options).args(&[address, &text]).run().expect(0);
    assert_eq!((ran.text().lines().count(), ran.stderr.as_str()), (3000, ""));
}
