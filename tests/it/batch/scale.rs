//! A bad day at scale: five hundred hosts, of which a quarter does wrong in every way there is.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketType};
use serde_json::Value;

use super::super::support::fake::Fake;
use super::super::support::{Client, Server, json_in, program, wait_until};
use super::bad_days::{peak, stranger};
use super::nobody;

const GOOD: usize = 380;
const CLOSED: usize = 30;
const HANG: usize = 20;
const CUT: usize = 19;
const DIE: usize = 10;
const FLOOD: usize = 30;
const GARBLE: usize = 10;
/// Bytes that each of two steps writes there.
const FLOODED: usize = 200_000;
/// The line behind a step's output.
const VERDICT: &str = "-- step \"echo $REXEC_RUN\" ok";
/// What the client may need, whatever comes; the reports of all hosts are a part of it.
const PEAK_KIB: u64 = 64 * 1024;

/// A shell of a server's own, whatever the command is.
fn shell(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    program::made(&path, format!("#!/bin/sh\n{text}\n"));
    path.display().to_string()
}

/// A server at so many addresses, all in all.
fn at_many(
    first: Option<&Server>,
    net: u8,
    count: usize,
    shell: Option<&str>,
) -> (Server, Vec<String>) {
    let listen: Vec<String> =
        (1..count).map(|n| format!("127.{net}.{}.{}:0", n / 200, n % 200 + 1)).collect();
    let mut args: Vec<&str> = listen.iter().flat_map(|addr| ["--listen", addr]).collect();
    args.extend(shell.into_iter().flat_map(|shell| ["--shell", shell]));
    let mut server = match first {
        Some(first) => first.beside(&format!("net{net}"), &args),
        None => Server::start(&args),
    };
    let mut addrs = vec![server.addr.clone()];
    addrs.extend((1..count).map(|_| server.announced()));
    (server, addrs)
}

/// A listener whose queue is full: the system answers no further client (listen(2)).
struct Full {
    addr: SocketAddr,
    _open: (TcpListener, Vec<TcpStream>),
}

impl Full {
    fn new() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        rustix::net::bind(&socket, &any).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let addr = listener.local_addr().unwrap();
        let patience = std::time::Duration::from_millis(50);
        let queued: Vec<_> =
            std::iter::from_fn(|| TcpStream::connect_timeout(&addr, patience).ok()).collect();
        Self { addr, _open: (listener, queued) }
    }
}

/// What was printed of each host: the lines between its head and the next one's.
fn blocks(text: &str) -> HashMap<&str, Vec<&str>> {
    let mut blocks: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut host = "";
    for line in text.lines() {
        match line.strip_prefix("== ").and_then(|rest| rest.strip_suffix(" ==")) {
            Some(name) => {
                assert!(blocks.insert(name, Vec::new()).is_none(), "{name} twice");
                host = name;
            }
            None => blocks.get_mut(host).unwrap().push(line),
        }
    }
    blocks
}

/// The verdicts of each host, in the order of its steps.
fn verdicts(report: &Value) -> HashMap<&str, Vec<&Value>> {
    let mut all: HashMap<&str, Vec<&Value>> = HashMap::new();
    for row in report["verdicts"].as_array().unwrap() {
        let mine = all.entry(row["host"].as_str().unwrap()).or_default();
        mine.push(row);
        assert_eq!(row["step"], mine.len(), "in order, each once: {row}");
    }
    all
}

/// Everybody, and everything that must stay open for as long as the batch runs.
struct Day {
    good: (Server, Vec<String>),
    dying: (Server, Vec<String>),
    flooding: (Server, Vec<String>),
    closed: Vec<String>,
    full: Vec<Full>,
    cut: Vec<Fake>,
    garbling: Vec<Fake>,
}

impl Day {
    fn begin() -> Self {
        let good = at_many(None, 2, GOOD, None);
        let dir = good.0.dir();
        let hang = shell(
            dir,
            "hang",
            &format!("touch {}/$REXEC_RUN.begun; exec sleep 600", dir.display()),
        );
        let flood = shell(dir, "flood", &format!("yes \"$REXEC_RUN\" | head -c {FLOODED}"));
        let dying = at_many(Some(&good.0), 3, DIE, Some(&hang));
        let flooding = at_many(Some(&good.0), 4, FLOOD, Some(&flood));
        let closed = (0..CLOSED).map(|_| nobody()).collect();
        let full = (0..HANG).map(|_| Full::new()).collect();
        let cut = (0..CUT).map(|_| Fake::started(|_, _| ())).collect();
        let garbling = (0..GARBLE).map(|_| Fake::started(|raw, _| raw.send_bytes(&[0xff; 64])));
        let garbling = garbling.collect();
        Self { good, dying, flooding, closed, full, cut, garbling }
    }

