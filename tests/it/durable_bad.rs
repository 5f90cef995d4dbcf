//! Bad days of durable runs: clients that go, stall, stop or come twice, full disks, jumping clocks.

use std::io::Read as _;
use std::path::Path;
use std::process::Stdio;

use rexec::proto::digest::Digest;
use rustix::process::Signal;
use serde_json::json;

use super::durable::{gate, leave, verb};
use super::resume::executions;
use super::support::raw::Raw;
use super::support::relay::Relay;
use super::support::server::line_of;
use super::support::server::own_port;
use super::support::{
    Client, Ran, Random, Server, finish, is_alive, kill, memory_kib, pid_in, supervisors,
    wait_until,
};

fn client(server: &Server, args: &[&str]) -> Client {
    Client::new(server.state()).args(args)
}

/// The verdict of the only run that the journal has the end of, once it is there.
fn verdict(server: &Server) -> serde_json::Value {
    let ended = || server.journal().into_iter().find(|line| line["type"] == "ended");
    wait_until("the end of the run", || ended().is_some());
    ended().unwrap()["verdict"].clone()
}

pub(super) fn stop(pid: u32) {
    kill(pid, Signal::STOP);
    wait_until("the stop", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    });
}

#[test]
fn clients_that_ask_for_one_id_at_once_have_one_run_and_all_of_its_output() {
    let server = Server::start(&[]);
    for round in 0..20 {
        let (id, effect) = (format!("job-{round}"), server.dir().join(format!("effect-{round}")));
        let text = format!("echo x >> {}; seq 1 3000; echo e >&2; exit 7", effect.display());
        let clients =
            [(); 3].map(|()| client(&server, &["--id", &id, &server.addr, &text]).spawn());
        let expected: String = (1..=3000).map(|n| format!("{n}\n")).collect();
        for one in clients {
            let ran = finish(one);
            assert_eq!(ran.status, 7, "round {round}: {}", ran.stderr);
            assert!(ran.text() == expected, "round {round}");
            assert_eq!(ran.stderr, "e\n", "round {round}");
        }
        assert_eq!(executions(&effect), 1, "round {round}");
    }
}

#[test]
fn an_owner_and_two_who_look_see_the_same_when_the_owner_asks_again() {
    let mut server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let text = format!("seq 1 1000; {wait}; seq 1001 2000; exit 7");
    let own = ["--id", "job", &server.addr, &text];
    let look = ["attach", &server.addr, "job"];
    // Each is there, and has had something, when the next one comes.
    let all = [&own[..], &look, &look, &own].map(|args| {
        let mut one = client(&server, args).spawn();
        assert_eq!(line_of(&mut one), "1");
        one
    });
    server.restart();
    std::fs::write(gate, "").unwrap();
    let expected: String = (2..=2000).map(|n| format!("{n}\n")).collect();
    for one in all {
        let ran = finish(one);
        assert_eq!(ran.status, 7, "{}", ran.stderr);
        assert!(ran.text() == expected);
    }
}

#[test]
fn a_durable_run_whose_client_is_gone_for_good_is_stopped_after_its_grace() {
    let server = Server::start(&[]);
    let pid = server.dir().join("pid");
    let text = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let mut gone = client(&server, &["--durable", "--grace", "1s", &server.addr, &text]).spawn();
    let child = pid_in(&pid);
    gone.kill().unwrap();
    gone.wait().unwrap();
    let verdict = verdict(&server);
    assert_eq!(verdict["stopped"]["by"], "client_lost", "{verdict}");
    wait_until("the end of its tree", || !is_alive(child));
}

#[test]
fn a_run_that_was_left_needs_no_client() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let mut raw = Raw::login(&server);
    // One that is not kept is stopped at once then.
    raw.run("kept", &wait, json!({"durable": true, "keep": true, "grace_ms": 0}));
    raw.expect("started");
    drop(raw);
    let mut raw = Raw::login(&server);
    raw.run("not", "exec sleep 600", json!({"durable": true, "grace_ms": 0}));
    raw.expect("started");
    drop(raw);
    assert_eq!(verdict(&server)["run"], "not");
    std::fs::write(gate, "").unwrap();
    verb(&server, "attach", &["kept"]).expect(0);
}

