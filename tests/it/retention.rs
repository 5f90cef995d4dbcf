//! What is kept of durable runs that are over: by age, count and bytes, by the server and by
//! `rexec-server gc`; and for how long their ids are taken.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::durable::{folder_of, folders_in, gate, leave, verb, wait_until_noted};
use super::support::relay::Relay;
use super::support::server::{finish, line_of, under};
use super::support::{Client, Ran, Server, json_in, wait_until};

/// `rexec-server gc ARGS...`.
fn gc(server: &Server, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.arg("gc").args(args).env("REXEC_STATE_DIR", server.state());
    Ran::of(command.output().unwrap())
}

/// A durable run under this id, to its end.
fn keep(server: &Server, id: &str, command: &str) -> Ran {
    let ran = Client::new(server.state()).args(&["--id", id, &server.addr, command]).run();
    wait_until_noted(&folder_of(server, id));
    ran
}

/// The ids of the runs that are listed.
fn listed(server: &Server) -> Vec<String> {
    let list = verb(server, "ps", &["--json"]).expect(0).text();
    let runs = list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    runs.map(|run| run["run"].as_str().unwrap().to_owned()).collect()
}

fn wait_until_listed(server: &Server, ids: &[&str]) {
    wait_until(&format!("a list of {ids:?}"), || listed(server) == ids);
}

/// The folders of the runs that something is kept of.
fn folders(server: &Server) -> Vec<PathBuf> {
    folders_in(&server.state().join("instances/test/runs"))
}

/// The run is over and nothing is kept of it but its id.
#[track_caller]
fn is_forgotten(server: &Server, id: &str) {
    assert!(verb(server, "attach", &[id]).expect(253).stderr.contains("no longer kept"));
    assert!(keep(server, id, "exit 9").expect(253).stderr.contains("no longer kept"));
}

#[test]
fn one_past_the_count_goes_and_it_is_the_one_that_ended_first() {
    let mut server = Server::start(&["--keep-count", "2"]);
    let (gate, wait) = gate(&server, "gate");
    let effect = server.dir().join("effect");
    let first = format!("echo x >> {}; {wait}", effect.display());
    let client = Client::new(server.state()).args(&["--id", "first", &server.addr, &first]).spawn();
    wait_until("its effect", || effect.exists());
    keep(&server, "second", "exit 2").expect(2);
    keep(&server, "third", "exit 3").expect(3);
    assert_eq!(listed(&server), ["first", "second", "third"], "what goes on does not count");
    std::fs::write(gate, "").unwrap();
    finish(client).expect(0);
    wait_until_listed(&server, &["first", "third"]);
    is_forgotten(&server, "second");
    server.restart_with(&["--keep-count", "1"]);
    wait_until_listed(&server, &["first"]);
    is_forgotten(&server, "second");
    is_forgotten(&server, "third");
    keep(&server, "first", &first).expect(0);
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "x\n");
    assert_eq!(folders(&server).len(), 3, "the memory of the ids");
}

#[test]
fn one_past_the_bytes_goes() {
    let server = Server::start(&["--keep-bytes", "1M"]);
    let output = "head -c 400000 /dev/urandom";
    for id in ["a", "b", "c"] {
        keep(&server, id, output).expect(0);
    }
    wait_until_listed(&server, &["b", "c"]);
    is_forgotten(&server, "a");
    keep(&server, "small", "echo y").expect(0);
    assert_eq!(listed(&server), ["b", "c", "small"]);
}

/// Whoever is in it sees the machine up for an hour longer.
struct Later(Child);

