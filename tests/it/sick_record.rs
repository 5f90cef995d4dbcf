//! A disk that fails when the end of a durable run is put on it: the run has one end all the same, for whoever asks.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::Signal;

use super::durable::{folders_in, verb};
use super::durable_kill::pause_file;
use super::resume::executions;
use super::support::mounts::Mounts;
use super::support::served::Served;
use super::support::server::{finish, own_port, stop_supervisors};
use super::support::{Client, Server, kill, wait_until};

/// A run whose client was told of its end, which could not be put on the disk.
struct Sick {
    dir: tempfile::TempDir,
    mounts: Mounts,
    _disk: Served,
    server: Server,
    folder: PathBuf,
}

const NOT_NOTED: &str = "cannot note how it ended";

impl Sick {
    /// None where it cannot be mounted. The disk fails under this file of the run's folder.
    fn new(file: &str, error: Errno) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let (state, reached) = (dir.path().join("state"), pause_file());
        drop(Served::at(&dir.path().join("probe"))?);
        let mounts = Mounts::by("true", dir.path()).unwrap();
        let server = Server::at(&state, &own_port(), &[], |command| {
            command.env("REXEC_PAUSE_AT", "journaled").env("REXEC_PAUSE_FILE", &reached);
            mounts.show(command);
        });
        let client = asking(&server, dir.path()).spawn();
        wait_until("the end of the run", || reached.exists());
        let folder = folders_in(&state.join("instances/test/runs")).remove(0);
        let disk = Served::over(&folder.join(file), &mounts).unwrap();
        disk.set_sync(Err(error));
        kill(server.pid(), Signal::CONT);
        assert_eq!(finish(client).expect(7).text(), "out\n");
        wait_until("what the server says of it", || server.log().contains(NOT_NOTED));
        Some(Self { dir, mounts, _disk: disk, server, folder })
    }

    /// Whoever asks is told the same, and nothing runs again.
    fn has_its_end(&self) {
        assert_eq!(verb(&self.server, "attach", &["job"]).expect(7).text(), "out\n");
        verb(&self.server, "wait", &["job"]).expect(7);
        assert!(verb(&self.server, "ps", &[]).expect(0).text().contains("exit 7"));
        assert_eq!(asking(&self.server, self.dir.path()).run().expect(7).text(), "out\n");
        assert_eq!(executions(&self.dir.path().join("effect")), 1);
        let ends = self.server.journal().iter().filter(|line| line["type"] == "ended").count();
        assert_eq!(ends, 1);
    }

    fn is_noted(&self) -> bool {
        self.folder.join("outcome.json").exists()
    }
}

impl Drop for Sick {
    fn drop(&mut self) {
        stop_supervisors(self.server.state());
    }
}

fn asking(server: &Server, dir: &Path) -> Client {
    let text = format!("echo x >> {}/effect; echo out; exit 7", dir.display());
    Client::new(server.state()).args(&["--id", "job", &server.addr, &text])
}

#[test]
fn an_end_that_does_not_come_to_the_disk_is_told_now_and_by_the_next_servers() {
    for file in ["record", "outcome.json.new"] {
        for error in [Errno::IO, Errno::NOSPC] {
            let Some(mut sick) = Sick::new(file, error) else { return };
            assert!(!sick.is_noted(), "{file}");
            sick.has_its_end();
            let told = sick.server.log().matches(NOT_NOTED).count();
            let mounts = &sick.mounts;
            sick.server.restart_as(&[], |command| mounts.show(command));
            sick.has_its_end();
            let log = || sick.server.log();
            wait_until("another try", || log().matches(NOT_NOTED).count() > told);
            assert!(!sick.is_noted(), "{file}");
            // The next one sees the disk itself.
            sick.server.restart();
            wait_until("its outcome", || sick.is_noted());
            sick.has_its_end();
        }
    }
}
