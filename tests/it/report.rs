//! What is left of a run for machines: `--verdict` and `--json`; and what `-q` and `-v` say.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{leave, verb};
use super::support::relay::{Relay, Way};
use super::support::server::{finish, line_of, own_port, under};
use super::support::terminal::Terminal;
use super::support::{Client, Server, json_in, kill};

/// The report of one client, which must end with its status.
#[track_caller]
fn verdict_of(server: &Server, client: &Client, status: i32) -> Value {
    let file = server.dir().join("report");
    let _ = std::fs::remove_file(&file);
    let mut options = Client::new(server.state());
    options.command.arg("--verdict").arg(&file).args(client.command.get_args());
    options.run().expect(status);
    let report = json_in(&file);
    assert_eq!(report["status"], status);
    report
}

#[test]
fn every_outcome_leaves_its_verdict() {
    let server = Server::start(&[]);
    let nobody = own_port();
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Down, 50_000)]);
    let cut = Client::new(server.state()).args(&["--reconnect-timeout", "0s"]);
    let cases = [
        (server.client().arg("exit 7"), 7, "exited"),
        (server.client().arg("kill -USR1 $$"), 138, "signaled"),
        (server.client().args(&["--timeout", "50ms", "sleep 600"]), 124, "deadline"),
        (server.client().args(&["--", "no-such-program"]), 254, "not_started"),
        (Client::new(server.state()).args(&[&nobody, "true"]), 255, "unreached"),
        (cut.args(&[&relay.addr, "seq 1 200000"]), 253, "unknown"),
        (server.client().args(&["-o", "/dev/full", "seq 1 10"]), 252, "output_failed"),
        (server.client().args(&["-o", "/no/such/folder/file", "true"]), 2, "usage"),
        (server.client().args(&["--env", "NOT_HERE_AT_ALL", "true"]), 2, "usage"),
        (server.client().args(&["--id", "refs/heads/main", "true"]), 2, "usage"),
        (Client::new(server.state()).args(&["--id", "", &nobody, "true"]), 2, "usage"),
        (server.client().args(&["-n"]), 2, "usage"),
        (server.client().args(&["-i", "/no/such/key", "true"]), 255, "unreached"),
    ];
    for (client, status, outcome) in cases {
        let report = verdict_of(&server, &client, status);
        assert_eq!(report["outcome"], outcome);
        assert_eq!(report["message"].is_null(), outcome == "exited", "{report}");
        let verdict = &report["verdict"];
        let known = ["exited", "signaled", "deadline"].contains(&outcome);
        assert_eq!(
            verdict["run"].is_string(),
            known || outcome == "output_failed" && !verdict.is_null()
        );
    }
}

#[test]
fn a_closed_stdout_and_a_termination_leave_their_verdicts_too() {
    let server = Server::start(&[]);
    let file = server.dir().join("report");
    let start = || {
        let client = server.client().arg("--verdict").arg(&file);
        let mut child = client.arg("echo ready; exec yes").spawn();
        assert_eq!(line_of(&mut child), "ready");
        child
    };
    let mut child = start();
    drop(child.stdout.take());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(141));
    let report = json_in(&file);
    assert_eq!(
        (&report["outcome"], &report["verdict"]["stopped"]["by"]),
        (&json!("stdout_closed"), &json!("client"))
    );
    let child = start();
    kill(child.id(), Signal::TERM);
    finish(child).expect(143);
    assert_eq!(json_in(&file)["outcome"], "terminated");
}

/// As `rexec ADDR COMMAND | head -0`: whatever was to be written there, and whatever the command came to.
#[test]
fn a_reader_that_has_left_is_141_for_every_answer() {
    let server = Server::start(&[]);
    let addr = &server.addr;
    let id = leave(&server, "echo; exit 3");
    verb(&server, "wait", &[&id]).expect(3);
    let hosts = ["batch", "-H", addr];
    for words in [
        &["--json", addr, "exit 3"][..],
        &["--verdict", "-", addr, "true"],
        &["--verdict", "/dev/stdout", addr, "exit 3"],
        &["--json", "-q", "localhost:1", "true"],
        &["-d", addr, "true"],
        &["attach", "--json", addr, &id],
        &["wait", "--json", addr, &id],
        &["wait", "--any", addr, &id],
        &["ps", addr],
        &[&hosts[..], &["--output", "none", "--report", "-", "true"]].concat(),
        &[&hosts[..], &["--output", "none", "--junit", "/dev/stdout", "exit 3"]].concat(),
        &[&hosts[..], &["--json", "true"]].concat(),
    ] {
        let mut client = Client::new(server.state()).args(words);
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        client.command.stdout(closed).stderr(std::process::Stdio::piped());
        let output = client.command.spawn().unwrap().wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{words:?}: {stderr}");
    }
}

#[test]
fn a_verdict_that_has_no_place_is_told_before_anything_is_run() {
    let server = Server::start(&[]);
    let effect = server.dir().join("effect");
    let text = format!("echo > {}", effect.display());
    for place in ["/no/such/folder/file", "/", "/dev/null/file"] {
        let ran = server.run(&["--verdict", place, &text]).expect(2);
        assert!(ran.stderr.contains(&format!("--verdict {place}: ")), "{}", ran.stderr);
        let ran = server.run(&["--json", "--verdict", place, &text]).expect(2);
        let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
        assert_eq!(report["outcome"], "usage");
    }
    assert!(!effect.exists());
    server.run(&["--verdict", "/dev/null", "true"]).expect(0);
}

