//! Durable runs on a disk that is full: the command waits, nothing of its record is missing, and whoever
//! stops it is obeyed.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::durable::{leave, verb};
use super::support::mounts::Mounts;
use super::support::server::{finish, line_of, own_port, spare_supervisors, stop_supervisors};
use super::support::{Client, Server, kill, wait_until};

const MIB: u64 = 1 << 20;
/// What stays free for the journal.
const RESERVE: u64 = 64 * MIB;

/// A disk of 96 MiB for an instance, or a folder in it, which only its servers see.
pub(super) struct Disk {
    mounts: Mounts,
    dir: TempDir,
}

impl Disk {
    /// None where mounting is not permitted.
    fn new() -> Option<Self> {
        Self::of("")
    }

    /// One for this folder in the instance's.
    pub(super) fn of(folder: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("state/instances/test").join(folder);
        let script = "umask 077 && mkdir -p $1 && mount -t tmpfs -o size=96m,mode=700 none $1";
        let mounts = Mounts::by(script, &folder);
        if mounts.is_none() {
            println!("left out: mounting is not permitted here");
        }
        Some(Self { mounts: mounts?, dir })
    }

    pub(super) fn server(&self, listen: &str, args: &[&str]) -> Server {
        let state = self.dir.path().join("state");
        Server::at(&state, listen, args, |command| self.mounts.show(command))
    }

    /// The instance's folder as its servers see it.
    fn folder(&self) -> PathBuf {
        self.mounts.seen(&self.dir.path().join("state/instances/test"))
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.folder()).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Takes all but so many bytes.
    fn fill(&self, left: u64) {
        let mut file = std::fs::File::create(self.folder().join("fill")).unwrap();
        let zeros = vec![0; 64 * 1024];
        while self.free() > left && file.write_all(&zeros).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.folder().join("fill")).unwrap();
    }

    /// Waits until records have all that they may have: the next step of one of so much would go into the
    /// reserve.
    fn wait_until_full(&self) {
        wait_until("the full disk", || self.free() < RESERVE + 5 * MIB);
    }

    fn runs(&self) -> Vec<PathBuf> {
        super::durable::folders_in(&self.folder().join("runs"))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        stop_supervisors(&self.dir.path().join("state"));
    }
}

#[test]
fn a_full_disk_makes_the_command_wait_also_over_a_restart_and_leaves_no_hole() {
    let Some(disk) = Disk::new() else { return };
    let mut server = disk.server(&own_port(), &[]);
    let (gate, written) = (disk.dir.path().join("gate"), disk.dir.path().join("written"));
    let command = format!(
        "echo first; while ! test -e {}; do sleep 0.01; done; seq 1 1000000; echo x > {}; exit 7",
        gate.display(),
        written.display()
    );
    let id = leave(&server, &command);
    wait_until("its first line", || verb(&server, "logs", &[&id]).stdout == b"first\n");
    disk.fill(RESERVE - MIB);
    std::fs::write(gate, "").unwrap();
    let record = disk.runs()[0].join("record");
    // Some 200 KiB were set aside before.
    wait_until("what there was room for", || record.metadata().unwrap().len() > 10_000);
    let mut viewer = Client::new(server.state()).args(&["attach", &server.addr, &id]).spawn();
    assert_eq!(line_of(&mut viewer), "first");
    server.crash();
    server = disk.server(&server.addr.clone(), &[]);
    assert!(verb(&server, "ps", &[]).expect(0).text().contains("  running  "));
    assert!(!written.exists(), "the command waits");
    disk.empty();
    let numbers: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(finish(viewer).expect(7).text() == numbers, "a viewer has it all");
    let late = verb(&server, "attach", &[&id]).expect(7).text();
    assert!(late.strip_prefix("first\n") == Some(&numbers), "and who comes late");
}

