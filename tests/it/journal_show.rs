//! `rexec-server journal show`: one line for each run, whatever became of it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::journal_verify::journal_tool;
use super::support::raw::Raw;
use super::support::server::finish;
use super::support::{Ran, Server, in_parallel, is_alive, pid_in, wait_until};

fn show(server: &Server, args: &[&str]) -> Ran {
    journal_tool(server.state(), &[&["show"], args].concat())
}

/// The cells of each row, by the title of their column.
fn rows(table: &str) -> Vec<Value> {
    let mut lines = table.lines();
    let head = lines.next().unwrap();
    let titles = ["STARTED", "TOOK", "RUN", "WHO", "OUTCOME", "COMMAND"];
    let starts = titles.map(|title| head.find(title).unwrap());
    let cell = |line: &str, at: usize| {
        let end = starts.get(at + 1).copied().unwrap_or(usize::MAX).min(line.len());
        line.get(starts[at]..end).unwrap_or_default().trim_end().to_owned()
    };
    lines
        .map(|line| titles.iter().enumerate().map(|(at, t)| (*t, cell(line, at))).collect())
        .collect()
}

fn column(rows: &[Value], title: &str) -> Vec<String> {
    rows.iter().map(|row| row[title].as_str().unwrap().to_owned()).collect()
}

#[test]
fn each_run_has_one_line_with_who_when_what_and_how_it_ended() {
    let mut server = Server::start(&[]);
    server.run(&["exit 0"]).expect(0);
    server.run(&["exit 3"]).expect(3);
    server.run(&["kill -9 $$"]).expect(137);
    server.run(&["--timeout", "100ms", "sleep 1000"]).expect(124);
    server.run(&["--", "/no/such/program", "a b"]).expect(254);
    let mut raw = Raw::login(&server);
    raw.send(&json!({"type": "close", "id": "never"}), b"");
    raw.expect("never_started");
    let gate = server.dir().join("gate");
    let held =
        format!("echo $$ > {0}.pid; while [ ! -e {0} ]; do sleep 0.05; done", gate.display());
    let child = server.client().args(&["--reconnect-timeout", "0", &held]).spawn();
    let pid = pid_in(&gate.with_extension("pid"));
    wait_until("its line", || server.journal().last().unwrap()["type"] == "running");
    let lines = rows(&show(&server, &[]).expect(0).text());
    let outcomes = [
        "exited 0",
        "exited 3",
        "signal 9 (SIGKILL)",
        "stopped: deadline",
        "not started: program_not_found",
        "given up",
    ];
    assert_eq!(column(&lines, "OUTCOME"), [&outcomes[..], &["running"]].concat());
    let commands =
        ["exit 0", "exit 3", "kill -9 $$", "sleep 1000", "/no/such/program 'a b'", "-", &held];
    assert_eq!(column(&lines, "COMMAND"), commands);
    assert!(column(&lines, "WHO").iter().all(|who| who.starts_with("local:")), "{lines:?}");
    assert_eq!(lines[5]["RUN"], "never");
    for time in column(&lines, "STARTED") {
        assert!(time.len() == 24 && humantime::parse_rfc3339(&time).is_ok(), "{time}");
    }
    server.restart();
    wait_until("the lost run is stopped", || !is_alive(pid));
    wait_until("its last line", || server.journal().iter().any(|line| line["type"] == "lost"));
    let lines = rows(&show(&server, &[]).expect(0).text());
    assert_eq!(column(&lines, "OUTCOME"), [&outcomes[..], &["lost"]].concat());
    assert_eq!(lines[6]["COMMAND"], held);
    finish(child);
}

#[test]
fn lines_are_printed_as_they_are_and_by_run_and_time() {
    let server = Server::start(&[]);
    server.run(&["exit 0"]).expect(0);
    let mut raw = Raw::login(&server);
    raw.run("Deploy-2.1", "exit 5", json!({}));
    raw.until("verdict");
    let whole = fs::read(server.state().join("instances/test/journal/000001.jsonl")).unwrap();
    assert_eq!(show(&server, &["--json"]).expect(0).stdout, whole);
    let ran = show(&server, &["--json", "--run", "ploy-2"]).expect(0);
    let types: Vec<Value> = ran
        .text()
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap()["type"].clone())
        .collect();
    assert_eq!(types, ["accepted", "running", "ended"]);
    let lines = rows(&show(&server, &["--run", "ploy-2"]).expect(0).text());
    assert_eq!((lines.len(), &lines[0]["RUN"]), (1, &json!("Deploy-2.1")));
    assert_eq!(lines[0]["OUTCOME"], "exited 5");
    for (since, count) in [("1h", 2), ("2020-01-01", 2), ("2999-01-01T00:00:00Z", 0), ("0s", 0)] {
        let lines = rows(&show(&server, &["--since", since]).expect(0).text());
        assert_eq!(lines.len(), count, "{since}");
    }
    assert_eq!(show(&server, &["--json", "--since", "2999-01-01"]).expect(0).text(), "");
}

