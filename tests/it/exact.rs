//! Output is whole and exact, or the status says that it is not.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::support::raw::Raw;
use super::support::relay::Relay;
use super::support::server::{Client, Server, finish, line_of, under};
use super::support::{in_parallel, is_alive, kill, memory_kib, pid_in, wait_until};

/// kubernetes/kubernetes#124571, hashicorp/nomad#27146, Eugeny/russh#213. The relay carries at most 16 KiB
/// a millisecond for each of six clients, far less than `seq` writes, so that every buffer on the way is
/// full most of the time.
#[test]
fn two_million_lines_are_exact_a_hundred_times_over_a_slow_link() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.throttle(16 * 1024);
    let expected = Command::new("seq").args(["1", "2000000"]).output().unwrap().stdout;
    in_parallel(6, 100, |_| {
        let client = Client::new(server.state()).args(&[&relay.addr, "seq 1 2000000"]);
        let ran = client.run();
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout == expected, "{} bytes of {}", ran.stdout.len(), expected.len());
    });
}

/// containers/podman#9096. What was written is kept beside, and no two runs write the same.
#[test]
fn half_a_million_bytes_are_exact_a_hundred_times() {
    let server = Server::start(&[]);
    in_parallel(3, 100, |number| {
        let copy = server.dir().join(format!("copy-{number}"));
        let text = format!(
            "dd if=/dev/urandom bs=500000 count=1 iflag=fullblock 2>/dev/null | tee {}",
            copy.display()
        );
        let ran = server.run(&[&text]).expect(0);
        let written = std::fs::read(copy).unwrap();
        assert_eq!((ran.stdout.len(), written.len()), (500_000, 500_000));
        assert!(ran.stdout == written);
    });
}

#[test]
fn much_goes_through_cat_both_ways() {
    let server = Server::start(&[]);
    let input: Vec<u8> = (0..(64 << 20) / 8u64).flat_map(u64::to_le_bytes).collect();
    let ran = server.client().arg("cat").run_with(&input);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout == input, "{} bytes came back", ran.stdout.len());
}

