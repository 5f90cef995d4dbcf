//! Durable runs: left, found again, and kept whatever becomes of the server.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use rexec::proto::id::RunId;
use rexec::runs::disk::Folder;
use rexec::runs::table::Key;
use rustix::fs::{FlockOperation, inotify};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::json;

use super::durable_kill::Held;
use super::support::raw::Raw;
use super::support::{
    Client, Ran, Server, finish, is_alive, kill, pid_in, supervisors, try_kill, wait_until,
};

/// `rexec VERB ADDR ARGS...`.
pub(crate) fn verb(server: &Server, verb: &str, args: &[&str]) -> Ran {
    Client::new(server.state()).arg(verb).arg(&server.addr).args(args).run()
}

/// Starts a durable run and leaves it; its id.
pub(crate) fn leave(server: &Server, command: &str) -> String {
    let ran = Client::new(server.state()).args(&["-d", &server.addr, command]).run();
    let id = String::from_utf8(ran.expect(0).stdout).unwrap();
    id.strip_suffix('\n').unwrap().to_owned()
}

/// A file of the test's, and a shell command that waits until it is there.
pub(crate) fn gate(server: &Server, name: &str) -> (PathBuf, String) {
    let path = server.dir().join(name);
    let wait = format!("while ! test -e {}; do sleep 0.01; done", path.display());
    (path, wait)
}

/// The folder of a run.
pub(crate) fn folder_of(server: &Server, id: &str) -> PathBuf {
    let key = Key { identity: identity(server).into(), id: RunId::new(id).unwrap() };
    Folder::of(&server.state().join("instances/test/runs"), &key).path().to_owned()
}

/// The folders of the runs that something is kept of.
pub(crate) fn folders_in(runs: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runs).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with("ready")).collect()
}

/// Waits until the end of a run is on the disk, or nothing is left of it.
pub(crate) fn wait_until_noted(folder: &Path) {
    let outcome = folder.join("outcome.json");
    wait_until("its outcome", || outcome.exists() || !folder.exists());
}

/// Names of what is in the folder of a run.
fn files_of(server: &Server, id: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder_of(server, id)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Under which identity the tests' clients are known.
fn identity(server: &Server) -> String {
    let lines = server.journal();
    let accepted = lines.iter().find(|line| line["type"] == "accepted").unwrap();
    accepted["identity"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_that_was_left_is_found_again_by_a_part_of_its_id() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo one; echo two >&2; {wait}; echo three; exit 7"));
    assert_eq!(id.len(), 32);
    wait_until("the first lines", || verb(&server, "logs", &[&id]).stdout == b"one\n");
    let part = &id[24..];
    let logs = verb(&server, "logs", &[part]).expect(0);
    assert_eq!((&*logs.stdout, &*logs.stderr), (&b"one\n"[..], "two\n"));
    let viewers: Vec<_> = (0..3)
        .map(|_| Client::new(server.state()).args(&["attach", &server.addr, part]).spawn())
        .collect();
    std::fs::write(gate, "").unwrap();
    for viewer in viewers {
        let ran = finish(viewer).expect(7);
        assert_eq!((&*ran.stdout, &*ran.stderr), (&b"one\nthree\n"[..], "two\n"));
    }
    verb(&server, "wait", &[part]).expect(7);
    let late = verb(&server, "attach", &[part]).expect(7);
    assert_eq!((&*late.stdout, &*late.stderr), (&b"one\nthree\n"[..], "two\n"));
}

/// `rexec stop "$HOST" "$RUN"` in a script in which RUN is not set.
#[test]
fn an_empty_id_names_no_run_even_if_there_is_only_one() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &wait);
    for (name, more) in [("stop", &[][..]), ("signal", &["KILL"]), ("rm", &[]), ("attach", &[])] {
        let ran = verb(&server, name, &[&[""], more].concat()).expect(2);
        assert!(ran.stderr.contains("for '<RUN>"), "{}", ran.stderr);
    }
    let mut raw = Raw::login(&server);
    for kind in ["attach", "cancel", "remove"] {
        raw.send(&json!({"type": kind, "run": ""}), b"");
        assert_eq!(raw.expect("refused").0["code"], "no_such_run", "{kind}");
    }
    std::fs::write(gate, "").unwrap();
    verb(&server, "wait", &[&id]).expect(0);
}

