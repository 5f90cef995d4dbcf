//! The journal: lines in order, a chain that anybody can verify, torn and altered lines, a full disk.

use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::raw::Raw;
use super::support::server::{finish, under};
use super::support::{Client, Server, json_in, wait_until};

fn path(server: &Server) -> PathBuf {
    server.state().join("instances/test/journal/000001.jsonl")
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Recomputes the chain from the bytes of the file; the digest of each line.
fn verified(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap();
    let text = bytes.strip_suffix(b"\n").expect("the last line is whole");
    let mut hashes: Vec<String> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let value: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(value["prev"], json!(hashes.last()), "{value}");
        assert_eq!(value["seq"], hashes.len() + 1, "{value}");
        hashes.push(sha256(line));
    }
    hashes
}

/// What `rexec-server journal show` prints.
fn shown_by(server: &Server, args: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command
        .args(["journal", "show", "--name", "test"])
        .args(args)
        .env("REXEC_STATE_DIR", server.state());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn types(server: &Server) -> Vec<String> {
    server.journal().iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_run_leaves_its_lines_in_order_and_its_verdict_is_anchored_in_the_chain() {
    let server = Server::start(&[]);
    let file = server.dir().join("verdict");
    let ran = server
        .client()
        .env("SECRET", "hunter2")
        .args(&["--env", "SECRET", "--verdict", file.to_str().unwrap(), "echo $SECRET; exit 3"])
        .run();
    assert_eq!(ran.expect(3).text(), "hunter2\n");
    assert_eq!(types(&server), ["opened", "accepted", "running", "ended"]);
    let lines = server.journal();
    let (id, identity) = (&lines[1]["run"], &lines[1]["identity"]);
    assert_eq!((&lines[2]["run"], &lines[2]["identity"]), (id, identity));
    assert_eq!((&lines[3]["verdict"]["run"], &lines[3]["identity"]), (id, identity));
    assert_eq!(lines[1]["command"], "echo $SECRET; exit 3");
    // Not one that anybody could try commands against.
    assert_ne!(lines[1]["digest"], sha256(b"echo $SECRET; exit 3\0"));
    let text = std::fs::read_to_string(path(&server)).unwrap();
    assert!(
        !text.contains("hunter2") && !server.log().contains("hunter2"),
        "a secret is written down"
    );
    let hashes = verified(&path(&server));
    let anchor = &json_in(&file)["verdict"]["journal"];
    assert_eq!(*anchor, json!({"seq": 5, "hash": hashes[4]}));
}

#[test]
fn what_did_not_start_and_what_was_given_up_is_written_down_too() {
    let server = Server::start(&[]);
    server.run(&["--", "/no/such/program"]).expect(254);
    let mut raw = Raw::login(&server);
    raw.send(&json!({"type": "close", "id": "one"}), b"");
    raw.expect("never_started");
    assert_eq!(types(&server), ["opened", "accepted", "not_started", "buried"]);
    assert_eq!(server.journal()[2]["code"], "program_not_found");
    verified(&path(&server));
}

#[test]
fn many_runs_at_once_and_a_crash_leave_an_unbroken_chain() {
    let mut server = Server::start(&[]);
    super::support::in_parallel(8, 40, |_| {
        server.run(&["exit 0"]).expect(0);
    });
    server.restart();
    server.run(&["exit 0"]).expect(0);
    let types = types(&server);
    let count = |kind: &str| types.iter().filter(|t| *t == kind).count();
    assert_eq!((count("accepted"), count("running"), count("ended")), (41, 41, 41));
    assert_eq!(count("opened"), 2);
    verified(&path(&server));
}

/// What a machine that went down had half written is cut off, and ids that may have been on it are lost.
#[test]
fn a_torn_line_is_cut_off_and_what_may_have_stood_there_is_not_started() {
    let mut server = Server::start(&[]);
    server.run(&["exit 0"]).expect(0);
    server.crash();
    let mut file = std::fs::File::options().append(true).open(path(&server)).unwrap();
    file.write_all(br#"{"seq":5,"prev":"0123"#).unwrap();
    server.restart();
    assert!(server.log().contains("torn"), "{}", server.log());
    let opened = server.journal().pop().unwrap();
    assert_eq!((&opened["type"], &opened["torn"]), (&json!("opened"), &json!(21)));
    verified(&path(&server));
    let mut raw = Raw::login(&server);
    raw.run("one", "exit 0", json!({"first_sent_ms_ago": 60_000}));
    assert_eq!(raw.expect("lost").0["code"], "before_memory");
    raw.run("one", "exit 0", json!({}));
    raw.until("verdict");
}

#[test]
fn a_journal_that_was_altered_stops_the_next_start_and_is_left_as_it_is() {
    let mut server = Server::start(&[]);
    server.run(&["exit 3"]).expect(3);
    server.crash();
    let altered = std::fs::read_to_string(path(&server)).unwrap().replace("exit 3", "exit 4");
    std::fs::write(path(&server), &altered).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["--name", "test", "--listen", "127.0.0.1:0"]);
    let output = command.env("REXEC_STATE_DIR", server.state()).output().unwrap();
    let line = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), line.lines().count()), (Some(1), 1), "{line}");
    assert!(line.contains("line 4") && line.contains("move the file away"), "{line}");
    assert_eq!(std::fs::read_to_string(path(&server)).unwrap(), altered);
}

