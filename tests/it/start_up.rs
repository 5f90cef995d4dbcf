//! How a server starts: ready and heard of, or one line that names the culprit; and its limits.

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{leave, verb};
use super::support::raw::Raw;
use super::support::server::{finish, line_of, under};
use super::support::{Client, Ran, Server, allow_descriptors, has_ipv6, kill, program, wait_until};

/// Runs a server that must not start; one that does is ended, and its test fails.
fn fails(state: &Path, args: &[&str], prefix: &[&str]) -> String {
    allow_descriptors();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(args).env("REXEC_STATE_DIR", state);
    under(&[prefix, &["timeout", "60"]].concat())(&mut command);
    let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap()).expect(1);
    let lines: Vec<_> = ran.stderr.lines().filter(|line| !line.contains("waiting up to")).collect();
    let [line] = lines[..] else { panic!("{}", ran.stderr) };
    assert_eq!(ran.text(), "");
    line.to_owned()
}

#[test]
fn a_server_that_cannot_start_names_the_culprit() {
    let server = Server::start(&[]);
    let no_keys = "/no/such/authorized_keys";
    let cases: [(&[&str], &str); 5] = [
        (&["--name", "a", "--listen", &server.addr], &server.addr),
        (&["--name", "a", "--listen", &server.unix], &server.unix),
        (&["--name", "test", "--listen", "127.0.0.1:0"], "\"test\""),
        (&["--name", "a/b", "--listen", "127.0.0.1:0"], "\"a/b\""),
        (&["--listen", "127.0.0.1:0", "--authorized-keys", no_keys], no_keys),
    ];
    for (args, culprit) in cases {
        let line = fails(server.state(), args, &[]);
        assert!(line.contains(culprit), "{culprit} is not in: {line}");
    }
    let line = fails(server.state(), &["--name", "a", "--listen", "0.0.0.0:0"], &[]);
    assert!(line.contains("--authorized-keys"), "{line}");
    server.run(&["true"]).expect(0);
}

/// Root passes every permission bit unless the capability for that is taken from it.
#[test]
fn a_folder_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let closed = dir.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o500)).unwrap();
    let socket = format!("unix:{}/socket", closed.display());
    let prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"];
    let line = fails(&dir.path().join("state"), &["--listen", &socket], &prefix);
    assert!(line.contains("permission") && line.contains("closed"), "{line}");
    let line = fails(&closed.join("state"), &["--listen", "127.0.0.1:0"], &prefix);
    assert!(line.contains("closed"), "{line}");
}

#[test]
fn localhost_serves_both_families_and_every_listener_is_announced() {
    if !has_ipv6() {
        return;
    }
    let mut server = Server::start(&["--listen", "localhost:0"]);
    let lines: Vec<String> = (0..2).map(|_| server.announced()).collect();
    assert!(lines[0].starts_with("127.0.0.1:") && lines[1].starts_with("[::1]:"), "{lines:?}");
    let port = lines[0].rsplit(':').next().unwrap();
    for address in [&lines[0], &lines[1], &format!("localhost:{port}")] {
        Client::new(server.state()).args(&[address, "true"]).run().expect(0);
    }
}

/// Whoever waits on stdout would wait for ever, and has the log to look at.
#[test]
fn a_server_that_cannot_say_on_stdout_that_it_is_ready_says_so_in_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["--listen", "127.0.0.1:0"]).env("REXEC_STATE_DIR", dir.path().join("state"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut server = command.stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(log.any(|line| line.contains("listening on")));
    kill(server.id(), Signal::TERM);
    let rest: Vec<_> = log.collect();
    assert!(server.wait().unwrap().success());
    assert!(rest.iter().any(|line| line.contains("No space left on device")), "{rest:?}");
}

/// sd_notify(3).
#[test]
fn systemd_is_told_when_the_server_is_ready() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(super::support::PATIENCE)).unwrap();
    let server = Server::with(&[], |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    let mut message = [0; 256];
    let count = socket.recv(&mut message).unwrap();
    assert!(std::str::from_utf8(&message[..count]).unwrap().lines().any(|line| line == "READY=1"));
    let ran = server.run(&["echo ${NOTIFY_SOCKET-unset}"]).expect(0);
    assert_eq!(ran.text(), "unset\n");
}

#[test]
fn the_log_is_text_or_one_json_object_a_line() {
    let server = Server::start(&["--log-format", "json", "--verbose"]);
    server.run(&["true"]).expect(0);
    let lines: Vec<Value> =
        server.log().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(lines.len() >= 3 && lines.iter().all(|line| line["level"].is_string()), "{lines:?}");
    let server = Server::start(&[]);
    assert!(
        server.log().contains(&format!("INFO listening on {}", server.addr)),
        "{}",
        server.log()
    );
}

