//! How the output of a durable run that goes on comes to those who see it.

use std::io::Read as _;

use serde_json::json;

use super::durable::{gate, leave, verb};
use super::support::raw::Raw;
use super::support::relay::Relay;
use super::support::{Client, Ran, Server, finish, supervisors, try_kill, wait_until};

/// Bytes that a process has written so far (proc(5), `io`).
fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

#[test]
fn what_is_seen_of_a_run_that_goes_on_does_not_go_through_its_supervisor() {
    const SIZE: u64 = 16 << 20;
    let server = Server::start(&[]);
    let (whole, (open, wait)) = (server.dir().join("whole"), gate(&server, "gate"));
    let id = leave(&server, &format!("head -c {SIZE} /dev/zero; : > {}; {wait}", whole.display()));
    wait_until("its output", || whole.exists());
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    for _ in 0..3 {
        // What it has read last may still be on its way into the file.
        wait_until("all of it", || verb(&server, "logs", &[&id]).stdout.len() as u64 == SIZE);
    }
    let written = written(supervisor);
    assert!((SIZE..SIZE + SIZE / 8).contains(&written), "{written}");
    std::fs::write(open, "").unwrap();
    assert_eq!(verb(&server, "attach", &[&id]).expect(0).stdout.len() as u64, SIZE);
}

/// The record goes while it is on its way to a client that reads slowly.
#[test]
fn who_sees_a_run_live_has_all_of_it_whatever_becomes_of_the_record_and_the_supervisor() {
    const SIZE: usize = 32 << 20;
    for is_killed in [false, true] {
        let server = Server::start(&[]);
        let (open, wait) = gate(&server, "gate");
        let id = leave(&server, &format!("echo; {wait}; head -c {SIZE} /dev/zero"));
        let mut viewer = Client::new(server.state()).args(&["attach", &server.addr, &id]).spawn();
        let mut first = [0];
        viewer.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let supervisor = supervisors(server.state())[0];
        std::fs::write(open, "").unwrap();
        verb(&server, "wait", &[&id]).expect(0);
        if is_killed {
            try_kill(supervisor, rustix::process::Signal::KILL);
        }
        verb(&server, "rm", &[&id]).expect(0);
        let ran = finish(viewer).expect(0);
        assert_eq!(ran.stdout.len(), SIZE, "beside the first byte");
    }
}

/// `rexec attach ADDR RUN | head -1`, of a run that writes and does not end.
#[test]
fn who_cannot_write_what_it_sees_leaves_at_once_and_the_run_goes_on() {
    let server = Server::start(&[]);
    let (open, wait) = gate(&server, "gate");
    let loop_of = wait.replace("sleep 0.01", "echo line; sleep 0.01");
    let id = leave(&server, &loop_of);
    let mut viewer = Client::new(server.state()).args(&["attach", &server.addr, &id]).spawn();
    drop(viewer.stdout.take());
    let ran = Ran::of(viewer.wait_with_output().unwrap()).expect(141);
    assert_eq!(ran.stderr, "rexec: stdout was closed; the run was left alone\n");
    for name in ["attach", "logs"] {
        let mut viewer = Client::new(server.state()).args(&[name, &server.addr, &id]);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = viewer.command.stdout(full).stderr(std::process::Stdio::piped()).spawn();
        let ran = Ran::of(child.unwrap().wait_with_output().unwrap()).expect(252);
        assert!(ran.stderr.ends_with("; the run was left alone\n"), "{}", ran.stderr);
    }
    std::fs::write(open, "").unwrap();
    verb(&server, "wait", &[&id]).expect(0);
}

/// Two pipes have no order of their own: what was read of them has one, for everybody.
#[test]
fn whoever_sees_a_run_sees_its_frames_in_the_same_order() {
    let server = Server::start(&[]);
    let (open, wait) = gate(&server, "gate");
    let line = "echo $i; echo $i >&2; sleep 0.001";
    let text =
        format!("for i in $(seq 50); do {line}; done; {wait}; for i in $(seq 50); do {line}; done");
    let id = leave(&server, &text);
    let attach = || {
        let mut raw = Raw::login(&server);
        raw.send(&json!({"type": "attach", "run": id}), b"");
        raw.expect("started");
        raw
    };
    let early = [attach(), attach()];
    wait_until("half of it", || verb(&server, "logs", &[&id]).text().lines().count() == 50);
    let middle = attach();
    std::fs::write(open, "").unwrap();
    verb(&server, "wait", &[&id]).expect(0);
    let [one, two] = early;
    let seen = [one, two, middle, attach()].map(|mut raw| {
        let mut frames = raw.until("verdict");
        frames.retain(|(header, _)| header["type"] == "output");
        frames
    });
    assert!(seen[0].len() > 100, "{} frames", seen[0].len());
    assert!(seen.iter().all(|frames| *frames == seen[0]));
}

