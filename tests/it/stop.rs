//! Stopping: whoever asks for it, everything that the command has started is gone, and the verdict says
//! who it was.

use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::relay::Relay;
use super::support::server::{finish, line_of, under};
use super::support::{
    Client, Server, at_a_deadline, is_alive, json_in, kill, pid_in, wait_until, whole_pid_in,
};

/// The processes of [`tree`], each of which leaves its id in a file of this name.
const TREE: [&str; 5] = ["main", "grandchild", "shell", "setsid", "stubborn"];

/// A command that starts processes of every kind that is easily lost, and waits for ever.
fn tree(folder: &Path) -> String {
    format!(
        "cd '{}'; echo $$ > main
        (sh -c 'echo $$ > grandchild; exec sleep 600' &)
        sh -c 'sh -c \"echo \\$\\$ > shell; sleep 600; :\"; :' &
        setsid sh -c 'setsid sh -c \"echo \\$\\$ > setsid; exec sleep 600\" & exec sleep 600' &
        sh -c 'trap \"\" TERM; echo $$ > stubborn; while :; do sleep 600; done' &
        sleep 600; :",
        folder.display()
    )
}

/// Waits until the whole tree is there; its ids.
fn planted(folder: &Path) -> Vec<u32> {
    TREE.iter().map(|name| pid_in(&folder.join(name))).collect()
}

#[track_caller]
fn assert_gone(pids: &[u32]) {
    for (name, pid) in TREE.iter().zip(pids) {
        assert!(!is_alive(*pid), "{name} lives on");
    }
}

/// The last line of the journal about the end of a run.
fn ended(server: &Server) -> Option<Value> {
    server.journal().into_iter().rev().find(|line| line["type"] == "ended")
}

/// opencontainers/runc#3359, kubernetes/kubectl#1076.
#[test]
fn a_deadline_stops_the_whole_tree() {
    let server = Server::start(&[]);
    let file = server.dir().join("verdict");
    let (ran, pids, deadline) = at_a_deadline(|ms| {
        let timeout = format!("{ms}ms");
        let folder = server.dir().join(&timeout);
        std::fs::create_dir(&folder).unwrap();
        let client = server.client().args(&["--timeout", &timeout, "--verdict"]).arg(&file);
        let ran = client.arg(tree(&folder)).run().expect(124);
        let pids = TREE.iter().map(|name| whole_pid_in(&folder.join(name))).collect::<Option<_>>();
        pids.map(|pids: Vec<u32>| (ran, pids, ms))
    });
    assert_gone(&pids);
    assert!(ran.stderr.starts_with("rexec: stopped by its deadline (--timeout) after "));
    let verdict = &json_in(&file)["verdict"];
    assert_eq!(
        (&verdict["stopped"]["by"], &verdict["left_running"]),
        (&json!("deadline"), &json!(0))
    );
    assert!(verdict["stopped"]["after_ms"].as_u64().unwrap() >= deadline, "{verdict}");
}

#[test]
fn sigterm_to_the_client_stops_the_whole_tree_and_waits_for_that() {
    let server = Server::start(&[]);
    let child = server.client().arg(tree(server.dir())).spawn();
    let pids = planted(server.dir());
    kill(child.id(), Signal::TERM);
    let ran = finish(child).expect(143);
    assert_gone(&pids);
    assert!(ran.stderr.contains("stopped by this client"), "{}", ran.stderr);
}

/// docker/cli#2607: a client that is killed says nothing more, but its grace runs out.
#[test]
fn a_client_that_vanished_for_longer_than_its_grace_stops_the_whole_tree() {
    let server = Server::start(&[]);
    let mut child = server.client().args(&["--grace", "0s"]).arg(tree(server.dir())).spawn();
    let pids = planted(server.dir());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the verdict", || ended(&server).is_some());
    assert_gone(&pids);
    assert_eq!(ended(&server).unwrap()["verdict"]["stopped"]["by"], "client_lost");
}

/// Its output is then not asked for again: that is no loss to complain of.
#[test]
fn a_cancel_while_the_link_is_down_is_answered_when_it_is_up_again() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let (file, pid) = (server.dir().join("verdict"), server.dir().join("pid"));
    let text = format!("echo $$ > {}; while :; do echo; sleep 0.01; done", pid.display());
    let client = Client::new(server.state()).arg("--verdict").arg(&file).arg(&relay.addr);
    let mut child = client.arg(text).spawn();
    assert_eq!(line_of(&mut child), "");
    relay.close(true);
    relay.cut();
    kill(child.id(), Signal::TERM);
    wait_until("an attempt to reconnect", || relay.connections() > 1);
    relay.close(false);
    finish(child).expect(143);
    assert!(!is_alive(pid_in(&pid)));
    assert_eq!(json_in(&file)["verdict"]["stopped"]["by"], "client");
}

#[test]
fn what_ends_at_sigterm_is_not_kept_waiting() {
    let server = Server::start(&[]);
    let text = "trap 'echo cleaned up; exit 9' TERM; while :; do sleep 0.01; done";
    let report = at_a_deadline(|ms| {
        let ran = server.run(&["--json", "--timeout", &format!("{ms}ms"), text]).expect(124);
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        (report["stdout"] == "cleaned up\n").then_some(report)
    });
    let verdict = &report["verdict"];
    assert_eq!(verdict["end"], json!({"exited": {"code": 9}}));
    assert_eq!(verdict["stopped"]["by"], "deadline");
    // SIGKILL would have come 5 s after SIGTERM.
    let [ended, asked] = [&verdict["elapsed_ms"], &verdict["stopped"]["after_ms"]];
    assert!(ended.as_u64().unwrap() < asked.as_u64().unwrap() + 5000, "{report}");
}