/// Stopped for as long as it takes the command to end and its output to be in the record: nothing counts
/// the time between a server and a supervisor.
#[test]
fn a_server_or_a_supervisor_that_is_stopped_for_a_while_loses_nothing() {
    for who in ["server", "supervisor"] {
        let server = Server::start(&[]);
        let (gate, wait) = gate(&server, "gate");
        let done = server.dir().join("done");
        let text = format!("echo one; {wait}; seq 1 5000; touch {}; exit 7", done.display());
        let mut one = client(&server, &["--durable", &server.addr, &text]).spawn();
        assert_eq!(line_of(&mut one), "one");
        let stopped = match who {
            "server" => server.pid(),
            _ => supervisors(server.state())[0],
        };
        stop(stopped);
        std::fs::write(&gate, "").unwrap();
        // 24 kB fit into the pipe.
        wait_until("the end of the command", || done.exists());
        kill(stopped, Signal::CONT);
        let ran = finish(one).expect(7);
        let expected: String = (1..=5000).map(|n| format!("{n}\n")).collect();
        assert!(ran.text() == expected, "{who}");
    }
}

#[test]
fn a_client_that_is_stopped_for_a_while_slows_nobody_and_has_the_rest_when_it_goes_on() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    // More than the server sends ahead of what is acknowledged.
    let text = format!("{wait}; head -c 20000000 /dev/zero | tr '\\0' x; exit 7");
    let one = client(&server, &["--durable", &server.addr, &text]).spawn();
    wait_until("its start", || server.journal().iter().any(|line| line["type"] == "running"));
    stop(one.id());
    std::fs::write(gate, "").unwrap();
    // The command does not wait for it.
    assert_eq!(verdict(&server)["end"]["exited"]["code"], 7);
    kill(one.id(), Signal::CONT);
    let ran = finish(one).expect(7);
    assert!(ran.stdout.len() == 20_000_000 && ran.stdout.iter().all(|b| *b == b'x'));
}

#[test]
fn a_run_that_writes_for_ever_is_stopped_at_the_limit_of_its_record_and_what_is_there_is_whole() {
    let server = Server::start(&["--record-limit", "2M"]);
    let id = leave(&server, "exec yes");
    let waited = verb(&server, "wait", &[&id]).expect(251);
    assert!(waited.stderr.contains("its record passed --record-limit"), "{}", waited.stderr);
    let ran = verb(&server, "attach", &[&id]).expect(251);
    let verdict = verdict(&server);
    assert_eq!(verdict["stopped"]["by"], "policy", "{verdict}");
    assert_eq!(verdict["stdout"]["size"], ran.stdout.len());
    assert_eq!(verdict["stdout"]["hash"], json!(Digest::of(&ran.stdout)));
    assert!((1 << 20..3 << 20).contains(&ran.stdout.len()), "{}", ran.stdout.len());
    assert!(ran.stdout.chunks_exact(2).all(|line| line == b"y\n"));
}

/// It had ended before its server could stop it: its own end is told, and what is missing of its output.
#[test]
fn a_run_that_ends_by_itself_behind_the_limit_of_its_record_is_told_so() {
    let server = Server::start(&["--record-limit", "4K"]);
    let (gate, wait) = gate(&server, "gate");
    let pid = server.dir().join("pid");
    // All of it fits into the pipe.
    let text = format!("echo $$ > {}; {wait}; head -c 20000 /dev/zero; exit 7", pid.display());
    let id = leave(&server, &text);
    let pid = pid_in(&pid);
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    stop(supervisor);
    std::fs::write(gate, "").unwrap();
    wait_until("its end", || !is_alive(pid));
    kill(supervisor, Signal::CONT);
    let ran = verb(&server, "attach", &[&id]).expect(252);
    let kept = ran.stdout.len();
    assert!((1..20_000).contains(&kept), "{kept}");
    let said = format!(
        "standard output is longer than the server's --record-limit lets a record be: {kept} bytes of it were \
         kept; the command ended by itself with 7"
    );
    assert!(ran.stderr.contains(&said), "{}", ran.stderr);
    let verdict = verdict(&server);
    assert_eq!((&verdict["stopped"], &verdict["stdout"]["end"]), (&json!(null), &json!("limit")));
}

#[test]
fn megabytes_of_stdin_arrive_exactly_although_the_server_is_killed_again_and_again() {
    let mut server = Server::start(&[]);
    let mut random = Random::new();
    let stdin: Vec<u8> = (0..1 << 20).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    let progress = server.dir().join("progress");
    let text = format!("tee {} | sha256sum", progress.display());
    let one = client(&server, &["--durable", &server.addr, &text]);
    let came = || progress.metadata().map_or(0, |m| m.len());
    let sent = stdin.clone();
    let run = std::thread::spawn(move || one.run_with(&sent));
    for share in 1..=3 {
        wait_until("a quarter of the input", || came() >= share * (2 << 20));
        server.restart();
    }
    let ran = run.join().unwrap().expect(0);
    assert_eq!(ran.text(), format!("{}  -\n", Digest::of(&stdin)));
    assert!(std::fs::read(progress).unwrap() == stdin);
}