#[test]
fn a_run_that_waits_for_a_full_disk_can_be_stopped_and_its_verdict_is_kept() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.server("127.0.0.1:0", &[]);
    let only_whole_lines = |output: &[u8]| {
        assert!(output.len() > 1 << 20, "{} bytes", output.len());
        assert!(output.chunks(2).all(|line| line == b"y\n" || line == b"y"));
    };
    // Far more than such a stop takes, far less than anybody would wait for space.
    let soon = Duration::from_secs(30);
    let id = leave(&server, "yes");
    disk.wait_until_full();
    let asked = Instant::now();
    verb(&server, "stop", &[&id]).expect(0);
    assert!(verb(&server, "wait", &[&id]).expect(251).stderr.contains("rexec stop"));
    assert!(asked.elapsed() < soon, "{:?}", asked.elapsed());
    let attached = verb(&server, "attach", &[&id]).expect(251);
    only_whole_lines(&attached.stdout);
    verb(&server, "rm", &[&id]).expect(0);

    let client = Client::new(server.state()).args(&["-d", "--timeout", "4s", &server.addr, "yes"]);
    let id = client.run().expect(0).text();
    disk.wait_until_full();
    let mut waiting = Client::new(server.state()).args(&["wait", &server.addr, id.trim()]).spawn();
    wait_until("the deadline", || waiting.try_wait().unwrap().is_some());
    finish(waiting).expect(124);
    only_whole_lines(&verb(&server, "attach", &[id.trim()]).expect(124).stdout);
    verb(&server, "rm", &[id.trim()]).expect(0);

    let mut client = Client::new(server.state()).args(&["--durable", &server.addr, "yes"]);
    client.command.stdout(std::fs::File::create(disk.dir.path().join("output")).unwrap());
    let mut client = client.command.stderr(Stdio::piped()).spawn().unwrap();
    disk.wait_until_full();
    let asked = Instant::now();
    kill(client.id(), Signal::TERM);
    wait_until("its end", || client.try_wait().unwrap().is_some());
    assert_eq!(client.wait().unwrap().code(), Some(143));
    assert!(asked.elapsed() < soon, "{:?}", asked.elapsed());
    only_whole_lines(&std::fs::read(disk.dir.path().join("output")).unwrap());
}

#[test]
fn nothing_durable_is_started_on_a_full_disk_and_nothing_is_left_of_it() {
    let Some(disk) = Disk::new() else { return };
    let server = disk.server("127.0.0.1:0", &[]);
    let effect = disk.dir.path().join("effect");
    let start = || {
        let command = format!("echo x >> {}", effect.display());
        Client::new(server.state()).args(&["--id", "job", &server.addr, &command]).run()
    };
    disk.fill(RESERVE - MIB);
    let refused = start().expect(254);
    for text in ["the disk is full", "64 MiB of it stay free", "out_of_resources"] {
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
    }
    assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
    assert!(disk.runs().is_empty() && !effect.exists());
    // A run that is not durable needs none of it.
    server.run(&["exit 3"]).expect(3);
    disk.fill(0);
    start().expect(254);
    assert!(disk.runs().is_empty() && !effect.exists());
    disk.empty();
    start().expect(0);
    assert_eq!(std::fs::read_to_string(&effect).unwrap(), "x\n");
    // What waits for the next run has a place on the disk, and none for a record.
    wait_until("a supervisor that waits", || spare_supervisors(server.state()).len() == 1);
    verb(&server, "rm", &["job"]).expect(0);
    let before = disk.runs();
    for left in [0, RESERVE - MIB] {
        disk.fill(left);
        let other = Client::new(server.state()).args(&["--id", "other", &server.addr, "echo out"]);
        other.run().expect(254);
        assert_eq!(disk.runs(), before, "{left} bytes left");
        disk.empty();
    }
    let other = Client::new(server.state()).args(&["--id", "other", &server.addr, "echo out"]);
    assert_eq!(other.run().expect(0).text(), "out\n");
}
