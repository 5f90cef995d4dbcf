//! State folders that are not where they were, files that the dead have left, and ids that mean something
//! else now: what was started elsewhere is not signalled, and what is not known is not claimed to be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rexec::proto::digest::Digest;
use rustix::process::{Signal, geteuid};

use super::durable::{folders_in, gate, leave, verb};
use super::durable_kill::{Held, pause_file};
use super::full_disk::Disk;
use super::support::server::{spare_supervisors, supervisor_of, under};
use super::support::{
    Client, Server, finish, is_alive, json_in, kill, pid_in, supervisors, wait_until,
};

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The folder of the server's only run.
pub(super) fn run_folder(server: &Server) -> PathBuf {
    let mut runs = folders_in(&server.state().join("instances/test/runs"));
    assert_eq!(runs.len(), 1);
    runs.remove(0)
}

/// Its line is in its record.
fn wait_until_shown(server: &Server, run: &str) {
    wait_until("its output", || verb(server, "logs", &[run]).stdout == b"out\n");
}

fn attach(state: &Path, server: &Server, run: &str) -> super::support::Ran {
    Client::new(state).args(&["attach", &server.addr, run]).run()
}

#[test]
fn a_server_on_a_copied_state_folder_leaves_the_runs_of_the_original_alone() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let pids = [server.dir().join("durable"), server.dir().join("foreground")];
    let text = |pid: &Path| format!("echo out; echo $$ > {}; {wait}; exit 7", pid.display());
    let id = leave(&server, &text(&pids[0]));
    let foreground = server.client().arg(text(&pids[1])).spawn();
    let alive = pids.each_ref().map(|pid| pid_in(pid));
    wait_until_shown(&server, &id);
    // Nothing comes or goes in the folder while it is copied.
    wait_until("the next supervisor", || spare_supervisors(server.state()).len() == 1);
    let elsewhere = server.dir().join("copy");
    copy(server.state(), &elsewhere);
    let other = Server::at(&elsewhere, "127.0.0.1:0", &[], |_| ());
    let ran = attach(&elsewhere, &other, &id).expect(253);
    assert_eq!(ran.text(), "out\n");
    wait_until("both lost", || lost(&other) == 2);
    drop(other);
    assert!(alive.iter().all(|pid| is_alive(*pid)));
    std::fs::write(gate, "").unwrap();
    assert_eq!(attach(server.state(), &server, &id).expect(7).text(), "out\n");
    finish(foreground).expect(7);
}

#[test]
fn nothing_is_signalled_from_another_pid_namespace() {
    if !geteuid().is_root() {
        println!("left out: only root can make a pid namespace");
        return;
    }
    // With its own /proc, and with that of the first namespace, whose numbers mean nothing to it.
    for proc in [&["--mount-proc"][..], &[]] {
        let unshare = [&["unshare", "--pid", "--fork", "--kill-child"], proc, &["--"]].concat();
        let mut server = Server::start(&[]);
        let pid = server.dir().join("pid");
        let text = format!("echo out; echo $$ > {}; exec sleep 600", pid.display());
        let (id, foreground) = (leave(&server, &text), server.dir().join("foreground"));
        let text = format!("echo $$ > {}; exec sleep 600", foreground.display());
        let client = server.client().arg(text).spawn();
        let alive = [pid_in(&pid), pid_in(&foreground)];
        wait_until_shown(&server, &id);
        server.crash();
        let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
        kill(supervisor, Signal::KILL);
        let mut other = Server::at(server.state(), &server.addr, &[], under(&unshare));
        let ran = attach(server.state(), &other, &id).expect(253);
        assert_eq!(ran.text(), "out\n");
        finish(client).expect(253);
        wait_until("both lost", || lost(&other) == 2);
        other.crash();
        for pid in alive {
            assert!(is_alive(pid));
            kill(pid, Signal::KILL);
        }
    }
}

fn lost(server: &Server) -> usize {
    server.journal().iter().filter(|line| line["type"] == "lost").count()
}