#[test]
fn a_command_that_ends_before_its_deadline_was_not_stopped() {
    let server = Server::start(&[]);
    let ran = server.run(&["--json", "--timeout", "1h", "exit 124"]).expect(124);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(
        (&report["outcome"], &report["verdict"]["stopped"]),
        (&json!("exited"), &json!(null))
    );
}

#[test]
fn ctrl_c_reaches_the_whole_process_group() {
    let server = Server::start(&[]);
    let text = "trap 'wait; echo parent; exit 7' INT; \
                sh -c 'trap \"echo child; exit 0\" INT; echo ready; while :; do sleep 0.01; done' & \
                while :; do wait; done";
    // A shell has its background jobs ignore SIGINT, and what was ignored cannot be trapped; `set -m`
    // would give them a group of their own. `env` gives the default back.
    let text = text.replacen("sh -c", "env --default-signal=INT sh -c", 1);
    let mut child = server.client().arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::INT);
    assert_eq!(finish(child).expect(7).text(), "child\nparent\n");
}

#[test]
fn ctrl_c_that_kills_the_command_is_130() {
    let server = Server::start(&[]);
    let mut child = server.client().arg("echo ready; exec sleep 600").spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::INT);
    let ran = finish(child).expect(130);
    assert_eq!(ran.stderr, "rexec: the command was killed by signal 2 (SIGINT)\n");
}

#[test]
fn a_second_ctrl_c_cancels() {
    let server = Server::start(&[]);
    let file = server.dir().join("verdict");
    let text = "trap 'echo not yet' INT; echo ready; while :; do sleep 0.01; done";
    let mut child = server.client().arg("--verdict").arg(&file).arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::INT);
    assert_eq!(line_of(&mut child), "not yet");
    kill(child.id(), Signal::INT);
    let ran = finish(child).expect(130);
    assert!(ran.stderr.contains("stopped by this client"), "{}", ran.stderr);
    let report = json_in(&file);
    assert_eq!(
        (&report["outcome"], &report["verdict"]["stopped"]["by"]),
        (&json!("interrupted"), &json!("client"))
    );
}

/// A third one waits for nothing, and says that it does not know.
#[test]
fn a_third_ctrl_c_does_not_wait_for_the_answer() {
    let server = Server::start(&[]);
    let text =
        "trap 'echo not yet' INT; trap 'echo no' TERM; echo ready; while :; do sleep 0.01; done";
    let mut child = server.client().arg(text).spawn();
    for line in ["ready", "not yet", "no"] {
        assert_eq!(line_of(&mut child), line);
        kill(child.id(), Signal::INT);
    }
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("cannot know"), "{}", ran.stderr);
}

/// A script's `&` has its jobs ignore SIGINT and SIGQUIT, and a command would inherit that.
#[test]
fn a_server_that_was_started_from_a_script_lets_ctrl_c_work() {
    let ignoring = under(&["sh", "-c", "trap '' INT QUIT; exec \"$@\"", "sh"]);
    let server = Server::with(&[], ignoring);
    let mut child = server.client().arg("echo ready; exec sleep 600").spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::INT);
    finish(child).expect(130);
    let ignored =
        server.run(&["sed -n 's/^SigIgn:[[:space:]]*//p' /proc/self/status"]).expect(0).text();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    // The C library has its own two, 32 and 33, ignored in what it spawns.
    assert_eq!(ignored & !(0b11 << 31), 0, "{ignored:x}");
}

/// As the jobs of a script are: then Ctrl-C is not theirs.
#[test]
fn a_client_that_was_started_to_ignore_ctrl_c_does() {
    let server = Server::start(&[]);
    let mut client = server.client().arg("echo ready; read line; echo $line");
    under(&["sh", "-c", "trap '' INT; exec \"$@\"", "sh"])(&mut client.command);
    client.command.stdin(std::process::Stdio::piped());
    let mut child = client.spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::INT);
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"undisturbed\n").unwrap();
    assert_eq!(finish(child).expect(0).text(), "undisturbed\n");
}

#[test]
fn a_suspended_client_goes_on_where_it_was() {
    let server = Server::start(&[]);
    let go = server.dir().join("go");
    let text = format!("echo ready; while [ ! -e {} ]; do sleep 0.01; done; seq 5", go.display());
    let mut child = server.client().arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    kill(child.id(), Signal::TSTP);
    let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    wait_until("the client to be suspended", || stat().contains(") T "));
    std::fs::write(&go, "").unwrap();
    wait_until("the end of the command", || ended(&server).is_some());
    assert!(stat().contains(") T "));
    kill(child.id(), Signal::CONT);
    assert_eq!(finish(child).expect(0).text(), "1\n2\n3\n4\n5\n");
}

/// The server is the parent of whatever its commands leave behind; it reaps what ends of that.
#[test]
fn orphans_of_commands_do_not_stay_as_zombies() {
    let server = Server::start(&[]);
    let (file, go) = (server.dir().join("orphan"), server.dir().join("go"));
    let text = format!(
        "(sh -c 'echo $$ > {}; while [ ! -e {} ]; do sleep 0.01; done' >/dev/null 2>&1 &)",
        file.display(),
        go.display()
    );
    server.run(&[&text]).expect(0);
    let pid = pid_in(&file);
    assert!(is_alive(pid));
    std::fs::write(go, "").unwrap();
    wait_until("the orphan to be reaped", || !Path::new(&format!("/proc/{pid}")).exists());
}
