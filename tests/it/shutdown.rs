//! The end of a server: nothing new, time for what runs, then a stop that is called by its name.

use std::process::Child;

use rustix::process::Signal;
use serde_json::json;

use super::durable::{gate, leave, verb};
use super::support::raw::Raw;
use super::support::server::{Server, finish, line_of, supervisors, under};
use super::support::{is_alive, is_seen, json_in, kill, pid_in, wait_until};

/// A client whose command is under way.
fn running(server: &Server, text: &str) -> Child {
    let file = server.dir().join("verdict");
    let text = format!("echo ready; {text}");
    let mut child = server.client().arg("--verdict").arg(file).arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    child
}

/// Sends SIGTERM and waits until the server has taken it.
fn terminate(server: &Server) {
    server.signal(Signal::TERM);
    wait_until("the shutdown to begin", || server.log().contains("shutting down"));
}

#[test]
fn after_sigterm_nothing_new_starts_and_what_runs_may_end() {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let go = server.dir().join("go");
    let text = format!("while [ ! -e {} ]; do sleep 0.01; done; exit 6", go.display());
    let child = running(&server, &text);
    terminate(&server);
    let ran = server.run(&["--json", "true"]).expect(254);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["code"], "shutting_down");
    std::fs::write(go, "").unwrap();
    finish(child).expect(6);
    assert_eq!(server.wait(), 0);
}

/// Closed without a word it would look for the server until its patience ends. It says both at once, as clients do:
/// one that has logged in and asks for nothing may be closed.
#[test]
fn a_client_that_is_logging_in_when_sigterm_comes_is_refused() {
    let mut server = Server::start(&[]);
    let mut late = Raw::connect(&server);
    // Whoever comes after it is let in after it.
    drop(Raw::login(&server));
    terminate(&server);
    let hello = json!({"type": "hello", "client": "raw"});
    let run = json!({"type": "run", "id": "late", "form": "shell", "words": 1});
    late.send_at_once(&[(&hello, b""), (&run, b"true\0")]);
    late.expect("welcome");
    assert_eq!(late.expect("refused").0["code"], "shutting_down");
    drop(late);
    assert_eq!(server.wait(), 0);
}

#[test]
fn after_the_drain_timeout_runs_are_stopped_by_the_shutdown() {
    let mut server = Server::start(&["--drain-timeout", "100ms"]);
    let child = running(&server, "sleep 600");
    terminate(&server);
    let ran = finish(child).expect(251);
    assert!(ran.stderr.contains("stopped by the server's shutdown"), "{}", ran.stderr);
    let report = json_in(&server.dir().join("verdict"));
    assert_eq!(report["verdict"]["stopped"]["by"], "shutdown");
    assert_eq!(server.wait(), 0);
}

/// Processes have so long to clean up after themselves.
const STOP_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

#[test]
fn a_second_sigterm_and_sigquit_stop_at_once_even_what_ignores_sigterm() {
    for first in [Some(Signal::TERM), None] {
        is_seen("an end without the time to clean up", || ends_at_once(first));
    }
}

fn ends_at_once(first: Option<Signal>) -> bool {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let file = server.dir().join("pid");
    let text = format!("trap '' TERM; echo $$ > {}; while :; do sleep 600; done", file.display());
    let child = running(&server, &text);
    let pid = pid_in(&file);
    if first.is_some() {
        terminate(&server);
    }
    let last = std::time::Instant::now();
    server.signal(first.unwrap_or(Signal::QUIT));
    finish(child).expect(251);
    assert!(!is_alive(pid));
    assert_eq!(server.wait(), 0);
    last.elapsed() < STOP_GRACE
}

/// Other servers take them for "write to a new file" and the like. All processes of a server have one name, so
/// whoever goes by that reaches supervisors too.
#[test]
fn signals_that_have_a_meaning_elsewhere_end_nothing() {
    let server = Server::start(&[]);
    let (go, wait) = gate(&server, "go");
    let child = running(&server, &format!("{wait}; exit 6"));
    let id = leave(&server, &format!("{wait}; exit 7"));
    for signal in [Signal::USR1, Signal::USR2] {
        server.signal(signal);
    }
    for pid in supervisors(server.state()) {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert_eq!(name, "rexec-supervise\n");
        for signal in [Signal::USR1, Signal::USR2, Signal::QUIT, Signal::INT, Signal::HUP] {
            kill(pid, signal);
        }
    }
    let told = || server.log().matches("SIGUSR1 and SIGUSR2 mean nothing").count();
    wait_until("a line for each", || told() == 2);
    std::fs::write(go, "").unwrap();
    finish(child).expect(6);
    verb(&server, "wait", &[&id]).expect(7);
}

/// As it may come while one server becomes the next.
#[test]
fn a_signal_that_ends_nothing_may_come_before_it_is_heard() {
    let script = "kill -USR1 $$; exec \"$@\"";
    let server =
        Server::with(&[], under(&["env", "--block-signal=USR1", "sh", "-c", script, "sh"]));
    server.run(&["true"]).expect(0);
    wait_until("its line", || server.log().contains("SIGUSR1 and SIGUSR2 mean nothing"));
}

#[test]
fn a_second_sigterm_hurries_a_stop_that_is_under_way() {
    is_seen("an end before that of the time to clean up", is_hurried);
}

fn is_hurried() -> bool {
    let mut server = Server::start(&["--drain-timeout", "0s"]);
    let text = "trap 'echo asked' TERM; while :; do sleep 0.01; done";
    let mut child = running(&server, text);
    terminate(&server);
    assert_eq!(line_of(&mut child), "asked");
    let second = std::time::Instant::now();
    server.signal(Signal::TERM);
    finish(child).expect(251);
    assert_eq!(server.wait(), 0);
    second.elapsed() < STOP_GRACE
}

#[test]
fn an_idle_server_ends_at_sigterm_and_at_what_a_terminal_sends() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut server = Server::start(&[]);
        server.run(&["true"]).expect(0);
        server.signal(signal);
        assert_eq!(server.wait(), 0);
        assert!(!server.log().contains("not confirmed"), "{}", server.log());
        assert!(!std::path::Path::new(server.unix.strip_prefix("unix:").unwrap()).exists());
    }
}

/// As the first process of a container it is the parent of all whose parents have died.
#[test]
fn as_pid_1_it_reaps_strangers_and_ends_at_sigterm() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: only root can make a pid namespace");
        return;
    }
    let prefix = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];
    let server = Server::with(&[], under(&prefix));
    assert_eq!(
        server.run(&["readlink /proc/1/exe"]).expect(0).text().trim(),
        env!("CARGO_BIN_EXE_rexec-server")
    );
    assert!(server.log().contains("first process of its container"), "{}", server.log());
    // A child of its own session and without the run's mark: nobody's but init's.
    let text = "env -i setsid -f sleep 0.01; exec >/dev/null 2>&1; true";
    for _ in 0..5 {
        server.run(&[text]).expect(0);
    }
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    wait_until("no zombie", || server.run(&[zombies]).expect(0).text().trim() == "0");
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let first = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill(first, Signal::TERM);
    let mut server = server;
    assert_eq!(server.wait(), 0);
}