    /// Each kind of host, and the verdict on its first step.
    fn expected(&self, talks: &str) -> Vec<(String, &'static str)> {
        let named = |names: &[String], verdict| {
            names.iter().map(move |n| (n.clone(), verdict)).collect::<Vec<_>>()
        };
        let fakes = |fakes: &[Fake]| fakes.iter().map(Fake::address).collect::<Vec<_>>();
        let full: Vec<_> = self.full.iter().map(|full| full.addr.to_string()).collect();
        [
            named(&self.good.1, "ok"),
            named(&self.flooding.1, "ok"),
            named(&self.dying.1, "lost"),
            named(&fakes(&self.cut), "lost"),
            named(&fakes(&self.garbling), "lost"),
            named(&self.closed, "unreachable"),
            named(&full, "unreachable"),
            named(&[talks.to_owned()], "unreachable"),
        ]
        .concat()
    }

    /// Bytes that each step of a host writes.
    fn writes(&self, addr: &String) -> usize {
        if self.flooding.1.contains(addr) { FLOODED } else { 33 }
    }

    /// Bytes that are printed of a host: of one that wrote something its head, and of each step its output
    /// with the end of its last line, and its verdict.
    fn printed(&self, addr: &String, verdict: &str) -> u64 {
        let bytes = self.writes(addr);
        let output = bytes + usize::from(!bytes.is_multiple_of(33));
        let whole = format!("== {addr} ==\n").len() + 2 * (output + VERDICT.len() + 1);
        if verdict == "ok" { whole as u64 } else { 0 }
    }

    fn begun(&self) -> usize {
        let names = fs::read_dir(self.good.0.dir()).unwrap().flatten().map(|e| e.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".begun")).count()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.good.0.dir().join(name)
    }
}

/// Thread: saltstack/salt#55652: of many hosts none is lost in silence.
#[test]
fn of_five_hundred_hosts_the_bad_ones_have_their_verdicts_and_the_others_finish_unmixed() {
    let mut day = Day::begin();
    let expected = day.expected(&stranger(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    assert_eq!(expected.len(), 500);
    let (hosts, out, report) = (day.file("hosts"), day.file("out"), day.file("report"));
    fs::write(&hosts, expected.iter().map(|(addr, _)| format!("{addr}\n")).collect::<String>())
        .unwrap();
    let mut client = Client::new(day.good.0.state()).args(&["batch", "-q", "--output", "grouped"]);
    client = client.args(&[
        "-j",
        "64",
        "--connect-timeout",
        "8s",
        "--reconnect-timeout",
        "500ms",
        "--retries",
        "0",
    ]);
    client = client.args(&["-s", "echo $REXEC_RUN", "-s", "echo $REXEC_RUN"]);
    client = client.arg("--hosts").arg(&hosts).arg("--report").arg(&report);
    for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "GITHUB_STEP_SUMMARY"] {
        client.command.env_remove(name);
    }
    client.command.stdout(fs::File::create(&out).unwrap());
    let mut child = client.command.spawn().unwrap();
    let whole: u64 = expected.iter().map(|(addr, verdict)| day.printed(addr, verdict)).sum();
    wait_until("all hosts but those that are to die", || {
        day.begun() == DIE && fs::metadata(&out).unwrap().len() == whole
    });
    let peak = peak(child.id());
    day.dying.0.crash();
    assert_eq!(child.wait().unwrap().code(), Some(254));
    assert!(peak < PEAK_KIB, "{peak} KiB");

    let (text, report) = (fs::read_to_string(&out).unwrap(), json_in(&report));
    let (blocks, verdicts) = (blocks(&text), verdicts(&report));
    assert_eq!((verdicts.len(), blocks.len()), (500, GOOD + FLOOD));
    for (addr, verdict) in &expected {
        let mine = &verdicts[addr.as_str()];
        let told: Vec<_> = mine.iter().map(|row| row["verdict"].as_str().unwrap()).collect();
        let second = if *verdict == "ok" { "ok" } else { "not_started" };
        assert_eq!(told, [*verdict, second], "{addr}: {mine:?}");
        if day.full.iter().any(|full| full.addr.to_string() == *addr) {
            let why = mine[0]["message"].as_str().unwrap();
            assert!(why.contains("no answer") || why.contains("did not answer"), "{why}");
        }
        if *verdict == "ok" {
            check_block(&blocks[addr.as_str()], mine, day.writes(addr));
        }
    }
}

/// Every line of a block is the id of the run that wrote it.
fn check_block(block: &[&str], rows: &[&Value], bytes: usize) {
    let whole = bytes / 33;
    let mut rest = block;
    for row in rows {
        let run = row["run"].as_str().unwrap();
        let (lines, after) = rest.split_at(bytes.div_ceil(33));
        assert!(lines[..whole].iter().all(|line| *line == run), "{row}");
        assert!(lines[whole..].iter().all(|line| run.starts_with(line)), "{row}");
        assert_eq!(after[0], VERDICT);
        rest = &after[1..];
    }
    assert!(rest.is_empty(), "{rest:?}");
}