/// The journal is told to a service by device and inode of what its stderr is (systemd.exec(5)).
#[test]
fn a_log_that_goes_to_systemds_journal_has_priorities_and_no_times_and_no_other_has() {
    let journal = "exec env JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) \"$@\"";
    for format in ["text", "json"] {
        let server = Server::with(&["--log-format", format], under(&["sh", "-c", journal, "sh"]));
        let log = server.log();
        assert!(
            log.lines().count() > 1 && log.lines().all(|line| line.starts_with("<6>")),
            "{log}"
        );
        let line = format!("<6> INFO listening on {}\n", server.addr);
        assert!(format == "json" || log.contains(&line), "{log}");
        let ran = server.run(&["echo ${JOURNAL_STREAM-unset}"]).expect(0);
        assert_eq!(ran.text(), "unset\n");
    }
    let elsewhere = Server::with(&[], |command| {
        command.env("JOURNAL_STREAM", "1:2");
    });
    assert!(!elsewhere.log().contains("<6>"), "{}", elsewhere.log());
    let mut command = Command::new("sh");
    command.args([
        "-c",
        journal,
        "sh",
        env!("CARGO_BIN_EXE_rexec-server"),
        "--listen",
        "127.0.0.1:0",
    ]);
    let ran = Ran::of(command.args(["--authorized-keys", "/no/such"]).output().unwrap()).expect(1);
    assert!(ran.stderr.starts_with("<3>rexec-server: cannot read"), "{}", ran.stderr);
}

/// stderr is a file on a disk that has become full.
#[test]
fn a_server_whose_log_cannot_be_written_serves_all_the_same() {
    for format in ["text", "json"] {
        let quiet = under(&["sh", "-c", "exec \"$@\" 2> /dev/full", "sh"]);
        let mut server = Server::with(&["--log-format", format], quiet);
        assert_eq!(server.run(&["echo one"]).expect(0).text(), "one\n");
        let id = leave(&server, "echo two");
        assert_eq!(verb(&server, "attach", &[&id]).expect(0).text(), "two\n");
        server.signal(Signal::TERM);
        assert_eq!(server.wait(), 0);
    }
}

#[test]
fn one_run_more_than_max_runs_is_refused_and_there_is_room_again() {
    let server = Server::start(&["--max-runs", "1"]);
    let mut child = server.client().arg("echo ready; exec sleep 600").spawn();
    assert_eq!(line_of(&mut child), "ready");
    let ran = server.run(&["true"]).expect(254);
    assert!(
        ran.stderr.contains("too_many_runs") && ran.stderr.contains("--max-runs"),
        "{}",
        ran.stderr
    );
    kill(child.id(), rustix::process::Signal::INT);
    finish(child).expect(130);
    server.run(&["true"]).expect(0);
}

#[test]
fn one_connection_more_than_max_connections_is_refused_and_there_is_room_again() {
    let server = Server::start(&["--max-connections", "1"]);
    let first = Raw::login(&server);
    let ran = server.run(&["true"]).expect(254);
    assert!(ran.stderr.contains("too_many_connections"), "{}", ran.stderr);
    drop(first);
    wait_until("a place", || server.run(&["true"]).status == 0);
}

#[test]
fn an_idle_connection_is_closed_with_a_reason_and_a_busy_one_is_not() {
    let server = Server::start(&["--idle-timeout", "200ms"]);
    let mut raw = Raw::connect(&server);
    // Both at once: it would be closed if it was idle for so long in between.
    let run = json!({"type": "run", "id": "long", "form": "shell", "words": 1});
    raw.send_at_once(&[(&json!({"type": "hello", "client": "raw"}), b""), (&run, b"sleep 0.6\0")]);
    let frames = raw.until("verdict");
    let seq = &frames.last().unwrap().0["seq"];
    raw.send(&json!({"type": "ack", "seq": seq}), b"");
    let (error, _) = raw.expect("error");
    assert_eq!(error["code"], "idle_timeout");
    assert!(raw.next().is_none());
}

#[test]
fn the_shell_is_the_operators_choice() {
    let dir = tempfile::tempdir().unwrap();
    let shell = dir.path().join("shell");
    program::made(&shell, "#!/bin/sh\necho \"mine: $*\"\n");
    let server = Server::start(&["--shell", shell.to_str().unwrap()]);
    assert_eq!(server.run(&["a b"]).expect(0).text(), "mine: -c a b\n");
    assert_eq!(server.client().run_with(b"").expect(0).text(), "mine: \n");
    assert_eq!(server.run(&["--", "echo", "not"]).expect(0).text(), "not\n");
}

/// What a server was just starting when it was killed has its sockets and its lock until it executes its program.
#[test]
fn what_a_killed_server_leaves_late_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(Server::at(&state, "127.0.0.1:0", &[], |_| ()));
    let log = || std::fs::read_to_string(state.with_extension("log")).unwrap_or_default();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = address.local_addr().unwrap().to_string();
    let name = std::fs::File::open(state.join("instances/test/lock")).unwrap();
    rustix::fs::flock(&name, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let server = std::thread::scope(|scope| {
        scope.spawn(|| {
            wait_until("the address", || log().contains(&format!("s for {listen}: ")));
            drop(address);
            wait_until("the name", || log().contains("s for the name \"test\": "));
            drop(name);
        });
        Server::at(&state, &listen, &[], |_| ())
    });
    assert_eq!(server.addr, listen);
    assert_eq!(server.run(&["echo here"]).expect(0).text(), "here\n");
}
