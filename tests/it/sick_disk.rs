//! A disk that fails under the journal: nothing is started whose claim it may not have.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use serde_json::Value;

use super::durable::{folders_in, verb};
use super::resume::executions;
use super::support::served::Served;
use super::support::server::{own_port, stop_supervisors};
use super::support::{Client, Ran, Server};

/// An instance whose journal's first segment is on such a disk.
struct Sick {
    disk: Served,
    dir: tempfile::TempDir,
}

impl Sick {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Served::at(&journal_in(dir.path()).join("000001.jsonl"))?;
        Some(Self { disk, dir })
    }

    fn server(&self, args: &[&str]) -> Server {
        let state = self.dir.path().join("state");
        Server::at(&state, &own_port(), args, |command| self.disk.show(command))
    }

    /// Where the journal goes on.
    fn journal(&self) -> PathBuf {
        journal_in(self.dir.path())
    }

    fn second_segment(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.journal().join("000002.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The whole chain, as whoever sees the disk finds it.
    fn verify(&self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["journal", "verify", "--name", "test"]);
        command.env("REXEC_STATE_DIR", self.dir.path().join("state"));
        self.disk.show(&mut command);
        let verified = command.output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        stop_supervisors(&self.dir.path().join("state"));
    }
}

fn journal_in(dir: &Path) -> PathBuf {
    dir.join("state/instances/test/journal")
}

/// A run that leaves a line.
fn start(server: &Server, options: &[&str], effect: &Path) -> Ran {
    let text = format!("echo x >> {}", effect.display());
    Client::new(server.state()).args(options).args(&[&server.addr, &text]).run()
}

fn refused(ran: Ran) {
    let said = ran.expect(254).stderr;
    assert!(said.contains("cannot write its journal") && said.contains("journal_failed"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

fn times(server: &Server, text: &str) -> usize {
    server.log().matches(text).count()
}

/// An error is told once, and what could not be written is forgotten: the next fdatasync(2) of the file succeeds, and
/// says nothing about it.
#[test]
fn a_segment_that_may_have_lost_a_line_is_not_relied_on_again() {
    let Some(sick) = Sick::new() else { return };
    let mut server = sick.server(&[]);
    let effect = sick.dir.path().join("effect");
    sick.disk.set_sync(Err(Errno::IO));
    refused(start(&server, &["--id", "job"], &effect));
    assert_eq!(executions(&effect), 0);
    assert!(!verb(&server, "ps", &[]).expect(0).text().contains("job"));
    assert!(folders_in(&server.state().join("instances/test/runs")).is_empty());
    // Who is not promised that it is on the disk is served.
    assert_eq!(server.run(&["echo well"]).expect(0).text(), "well\n");
    sick.disk.set_sync(Ok(()));
    start(&server, &["--id", "job"], &effect).expect(0);
    assert_eq!(executions(&effect), 1);
    let claims = |line: &&Value| line["type"] == "accepted" && line["run"] == "job";
    let second = sick.second_segment();
    assert_eq!(second.iter().filter(claims).count(), 1, "{second:?}");
    assert_eq!(second[0]["type"], "opened");
    assert!(sick.disk.text().contains("\"not_started\""), "the first is told of as well");
    sick.verify();
    server.crash();
    let server = sick.server(&[]);
    start(&server, &["--id", "job"], &effect).expect(0);
    assert_eq!(executions(&effect), 1);
}

#[test]
fn as_long_as_nothing_comes_to_the_disk_nothing_durable_is_started_and_the_log_is_short() {
    let Some(sick) = Sick::new() else { return };
    let server = sick.server(&[]);
    let effect = sick.dir.path().join("effect");
    // Nor is there another place to write to.
    let taken = sick.journal().join("000002.new");
    fs::create_dir(&taken).unwrap();
    sick.disk.set_sync(Err(Errno::IO));
    let began = std::time::Instant::now();
    for _ in 0..20 {
        refused(start(&server, &["--durable"], &effect));
    }
    // It succeeds, and what was lost is lost.
    sick.disk.set_sync(Ok(()));
    for _ in 0..20 {
        refused(start(&server, &["-d"], &effect));
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap();
    let said = times(&server, "ERROR") + times(&server, "WARN");
    assert!((1..=2 * seconds + 4).contains(&said), "{said} in {seconds} s: {}", server.log());
    assert_eq!(executions(&effect), 0);
    server.run(&["exit 3"]).expect(3);
    fs::remove_dir(taken).unwrap();
    start(&server, &["--durable"], &effect).expect(0);
    assert_eq!(executions(&effect), 1);
    sick.verify();
}

/// Where every run waits for the disk, every run is refused.
#[test]
fn with_journal_sync_always_a_run_in_the_foreground_is_refused_too() {
    let Some(sick) = Sick::new() else { return };
    let server = sick.server(&["--journal-sync", "always"]);
    let effect = sick.dir.path().join("effect");
    sick.disk.set_sync(Err(Errno::IO));
    refused(start(&server, &[], &effect));
    assert_eq!(executions(&effect), 0);
    sick.disk.set_sync(Ok(()));
    start(&server, &[], &effect).expect(0);
    assert_eq!(executions(&effect), 1);
    sick.verify();
}
