//! When a run's output ends: with its main process, and not with what that has left behind.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::server::{Server, finish, line_of};
use super::support::{at_a_deadline, is_alive, kill, pid_in, wait_until, whole_pid_in};

/// appleboy/ssh-action#40, jenkinsci/publish-over-ssh-plugin#230: over ssh this hangs for a minute.
#[test]
fn nohup_in_the_background_returns_at_once_and_the_sleeper_lives_on() {
    let server = Server::start(&[]);
    let file = server.dir().join("pid");
    let text = format!("nohup sleep 60 & echo $! > {}", file.display());
    let ran = server.run(&["--json", &text]).expect(0);
    let pid = pid_in(&file);
    assert!(is_alive(pid));
    kill(pid, Signal::KILL);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let verdict = &report["verdict"];
    assert_eq!((&verdict["stdout"]["end"], &verdict["left_running"]), (&json!("held"), &json!(1)));
    assert!(verdict["elapsed_ms"].as_u64().unwrap() < 30_000, "{verdict}");
}

#[test]
fn what_was_left_behind_with_its_own_output_holds_nothing() {
    let server = Server::start(&[]);
    let file = server.dir().join("pid");
    // It has let go of the run's own before that ends.
    let text = format!(
        "(exec >/dev/null 2>&1; : > {0}.apart; exec sleep 600) & echo $! > {0}; \
         while [ ! -e {0}.apart ]; do sleep 0.01; done",
        file.display()
    );
    let ran = server.run(&["--json", &text]).expect(0);
    let pid = pid_in(&file);
    assert!(is_alive(pid));
    kill(pid, Signal::KILL);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["verdict"]["stdout"]["end"], "eof");
}

/// A held pipe is read into nothing, so that its holder does not die of SIGPIPE.
#[test]
fn what_still_holds_the_output_may_go_on_writing() {
    let server = Server::start(&[]);
    let (go, done) = (server.dir().join("go"), server.dir().join("done"));
    let text = format!(
        "echo early; (while [ ! -e {} ]; do sleep 0.01; done; seq 1 100000 && echo > {}) &",
        go.display(),
        done.display()
    );
    assert_eq!(server.run(&[&text]).expect(0).text(), "early\n");
    std::fs::write(go, "").unwrap();
    wait_until("the writer to have written everything", || done.exists());
}

#[test]
fn with_wait_eof_the_output_ends_with_its_last_writer() {
    let server = Server::start(&[]);
    let go = server.dir().join("go");
    let text = format!(
        "echo early; (while [ ! -e {} ]; do sleep 0.01; done; echo late) & exit 3",
        go.display()
    );
    let mut child = server.client().args(&["--wait-eof", &text]).spawn();
    assert_eq!(line_of(&mut child), "early");
    std::fs::write(go, "").unwrap();
    assert_eq!(finish(child).expect(3).text(), "late\n");
}

#[test]
fn a_deadline_ends_the_waiting_for_the_last_writer() {
    let server = Server::start(&[]);
    let file = server.dir().join("pid");
    let text = format!("sleep 600 & echo $! > {}; sleep 600", file.display());
    let pid = at_a_deadline(|ms| {
        server.run(&["--wait-eof", "--timeout", &format!("{ms}ms"), &text]).expect(124);
        whole_pid_in(&file)
    });
    assert!(!is_alive(pid));
}

/// A command that leaves behind who holds its output for ever, and ends.
fn leaves_a_holder(server: &Server) -> String {
    format!("cd '{}'; sleep 600 & echo $! > holder; echo $$ > main", server.dir().display())
}

/// Waits until the command itself has ended; what holds its output.
fn left_behind(server: &Server) -> u32 {
    let main = pid_in(&server.dir().join("main"));
    wait_until("the end of the command itself", || !is_alive(main));
    pid_in(&server.dir().join("holder"))
}

#[test]
fn a_deadline_ends_the_waiting_for_the_last_writer_after_the_command_itself() {
    let server = Server::start(&[]);
    let report = at_a_deadline(|ms| {
        let client = server.client().args(&["--json", "--wait-eof", "--timeout"]);
        let ran = client.arg(format!("{ms}ms")).arg(leaves_a_holder(&server)).run().expect(124);
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        let ended_before = report["verdict"]["end"] == json!({"exited": {"code": 0}});
        ended_before.then_some(report)
    });
    assert!(!is_alive(left_behind(&server)));
    assert_eq!(report["verdict"]["stopped"]["by"], "deadline");
    assert_eq!(report["verdict"]["stdout"]["end"], "eof");
}

#[test]
fn sigterm_to_the_client_ends_the_waiting_for_the_last_writer() {
    let server = Server::start(&[]);
    let child = server.client().args(&["--wait-eof", &leaves_a_holder(&server)]).spawn();
    let pid = left_behind(&server);
    kill(child.id(), Signal::TERM);
    finish(child).expect(143);
    assert!(!is_alive(pid));
}

#[test]
fn a_client_that_vanished_ends_the_waiting_for_the_last_writer() {
    let server = Server::start(&[]);
    let client = server.client().args(&["--grace", "0s", "--wait-eof"]);
    let mut child = client.arg(leaves_a_holder(&server)).spawn();
    let pid = left_behind(&server);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the end of what it left behind", || !is_alive(pid));
}

/// What hides from the stop, without a mark and in a group of its own, does not hold the verdict up.
#[test]
fn after_a_stop_nobody_waits_for_a_writer_that_escaped_it() {
    let server = Server::start(&[]);
    let file = server.dir().join("pid");
    let text = format!(
        "setsid env -i sh -c 'echo $$ > {}; exec sleep 600' & while [ ! -s {0} ]; do sleep 0.01; done",
        file.display()
    );
    let (ran, pid) = at_a_deadline(|ms| {
        let timeout = format!("{ms}ms");
        let ran = server.run(&["--json", "--wait-eof", "--timeout", &timeout, &text]).expect(124);
        whole_pid_in(&file).map(|pid| (ran, pid))
    });
    kill(pid, Signal::KILL);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(report["verdict"]["stdout"]["end"], "held");
}
