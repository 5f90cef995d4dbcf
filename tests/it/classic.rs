//! The tutorial's clients against the real server, which does not serve them as root.

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::support::{PATIENCE, allow_descriptors, program};

/// The account that owns nothing (`nobody` on Debian).
const NOBODY: u32 = 65534;

/// The tutorial's client, as it is usually written: the header's length, the header, the body piece by piece.
const CLIENT: &str = "
import json, socket, struct, sys, hashlib
host, port = sys.argv[1].rsplit(':', 1)
client = socket.create_connection((host, int(port)))
for command in sys.argv[2:]:
    client.send(command.encode('utf-8'))
    n = struct.unpack('i', client.recv(4))[0]
    header = json.loads(client.recv(n).decode('utf-8'))
    body = b''
    while len(body) < header['size']:
        body += client.recv(1024)
    assert header['filename'] is None and hashlib.sha256(body).hexdigest() == header['hash']
    sys.stdout.write(body.decode('utf-8'))
";

/// A server of another account, ended on drop.
struct Nobodys {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    classic: String,
    _dir: tempfile::TempDir,
}

impl Nobodys {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rexec-server");
        program::copied(Path::new(env!("CARGO_BIN_EXE_rexec-server")), &path);
        let own = if rustix::process::geteuid().is_root() { Some(NOBODY) } else { None };
        chown(dir.path(), own, None).unwrap();
        let mut command = Command::new(&path);
        command.args(["--listen", "127.0.0.1:0", "--classic", "json=127.0.0.1:0"]);
        command.env("REXEC_STATE_DIR", dir.path().join("state")).stdout(Stdio::piped());
        command.stderr(Stdio::null());
        if let Some(uid) = own {
            command.uid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let classic = announced(&mut lines);
        Self { child, lines, classic, _dir: dir }
    }
}

/// The next address for the tutorial's clients.
fn announced(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let address = |line: String| line.strip_prefix("listening json on ").map(str::to_owned);
    lines.map(Result::unwrap).find_map(address).unwrap()
}

impl Drop for Nobodys {
    fn drop(&mut self) {
        super::support::kill(self.child.id(), rustix::process::Signal::TERM);
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|s| s.is_none())
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// The tutorial's client, of this user's if this process may be that.
pub(super) fn asking(address: &str, uid: Option<u32>, commands: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", CLIENT, address]).args(commands).stderr(Stdio::null());
    if let (Some(uid), true) = (uid, rustix::process::geteuid().is_root()) {
        python.uid(uid);
    }
    python
}

fn tutorial(server: &Nobodys, uid: Option<u32>, commands: &[&str]) -> (bool, String) {
    let output = asking(&server.classic, uid, commands).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_tutorials_client_runs_many_commands_on_one_connection() {
    let server = Nobodys::start();
    let (ok, text) = tutorial(
        &server,
        Some(NOBODY),
        &["echo one", "  ls /nowhere 2>/dev/null; echo two ", "echo bad >&2"],
    );
    assert_eq!((ok, text.as_str()), (true, "one\ntwo\nbad\n"));
}

#[test]
fn an_upgrade_keeps_their_listener() {
    let mut server = Nobodys::start();
    super::support::kill(server.child.id(), rustix::process::Signal::HUP);
    assert_eq!(announced(&mut server.lines), server.classic);
    let (ok, text) = tutorial(&server, Some(NOBODY), &["echo one"]);
    assert_eq!((ok, text.as_str()), (true, "one\n"));
}

#[test]
fn another_account_is_not_served() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let server = Nobodys::start();
    for uid in [0, 65533] {
        assert_eq!(tutorial(&server, Some(uid), &["echo one"]), (false, String::new()));
    }
}

#[test]
fn root_does_not_serve_them() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    allow_descriptors();
    let output = Command::new(env!("CARGO_BIN_EXE_rexec-server"))
        .args(["--classic", "raw=127.0.0.1:0"])
        .env("REXEC_STATE_DIR", dir.path().join("state"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("root"), "{text}");
}
