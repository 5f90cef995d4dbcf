//! Hosts that refuse, hang, die, flood and lie: all others finish, and each has its verdict.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use super::super::support::fake::{Fake, welcome};
use super::super::support::fleet::Fleet;
use super::super::support::{Client, Server, finish, is_alive, wait_until};
use super::nobody;

/// Somebody who accepts every connection and answers each with the same bytes, or with nothing.
pub(super) fn stranger(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Whoever left does not listen.
            let _ = stream.write_all(answer);
            kept.push(stream);
        }
    });
    addr
}

#[test]
fn every_kind_of_bad_host_has_its_verdict_and_the_others_finish() {
    let fleet = Fleet::start(2);
    let elsewhere = Server::start(&[]);
    let (hangs, talks) = (stranger(b""), stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let refuses = Fake::start(|raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "refused", "code": "not_authorized", "text": "not you"}), b"");
    });
    let dies = Fake::started(|_, _| ());
    let lies = Fake::start(|raw| {
        let id = welcome(raw);
        raw.send(&super::super::support::fake::started(&id), b"");
        let header = super::super::support::fake::output("stdout", 1, 0, b"other");
        raw.send(&header, b"false");
        raw.send(&super::super::support::fake::verdict(&id, 2, b"other"), b"");
    });
    let garbles = Fake::started(|raw, _| raw.send_bytes(&[0xff; 64]));
    let expected = [
        (nobody(), "unreachable", 1),
        (hangs, "unreachable", 2),
        (talks, "unreachable", 1),
        (elsewhere.addr.clone(), "unreachable", 1),
        (refuses.address(), "refused", 1),
        (dies.address(), "lost", 1),
        (lies.address(), "lost", 1),
        (garbles.address(), "lost", 1),
    ];
    let more: Vec<&str> = expected.iter().map(|(addr, ..)| addr.as_str()).collect();
    let times = ["--connect-timeout", "5s", "--reconnect-timeout", "300ms", "--retries", "1"];
    let ran =
        fleet.batch(&more).args(&times).args(&["--json", "-s", "echo well"]).run().expect(254);
    let summary: Value = serde_json::from_str(ran.text().lines().last().unwrap()).unwrap();
    let verdicts = summary["verdicts"].as_array().unwrap();
    let of = |addr: &str| verdicts.iter().filter(|v| v["host"] == addr).collect::<Vec<_>>();
    for addr in fleet.addrs() {
        assert_eq!((of(&addr).len(), &of(&addr)[0]["verdict"]), (1, &json!("ok")));
    }
    for (addr, verdict, least) in &expected {
        let mine = of(addr);
        assert_eq!(
            (mine.len(), mine[0]["verdict"].as_str()),
            (1, Some(*verdict)),
            "{addr}: {mine:?}"
        );
        assert!(mine[0]["message"].is_string(), "{mine:?}");
        assert!(mine[0]["attempts"].as_u64().unwrap() >= *least, "{mine:?}");
    }
    assert_eq!(refuses.connections(), 1, "who does not let us in is not asked again");
    assert_eq!(of(&elsewhere.addr)[0]["attempts"], 1, "a wrong host key stays one");
}

#[test]
fn a_host_that_dies_in_the_middle_is_lost_and_the_others_finish() {
    let fleet = Fleet::start(2);
    let mut dying = fleet.first().beside("dying", &[]);
    let dir = fleet.first().dir().to_owned();
    let script = format!(
        "echo > {0}/$$.begun; while [ ! -e {0}/go ]; do sleep 0.02; done; echo end",
        dir.display()
    );
    let child =
        fleet.batch(&[&dying.addr]).args(&["--reconnect-timeout", "500ms", "-s", &script]).spawn();
    let begun = || {
        let names = fs::read_dir(&dir).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".begun")).count()
    };
    wait_until("three hosts under way", || begun() == 3);
    dying.crash();
    fs::write(dir.join("go"), "").unwrap();
    let ran = finish(child).expect(253);
    assert_eq!(
        ran.text().lines().filter(|line| line.ends_with(" out: end")).count(),
        2,
        "{}",
        ran.text()
    );
    assert!(ran.stderr.contains(&format!("{}: lost: ", dying.addr)), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 ok, 1 lost"), "{}", ran.stderr);
}