/// A server whose journal is on a small disk of its own; none where mounting is not permitted.
fn on_a_small_disk(args: &[&str]) -> Option<Server> {
    let tried = std::process::Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        println!("left out: mounting is not permitted here");
        return None;
    }
    let script = "cd $REXEC_STATE_DIR/.. && umask 077 && journal=$REXEC_STATE_DIR/instances/test/journal \
                  && mkdir -p $journal && mount -t tmpfs -o size=64k,mode=700 none $journal && exec \"$@\"";
    Some(Server::with(args, under(&["unshare", "-m", "sh", "-c", script, "sh"])))
}

/// The journal's segment on the small disk of a server, and a file to fill that disk with.
fn on_the_disk_of(server: &Server) -> (PathBuf, PathBuf) {
    // The folder as the server sees it.
    let folder = PathBuf::from(format!("/proc/{}/root", server.pid()))
        .join(server.state().strip_prefix("/").unwrap())
        .join("instances/test/journal");
    (folder.join("000001.jsonl"), folder.join("fill"))
}

fn fill_up(fill: &Path) {
    let mut file = std::fs::File::options().append(true).create(true).open(fill).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
}

#[test]
fn a_full_disk_refuses_new_runs_starts_nothing_and_leaves_no_half_line() {
    let Some(server) = on_a_small_disk(&[]) else { return };
    let (segment, fill) = on_the_disk_of(&server);
    let (gate, effect) = (server.dir().join("gate"), server.dir().join("effect"));
    let text = format!("echo x; while [ ! -e {} ]; do sleep 0.05; done; exit 3", gate.display());
    let child = server.client().arg(text).spawn();
    let lines = || std::fs::read_to_string(&segment).unwrap().lines().count();
    wait_until("the running line", || lines() == 4);
    let filled = std::time::Instant::now();
    fill_up(&fill);
    // The segment's last page may have room for some lines yet.
    let start = format!("echo x >> {}", effect.display());
    let mut started = 0;
    let refused = loop {
        let ran = server.run(&[&start]);
        if ran.status != 0 {
            break ran;
        }
        started += 1;
        assert!(started < 100, "the disk does not get full");
    }
    .expect(254);
    assert!(refused.stderr.contains("journal_failed"), "{}", refused.stderr);
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    let effects = std::fs::read_to_string(&effect).unwrap_or_default().lines().count();
    assert_eq!(effects, started);
    verified(&segment);
    // A client that tries again and again does not fill the disk on which the log is.
    for _ in 0..20 {
        server.run(&[&start]).expect(254);
    }
    let said = server.log().lines().filter(|line| line.contains("No space left")).count();
    let seconds = usize::try_from(filled.elapsed().as_secs()).unwrap();
    assert!((1..=seconds + 2).contains(&said), "{said} lines in {seconds} s: {}", server.log());
    // What runs already ends as it would, and says so to its client.
    std::fs::write(&gate, "").unwrap();
    finish(child).expect(3);
    std::fs::remove_file(&fill).unwrap();
    server.run(&["exit 5"]).expect(5);
    verified(&segment);
    // Ends that could not be written are, before anything is started again.
    let written = std::fs::read_to_string(&segment).unwrap();
    let lines: Vec<Value> =
        written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
    let codes: Vec<_> =
        of("ended").iter().map(|line| line["verdict"]["end"]["exited"]["code"].clone()).collect();
    assert_eq!(codes.len(), of("accepted").len(), "{written}");
    assert!(codes.contains(&json!(3)) && codes.last() == Some(&json!(5)), "{codes:?}");
}