#[test]
fn no_terminal_obeys_what_is_shown_of_a_command() {
    let server = Server::start(&[]);
    let text = format!(": '\u{1b}[2J\t\r\u{7f}\u{9b}31m\u{202e}é'\nexit 4{}", " ".repeat(200));
    server.run(&[&text]).expect(4);
    let shown = show(&server, &[]).expect(0).text();
    let kept = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(shown.chars().all(kept), "{shown:?}");
    let expected = r": '\u{1b}[2J\t\r\u{7f}\u{9b}31m\u{202e}é'\nexit 4";
    assert!(shown.contains(expected) && shown.lines().count() == 2, "{shown}");
    assert!(shown.ends_with("…\n"), "{shown}");
}

/// Adds a segment with these lines, chained to the last of the one before.
fn add_segment(folder: &Path, number: usize, lines: &[Value]) {
    let before = fs::read_to_string(folder.join(format!("{:06}.jsonl", number - 1))).unwrap();
    let mut last = before.lines().last().unwrap().to_owned();
    let mut seq = serde_json::from_str::<Value>(&last).unwrap()["seq"].as_u64().unwrap();
    let mut text = String::new();
    for line in lines {
        let mut line = line.clone();
        seq += 1;
        line["seq"] = seq.into();
        let hash: String = Sha256::digest(&last).iter().map(|byte| format!("{byte:02x}")).collect();
        line["prev"] = hash.into();
        last = line.to_string();
        text += &format!("{last}\n");
    }
    fs::write(folder.join(format!("{number:06}.jsonl")), text).unwrap();
}

/// A segment begins with the lines of what is under way, so that it can be read alone.
#[test]
fn a_run_that_goes_on_in_the_next_segment_is_listed_once_and_as_old_as_it_is() {
    let server = Server::start(&[]);
    let gate = server.dir().join("gate");
    let held = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 6", gate.display());
    let child = server.client().arg(held).spawn();
    wait_until("the run", || server.journal().len() == 3);
    let lines = server.journal();
    let copy = tempfile::tempdir().unwrap();
    let original = server.state().join("instances/test/journal/000001.jsonl");
    fs::copy(original, copy.path().join("000001.jsonl")).unwrap();
    fs::write(&gate, "").unwrap();
    finish(child).expect(6);
    let mut carried = lines[..2].to_vec();
    carried.iter_mut().for_each(|line| line["time"] = "2999-01-01T00:00:00.000Z".into());
    let folder = copy.path().to_str().unwrap();
    add_segment(copy.path(), 2, &carried);
    add_segment(copy.path(), 3, &carried);
    journal_tool(copy.path(), &["verify", "--folder", folder]).expect(0);
    let listed = |args: &[&str]| {
        rows(
            &journal_tool(copy.path(), &[&["show", "--folder", folder], args].concat())
                .expect(0)
                .text(),
        )
    };
    let open = listed(&[]);
    assert_eq!((open.len(), &open[0]["OUTCOME"]), (1, &json!("running")));
    add_segment(copy.path(), 4, &[carried.clone(), vec![server.journal()[3].clone()]].concat());
    let ended = listed(&[]);
    assert_eq!((ended.len(), &ended[0]["OUTCOME"]), (1, &json!("exited 6")));
    assert_eq!(ended[0]["STARTED"], lines[1]["time"]);
    // Of the last segment alone as much is known as it says.
    for number in 1..=3 {
        fs::remove_file(copy.path().join(format!("{number:06}.jsonl"))).unwrap();
    }
    let ran = journal_tool(copy.path(), &["show", "--folder", folder]).expect(1);
    assert_eq!(rows(&ran.text()).len(), 1, "{}", ran.text());
    assert!(ran.stderr.contains("000004.jsonl, line 1"), "{}", ran.stderr);
}

#[test]
fn what_can_be_read_of_a_damaged_journal_is_shown_and_the_damage_told() {
    let mut server = Server::start(&[]);
    server.run(&["exit 1"]).expect(1);
    server.run(&["exit 2"]).expect(2);
    server.crash();
    let path = server.state().join("instances/test/journal/000001.jsonl");
    let text = fs::read_to_string(&path).unwrap().replacen("\"ended\"", "\"ended", 1);
    fs::write(&path, text).unwrap();
    let ran = show(&server, &[]).expect(1);
    let lines = rows(&ran.text());
    assert_eq!(column(&lines, "OUTCOME"), ["exited 2", "running"]);
    assert!(ran.stderr.contains("line 5") && ran.stderr.contains("verify"), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
}

#[test]
fn a_journal_is_read_while_its_server_writes() {
    let server = Server::start(&[]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            in_parallel(4, 60, |_| drop(server.run(&["exit 0"]).expect(0)));
            done.store(true, Ordering::Relaxed);
        });
        let (mut lines, mut rounds) = (0, 0);
        while !done.load(Ordering::Relaxed) {
            let text = journal_tool(server.state(), &["verify"]).expect(0).text();
            let count: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(count >= lines, "{count} after {lines}");
            lines = count;
            let runs = rows(&show(&server, &[]).expect(0).text());
            assert!(runs.iter().all(|r| {
                ["exited 0", "running", "accepted"].map(Value::from).contains(&r["OUTCOME"])
            }));
            rounds += 1;
        }
        assert!(rounds > 0);
    });
    let runs = rows(&show(&server, &[]).expect(0).text());
    assert_eq!(column(&runs, "OUTCOME"), vec!["exited 0"; 60]);
    let text = journal_tool(server.state(), &["verify"]).expect(0).text();
    assert!(text.starts_with("intact: 241 lines, "), "{text}");
}