/// Who asks again and leaves is told that the run is there, not what it wrote.
#[test]
fn who_leaves_a_run_that_was_there_before_is_sent_nothing_of_its_record() {
    const SIZE: u64 = 24 << 20;
    const LITTLE: u64 = 64 << 10;
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let ask = |options: &[&str], command: &[&str], script: &str| {
        let (client, before) = (Client::new(server.state()).args(options), relay.sent_down());
        let ran = client.arg(&relay.addr).args(command).run_with(script.as_bytes());
        (ran, relay.sent_down() - before)
    };
    let asked = |code, options: &[&str], command: &[&str], script: &str| {
        let (ran, sent) = ask(options, command, script);
        assert!(sent < LITTLE, "{options:?} {command:?}: {sent} bytes");
        ran.expect(code)
    };
    let (open, wait) = gate(&server, "gate");
    let text = format!("head -c {SIZE} /dev/zero; echo >&2; {wait}; exit 7");
    let script = format!("{text}\n");
    asked(0, &["-d", "--id", "text"], &[&text], "");
    asked(0, &["-d", "--id", "script"], &[], &script);
    for is_over in [false, true] {
        if is_over {
            std::fs::write(&open, "").unwrap();
        }
        for id in ["text", "script"] {
            match is_over {
                true => drop(verb(&server, "wait", &[id]).expect(7)),
                // What is on standard error comes behind all of the output.
                false => wait_until("output", || verb(&server, "logs", &[id]).stderr == "\n"),
            }
        }
        let again = asked(0, &["-d", "--id", "text"], &[&text], "");
        assert_eq!(again.text(), "text\n");
        assert_eq!(asked(0, &["-d", "--id", "script"], &[], &script).text(), "script\n");
        asked(250, &["-d", "--id", "text"], &["true"], "");
        asked(250, &["-d", "--id", "script"], &[], "echo another\n");
        let (ps, is) = (verb(&server, "ps", &[]).expect(0).text(), ["running", "exited 7"]);
        assert_eq!(ps.matches(is[usize::from(is_over)]).count(), 2, "{ps}");
    }
    let (ran, sent) = ask(&["-n", "--id", "text"], &[&text], "");
    assert_eq!(ran.expect(7).stdout.len() as u64, SIZE);
    assert!(sent > SIZE, "the relay counts: {sent} bytes");
}

/// Its stdout takes the output more slowly than the server sends that, and that it is all there is.
#[test]
fn all_that_is_left_of_a_lost_run_is_written_before_that_is_said() {
    const SIZE: u64 = 3 << 20;
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let (_, wait) = gate(&server, "gate");
    let text = format!("head -c {SIZE} /dev/zero; echo >&2; {wait}");
    Client::new(server.state()).args(&["-d", "--id", "job", &server.addr, &text]).run().expect(0);
    wait_until("its output", || verb(&server, "logs", &["job"]).stderr == "\n");
    for supervisor in supervisors(server.state()) {
        try_kill(supervisor, rustix::process::Signal::KILL);
    }
    verb(&server, "wait", &["job"]).expect(253);
    for args in [["logs", &relay.addr, "job"], ["attach", &relay.addr, "job"]] {
        shown_slowly(&server, &relay, &args, SIZE);
    }
    shown_slowly(&server, &relay, &["-n", "--id", "job", &relay.addr, &text], SIZE);
}

fn shown_slowly(server: &Server, relay: &Relay, args: &[&str], size: u64) {
    let before = relay.sent_down();
    let client = Client::new(server.state()).args(args).spawn();
    wait_until("what was sent", || relay.sent_down() - before > size);
    let ran = finish(client).expect(253);
    assert_eq!(ran.stdout.len() as u64, size, "{args:?}");
    assert!(ran.stderr.starts_with("\nrexec: cannot know how run job ended"), "{}", ran.stderr);
}