/// JSON keeps no larger number exact.
#[test]
fn a_place_that_no_frame_can_have_is_refused_and_one_that_none_has_by_now_shows_the_end() {
    let server = Server::start(&[]);
    Client::new(server.state()).args(&["--id", "job", &server.addr, "exit 7"]).run().expect(7);
    let mut raw = Raw::login(&server);
    let mut attach = json!({"type": "attach", "run": "job"});
    for after in [1 << 53, u64::MAX] {
        attach["after"] = json!(after);
        raw.send(&attach, b"");
        assert_eq!(raw.expect("refused").0["code"], "bad_request", "{after}");
    }
    attach["after"] = json!((1_u64 << 53) - 1);
    raw.send(&attach, b"");
    raw.until("verdict");
}

#[test]
fn the_same_id_runs_once_however_often_it_is_asked_for() {
    let mut server = Server::start(&[]);
    let effect = server.dir().join("effect");
    let command = format!("echo once >> {}; cat; echo done >&2; exit 3", effect.display());
    let ask = |server: &Server| {
        let client = Client::new(server.state()).args(&["--id", "job-1", &server.addr, &command]);
        client.run_with(b"the input")
    };
    for round in 0..3 {
        if round == 2 {
            server.restart();
        }
        let ran = ask(&server).expect(3);
        assert_eq!((&*ran.stdout, &*ran.stderr), (&b"the input"[..], "done\n"));
    }
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "once\n");
    let other = Client::new(server.state()).args(&["--id", "job-1", &server.addr, "true"]).run();
    assert!(other.expect(250).stderr.contains("command"), "names what differs");
    let ended = server.journal().iter().filter(|line| line["type"] == "ended").count();
    assert_eq!(ended, 1);
}

/// A script is the command: to be shown what another one did would pass for its own end. Other input is data, which
/// whoever asks again need not have any more.
#[test]
fn another_script_is_another_request_and_the_input_of_a_command_is_none() {
    let server = Server::start(&[]);
    let ask = |options: &[&str], words: &[&str], input: &str| {
        let client = Client::new(server.state()).args(options).arg(&server.addr).args(words);
        client.run_with(input.as_bytes())
    };
    let script = "echo one\nexit 3\n";
    for _ in 0..2 {
        assert_eq!(ask(&["--id", "script"], &[], script).expect(3).text(), "one\n");
    }
    assert_eq!(ask(&["-d", "--id", "script"], &[], script).expect(0).text(), "script\n");
    for other in ["echo two\nexit 3\n", "echo one\n", ""] {
        for options in [&["--id", "script"][..], &["-d", "--id", "script"]] {
            let ran = ask(options, &[], other).expect(250);
            assert!(ran.stderr.contains("another standard input"), "{}", ran.stderr);
        }
    }
    for input in ["data", "other data", ""] {
        assert_eq!(ask(&["--id", "data"], &["cat"], input).expect(0).text(), "data");
    }
}

/// Its client does not know whether it was the script of this run.
#[test]
fn a_script_that_is_not_read_to_its_end_is_no_success() {
    use std::io::BufRead as _;
    let server = Server::start(&[]);
    let client = || Client::new(server.state()).args(&["--id", "script", &server.addr]);
    client().run_with(b"echo one\n").expect(0);
    let mut waits = client().stdin(std::process::Stdio::piped()).spawn();
    let mut line = String::new();
    std::io::BufReader::new(waits.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    let _stdin = waits.stdin.take();
    wait_until("its end", || {
        kill(waits.id(), Signal::INT);
        waits.try_wait().unwrap().is_some()
    });
    assert_ne!(finish(waits).status, 0);
}

#[test]
fn a_run_outlives_its_server_and_its_client_goes_on_with_it() {
    let mut server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let effect = server.dir().join("effect");
    let command = format!(
        "echo began | tee -a {}; seq 1 1000; {wait}; seq 1001 2000; exit 9",
        effect.display()
    );
    let client = Client::new(server.state()).args(&["--durable", &server.addr, &command]).spawn();
    wait_until("the effect", || effect.exists());
    server.restart();
    std::fs::write(gate, "").unwrap();
    let ran = finish(client).expect(9);
    let mut expected = "began\n".to_owned();
    (1..=2000).for_each(|n| expected.push_str(&format!("{n}\n")));
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), expected);
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "began\n");
}