#[test]
fn the_only_journal_is_meant_and_of_several_the_named_one() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    for command in ["show", "verify"] {
        let ran = journal_tool(&state, &[command]).expect(2);
        assert!(ran.stderr.contains("no server has been started"), "{}", ran.stderr);
    }
    assert!(!state.exists(), "a reader makes nothing");
    let server = Server::start(&[]);
    server.run(&["exit 0"]).expect(0);
    let journal = server.state().join("instances/test/journal");
    let whole = journal_tool(server.state(), &["verify"]).expect(0).text();
    let other = server.state().join("instances/other");
    fs::create_dir_all(other.join("journal")).unwrap();
    for command in ["show", "verify"] {
        let ran = journal_tool(server.state(), &[command]).expect(2);
        assert!(ran.stderr.contains("give --name with one of: other, test"), "{}", ran.stderr);
        for bad in ["nobody", "../instances/test", ""] {
            let ran = journal_tool(server.state(), &[command, "--name", bad]).expect(2);
            assert!(ran.stderr.contains("there are: other, test"), "{}", ran.stderr);
        }
        journal_tool(server.state(), &[command, "--name", "test"]).expect(0);
    }
    let by_folder = journal_tool(&state, &["verify", "--folder", journal.to_str().unwrap()]);
    assert_eq!(by_folder.expect(0).text(), whole);
    let ran = journal_tool(server.state(), &["verify", "--name", "other"]).expect(1);
    assert!(ran.stderr.contains("there is not one line"), "{}", ran.stderr);
}

#[test]
fn wrong_usage_and_what_cannot_be_read_is_2_and_one_reason() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let hash = "0".repeat(64);
    let cases: [(&[&str], &str); 11] = [
        (&[], "Usage: rexec-server journal"),
        (&["show", "--since", "soon"], "2026-11-20"),
        (&["show", "--name", "a", "--folder", folder], "--folder"),
        (&["show", "--anchor", "1:x"], "--anchor"),
        (&["verify", "--anchor", "7"], "64 hexadecimal digits"),
        (&["verify", "--anchor", &format!("0:{hash}")], "a line's number"),
        (&["verify", "--anchor", &format!("1:{hash}0")], "64 hexadecimal digits"),
        (&["verify", "--folder", "/no/such/folder"], "/no/such/folder"),
        (&["show", "--folder", "/dev/null"], "/dev/null"),
        (&["show", "--folder", folder], "not one line of a journal"),
        (&["show", "--json", "--folder", folder], "not one line of a journal"),
    ];
    for (args, culprit) in cases {
        let ran = journal_tool(dir.path(), args).expect(2);
        assert!(ran.stderr.contains(culprit) && ran.stdout.is_empty(), "{args:?}: {}", ran.stderr);
    }
    let fifo = dir.path().join("000001.jsonl");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    for command in ["show", "verify"] {
        let ran = journal_tool(dir.path(), &[command, "--folder", folder]).expect(2);
        assert!(ran.stderr.contains("not a regular file"), "{}", ran.stderr);
    }
}

/// The server's own options go on without a subcommand, and are none of a subcommand's.
#[test]
fn options_of_the_server_do_not_mix_with_subcommands() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["--listen", "127.0.0.1:0", "journal", "show"]);
    let ran = Ran::of(command.output().unwrap()).expect(2);
    assert!(ran.stderr.contains("journal") && ran.stdout.is_empty(), "{}", ran.stderr);
}

#[test]
fn a_pager_that_was_left_and_a_full_disk_are_told_apart() {
    let server = Server::start(&[]);
    server.run(&["exit 0"]).expect(0);
    for args in [&["show"][..], &["show", "--json"], &["verify"]] {
        let onto = |stdout: std::process::Stdio| {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
            command.arg("journal").args(args).env("REXEC_STATE_DIR", server.state()).stdout(stdout);
            Ran::of(command.output().unwrap())
        };
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = onto(full.into()).expect(252);
        assert!(ran.stderr.contains("cannot write to standard output"), "{}", ran.stderr);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        assert_eq!(onto(writer.into()).expect(141).stderr, "");
    }
}