#[test]
fn a_script_on_stdin_can_be_left() {
    let server = Server::start(&[]);
    let ran = client(&server, &["-d", &server.addr]).run_with(b"echo from a script\nexit 7\n");
    let id = ran.expect(0).text();
    assert_eq!(verb(&server, "attach", &[id.trim()]).expect(7).text(), "from a script\n");
}

/// Packets are lost without a FIN; the kernel gives the connection up when the command has ended.
#[test]
fn a_durable_run_outlives_a_network_that_goes_silent() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let (gate, wait) = gate(&server, "gate");
    let text = format!("echo one; {wait}; echo two; exit 7");
    let mut far = client(&server, &["--id", "job", &relay.addr, &text]).spawn();
    assert_eq!(line_of(&mut far), "one");
    relay.go_silent();
    std::fs::write(gate, "").unwrap();
    // Whoever asks on a way that works does not wait for the silence to be noticed.
    let near = client(&server, &["--id", "job", &server.addr, &text]).run().expect(7);
    assert_eq!(near.text(), "one\ntwo\n");
    relay.speak();
    relay.cut();
    assert_eq!(finish(far).expect(7).text(), "two\n");
}

#[test]
fn a_server_that_is_stopped_does_not_wait_for_durable_runs_and_the_next_one_has_them() {
    // It would go on for as long as the drain takes.
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo one; {wait}; echo two; exit 7"));
    let mut viewer = client(&server, &["attach", &server.addr, &id]).spawn();
    assert_eq!(line_of(&mut viewer), "one");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    server.restart();
    std::fs::write(gate, "").unwrap();
    assert_eq!(finish(viewer).expect(7).text(), "two\n");
    assert_eq!(verb(&server, "attach", &[&id]).expect(7).text(), "one\ntwo\n");
}

#[test]
fn who_looks_and_does_not_read_slows_nobody_and_takes_no_memory() {
    const SIZE: usize = 110 << 20;
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("echo; {wait}; head -c {SIZE} /dev/zero"));
    let stalled = [(); 4].map(|()| client(&server, &["attach", &server.addr, &id]).spawn());
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    let peak_kib = |pid| memory_kib(pid, "VmHWM");
    let before = [supervisor, server.pid()].map(peak_kib);
    std::fs::write(gate, "").unwrap();
    verb(&server, "wait", &[&id]).expect(0);
    let mut reader = client(&server, &["attach", &server.addr, &id]).spawn();
    let mut read = 0;
    let mut chunk = vec![0; 1 << 20];
    while let Ok(count @ 1..) = reader.stdout.as_mut().unwrap().read(&mut chunk) {
        read += count;
    }
    assert_eq!(finish(reader).status, 0);
    assert_eq!(read, SIZE + 1);
    // It may be gone by now.
    let grown = peak_kib(supervisor).saturating_sub(before[0]);
    assert!(grown < 40 << 10, "the supervisor has grown by {grown} KiB");
    // Each of them has a window of 8 MiB at most on its way.
    let grown = peak_kib(server.pid()) - before[1];
    assert!(grown < 80 << 10, "the server has grown by {grown} KiB");
    for mut one in stalled {
        one.kill().unwrap();
        one.wait().unwrap();
    }
}

#[test]
fn another_identity_is_told_of_a_run_what_it_is_told_of_none() {
    let server_keys = tempfile::tempdir().unwrap();
    let list = server_keys.path().join("authorized_keys");
    let keys = ["one", "two"].map(|name| super::auth::key(server_keys.path(), name));
    std::fs::write(&list, format!("{}{}", keys[0].1, keys[1].1)).unwrap();
    let server = Server::start(&["--authorized-keys", list.to_str().unwrap()]);
    let host = super::auth::host_key(&server).1.to_string();
    let far = server.addr.replace("127.0.0.1", "127.1");
    let of = |who: usize, verb: &[&str], rest: &[&str]| {
        let here = Client::new(&server_keys.path().join(format!("state{who}"))).args(verb);
        let here = here.arg("-i").arg(&keys[who].0).args(&["--host-key", &host, &far]);
        here.args(rest).run()
    };
    let id = of(0, &["--durable", "-d"], &["echo out; exit 7"]).expect(0).text();
    let id = id.trim();
    assert_eq!(of(0, &["attach"], &[id]).expect(7).text(), "out\n");
    assert!(of(0, &["ps"], &[]).expect(0).text().contains(&id[24..]));
    assert!(!of(1, &["ps"], &[]).expect(0).text().contains(&id[24..]));
    for (name, more) in [("attach", &[][..]), ("logs", &[]), ("stop", &[]), ("signal", &["TERM"])] {
        let ask = |id: &str| {
            let ran = of(1, &[name], &[&[id], more].concat());
            (ran.status, ran.text(), ran.stderr.replace(id, "ID"))
        };
        assert_eq!(ask(id), ask(&"0123456789abcdef".repeat(2)), "{name}");
    }
    // The same id is another run under another identity.
    let named = |who| of(who, &["--id", "job"], &[&format!("echo {who}")]).expect(0).text();
    assert_eq!((named(0), named(1)), ("0\n".into(), "1\n".into()));
}

