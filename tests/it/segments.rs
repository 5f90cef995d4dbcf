//! The journal goes on in its next segment while runs are at every stage, and then the server is killed: the
//! newest segment alone must be enough, or what is missing there is found.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::durable_kill::pause_file;
use super::durable_places::run_folder;
use super::support::{
    Client, Server, is_alive, json_in, kill, pid_in, supervisors, try_kill, wait_until, whole_lines,
};

/// A segment of so many bytes is followed by the next one.
const SEGMENT_LIMIT: u64 = 64 * 1024 * 1024;

fn folder(server: &Server) -> PathBuf {
    server.state().join("instances/test/journal")
}

fn segments(server: &Server) -> Vec<PathBuf> {
    let found = fs::read_dir(folder(server)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = found.filter(|p| p.extension() == Some("jsonl".as_ref())).collect();
    paths.sort();
    paths
}

/// Every line about runs, over all segments.
fn lines(server: &Server) -> Vec<Value> {
    let text: String = segments(server).iter().map(|p| fs::read_to_string(p).unwrap()).collect();
    let short = whole_lines(&text).filter(|line| line.len() < 100_000);
    short.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_type<'a>(lines: &'a [Value], kind: &str, run: &str) -> Vec<&'a Value> {
    let is_of = |l: &&Value| l["run"] == run || l["verdict"]["run"] == run;
    lines.iter().filter(|l| l["type"] == kind).filter(is_of).collect()
}

fn has_lost(server: &Server) -> usize {
    lines(server).iter().filter(|line| line["type"] == "lost").count()
}

/// Crashes the server and makes its segment so long that the next run begins another one.
fn fill(server: &mut Server) {
    server.crash();
    let path = segments(server).pop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let mut last = text.lines().last().unwrap().to_owned();
    let mut seq = serde_json::from_str::<Value>(&last).unwrap()["seq"].as_u64().unwrap();
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    while file.metadata().unwrap().len() < SEGMENT_LIMIT {
        let prev: String = Sha256::digest(&last).iter().map(|b| format!("{b:02x}")).collect();
        seq += 1;
        last =
            json!({"seq": seq, "prev": prev, "time": "2026-01-01T00:00:00.000Z", "type": "refused",
            "from": "x", "code": "x", "text": "x".repeat(1_000_000)})
            .to_string();
        writeln!(file, "{last}").unwrap();
    }
}

/// Has the next segment begun.
fn rotate(server: &mut Server) {
    let before = segments(server).len();
    fill(server);
    server.restart();
    server.run(&["true"]).expect(0);
    assert_eq!(segments(server).len(), before + 1);
}

fn verifies(server: &Server, args: &[&str]) {
    let mut verify = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    verify.args(["journal", "verify", "--name", "test"]).args(args);
    let verified = verify.env("REXEC_STATE_DIR", server.state()).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// A command that goes on until the gate is there.
fn gated(server: &Server) -> String {
    format!("while ! test -e {}/gate; do sleep 0.01; done; exit 7", server.dir().display())
}

/// A run whose client is gone and whose process does not go at once; its pid.
fn left_stubborn(server: &Server) -> u32 {
    let pid = server.dir().join("pid");
    let text = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done", pid.display());
    let mut client = server.client().arg(&text).spawn();
    let pid = pid_in(&pid);
    client.kill().unwrap();
    client.wait().unwrap();
    pid
}

/// A run of which the record is left and what sums it up is not: its server was killed in between.
fn ended_and_not_noted(server: &Server, is_lost: bool) -> PathBuf {
    let (gate, text) = (server.dir().join("gate"), gated(server));
    let args = ["-d", "--id", "job", &server.addr, &text];
    Client::new(server.state()).args(&args).run().expect(0);
    let in_the_way = run_folder(server).join("outcome.json.new");
    fs::create_dir(&in_the_way).unwrap();
    if is_lost {
        supervisors(server.state()).iter().for_each(|pid| kill(*pid, Signal::KILL));
    } else {
        fs::write(gate, "").unwrap();
    }
    let kind = if is_lost { "lost" } else { "ended" };
    wait_until(kind, || !of_type(&lines(server), kind, "job").is_empty());
    in_the_way
}

#[test]
fn an_end_that_only_the_segment_before_tells_is_not_written_again() {
    for (is_lost, kind, status) in [(false, "ended", 7), (true, "lost", 253)] {
        let mut server = Server::start(&[]);
        let in_the_way = ended_and_not_noted(&server, is_lost);
        rotate(&mut server);
        server.crash();
        fs::remove_dir(in_the_way).unwrap();
        server.restart();
        let file = server.dir().join("verdict");
        let asked = ["--id", "job", "--verdict", file.to_str().unwrap(), &server.addr];
        Client::new(server.state()).args(&asked).arg(gated(&server)).run().expect(status);
        let lines = lines(&server);
        let ends = of_type(&lines, kind, "job");
        assert_eq!(ends.len(), 1, "{kind}: {ends:?}");
        if !is_lost {
            let anchor = &json_in(&file)["verdict"]["journal"];
            assert_eq!(anchor["seq"], ends[0]["seq"]);
            let anchor = format!("{}:{}", anchor["seq"], anchor["hash"].as_str().unwrap());
            verifies(&server, &["--anchor", &anchor]);
        }
        verifies(&server, &[]);
    }
}

/// Its processes do not go at once, so that the next segment begins before its end is written.
#[test]
fn what_is_being_stopped_for_a_server_before_is_known_to_the_next_one_too() {
    let mut server = Server::start(&[]);
    let pid = left_stubborn(&server);
    rotate(&mut server);
    server.restart();
    wait_until("the end of what was left", || !is_alive(pid));
    wait_until("its line", || has_lost(&server) > 0);
    server.restart();
    assert_eq!(has_lost(&server), 1);
    verifies(&server, &[]);
}

/// A run that goes on is carried into each segment.
#[test]
fn a_run_that_outlives_servers_and_segments_has_one_end() {
    let mut server = Server::start(&[]);
    let (gate, text) = (server.dir().join("gate"), gated(&server));
    let args = ["-d", "--id", "job", &server.addr, &text];
    Client::new(server.state()).args(&args).run().expect(0);
    for _ in 0..2 {
        rotate(&mut server);
        server.restart();
    }
    fs::write(gate, "").unwrap();
    Client::new(server.state()).args(&["attach", &server.addr, "job"]).run().expect(7);
    assert_eq!(of_type(&lines(&server), "ended", "job").len(), 1);
    verifies(&server, &[]);
}

#[test]
fn a_server_killed_while_it_begins_a_segment_leaves_none_or_all_of_it() {
    let mut server = Server::start(&[]);
    let pid = left_stubborn(&server);
    fill(&mut server);
    let reached = pause_file();
    server.restart_as(&[], |command| {
        command.env("REXEC_PAUSE_AT", "segment").env("REXEC_PAUSE_FILE", &reached);
    });
    let mut held = server.client().arg("true").spawn();
    wait_until("the point", || reached.exists());
    server.crash();
    assert_eq!(segments(&server).len(), 1);
    server.restart();
    held.wait().unwrap();
    wait_until("the end of what was left", || !try_kill(pid, Signal::CONT) || !is_alive(pid));
    wait_until("its line", || has_lost(&server) > 0);
    server.run(&["true"]).expect(0);
    assert_eq!(segments(&server).len(), 2);
    verifies(&server, &[]);
}
