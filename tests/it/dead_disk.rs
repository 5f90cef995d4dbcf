//! A folder on a file system that does not answer, as that of a file server that is gone: whoever names it waits, and
//! nobody else.

use std::path::PathBuf;

use rustix::process::Signal;

use super::support::mounts::Mounts;
use super::support::server::{finish, own_port};
use super::support::{Server, kill, wait_until};

/// A file system in user space that nobody serves (fuse(4)), which its servers see and nobody else.
struct Dead {
    /// With its end every question is answered: by an error.
    mounts: Mounts,
    dir: tempfile::TempDir,
}

impl Dead {
    /// None where it cannot be mounted.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let script = "mkdir $1 && exec 3<>/dev/fuse && \
                      mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none $1";
        let mounts = Mounts::by(script, &dir.path().join("dead"));
        if mounts.is_none() {
            println!("left out: file systems in user space cannot be mounted here");
        }
        Some(Self { mounts: mounts?, dir })
    }

    fn server(&self, args: &[&str]) -> Server {
        let state = self.dir.path().join("state");
        Server::at(&state, &own_port(), args, |command| self.mounts.show(command))
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("dead")
    }
}

fn accepted(server: &Server) -> usize {
    server.journal().iter().filter(|line| line["type"] == "accepted").count()
}

#[test]
fn a_folder_that_does_not_answer_holds_up_who_has_named_it_and_nobody_else() {
    let Some(mut dead) = Dead::new() else { return };
    let server = dead.server(&[]);
    let (folder, program) = (dead.path(), dead.path().join("program"));
    let (folder, program) = (folder.to_str().unwrap(), program.to_str().unwrap());
    let path = format!("PATH={folder}");
    let named: [&[&str]; 3] =
        [&["--cwd", folder, "true"], &["--", program], &["-e", &path, "--", "program"]];
    // More than start at a time where there is no reason to wait.
    let processors = std::thread::available_parallelism().unwrap().get();
    let rounds = (0..=processors).flat_map(|_| named);
    let waiting: Vec<_> = rounds.map(|words| server.client().args(words).spawn()).collect();
    wait_until("the last of them", || accepted(&server) == waiting.len());
    assert_eq!(server.run(&["echo well"]).expect(0).text(), "well\n");
    assert_eq!(server.run(&["--cwd", "/", "--", "/bin/pwd"]).expect(0).text(), "/\n");
    assert_eq!(server.run(&["--durable", "--cwd", "/", "pwd"]).expect(0).text(), "/\n");
    // Who does not want to wait any longer need not.
    let mut waiting = waiting.into_iter();
    let mut left = waiting.next().unwrap();
    wait_until("its end", || {
        kill(left.id(), Signal::INT);
        left.try_wait().unwrap().is_some()
    });
    assert_eq!(finish(left).status, 253);
    dead.mounts.let_go();
    for client in waiting {
        finish(client).expect(254);
    }
    server.run(&["true"]).expect(0);
}

#[test]
fn a_server_that_is_to_stop_does_not_wait_for_a_folder_that_does_not_answer() {
    let Some(dead) = Dead::new() else { return };
    let mut server = dead.server(&["--drain-timeout", "1h"]);
    let waiting = server.client().arg("--cwd").arg(dead.path()).arg("true").spawn();
    wait_until("its request", || accepted(&server) == 1);
    kill(waiting.id(), Signal::KILL);
    finish(waiting);
    // No upgrade would know what became of it, and nobody else waits longer than for that to be found out.
    server.signal(Signal::HUP);
    wait_until("the upgrade to be given up", || server.log().contains("no upgrade: a run whose"));
    assert_eq!(server.run(&["echo well"]).expect(0).text(), "well\n");
    server.signal(Signal::TERM);
    wait_until("the first signal to be heard", || server.log().contains("shutting down"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    assert!(server.log().contains("nobody is waited for any more"), "{}", server.log());
}