/// A local reader that stops reading fills every buffer; the client still hears its user.
#[test]
fn a_blocked_stdout_does_not_keep_a_cancel_from_being_answered() {
    let server = Server::start(&[]);
    let (heard, pid) = (server.dir().join("heard"), server.dir().join("pid"));
    let text = format!(
        "trap 'echo > {}' INT; exec 3<&0; cat <&3 & echo $! > {}; while :; do wait; done",
        heard.display(),
        pid.display()
    );
    let mut client = server.client().arg(text);
    client.command.stdin(File::open("/dev/zero").unwrap());
    let mut child = client.spawn();
    wait_until("a full pipe", || is_full(&child));
    kill(child.id(), Signal::INT);
    wait_until("the first Ctrl-C to arrive", || heard.exists());
    kill(child.id(), Signal::INT);
    wait_until("the answer although nobody reads stdout", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_until("the end of cat", || !is_alive(pid_in(&pid)));
}

/// For a minute nobody reads what comes back. Then one reader has it all, and another's user gives up. The
/// minute is what is tested: no patience of either end may run out, and nothing grow, while nobody reads.
#[test]
fn a_minute_without_a_reader_loses_nothing_and_a_cancel_is_answered_after_it() {
    let server = Server::start(&[]);
    let input: Vec<u8> = (0..(256 << 20) / 8u64).flat_map(u64::to_le_bytes).collect();
    let file = server.dir().join("input");
    std::fs::write(&file, &input).unwrap();
    let start = || {
        let mut client = server.client().arg("cat");
        client.command.stdin(File::open(&file).unwrap());
        client.spawn()
    };
    let (patient, mut given_up) = (start(), start());
    wait_until("two full pipes", || is_full(&patient) && is_full(&given_up));
    std::thread::sleep(std::time::Duration::from_mins(1));
    for pid in [patient.id(), given_up.id(), server.pid()] {
        assert!(memory_kib(pid, "VmHWM") < 64 << 10, "process {pid} has grown");
    }
    kill(given_up.id(), Signal::TERM);
    wait_until("the answer", || given_up.try_wait().unwrap().is_some());
    assert_eq!(given_up.wait().unwrap().code(), Some(143));
    let ran = finish(patient).expect(0);
    assert!(ran.stdout == input, "{} bytes came back", ran.stdout.len());
}

/// A run whose output cannot all be delivered here never counts as complete: not even when it had ended
/// by itself, with 0, before its user gave up. Its 228,894 bytes fit into the first window, so that the
/// verdict is not held up by what nobody reads.
#[test]
fn output_that_its_user_gave_up_is_not_a_success() {
    let server = Server::start(&[]);
    let child = server.client().arg("seq 1 40000").spawn();
    wait_until("a full pipe", || is_full(&child));
    wait_until("the verdict", || server.journal().iter().any(|line| line["type"] == "ended"));
    kill(child.id(), Signal::TERM);
    wait_until("the client's end", || !is_alive(child.id()));
    let ran = finish(child).expect(143);
    assert!(ran.stderr.contains("the rest of the output was given up"), "{}", ran.stderr);
}

/// Whether the pipe under a client's stdout takes nothing more.
fn is_full(child: &Child) -> bool {
    rustix::io::ioctl_fionread(child.stdout.as_ref().unwrap()).unwrap() >= 65_536
}

/// 300,000 bytes are more than the first window and less than window and pipe together: the command
/// ends, and part of its output is still in the pipe.
#[test]
fn a_window_that_is_full_when_the_command_ends_loses_nothing() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("full", "head -c 300000 /dev/zero; exit 5", json!({}));
    let (started, _) = raw.expect("started");
    let pid = u32::try_from(started["pid"].as_u64().unwrap()).unwrap();
    wait_until("the end of the command", || !is_alive(pid));
    // Not to wait for something: so long, four times the drain limit, there is no room, and that
    // time must not count.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut received = 0;
    let verdict = loop {
        let (header, body) = raw.next().unwrap();
        match header["type"].as_str().unwrap() {
            "output" => {
                received += body.len();
                raw.send(&json!({"type": "ack", "seq": header["seq"]}), b"");
            }
            "verdict" => break header,
            _ => {}
        }
    };
    assert_eq!((received, &verdict["stdout"]["size"]), (300_000, &json!(300_000)));
    assert_eq!(verdict["stdout"]["end"], "eof");
    assert_eq!(verdict["end"], json!({"exited": {"code": 5}}));
}

#[test]
fn a_reader_that_has_enough_stops_the_command() {
    let server = Server::start(&[]);
    let file = server.dir().join("pid");
    let text = format!("echo $$ > {}; exec yes", file.display());
    let mut child = server.client().arg(text).spawn();
    assert_eq!(line_of(&mut child), "y");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    wait_until("the end of yes", || !is_alive(pid_in(&file)));
}

#[test]
fn a_full_disk_under_stdout_is_252_with_a_line() {
    let server = Server::start(&[]);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut client = server.client().arg("echo hi");
    client.command.stdout(full()).stderr(Stdio::piped());
    let output = client.command.spawn().unwrap().wait_with_output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(252), "{line}");
    assert!(line.contains("No space left on device") && line.lines().count() == 1, "{line}");
    let ran = server.run(&["-o", "/dev/full", "echo hi"]).expect(252);
    assert!(ran.stderr.contains("No space left on device"), "{}", ran.stderr);
}

/// `ulimit -f`: without a handler SIGXFSZ ends who writes too much.
#[test]
fn a_file_over_the_limit_of_this_process_is_252_with_a_line_and_nothing_is_left_of_it() {
    let server = Server::start(&[]);
    let folder = server.dir().join("saved");
    std::fs::create_dir(&folder).unwrap();
    let mut client = server.client();
    client = client.args(&["-o", folder.join("f").to_str().unwrap(), "head -c 100000 /dev/zero"]);
    under(&["sh", "-c", "ulimit -f 8; exec \"$0\" \"$@\""])(&mut client.command);
    let ran = client.run().expect(252);
    assert!(ran.stderr.contains("File too large"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}