#[test]
fn a_run_whose_supervisor_was_killed_is_lost_and_its_tree_stopped() {
    let server = Server::start(&[]);
    let pid = server.dir().join("pid");
    let id = leave(
        &server,
        &format!("echo shown; setsid sleep 600 & echo $! > {}; wait", pid.display()),
    );
    pid_in(&pid);
    wait_until("its output", || verb(&server, "logs", &[&id]).text() == "shown\n");
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    kill(supervisor, Signal::KILL);
    let ran = verb(&server, "attach", &[&id]).expect(253);
    assert_eq!(ran.stdout, b"shown\n");
    assert!(ran.stderr.contains("kept the durable run was ended"), "{}", ran.stderr);
    wait_until("the end of its tree", || !is_alive(pid_in(&pid)));
    assert!(String::from_utf8_lossy(&verb(&server, "ps", &[]).stdout).contains("  lost  "));
    assert!(!files_of(&server, &id).contains(&"socket".into()), "its socket is gone");
}

/// As a terminal that is closed, or a shell's `kill %1`, ends all that a server was started with.
#[test]
fn what_ends_the_process_group_of_a_server_does_not_end_its_supervisors() {
    let mut server = Server::with(&[], |command| {
        command.process_group(0);
    });
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo one; {wait}; exit 7"));
    let group = Pid::from_raw(server.pid().cast_signed()).unwrap();
    kill_process_group(group, Signal::KILL).unwrap();
    server.wait();
    server.restart();
    std::fs::write(gate, "").unwrap();
    assert_eq!(verb(&server, "attach", &[&id]).expect(7).text(), "one\n");
}

#[test]
fn a_supervisor_that_is_told_to_end_stops_its_run_and_says_so() {
    let server = Server::start(&[]);
    let pid = server.dir().join("pid");
    let text = format!("echo shown; setsid sleep 600 & echo $! > {}; wait", pid.display());
    let id = leave(&server, &text);
    let child = pid_in(&pid);
    wait_until("its output", || verb(&server, "logs", &[&id]).text() == "shown\n");
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    kill(supervisor, Signal::TERM);
    assert_eq!(verb(&server, "attach", &[&id]).expect(251).text(), "shown\n");
    let lines = server.journal();
    let ended = lines.iter().find(|line| line["type"] == "ended").unwrap();
    assert_eq!(ended["verdict"]["stopped"]["by"], "shutdown", "{ended}");
    wait_until("the end of its tree", || !is_alive(child));
}

#[test]
fn signals_stops_and_removals_go_by_the_id() {
    let server = Server::start(&[]);
    let id =
        leave(&server, "trap 'echo heard; exit 5' USR1; echo ready; while :; do sleep 0.01; done");
    wait_until("its trap", || verb(&server, "logs", &[&id]).stdout == b"ready\n");
    let refused = verb(&server, "rm", &[&id]);
    assert!(refused.expect(254).stderr.contains("still_running"));
    let unknown = verb(&server, "signal", &[&id, "NOSUCH"]).expect(2);
    assert!(
        unknown.stderr.contains("unknown signal: give a name such as INT"),
        "{}",
        unknown.stderr
    );
    verb(&server, "signal", &[&id, "USR1"]).expect(0);
    assert_eq!(verb(&server, "attach", &[&id]).expect(5).stdout, b"ready\nheard\n");
    verb(&server, "signal", &[&id, "USR1"]).expect(254);
    let other = leave(&server, "sleep 600");
    verb(&server, "stop", &[&other]).expect(0);
    assert!(verb(&server, "wait", &[&other]).expect(251).stderr.contains("rexec stop"));
    verb(&server, "rm", &[&id, &other]).expect(0);
    let gone = verb(&server, "attach", &[&id]);
    assert!(gone.expect(253).stderr.contains("no longer kept"));
    let unknown = verb(&server, "attach", &["nothing-like-it"]);
    assert!(unknown.expect(254).stderr.contains("no_such_run"));
}