impl Later {
    /// None where time namespaces are not permitted.
    fn new() -> Option<Self> {
        let words = ["-T", "--boottime", "3600", "cat"];
        let mut holder = Command::new("unshare");
        holder.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut later = Self(holder.spawn().unwrap());
        // What it says back, it says in the namespace.
        let said = std::io::Write::write_all(later.0.stdin.as_mut().unwrap(), b"ready\n");
        if said.is_ok() && line_of(&mut later.0) == "ready" {
            return Some(later);
        }
        println!("left out: time namespaces are not permitted here");
        None
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn an_id_is_free_again_when_its_record_is_too_old_and_nobody_can_ask_for_it_any_more() {
    let Some(later) = Later::new() else { return };
    let mut server = Server::start(&["--keep-for", "30m"]);
    let effect = server.dir().join("effect");
    let command = format!("echo x >> {}", effect.display());
    keep(&server, "old", &command).expect(0);
    keep(&server, "removed", &command).expect(0);
    verb(&server, "rm", &["removed"]).expect(0);
    assert_eq!(listed(&server), ["old"]);
    is_forgotten(&server, "removed");
    server.crash();
    let namespace = format!("--time=/proc/{}/ns/time_for_children", later.0.id());
    let inside = ["nsenter", &namespace];
    let now = Server::at(server.state(), &server.addr, &["--keep-for", "30m"], under(&inside));
    wait_until("the end of their folders", || folders(&now).is_empty());
    wait_until_listed(&now, &[]);
    for id in ["old", "removed"] {
        keep(&now, id, &command).expect(0);
    }
    assert_eq!(std::fs::read_to_string(effect).unwrap().lines().count(), 4);
    assert_eq!(listed(&now), ["old", "removed"]);
}

#[test]
fn a_record_that_is_too_old_leaves_its_id_taken() {
    let mut server = Server::start(&["--keep-for", "0"]);
    let effect = server.dir().join("effect");
    keep(&server, "job", &format!("echo x >> {}", effect.display())).expect(0);
    wait_until_listed(&server, &[]);
    for _ in 0..2 {
        is_forgotten(&server, "job");
        verb(&server, "rm", &["job"]).expect(0);
        server.restart_with(&["--keep-for", "0"]);
    }
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "x\n");
}

#[test]
fn a_clock_that_went_forward_by_a_year_removes_nothing() {
    let mut server = Server::start(&["--keep-for", "1h"]);
    keep(&server, "job", "echo kept; exit 3").expect(3);
    server.crash();
    let path = folders(&server)[0].join("outcome.json");
    let mut outcome = json_in(&path);
    outcome["noted"]["time"] = "2001-01-01T00:00:00.000Z".into();
    std::fs::write(&path, outcome.to_string()).unwrap();
    assert!(gc(&server, &["--keep-for", "1h"]).expect(0).text().contains("0 records"));
    server.restart_with(&["--keep-for", "1h"]);
    // A sweep comes before this one's end is noted, or with it.
    keep(&server, "other", "true").expect(0);
    assert_eq!(verb(&server, "attach", &["job"]).expect(3).text(), "kept\n");
}

#[test]
fn gc_removes_what_is_too_much_and_disturbs_neither_readers_nor_what_goes_on() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let numbers = "seq 1 2000000";
    for id in ["a", "b"] {
        keep(&server, id, numbers).expect(0);
    }
    let live = leave(&server, &format!("echo one; {wait}; exit 5"));
    wait_until("its line", || verb(&server, "logs", &[&live]).stdout == b"one\n");
    let mut reader = Client::new(server.state()).args(&["attach", &server.addr, "a"]).spawn();
    assert_eq!(line_of(&mut reader), "1");
    assert_eq!(
        gc(&server, &[]).expect(0).text(),
        "removed: 0 records, 0 bytes; 0 ids free again\n"
    );
    let would = gc(&server, &["--keep-count", "0", "--dry-run"]).expect(0).text();
    assert!(would.starts_with("would be removed: 2 records, "), "{would}");
    assert_eq!(listed(&server).len(), 3);
    let one = gc(&server, &["--name", "test", "--keep-count", "1"]).expect(0).text();
    assert!(one.starts_with("removed: 1 record, "), "{one}");
    is_forgotten(&server, "a");
    let last = gc(&server, &["--keep-bytes", "0"]).expect(0).text();
    assert!(last.starts_with("removed: 1 record, "), "{last}");
    is_forgotten(&server, "b");
    let rest = finish(reader).expect(0).text();
    let expected: String = (2..=2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(rest == expected, "the reader has it whole");
    std::fs::write(gate, "").unwrap();
    assert_eq!(verb(&server, "attach", &[&live]).expect(5).text(), "one\n");
}

/// Who reads has the file open. Who has to ask anew finds it gone, and does not take what it has for the whole.
#[test]
fn a_record_that_goes_while_several_read_it_is_read_to_its_end_by_all_of_them() {
    let go: [fn(&Server); 3] = [
        |server| drop(gc(server, &["--keep-count", "0", "--keep-bytes", "0"]).expect(0)),
        |server| drop(verb(server, "rm", &["job"]).expect(0)),
        // The server's own limit.
        |server| drop(keep(server, "next", "true").expect(0)),
    ];
    for remove in go {
        let server = Server::start(&["--keep-count", "1"]);
        let (gate, wait) = gate(&server, "gate");
        keep(&server, "job", "seq 1 2000000").expect(0);
        let live = leave(&server, &format!("echo 1; {wait}; echo 2; exit 5"));
        let relay = Relay::to(&server.addr);
        let view = |verb, address: &str, run| {
            let mut viewer = Client::new(server.state()).args(&[verb, address, run]).spawn();
            assert_eq!(line_of(&mut viewer), "1");
            viewer
        };
        let viewers = [("attach", &server.addr), ("attach", &server.unix), ("logs", &server.addr)]
            .map(|(verb, address)| view(verb, address, "job"));
        let (cut_off, of_live) =
            (view("attach", &relay.addr, "job"), view("attach", &server.addr, &live));
        remove(&server);
        wait_until("its end", || !listed(&server).contains(&"job".into()));
        is_forgotten(&server, "job");
        relay.cut();
        let ran = finish(cut_off).expect(253);
        assert!(ran.stderr.contains("no longer kept"), "{}", ran.stderr);
        let expected: String = (2..=2_000_000).map(|n| format!("{n}\n")).collect();
        for viewer in viewers {
            assert!(finish(viewer).expect(0).text() == expected, "not whole");
        }
        std::fs::write(gate, "").unwrap();
        assert_eq!(finish(of_live).expect(5).text(), "2\n");
    }
}

#[test]
fn gc_goes_by_what_the_server_was_started_with_and_says_what_is_wrong() {
    let mut server = Server::start(&["--keep-count", "1"]);
    server.crash();
    server.restart_with(&["--keep-count", "2"]);
    for id in ["a", "b", "c"] {
        keep(&server, id, "true").expect(0);
    }
    wait_until_listed(&server, &["b", "c"]);
    assert!(gc(&server, &[]).expect(0).text().contains("0 records"));
    let other = gc(&server, &["--name", "other"]).expect(2);
    assert!(other.stderr.contains("\"other\"; there are: test"), "{}", other.stderr);
    gc(&server, &["--keep-count", "-1"]).expect(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.arg("gc").env("REXEC_STATE_DIR", server.dir().join("nothing"));
    let nothing = Ran::of(command.output().unwrap()).expect(2);
    assert!(nothing.stderr.contains("no server has been started in"), "{}", nothing.stderr);
    assert!(!server.dir().join("nothing").exists());
}

#[test]
fn an_outcome_that_is_not_on_the_disk_is_put_there_before_its_record_goes() {
    let mut server = Server::start(&[]);
    let effect = server.dir().join("effect");
    keep(&server, "job", &format!("echo x >> {}; exit 3", effect.display())).expect(3);
    let outcome = folders(&server)[0].join("outcome.json");
    // As a machine that went down may leave it: the record tells.
    for torn in ["", "{\"type\":\"en"] {
        std::fs::write(&outcome, torn).unwrap();
        server.restart();
        verb(&server, "attach", &["job"]).expect(3);
    }
    wait_until("its outcome", || std::fs::read(&outcome).unwrap().ends_with(b"}"));
    std::fs::remove_file(&outcome).unwrap();
    verb(&server, "rm", &["job"]).expect(0);
    server.restart();
    is_forgotten(&server, "job");
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "x\n");
    let ends = |line: &&serde_json::Value| line["type"] == "ended" || line["type"] == "not_started";
    assert_eq!(server.journal().iter().filter(ends).count(), 1);
}

#[test]
fn a_run_whose_record_was_lost_in_a_reboot_is_not_taken_for_one_that_never_started() {
    let mut server = Server::start(&[]);
    let effect = server.dir().join("effect");
    keep(&server, "job", &format!("echo x >> {}", effect.display())).expect(0);
    server.crash();
    let folder = folders(&server).remove(0);
    std::fs::remove_file(folder.join("outcome.json")).unwrap();
    std::fs::write(folder.join("record"), "").unwrap();
    let mut meta = json_in(&folder.join("meta.json"));
    meta["origin"]["boot"] = "another".into();
    std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
    server.restart();
    verb(&server, "attach", &["job"]).expect(253);
    keep(&server, "job", &format!("echo x >> {}", effect.display())).expect(253);
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "x\n");
    assert!(server.journal().iter().all(|line| line["type"] != "not_started"));
}

