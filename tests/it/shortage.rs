//! A server that has no descriptor left for a while, as when strangers take them all: what it cannot look at is not
//! given up. And a supervisor that is given no thread.

use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::json;

use super::durable::{folder_of, gate, leave, verb};
use super::durable_kill::Held;
use super::support::raw::Raw;
use super::support::server::supervisor_of;
use super::support::{Server, finish, is_alive, kill, pid_in, wait_until};

/// Fewer than any server has open.
const FEW: u64 = 4;

/// Of a server that gets nothing new to open.
struct Short {
    server: Pid,
    before: Rlimit,
}

impl Short {
    fn of(server: &Server) -> Self {
        let server = Pid::from_raw(server.pid().cast_signed()).unwrap();
        // Only root may raise the hard limit again.
        let none = Rlimit { current: Some(FEW), ..getrlimit(Resource::Nofile) };
        let before = prlimit(Some(server), Resource::Nofile, none).unwrap();
        Self { server, before }
    }

    /// Until the server says so of this.
    fn until_told(self, server: &Server, of: &str) {
        let is_told = |line: &str| line.contains("Too many open files") && line.contains(of);
        wait_until(of, || server.log().lines().any(is_told));
        self.over();
    }

    fn over(self) {
        prlimit(Some(self.server), Resource::Nofile, self.before).unwrap();
    }
}

#[test]
fn a_run_is_not_lost_because_its_server_has_no_descriptor_to_look_for_it() {
    let mut held = Held::at("running");
    let short = Short::of(&held.server);
    held.server.signal(Signal::CONT);
    short.until_told(&held.server, "run=job");
    std::fs::write(&held.gate, "").unwrap();
    assert_eq!(finish(held.client.take().unwrap()).expect(7).text(), "out\n");
    assert_eq!(held.ask().run().expect(7).text(), "out\n");
    assert_eq!(held.effects(), 1);
}

#[test]
fn what_a_dead_supervisor_has_left_is_stopped_once_there_are_descriptors_again() {
    let mut held = Held::at("running");
    let command = pid_in(&held.server.dir().join("pid"));
    kill(supervisor_of(held.server.state()), Signal::KILL);
    let short = Short::of(&held.server);
    held.server.signal(Signal::CONT);
    short.until_told(&held.server, "run=job");
    finish(held.client.take().unwrap()).expect(253);
    assert!(!is_alive(command));
}

/// What is told to end has the time that it always has.
#[test]
fn what_a_run_has_started_is_stopped_also_if_there_were_no_descriptors_at_first() {
    let server = Server::start(&[]);
    let (told, other) = (server.dir().join("told"), server.dir().join("other"));
    let text = format!(
        "trap 'echo x > {}; exit 7' TERM; setsid sh -c 'echo $$ > {}; exec sleep 600' & \
         while :; do sleep 0.01; done",
        told.display(),
        other.display()
    );
    let client = server.client().arg(&text).spawn();
    let other = pid_in(&other);
    // Until then it is being started, and whoever cannot be followed is killed.
    wait_until("its start", || server.journal().iter().any(|line| line["type"] == "running"));
    let short = Short::of(&server);
    kill(client.id(), Signal::TERM);
    wait_until("the main process to be told", || told.exists());
    short.over();
    finish(client).expect(143);
    assert!(!is_alive(other));
}

/// Whoever asks and asks fills no disk with that.
#[test]
fn a_server_that_cannot_start_supervisors_says_so_once_a_second() {
    const ASKED: u64 = 60;
    // Or it is the journal that cannot be synced.
    let server = Server::start(&["--journal-sync", "never"]);
    let mut raw = Raw::login(&server);
    let short = Short::of(&server);
    let began = Instant::now();
    for n in 0..ASKED {
        raw.run(&format!("run-{n}"), "true", json!({"durable": true}));
        assert_eq!(raw.expect("not_started").0["code"], "start_failed");
    }
    let (seconds, log) = (began.elapsed().as_secs(), server.log());
    short.over();
    let lines = log.lines().filter(|line| line.contains("cannot start its supervisor")).count();
    assert!((1..=seconds + 1).contains(&(lines as u64)), "{lines} in {seconds} s");
}

#[test]
fn what_runs_leave_behind_is_reaped_also_after_there_were_no_descriptors() {
    let server = Server::start(&[]);
    let left = server.dir().join("left");
    let text = format!("sh -c 'echo $$ > {}; exec sleep 600' > /dev/null 2>&1 &", left.display());
    server.run(&[&text]).expect(0);
    let left = pid_in(&left);
    let short = Short::of(&server);
    kill(left, Signal::KILL);
    short.until_told(&server, "what runs");
    wait_until("it to be reaped", || !std::fs::exists(format!("/proc/{left}")).unwrap());
}

/// Enough for the pieces of a record, and too little for the stack of one more thread.
const LITTLE: u64 = 1536 * 1024;
const MIB: usize = 1 << 20;

#[test]
fn a_record_grows_also_where_there_is_no_thread_to_be_had() {
    let server = Server::start(&[]);
    let ((begin, wait_to_begin), (end, wait_to_end)) =
        (gate(&server, "begin"), gate(&server, "end"));
    let command = format!("{wait_to_begin}; head -c {} /dev/zero; {wait_to_end}; exit 7", 8 * MIB);
    let id = leave(&server, &command);
    let supervisor = supervisor_of(server.state());
    let pages = std::fs::read_to_string(format!("/proc/{supervisor}/statm")).unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let most = pages * rustix::param::page_size() as u64 + LITTLE;
    let supervisor = Pid::from_raw(supervisor.cast_signed());
    let little = Rlimit { current: Some(most), ..getrlimit(Resource::As) };
    let before = prlimit(supervisor, Resource::As, little).unwrap();
    std::fs::write(begin, "").unwrap();
    let record = folder_of(&server, &id).join("record");
    wait_until("its output", || record.metadata().unwrap().len() > 8 * MIB as u64);
    prlimit(supervisor, Resource::As, before).unwrap();
    std::fs::write(end, "").unwrap();
    assert!(verb(&server, "attach", &[&id]).expect(7).stdout == [0; 8 * MIB]);
}