/// Its record names a process id that is another's by now.
#[test]
fn a_recycled_pid_is_not_signalled() {
    let mut server = Server::start(&[]);
    let id = leave(&server, "echo out; exec sleep 600");
    wait_until_shown(&server, &id);
    let mut stranger = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    server.crash();
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    kill(supervisor, Signal::KILL);
    let record = run_folder(&server).join("record");
    let bytes = std::fs::read(&record).unwrap();
    let renamed = with_pid(&bytes, stranger.id());
    std::fs::write(&record, renamed).unwrap();
    server.restart();
    assert_eq!(attach(server.state(), &server, &id).expect(253).text(), "out\n");
    assert_eq!(stranger.try_wait().unwrap(), None);
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

/// The record with another process's id for that of its command.
fn with_pid(record: &[u8], pid: u32) -> Vec<u8> {
    use rexec::proto::frame::{Decoded, Limits, decode, encode};
    let (mut rest, mut out, mut renamed) = (record, Vec::new(), false);
    while let Decoded::Frame(frame) = decode(rest, Limits::FULL).unwrap() {
        let mut header: serde_json::Value = serde_json::from_slice(frame.header).unwrap();
        // It is added anew.
        header.as_object_mut().unwrap().remove("size");
        if header["type"] == "running" {
            header["pid"] = pid.into();
            renamed = true;
        }
        encode(&header, frame.body, &mut out).unwrap();
        rest = &rest[frame.len()..];
    }
    assert!(renamed, "the record names the process of its command");
    out
}

#[test]
fn a_state_folder_whose_path_is_longer_than_a_socket_address_keeps_durable_runs() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("a".repeat(120)).join("b".repeat(120)).join("state");
    std::fs::create_dir_all(state.parent().unwrap()).unwrap();
    let short = format!("unix:{}", dir.path().join("sock").display());
    let mut server = Server::at_both(&state, ["127.0.0.1:0", &short], &[], |_| ());
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo one; {wait}; echo two; exit 7"));
    server.crash();
    let server = Server::at_both(&state, ["127.0.0.1:0", &short], &[], |_| ());
    let viewer = Client::new(&state).args(&["attach", &server.addr, &id]).spawn();
    std::fs::write(gate, "").unwrap();
    assert_eq!(finish(viewer).expect(7).text(), "one\ntwo\n");
    wait_until("the end of its supervisor", || supervisors(&state).is_empty());
}

/// Folders cannot be renamed from one to the other.
#[test]
fn runs_may_have_another_disk_than_their_journal() {
    let Some(disk) = Disk::of("runs") else { return };
    let server = disk.server("127.0.0.1:0", &[]);
    for _ in 0..2 {
        let client = Client::new(server.state()).args(&["--durable", &server.addr, "echo out"]);
        assert_eq!(client.run().expect(0).text(), "out\n");
        wait_until("the next supervisor", || spare_supervisors(server.state()).len() == 1);
    }
}

/// A supervisor that comes to its run when that was given up, and the id is another request's.
#[test]
fn a_late_supervisor_does_not_start_what_was_given_up_in_the_place_of_another() {
    let mut late = Held::at("supervisor:born");
    let old = supervisor_of(late.server.state());
    late.abandon();
    let state = late.server.state().to_owned();
    late.server.restart();
    wait_until("that it never started", || {
        late.server.journal().iter().any(|line| line["type"] == "not_started")
    });
    late.server.crash();
    // The next one's supervisor waits at the same point, until the late one has had its chance.
    let reached = pause_file();
    let next = Server::at(&state, "127.0.0.1:0", &[], |command| {
        command.env("REXEC_PAUSE_AT", "supervisor:born").env("REXEC_PAUSE_FILE", &reached);
    });
    let client = Client::new(&state).args(&["--id", "job", &next.addr, "echo new; exit 9"]).spawn();
    wait_until("the next supervisor", || reached.exists());
    std::fs::write(&late.gate, "").unwrap();
    kill(old, Signal::CONT);
    wait_until("the end of the late supervisor", || !is_alive(old));
    kill(supervisor_of(&state), Signal::CONT);
    assert_eq!(finish(client).expect(9).text(), "new\n");
    assert_eq!(late.effects(), 0);
}

/// Its folder went when that was known, and is another request's since.
#[test]
fn a_supervisor_that_started_nothing_and_ends_late_takes_nothing_from_the_next_run_of_its_id() {
    let reached = pause_file();
    let mut server = Server::with(&[], |command| {
        command.env("REXEC_PAUSE_AT", "supervisor:leaving").env("REXEC_PAUSE_FILE", &reached);
    });
    let ask = ["-d", "--id", "job", &server.addr];
    let ask = |words: &[&str]| Client::new(server.state()).args(&ask).args(words).run();
    ask(&["--", "/no/such/program"]).expect(254);
    wait_until("its supervisor's end", || reached.exists());
    let [late] = supervisors(server.state())[..] else { panic!("no supervisor") };
    let (gate, wait) = gate(&server, "gate");
    ask(&[&format!("echo one; {wait}; exit 7")]).expect(0);
    kill(late, Signal::CONT);
    wait_until("the end of the late one", || !is_alive(late));
    assert!(run_folder(&server).join("socket").exists());
    server.restart();
    wait_until("its output", || verb(&server, "logs", &["job"]).text() == "one\n");
    std::fs::write(gate, "").unwrap();
    assert_eq!(verb(&server, "attach", &["job"]).expect(7).text(), "one\n");
}

/// It holds its record: nobody else says what became of the run.
#[test]
fn a_supervisor_that_comes_late_to_its_run_starts_it_once_or_not_at_all() {
    let mut late = Held::at("supervisor:asked");
    let [old] = supervisors(late.server.state())[..] else { panic!("no supervisor") };
    late.abandon();
    late.server.restart();
    let client = late.ask().spawn();
    std::fs::write(&late.gate, "").unwrap();
    kill(old, Signal::CONT);
    let ran = finish(client);
    // Its server may have been killed before it had asked for the start.
    let told = (ran.status, ran.text(), late.effects());
    let known = [(7, "out\n".into(), 1), (254, String::new(), 0)];
    assert!(known.contains(&told), "{told:?} {}", ran.stderr);
}