#[test]
fn a_record_past_its_limit_stops_the_run_and_is_whole_up_to_there() {
    let server = Server::start(&["--record-limit", "100K"]);
    let verdict = server.dir().join("verdict");
    let run = |command: &str| {
        let file = verdict.to_str().unwrap();
        let args = ["--durable", "--verdict", file, &server.addr, command];
        (Client::new(server.state()).args(&args).run(), json_in(&verdict)["verdict"].clone())
    };
    let (ran, told) = run("head -c 90000 /dev/zero; echo end");
    assert_eq!((ran.expect(0).stdout.len(), &told["stdout"]["end"]), (90_004, &"eof".into()));
    let (ran, told) = run("yes");
    assert_eq!(told["stopped"]["by"], "policy", "{told}");
    let ran = ran.expect(251);
    assert!(ran.stderr.contains("its record passed --record-limit"), "{}", ran.stderr);
    assert_eq!(told["stdout"]["size"], ran.stdout.len());
    assert!((90_000..=102_401).contains(&ran.stdout.len()), "{}", ran.stdout.len());
    let again = verb(&server, "attach", &[told["run"].as_str().unwrap()]).expect(251);
    assert!(
        again.stdout == ran.stdout && ran.stdout.chunks(2).all(|line| b"y\n".starts_with(line))
    );
    // What may have ended before its last bytes were too much is not whole either.
    let (ran, told) = run("head -c 150000 /dev/zero");
    assert!([251, 252].contains(&ran.status), "{} {}", ran.status, ran.stderr);
    assert_eq!(told["stdout"]["end"], "limit", "{told}");
}