#[test]
fn an_end_that_could_not_be_written_is_without_another_run_also_while_the_server_drains() {
    let args = ["--journal-sync", "never", "--drain-timeout", "60s"];
    let Some(server) = on_a_small_disk(&args) else { return };
    let (segment, fill) = on_the_disk_of(&server);
    let gates = ["first", "second"].map(|gate| server.dir().join(gate));
    let children = gates.each_ref().map(|gate| {
        let text = format!("while [ ! -e {} ]; do sleep 0.05; done; exit 3", gate.display());
        server.client().arg(text).spawn()
    });
    let written = |what: &str| std::fs::read_to_string(&segment).unwrap().matches(what).count();
    wait_until("both running", || written(r#""type":"running""#) == 2);
    fill_up(&fill);
    // The segment's last page may have room for some lines yet.
    wait_until("the full disk", || server.run(&["true"]).status == 254);
    server.signal(Signal::TERM);
    wait_until("the drain", || server.log().contains("shutting down"));
    let [first, second] = children;
    std::fs::write(&gates[0], "").unwrap();
    finish(first).expect(3);
    assert_eq!(written(r#"{"exited":{"code":3}}"#), 0);
    std::fs::remove_file(&fill).unwrap();
    wait_until("its line", || written(r#"{"exited":{"code":3}}"#) == 1);
    std::fs::write(&gates[1], "").unwrap();
    finish(second).expect(3);
}

/// `ulimit -f`, `LimitFSIZE=`: without a handler SIGXFSZ ends the server.
#[test]
fn a_journal_over_the_limit_of_the_servers_files_refuses_new_runs_and_ends_nothing() {
    let limited = ["sh", "-c", "ulimit -f 32; exec \"$0\" \"$@\""];
    let server = Server::with(&[], under(&limited));
    let refused = (0..100).map(|_| server.run(&["true"])).find(|ran| ran.status != 0).unwrap();
    assert_eq!(refused.status, 254, "{}", refused.stderr);
    assert!(refused.stderr.contains("journal_failed"), "{}", refused.stderr);
    server.run(&["true"]).expect(254);
    verified(&path(&server));
}

/// What the server passes over, its commands do not.
#[test]
fn a_command_is_ended_by_the_limit_of_its_files() {
    let server = Server::start(&[]);
    let file = server.dir().join("file");
    let text = format!("ulimit -f 8; exec head -c 100000 /dev/zero > {}", file.display());
    server.run(&[&text]).expect(128 + 25);
}

#[test]
fn who_logged_in_and_who_was_refused_is_written_down() {
    let server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    // Another account's identity, as far as the server can tell.
    let stranger = Client::new(&server.dir().join("elsewhere")).args(&["-q", "--host-key"]);
    let host_key =
        server.log().lines().find_map(|line| Some(line.split_once("host key ")?.1.to_owned()));
    stranger.args(&[&host_key.unwrap(), &server.addr, "true"]).run().expect(254);
    Client::new(server.state()).args(&["stop", &server.addr, "nothing"]).run();
    let shown = shown_by(&server, &["--logins"]);
    let lines: Vec<_> = shown.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let is = |line: &str, words: &[&str]| words.iter().all(|word| line.contains(word));
    assert!(is(lines[0], &["login    local:", "from 127.0.0.1:", "with rexec "]), "{shown}");
    assert!(
        lines.iter().any(|l| is(l, &["refused  -", "from 127.0.0.1:", "not_authorized"])),
        "{shown}"
    );
    assert!(lines.iter().any(|l| is(l, &["refused  local:", "no_such_run"])), "{shown}");
    verified(&path(&server));
}

#[test]
fn the_text_of_commands_can_be_kept_out_of_the_journal() {
    let server = Server::start(&["--journal-commands", "hash"]);
    for text in ["echo password1", "echo password1", "echo password2"] {
        server.run(&[text]).expect(0);
    }
    let text = std::fs::read_to_string(path(&server)).unwrap();
    assert!(!text.contains("password"), "{text}");
    let journal = server.journal();
    let digests: Vec<_> = journal.iter().filter_map(|line| line.get("digest")).collect();
    assert!(digests[0] == digests[1] && digests[1] != digests[2], "{digests:?}");
    let shown = shown_by(&server, &[]);
    assert!(shown.lines().skip(1).all(|line| line.ends_with("exited 0  -")), "{shown}");
}

#[test]
fn each_line_is_copied_to_the_systems_log_and_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("log");
    let log = UnixDatagram::bind(&socket).unwrap();
    let server = Server::start(&["--journal-copy", &format!("syslog:{}", socket.display())]);
    server.run(&["true"]).expect(0);
    let written = std::fs::read_to_string(path(&server)).unwrap();
    for line in written.lines() {
        let mut buffer = vec![0; 1 << 16];
        let len = log.recv(&mut buffer).unwrap();
        let copy = String::from_utf8(buffer[..len].to_vec()).unwrap();
        assert!(copy.starts_with("<86>rexec-server["), "{copy}");
        assert_eq!(copy.split_once("]: ").unwrap().1, line);
    }
    drop(log);
    server.run(&["true"]).expect(0);
    wait_until("the server says so", || server.log().contains("were not copied to syslog:"));
}

#[test]
fn whatever_is_waited_for_the_run_is_the_same() {
    for sync in ["always", "interval", "never"] {
        let server = Server::start(&["--journal-sync", sync]);
        assert_eq!(server.run(&["echo hi; exit 3"]).expect(3).text(), "hi\n", "{sync}");
        server.run(&["--", "/no/such/program"]).expect(254);
        assert_eq!(
            types(&server),
            ["opened", "accepted", "running", "ended", "accepted", "not_started"],
            "{sync}"
        );
    }
}
