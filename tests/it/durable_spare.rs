//! The supervisor that is kept ready for the next durable run.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

use rexec::proto::frame::encoded;
use rexec::proto::header::{ClientHeader, ServerHeader};
use rexec::runs::disk::Folder;
use rexec::runs::judged::Judged;
use rexec::runs::launch::Setup;
use rexec::runs::link::Link;
use rexec::runs::ready::SUPERVISE;
use rexec::runs::request::Imposed;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{gate, leave, verb, wait_until_noted};
use super::durable_bad::stop;
use super::durable_kill::pause_file;
use super::durable_places::run_folder;
use super::resume::executions;
use super::support::server::{spare_supervisors, supervisor_of};
use super::support::{Client, Server, finish, is_alive, json_in, kill, supervisors, wait_until};

/// The one that waits, once it does.
fn spare(server: &Server) -> u32 {
    wait_until("a supervisor that waits", || spare_supervisors(server.state()).len() == 1);
    spare_supervisors(server.state())[0]
}

#[test]
fn from_the_first_durable_run_on_one_supervisor_waits_for_the_next_and_goes_with_its_server() {
    let mut server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    assert!(spare_supervisors(server.state()).is_empty());
    Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run().expect(0);
    let first = spare(&server);
    wait_until("the end of the one before", || supervisors(server.state()).is_empty());
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo one; {wait}; exit 7"));
    assert_eq!(supervisors(server.state()), [first], "it has the run");
    let second = spare(&server);
    assert_ne!(first, second);
    server.crash();
    wait_until("the end of the one that waited", || !is_alive(second));
    assert!(is_alive(first));
    server.restart();
    std::fs::write(gate, "").unwrap();
    assert_eq!(verb(&server, "attach", &[&id]).expect(7).text(), "one\n");
    assert!(spare_supervisors(server.state()).is_empty());
}

#[test]
fn a_supervisor_that_was_killed_while_it_waited_is_not_waited_for() {
    let server = Server::start(&[]);
    let run =
        || Client::new(server.state()).args(&["--durable", &server.addr, "echo out; exit 7"]).run();
    run().expect(7);
    for signal in [Signal::KILL, Signal::TERM] {
        let waits = spare(&server);
        kill(waits, signal);
        wait_until("its end", || !is_alive(waits));
        assert_eq!(run().expect(7).text(), "out\n");
    }
}

/// Or whoever comes next would wait for a program to start.
#[test]
fn the_next_one_comes_up_while_the_run_that_has_taken_one_is_still_being_started() {
    let reached = pause_file();
    let server = Server::with(&[], |command| {
        command.env("REXEC_PAUSE_AT", "supervisor:asked").env("REXEC_PAUSE_FILE", &reached);
    });
    std::fs::write(&reached, "").unwrap();
    let run = || Client::new(server.state()).args(&["--durable", &server.addr, "exit 7"]);
    run().run().expect(7);
    let first = spare(&server);
    std::fs::remove_file(&reached).unwrap();
    let held = run().spawn();
    wait_until("its supervisor to be told of it", || reached.exists());
    assert_ne!(spare(&server), first);
    kill(first, Signal::CONT);
    finish(held).expect(7);
}

#[test]
fn a_supervisor_that_was_stopped_while_it_waited_is_not_waited_for_and_ends_when_it_goes_on() {
    let server = Server::start(&[]);
    let run = |text: &str| Client::new(server.state()).args(&["--durable", &server.addr, text]);
    run("true").run().expect(0);
    let waits = spare(&server);
    stop(waits);
    let effect = server.dir().join("effect");
    let text = format!("echo x >> {}; echo out; exit 7", effect.display());
    assert_eq!(run(&text).run().expect(7).text(), "out\n");
    kill(waits, Signal::CONT);
    wait_until("its end", || !is_alive(waits));
    assert_eq!(executions(&effect), 1);
    assert_eq!(run("echo other").run().expect(0).text(), "other\n");
}

/// Nothing has said so when it was given its run.
#[test]
fn a_supervisor_that_is_stopped_once_it_has_a_run_holds_up_that_and_no_other() {
    let reached = pause_file();
    let server = Server::with(&[], |command| {
        command.env("REXEC_PAUSE_AT", "supervisor:asked").env("REXEC_PAUSE_FILE", &reached);
    });
    let run = |text: &str| Client::new(server.state()).args(&["--durable", &server.addr, text]);
    let effect = server.dir().join("effect");
    let held = run(&format!("echo x >> {}; echo out; exit 7", effect.display())).spawn();
    wait_until("its supervisor to be told of it", || reached.exists());
    let stopped = supervisor_of(server.state());
    assert_eq!(run("echo other").run().expect(0).text(), "other\n");
    assert!(verb(&server, "ps", &[]).expect(0).text().contains("  running  "));
    kill(stopped, Signal::CONT);
    assert_eq!(finish(held).expect(7).text(), "out\n");
    assert_eq!(executions(&effect), 1);
}

/// What it says about its run stands where the run is, and none of its files is another run's.
#[test]
fn a_supervisor_that_waits_holds_nothing_of_any_run() {
    let server = Server::start(&[]);
    leave(&server, "exec sleep 600");
    let open = std::fs::read_dir(format!("/proc/{}/fd", spare(&server))).unwrap().flatten();
    let files: Vec<_> = open.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    let own = prepared(&server).pop().expect("its folder");
    let of_runs = |path: &&PathBuf| path.starts_with(server.state()) && !path.starts_with(&own);
    assert_eq!(files.iter().find(of_runs), None, "{files:?}");
}

