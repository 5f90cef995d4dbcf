//! Strangers who fail to log in again and again, and what a server tells of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use serde_json::Value;

use super::policy::Configured;
use super::support::{Client, PATIENCE, Ran, Server, in_parallel, wait_until};

/// From where the strangers of these tests come.
const STRANGERS: &str = "127.0.0.2";
/// 127.0.0.1 is exempt, and the rest of loopback is not.
const CONFIG: &str = "no-penalty = [\"127.0.0.1\", \"::1\"]\n";

/// A connection from 127.0.0.2.
fn from_strangers(server: &str) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &format!("{STRANGERS}:0").parse::<SocketAddr>().unwrap()).unwrap();
    connect(&socket, &server.parse::<SocketAddr>().unwrap()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An address at which every connection goes on to the server as one from 127.0.0.2.
fn relay(server: &Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, server) = (listener.local_addr().unwrap(), server.addr.clone());
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), from_strangers(&server));
            for (mut from, mut to) in
                [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    format!("127.1:{}", address.port())
}

/// A client with a key that nobody knows.
fn stranger(server: &Server, state: &std::path::Path, address: &str) -> Ran {
    let (_, print) = super::auth::host_key(server);
    let options = ["--host-key", &print.to_string(), "--connect-timeout", "30s"];
    Client::new(state).args(&options).args(&[address, "true"]).run()
}

pub(super) fn status(server: &Server) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["status", "--name", "test", "--json"]).env("REXEC_STATE_DIR", server.state());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// As fast as they come: many times 10,000 a minute.
#[test]
fn ten_thousand_bad_logins_from_one_address_do_not_disturb_a_user() {
    let configured = Configured::start(CONFIG);
    let server = &configured.server;
    let strangers = tempfile::tempdir().unwrap();
    let address = relay(server);
    let mut failed = 0;
    // Each of them proves a key that is not let in, until nobody there is spoken to any more.
    while status(server)["penalties"] == 0 {
        assert!(failed <= rexec::server::FREE, "nobody is punished");
        let ran = stranger(server, strangers.path(), &address);
        assert_ne!(ran.status, 0, "{}", ran.stderr);
        failed += 1;
    }
    assert_eq!(failed, rexec::server::FREE + 1);
    let (over, worked, log) = (AtomicBool::new(false), AtomicUsize::new(0), server.log());
    let since = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(server.run(&["echo", "well"]).expect(0).text(), "well\n");
                worked.fetch_add(1, Ordering::Relaxed);
            }
        });
        in_parallel(4, 10_000, |_| {
            let mut stream = from_strangers(&server.addr);
            // Between two penalties somebody is spoken to: what is no login at all is closed at once.
            let _ = stream.write_all(b"\x16\x03\x01\x00\x01\xff");
            let _ = stream.read(&mut [0; 64]);
        });
        over.store(true, Ordering::Relaxed);
    });
    assert!(worked.load(Ordering::Relaxed) > 0);
    let told = status(server);
    assert!(told["refused"]["penalty"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["refused"]["not_authorized"], failed);
    let lines = server.log()[log.len()..].lines().filter(|l| l.contains("no login")).count() as u64;
    assert!(lines <= since.elapsed().as_secs() + 2, "{lines} lines");
    server.run(&["true"]).expect(0);
}

#[test]
fn who_is_punished_is_let_in_again_afterwards_and_who_is_in_stays_in() {
    let configured = Configured::start(CONFIG);
    let server = &configured.server;
    let strangers = tempfile::tempdir().unwrap();
    let address = relay(server);
    // The same account, by way of the strangers' address.
    let client = || Client::new(server.state()).args(&[&address.replace("127.1", "127.0.0.1")]);
    let gate = configured.folder.join("gate");
    let wait = format!("echo in; while ! test -e {}; do sleep 0.01; done; echo on", gate.display());
    let mut inside = client().arg(&wait).spawn();
    assert_eq!(super::support::server::line_of(&mut inside), "in");
    while status(server)["penalties"] == 0 {
        stranger(server, strangers.path(), &address);
    }
    client().args(&["true"]).run();
    std::fs::write(gate, "").unwrap();
    assert_eq!(super::support::finish(inside).expect(0).text(), "on\n");
    wait_until("the end of the penalty", || status(server)["penalties"] == 0);
    client().args(&["true"]).run().expect(0);
}

#[test]
fn status_counts_what_has_happened_and_says_when_nobody_is_there() {
    let mut server = Server::start(&[]);
    server.run(&["printf 12345"]).expect(0);
    server.run(&["--", "no-such-program"]).expect(254);
    server.client().arg("-d").args(&["true"]).run().expect(0);
    wait_until("the durable run's end", || status(&server)["runs"]["running"] == 0);
    let told = status(&server);
    assert_eq!(told["pid"], server.pid());
    assert_eq!(told["logins"], 3);
    assert_eq!(
        (&told["runs"]["started"], &told["runs"]["refused"]),
        (&2.into(), &1.into()),
        "{told}"
    );
    assert_eq!(told["runs"]["output_bytes"], 5);
    assert!(told["memory"]["resident"].as_u64().unwrap() > 1 << 20, "{told}");
    let text = |server: &Server| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.arg("status").env("REXEC_STATE_DIR", server.state());
        Ran::of(command.output().unwrap())
    };
    // One that ran before and is gone is none to choose from.
    server.beside("before", &[]).crash();
    let said = text(&server).expect(0).text();
    assert!(said.contains("runs            0 now, 2 started, 1 refused\n"), "{said}");
    server.crash();
    let said = text(&server).expect(1);
    assert!(said.stderr.starts_with("rexec-server: no server runs in "), "{}", said.stderr);
    server.restart();
    assert_eq!(status(&server)["logins"], 0);
}