/// A machine that went down may have lost what was not synced: the folder, what is in it, or its outcome.
#[test]
fn a_run_whose_folder_a_crash_of_the_machine_took_is_lost_and_never_started_again() {
    for damage in [Damage::NoFolder, Damage::NoMeta, Damage::EmptyMeta] {
        let mut server = Server::start(&[]);
        let effect = server.dir().join("effect");
        let text = format!("echo x >> {}; exec sleep 600", effect.display());
        let ask = |server: &Server| {
            Client::new(server.state()).args(&["--id", "job", &server.addr, &text])
        };
        let mut client = ask(&server).spawn();
        wait_until("its effect", || effect.exists());
        server.crash();
        client.kill().unwrap();
        client.wait().unwrap();
        let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
        kill(supervisor, Signal::KILL);
        wait_until("the supervisor's end", || !is_alive(supervisor));
        damage.to(&run_folder(&server));
        another_boot(server.state());
        server.restart();
        let ran = ask(&server).run();
        assert_eq!(ran.status, 253, "{damage:?}: {}", ran.stderr);
        assert_eq!(super::resume::executions(&effect), 1, "{damage:?}");
        wait_until("the lost line", || lost(&server) == 1);
        assert!(!server.journal().iter().any(|l| l["type"] == "not_started"), "{damage:?}");
    }
}

/// No process is that of its record after a reboot, whatever its number and its environment are.
#[test]
fn after_a_reboot_a_run_is_lost_its_record_is_shown_and_nothing_is_signalled() {
    let mut server = Server::start(&[]);
    let pid = server.dir().join("pid");
    let id = leave(&server, &format!("echo out; echo $$ > {}; exec sleep 600", pid.display()));
    let pid = pid_in(&pid);
    wait_until_shown(&server, &id);
    server.crash();
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    kill(supervisor, Signal::KILL);
    wait_until("the supervisor's end", || !is_alive(supervisor));
    let folder = run_folder(&server);
    let mut record = std::fs::read(folder.join("record")).unwrap();
    record.extend([0; 4096]);
    std::fs::write(folder.join("record"), record).unwrap();
    let mut meta = json_in(&folder.join("meta.json"));
    meta["origin"]["boot"] = "00000000-0000-0000-0000-000000000000".into();
    std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
    another_boot(server.state());
    server.restart();
    assert_eq!(attach(server.state(), &server, &id).expect(253).text(), "out\n");
    assert_eq!(lost(&server), 1);
    assert!(is_alive(pid));
    kill(pid, Signal::KILL);
}

/// As when a disk is not mounted: without a supervisor that waits, and with one.
#[test]
fn while_the_folder_of_the_runs_is_gone_a_durable_one_is_refused_with_its_path_and_what_to_do() {
    let server = Server::start(&[]);
    let run = || Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run();
    let (runs, away) = (server.state().join("instances/test/runs"), server.dir().join("away"));
    for _ in 0..2 {
        std::fs::rename(&runs, &away).unwrap();
        let refused = run().expect(254).stderr;
        assert!(refused.contains(runs.to_str().unwrap()), "{refused}");
        assert!(refused.contains("put back what is missing"), "{refused}");
        std::fs::rename(&away, &runs).unwrap();
        run().expect(0);
        wait_until("one that waits", || spare_supervisors(server.state()).len() == 1);
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    NoFolder,
    NoMeta,
    EmptyMeta,
}

impl Damage {
    fn to(self, folder: &Path) {
        match self {
            Self::NoFolder => std::fs::remove_dir_all(folder).unwrap(),
            Self::NoMeta => std::fs::remove_file(folder.join("meta.json")).unwrap(),
            Self::EmptyMeta => std::fs::write(folder.join("meta.json"), "").unwrap(),
        }
    }
}

/// Makes the journal one of an earlier boot.
fn another_boot(state: &Path) {
    let path = state.join("instances/test/journal/000001.jsonl");
    let mut previous = None;
    let mut text = String::new();
    for line in std::fs::read_to_string(&path).unwrap().lines() {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["type"] == "opened" {
            line["boot"] = "00000000-0000-0000-0000-000000000000".into();
        }
        line["prev"] = serde_json::json!(previous);
        previous = Some(Digest::of(line.to_string().as_bytes()));
        text.push_str(&format!("{line}\n"));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_run_whose_outcome_a_crash_of_the_machine_took_has_it_still_in_its_record() {
    let mut server = Server::start(&[]);
    let id = leave(&server, "echo out; exit 7");
    verb(&server, "wait", &[&id]).expect(7);
    let outcome = run_folder(&server).join("outcome.json");
    wait_until("its outcome", || outcome.exists());
    server.crash();
    std::fs::write(&outcome, "").unwrap();
    server.restart();
    assert_eq!(verb(&server, "attach", &[&id]).expect(7).text(), "out\n");
    let ended = server.journal().iter().filter(|line| line["type"] == "ended").count();
    assert_eq!(ended, 1);
}
