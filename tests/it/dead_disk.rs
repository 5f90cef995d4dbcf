//! A folder on a file system that does not answer, as that of a file server that is gone: whoever names it waits, and
//! nobody else.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::json;

use super::support::mounts::Mounts;
use super::support::raw::Raw;
use super::support::server::{finish, line_of, own_port};
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

/// A program that starts when this is told: until then it is leased (F_SETLEASE of fcntl(2)), and whoever opens it waits.
/// Its holder has it open for reading only: of a file that is open for writing execve(2) says ETXTBSY, and the lease
/// ends a moment before the file is closed.
struct Leased {
    path: PathBuf,
    holder: Child,
}

impl Leased {
    fn new(server: &Server) -> Self {
        let path = server.dir().join("leased");
        let script = "import fcntl, os, shutil, signal, sys\n\
                      signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                      shutil.copy('/bin/sleep', sys.argv[1])\n\
                      file = os.open(sys.argv[1], os.O_RDONLY)\n\
                      fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                      print('leased', flush=True)\n\
                      sys.stdin.read()";
        let mut command = Command::new("python3");
        command.args(["-c", script]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().unwrap();
        assert_eq!(line_of(&mut holder), "leased");
        Self { path, holder }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn let_go(mut self) {
        drop(self.holder.stdin.take());
        assert!(self.holder.wait().unwrap().success());
    }
}

/// Its client has asked for the end of the run, and was not told that nobody will hear.
#[test]
fn a_cancel_holds_also_if_its_client_leaves_before_the_run_has_started() {
    let server = Server::start(&[]);
    for durable in [false, true] {
        let leased = Leased::new(&server);
        let mut raw = Raw::login(&server);
        let id = format!("held-{durable}");
        let mut run = json!({"type": "run", "id": id, "form": "argv", "words": 2});
        run["durable"] = json!(durable);
        let words = format!("{}\x00600\x00", leased.path().display());
        raw.send_at_once(&[(&run, words.as_bytes()), (&json!({"type": "cancel"}), b"")]);
        raw.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(raw.next(), None, "{run}");
        leased.let_go();
        let ended = || server.journal().into_iter().find(|line| line["verdict"]["run"] == id);
        wait_until("what became of it", || ended().is_some());
        assert_eq!(ended().unwrap()["verdict"]["stopped"]["by"], "client", "{id}");
        std::fs::remove_file(server.dir().join("leased")).unwrap();
    }
}