#[test]
fn who_leaves_a_run_and_cannot_print_its_id_says_it_all_the_same() {
    let server = Server::start(&[]);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for (stdout, status) in [(Stdio::from(full), 252), (Stdio::from(closed), 141)] {
        let mut leave = client(&server, &["-d", &server.addr, "true"]);
        leave.command.stdout(stdout).stderr(Stdio::piped());
        let ran = Ran::of(leave.command.spawn().unwrap().wait_with_output().unwrap());
        assert_eq!(ran.status, status, "{}", ran.stderr);
        let id = ran.stderr.split_whitespace().find(|word| word.len() == 32).unwrap_or_default();
        verb(&server, "attach", &[id]).expect(0);
    }
}

#[test]
fn a_connection_serves_one_durable_run_after_another() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    for id in ["a", "b"] {
        raw.run(id, "echo out", json!({"durable": true}));
        let frames = raw.until("verdict");
        raw.send(&json!({"type": "ack", "seq": frames.last().unwrap().0["seq"]}), b"");
    }
    raw.send(&json!({"type": "list"}), b"");
    let (list, _) = raw.expect("runs");
    assert_eq!(list["total"], 2);
    wait_until("the end of the supervisors", || supervisors(server.state()).is_empty());
}

fn faketime() -> Option<&'static str> {
    let found = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let found = found.into_iter().find(|path| Path::new(path).exists());
    if found.is_none() {
        println!("left out: libfaketime is not there");
    }
    found
}

/// The wall clock is for people: what is durable goes by the clock since boot.
#[test]
fn a_clock_that_jumps_both_ways_changes_nothing() {
    let Some(library) = faketime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let (state, clock) = (dir.path().join("state"), dir.path().join("clock"));
    // As a whole: a program may read it at any time.
    let set = |shift: &str| {
        std::fs::write(dir.path().join("next"), format!("{shift}\n")).unwrap();
        std::fs::rename(dir.path().join("next"), &clock).unwrap();
    };
    set("+0");
    let start = |listen: &str| {
        Server::at(&state, listen, &[], |command| {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        })
    };
    let mut server = start(&own_port());
    let (gate, wait) = gate(&server, "gate");
    let effect = server.dir().join("effect");
    let text = format!("echo x >> {}; echo out; {wait}; exit 7", effect.display());
    let ask = |server: &Server| client(server, &["--id", "job", &server.addr, &text]).spawn();
    let first = ask(&server);
    wait_until("its effect", || effect.exists());
    let mut others = Vec::new();
    for jump in ["+4000d", "-4000d", "+1d"] {
        set(jump);
        others.push((leave(&server, "exit 3"), 3));
        server.crash();
        server = start(&server.addr);
        for (id, status) in &others {
            verb(&server, "wait", &[id]).expect(*status);
        }
        assert!(verb(&server, "ps", &[]).expect(0).text().contains("running"), "{jump}");
    }
    let again = ask(&server);
    std::fs::write(gate, "").unwrap();
    for one in [first, again] {
        let ran = finish(one);
        assert_eq!((ran.status, ran.text()), (7, "out\n".into()), "{}", ran.stderr);
    }
    assert_eq!(executions(&effect), 1);
    wait_until("the end of the supervisors", || supervisors(&state).is_empty());
}

#[test]
fn who_only_looks_cannot_let_a_run_go_on_without_its_owner() {
    let server = Server::start(&[]);
    let (mut owner, mut viewer) = (Raw::login(&server), Raw::login(&server));
    owner.run("job", "exec sleep 600", json!({"durable": true, "grace_ms": 0}));
    owner.expect("started");
    viewer.send(&json!({"type": "attach", "run": "job"}), b"");
    viewer.expect("started");
    viewer.send(&json!({"type": "detach"}), b"");
    viewer.expect("detached");
    drop(owner);
    let verdict = verdict(&server);
    assert_eq!(verdict["stopped"]["by"], "client_lost", "{verdict}");
}