#[test]
fn a_verdict_and_a_report_that_find_no_place_are_both_told() {
    let server = Server::start(&[]);
    let folder = server.dir().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    let text = format!("rmdir {}", folder.display());
    let mut client = server.client().arg("--json").arg("--verdict").arg(&file).arg(text);
    under(&["sh", "-c", "exec \"$@\" >/dev/full", "sh"])(&mut client.command);
    let ran = client.run().expect(252);
    assert!(ran.stderr.contains(&format!("--verdict {}", file.display())), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot write the report"), "{}", ran.stderr);
}

/// The value is the same: they are escaped as JSON escapes them.
#[test]
fn json_on_a_terminal_has_nothing_that_the_terminal_obeys() {
    let server = Server::start(&[]);
    let text = ": '\u{9b}31m\u{202e}'";
    let id = leave(&server, text);
    verb(&server, "wait", &[&id]).expect(0);
    for line in [
        format!("ps --json {}", server.addr),
        format!(r"--json {} 'printf \\302\\23331m\\342\\200\\256'", server.addr),
    ] {
        let mut terminal = Terminal::with(server.state(), &line);
        terminal.shows(r"\u009b31m\u202e");
        let screen = std::sync::Arc::clone(&terminal.screen);
        assert_eq!(terminal.ends(), 0);
        let screen = screen.lock().unwrap();
        assert!(!screen.contains(['\u{9b}', '\u{202e}']), "{screen:?}");
    }
}

#[test]
fn a_verdict_whose_place_is_gone_when_it_comes_is_252() {
    let server = Server::start(&[]);
    let folder = server.dir().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    let text = format!("rmdir {}", folder.display());
    let ran = server.run(&["--verdict", file.to_str().unwrap(), &text]).expect(252);
    assert!(ran.stderr.contains(&format!("--verdict {}", file.display())), "{}", ran.stderr);
}

#[test]
fn what_cannot_be_written_is_called_by_its_name() {
    let server = Server::start(&[]);
    let mut client = server.client().arg("echo hi");
    client.command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    let child = client.command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let stderr = child.wait_with_output().unwrap().stderr;
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(stderr.contains("cannot write standard output: No space left"), "{stderr}");
    let ran = server.run(&["-o", "/dev/full", "echo hi"]).expect(252);
    assert!(ran.stderr.contains("standard output: /dev/full: No space left"), "{}", ran.stderr);
}

/// It says what was run, and may say why a server refused it.
#[test]
fn a_report_is_as_private_as_the_umask_has_it_or_as_the_one_before() {
    let server = Server::start(&[]);
    let path = server.dir().join("report");
    let write = || {
        let mut client = server.client().arg("--verdict").arg(&path).arg("true");
        under(&["sh", "-c", "umask 077; exec \"$@\"", "sh"])(&mut client.command);
        client.run().expect(0);
        json_in(&path);
        path.metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!(write(), 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(write(), 0o644);
}

#[test]
fn json_is_one_object_with_text_where_it_is_text() {
    let server = Server::start(&[]);
    let ran = server.run(&["--json", r"echo 'out é'; printf '\377' >&2; exit 4"]).expect(4);
    assert_eq!((ran.stderr.as_str(), ran.text().lines().count()), ("", 1));
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["stdout"], &report["stdout_base64"]), (&json!("out é\n"), &json!(null)));
    assert_eq!((&report["stderr"], &report["stderr_base64"]), (&json!(null), &json!("/w==")));
    assert_eq!((&report["status"], &report["outcome"]), (&json!(4), &json!("exited")));
    let verdict = &report["verdict"];
    assert_eq!((&verdict["stdout"]["size"], &verdict["stderr"]["size"]), (&json!(7), &json!(1)));
    let digest = "a8100ae6aa1940d0b663bb31cd466142ebbdbd5187131b92d93818987832eb89";
    assert_eq!(verdict["stderr"]["hash"], digest, "as sha256sum prints it");
    assert!(verdict["started"].as_str().unwrap().ends_with('Z'));
    assert!(verdict["journal"]["seq"].as_u64().unwrap() > 0);
}

#[test]
fn json_comes_also_when_no_server_was_asked() {
    let server = Server::start(&[]);
    let ran = server.run(&["--json", "-i", "/no/such/key", "true"]).expect(255);
    let report: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["outcome"], &report["stdout"]), (&json!("unreached"), &json!("")));
}

#[test]
fn quiet_says_nothing_and_verbose_says_who_and_how() {
    let server = Server::start(&[]);
    let quiet = server.run(&["-q", "echo theirs >&2; kill -9 $$"]).expect(137);
    assert_eq!(quiet.stderr, "theirs\n");
    assert_eq!(server.run(&["-q", "--", "no-such-program"]).expect(254).stderr, "");
    assert_eq!(server.run(&["-q", "--env", "NOT_HERE_AT_ALL", "x"]).expect(2).stderr, "");
    assert_eq!(server.run(&["-q", "-o", "/no/such/folder/file", "x"]).expect(2).stderr, "");
    let verbose = server.run(&["-v", "printf 12345"]).expect(0);
    assert_eq!(verbose.text(), "12345");
    assert!(verbose.stderr.contains("let us in as local:"), "{}", verbose.stderr);
    assert!(verbose.stderr.contains("wrote 5 bytes to stdout"), "{}", verbose.stderr);
}

#[test]
fn a_script_that_nobody_gives_is_an_empty_one() {
    let server = Server::start(&[]);
    assert_eq!(server.run(&[]).expect(0).text(), "");
}