/// The client's memory, in KiB.
pub(super) fn peak(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn hosts_that_flood_do_not_fill_memory() {
    const BYTES: u64 = 40_000_000;
    let fleet = Fleet::start(3);
    let dir = fleet.first().dir();
    let (out, first) = (dir.join("out"), dir.join("first"));
    // One host holds the batch open, the others flood.
    let script = format!(
        "mkdir {0} 2>/dev/null && while [ ! -e {0}/go ]; do sleep 0.05; done || yes $(seq 20) | head -c {BYTES}",
        first.display()
    );
    let mut client = fleet.batch(&[]).args(&["--output", "grouped", "-s", &script]);
    client.command.stdout(fs::File::create(&out).unwrap());
    let mut child = client.command.spawn().unwrap();
    wait_until("two floods", || fs::metadata(&out).unwrap().len() > 2 * BYTES);
    assert!(is_alive(child.id()));
    let peak = peak(child.id());
    fs::write(first.join("go"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(peak < 64 * 1024, "{peak} KiB");
}

#[test]
fn a_closed_output_stops_everything() {
    let fleet = Fleet::start(2);
    // Neither says anything before both are under way.
    let script = format!(
        "cd {}; echo > $$.begun; until [ $(ls | grep -c begun) = 2 ]; do sleep 0.01; done; \
         echo first; sleep 0.2; while echo more; do :; done",
        fleet.first().dir().display()
    );
    let mut child = fleet.batch(&[]).args(&["-s", &script]).spawn();
    let line = super::super::support::server::line_of(&mut child);
    assert!(line.ends_with(" out: first"), "{line}");
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(141), "{stderr}");
    assert!(stderr.contains("2 stopped"), "{stderr}");
}

#[test]
fn an_output_that_cannot_be_written_stops_everything_and_is_no_closed_one() {
    let fleet = Fleet::start(1);
    let mut client = fleet.batch(&[]).args(&["-s", "echo more; exec sleep 600"]);
    client.command.stdout(fs::File::options().write(true).open("/dev/full").unwrap());
    let ran = client.run().expect(252);
    assert!(ran.stderr.contains("the output cannot be written\n"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("closed"), "{}", ran.stderr);
}

/// Thread: saltstack/salt#55652: of many hosts none is lost in silence.
#[test]
fn of_hundreds_of_hosts_each_has_its_verdict() {
    const GOOD: usize = 200;
    const BAD: usize = 20;
    let listen: Vec<String> =
        (0..GOOD - 1).map(|n| format!("127.0.{}.{}:0", n / 100, n % 100 + 2)).collect();
    let args: Vec<&str> = listen.iter().flat_map(|addr| ["--listen", addr]).collect();
    let mut server = Server::start(&args);
    let mut addrs = vec![server.addr.clone()];
    addrs.extend((1..GOOD).map(|_| server.announced()));
    addrs.extend((0..BAD).map(|_| nobody()));
    let hosts = server.dir().join("hosts");
    fs::write(&hosts, addrs.join("\n")).unwrap();
    let client = Client::new(server.state()).args(&["batch", "--hosts", hosts.to_str().unwrap()]);
    let args = ["-j", "64", "--retries", "0", "-s", "echo a", "-s", "echo b"];
    let ran = client.args(&args).env("CI", "").run().expect(254);
    for addr in &addrs[..GOOD] {
        let mine: Vec<_> = ran
            .stdout
            .split(|b| *b == b'\n')
            .filter(|l| l.starts_with(format!("{addr} ").as_bytes()))
            .collect();
        assert_eq!(mine.len(), 2, "{addr}");
    }
    let counts = format!("{} ok, {BAD} unreachable, {BAD} not started", 2 * GOOD);
    assert!(ran.stderr.contains(&counts), "{}", ran.stderr);
    let row = format!("{BAD:>6}  127.0.0.1:[");
    let last = ran.stderr.lines().rev().take(3).collect::<Vec<_>>();
    assert!(last.iter().any(|line| line.starts_with(&row)), "{last:?}");
}