/// The folders of those that wait.
fn prepared(server: &Server) -> Vec<PathBuf> {
    let ready = std::fs::read_dir(server.state().join("instances/test/runs/ready")).unwrap();
    ready.map(|entry| entry.unwrap().path()).collect()
}

/// It goes with the one that waits, or when that could not remove it.
#[test]
fn a_folder_that_becomes_no_runs_is_not_left() {
    let mut server = Server::start(&[]);
    let run =
        || Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run().expect(0);
    run();
    kill(spare(&server), Signal::KILL);
    wait_until("its end", || spare_supervisors(server.state()).is_empty());
    let left = prepared(&server);
    assert_eq!(left.len(), 1);
    run();
    spare(&server);
    let next = prepared(&server);
    assert!(next.len() == 1 && next != left, "{next:?}");
    server.signal(Signal::STOP);
    kill(spare(&server), Signal::KILL);
    server.crash();
    assert_eq!(prepared(&server), next);
    // As one leaves it that is killed just before it gives the folder to a run.
    std::fs::write(next[0].join("meta.json"), "{}").unwrap();
    server.restart();
    assert_eq!(prepared(&server), Vec::<PathBuf>::new());
    let run =
        || Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run().expect(0);
    run();
    spare(&server);
    server.crash();
    wait_until("the end of its folder", || prepared(&server).is_empty());
}

/// A supervisor of a run of the test's own, which speaks to it as its server.
struct Given {
    link: Link,
    supervisor: Child,
    run: Folder,
}

impl Given {
    /// One that was told of its run, and not asked to start it.
    async fn to(server: &mut Server) -> Self {
        Client::new(server.state()).args(&["--id", "job", &server.addr, "true"]).run().expect(0);
        let run = run_folder(server);
        wait_until_noted(&run);
        server.crash();
        let meta = json_in(&run.join("meta.json"));
        std::fs::remove_dir_all(&run).unwrap();
        std::fs::create_dir(&run).unwrap();
        std::fs::write(run.join("meta.json"), meta.to_string()).unwrap();
        let (link, theirs) = Link::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.arg(SUPERVISE).arg(run.parent().unwrap()).arg(&run).current_dir(&run);
        let supervisor = command.stdin(theirs).spawn().unwrap();
        let run = Folder::found(run);
        let setup = Setup {
            folder: run.name(),
            identity: meta["identity"].as_str().unwrap().into(),
            mark: meta["mark"].as_str().unwrap().into(),
            record_limit: 1 << 20,
            judged: Judged::default(),
            imposed: Imposed::default(),
        };
        link.send(&setup, b"/bin/sh").await.unwrap();
        wait_until("its socket", || run.path().join("socket").exists());
        Self { link, supervisor, run }
    }
}

/// The next server wants to know of the run, and the one that gave it was killed before it had asked for the start.
#[tokio::test]
async fn a_supervisor_that_was_asked_for_nothing_ends_with_its_server_whoever_else_has_come() {
    let mut server = Server::start(&[]);
    let Given { link, mut supervisor, run } = Given::to(&mut server).await;
    // It has a name before it listens.
    let mut next = Err(std::io::ErrorKind::NotFound.into());
    wait_until("its socket", || {
        next = Link::connect(&run);
        next.is_ok()
    });
    let next = next.unwrap();
    let list = ClientHeader::List { limit: Some(1), all: false };
    next.ask(encoded(&list, b"").unwrap()).await.unwrap();
    drop(link);
    let alone = Instant::now();
    wait_until("its end", || supervisor.try_wait().unwrap().is_some());
    // Who has a verdict to give waits for a minute.
    assert!(alone.elapsed().as_secs() < 30, "{:?}", alone.elapsed());
}

/// Each word of its own would wake the server and the client once more.
#[tokio::test]
async fn a_short_run_is_told_in_one_word_unless_somebody_waits_for_its_start() {
    for (keep, in_one) in [(false, true), (true, false)] {
        let told_in_one = async || {
            let mut server = Server::start(&[]);
            let Given { link, mut supervisor, .. } = Given::to(&mut server).await;
            let run = json!({"type": "run", "id": "job", "form": "shell", "words": 1,
                             "durable": true, "keep": keep});
            let started = link.ask(encoded(&run, b"true\0").unwrap()).await.unwrap();
            let started = started.header().unwrap();
            assert!(matches!(started, ServerHeader::Started(_)), "{started:?}");
            link.next_now().await.expect("how far the record is");
            let verdict = link.next_now().await;
            drop(link);
            wait_until("its end", || supervisor.try_wait().unwrap().is_some());
            verdict.is_some()
        };
        // On a busy machine the start of a program may take longer than a start waits to be told.
        let mut seen = told_in_one().await;
        for _ in 0..20 {
            if seen != in_one {
                seen = told_in_one().await;
            }
        }
        assert_eq!(seen, in_one, "keep: {keep}");
    }
}

/// Its process may be gone when the server hears of it.
#[test]
fn of_the_shortest_run_the_journal_has_its_process_too() {
    let server = Server::start(&[]);
    for _ in 0..5 {
        Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run().expect(0);
    }
    let lines = server.journal();
    let running: Vec<_> = lines.iter().filter(|line| line["type"] == "running").collect();
    let is_whole =
        |line: &&Value| line["pid"].as_u64() > Some(1) && line["start_time"].as_u64() > Some(0);
    assert_eq!(running.into_iter().filter(is_whole).count(), 5);
}