#[test]
fn a_run_that_cannot_be_started_leaves_nothing_and_its_id_is_free() {
    let server = Server::start(&[]);
    let ran = Client::new(server.state())
        .args(&["--id", "x", &server.addr, "--", "/no/such/program"])
        .run();
    assert!(ran.expect(254).stderr.contains("program_not_found"));
    let runs = server.state().join("instances/test/runs");
    assert_eq!(folders_in(&runs), Vec::<PathBuf>::new());
    let again = Client::new(server.state()).args(&["--id", "x", &server.addr, "echo", "now"]).run();
    assert_eq!(again.expect(0).stdout, b"now\n");
}

/// Whoever holds the output keeps the supervisor, which takes no more links by then.
#[test]
fn a_restarted_server_knows_the_end_of_a_run_whose_supervisor_lives_on() {
    let mut server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("({wait}) & echo held"));
    verb(&server, "wait", &[&id]).expect(0);
    assert_eq!(supervisors(server.state()).len(), 1);
    let folder = folder_of(&server, &id);
    wait_until_noted(&folder);
    std::fs::remove_file(folder.join("outcome.json")).unwrap();
    server.restart();
    assert_eq!(verb(&server, "attach", &[&id]).expect(0).stdout, b"held\n");
    std::fs::write(gate, "").unwrap();
    wait_until("the end of its supervisor", || supervisors(server.state()).is_empty());
}

#[test]
fn a_foreground_run_that_ended_without_its_client_is_listed_as_ended() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let pid = server.dir().join("pid");
    let command = format!("echo $$ > {}; {wait}; exit 5", pid.display());
    let mut client = server.client().arg(&command).spawn();
    pid_in(&pid);
    client.kill().unwrap();
    client.wait().unwrap();
    let listed = || String::from_utf8(verb(&server, "ps", &[]).expect(0).stdout).unwrap();
    assert!(listed().contains("  running  "), "{}", listed());
    std::fs::write(gate, "").unwrap();
    wait_until("its end", || listed().contains("  exited 5  "));
}

/// A process that is killed closes its files one after another, the record not always before the link.
#[test]
fn a_supervisor_that_is_going_is_not_taken_for_one_that_has_started_something() {
    let mut held = Held::at("launched");
    let runs = held.server.state().join("instances/test/runs");
    let folder = folders_in(&runs).remove(0);
    let [supervisor] = supervisors(held.server.state())[..] else { panic!("no supervisor") };
    wait_until("its record", || folder.join("socket").exists());
    kill(supervisor, Signal::KILL);
    let record = std::fs::File::open(folder.join("record")).unwrap();
    rustix::fs::flock(&record, FlockOperation::LockExclusive).unwrap();
    let opened = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&opened, folder.join("record"), inotify::WatchFlags::OPEN).unwrap();
    held.server.signal(Signal::CONT);
    rustix::io::read(&opened, &mut [0; 256]).expect("the server looks at the record");
    drop(record);
    let never = finish(held.client.take().unwrap()).expect(254);
    assert!(never.stderr.contains("before it started anything"), "{}", never.stderr);
}

/// A client that is told two ends cannot know which one to believe.
#[test]
fn nothing_follows_a_verdict_whose_supervisor_goes_before_it_is_confirmed() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "printf hi", json!({"durable": true}));
    raw.until("verdict");
    // It may be gone already: the server has the verdict, and its client can ask for it again.
    for supervisor in supervisors(server.state()) {
        try_kill(supervisor, Signal::KILL);
    }
    wait_until("its end", || supervisors(server.state()).is_empty());
    for _ in 0..20 {
        raw.send(&json!({"type": "list"}), b"");
        raw.expect("runs");
    }
}
