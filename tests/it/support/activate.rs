//! A service manager: makes descriptors, hands them over from 3 up, and becomes the server.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tempfile::TempDir;

use super::wait_until;

/// Words before `--`: what to hand over. Words behind it: the command, in which `{0}` stands for the
/// address of the first descriptor. `tcp:HOST`, `unix:PATH`, `abstract:NAME`, `udp`, `connected`, `file`;
/// `given:PATH`: a socket that whoever listens at PATH gives away.
const MANAGER: &str = r#"
import os, socket, sys
at = sys.argv.index("--")
made, addresses = [], []
for spec in sys.argv[1:at]:
    kind, _, where = spec.partition(":")
    address = spec
    if kind == "tcp":
        made.append(socket.socket(socket.AF_INET6 if ":" in where else socket.AF_INET))
        made[-1].bind((where, 0))
        made[-1].listen()
        host = f"[{where}]" if ":" in where else where
        address = f"{host}:{made[-1].getsockname()[1]}"
    elif kind in ("unix", "abstract"):
        made.append(socket.socket(socket.AF_UNIX))
        made[-1].bind(where if kind == "unix" else "\0" + where)
        made[-1].listen()
    elif kind == "given":
        with socket.socket(socket.AF_UNIX) as giver:
            giver.connect(where)
            made.append(socket.socket(fileno=socket.recv_fds(giver, 1, 1)[1][0]))
    elif kind == "udp":
        made.append(socket.socket(type=socket.SOCK_DGRAM))
    elif kind == "connected":
        made.append(socket.socketpair()[0])
    else:
        made.append(open("/dev/null"))
    addresses.append(address)
high = [os.dup(f.fileno()) for f in made]
high = [os.fdopen(os.dup2(fd, 100 + n), closefd=False).fileno() for n, fd in enumerate(high)]
for n, fd in enumerate(high):
    os.dup2(fd, 3 + n)
os.closerange(3 + len(high), 200)
os.environ.setdefault("LISTEN_PID", str(os.getpid()))
os.environ.setdefault("LISTEN_FDS", str(len(high)))
os.environ.setdefault("LISTEN_FDNAMES", ":".join(["web"] * len(high)))
words = sys.argv[at + 1:]
for n, address in enumerate(addresses):
    words = [word.replace("{%d}" % n, address) for word in words]
os.execv(words[0], words)
"#;

/// Has the server started with `made` handed over, and these arguments alone.
pub(crate) fn activated<'a>(made: &'a [&str], args: &'a [&str]) -> impl FnOnce(&mut Command) + 'a {
    move |command| {
        let mut manager = manager(env!("CARGO_BIN_EXE_rexec-server").as_ref(), made, args);
        manager.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = manager;
    }
}

fn manager(program: &Path, made: &[&str], args: &[&str]) -> Command {
    let mut manager = Command::new("python3");
    manager.args(["-c", MANAGER]).args(made).arg("--").arg(program).args(args);
    manager
}

/// Listening sockets that outlive the servers that they are handed over to: TCP on 127.0.0.1, and a unix socket.
pub(crate) struct Sockets {
    tcp: TcpListener,
    unix: UnixListener,
    dir: TempDir,
}

impl Sockets {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(dir.path().join("s")).unwrap();
        Self { tcp, unix, dir }
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> [String; 2] {
        let unix = self.dir.path().join("s");
        [self.tcp.local_addr().unwrap().to_string(), format!("unix:{}", unix.display())]
    }

    /// Takes a connection to the unix socket, as long as there is no server.
    pub(crate) fn accept(&self) -> UnixStream {
        let mut accepted = None;
        wait_until("a connection", || {
            // A server has made it one that does not wait.
            accepted = self.unix.accept().ok();
            accepted.is_some()
        });
        accepted.unwrap().0
    }

    /// Has one server started with them and these arguments.
    pub(crate) fn handed(&self, args: &[&str]) -> impl FnOnce(&mut Command) {
        let given = self.given();
        let args = as_test(args);
        move |command| {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            activated(&[&given, &given], &args)(command);
        }
    }

    /// A server of another user's with them and these arguments; only root can have it started.
    pub(crate) fn handed_to(&self, uid: u32, program: &Path, args: &[&str]) -> Command {
        let given = self.given();
        for path in [self.dir.path(), &self.dir.path().join("giver")] {
            chown(path, Some(uid), None).unwrap();
        }
        let args = as_test(args);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = manager(program, &[&given, &given], &args);
        command.uid(uid);
        command
    }

    /// Where the next server gets them.
    fn given(&self) -> String {
        let path = self.dir.path().join("giver");
        // One that no server has come to is still there.
        let _ = std::fs::remove_file(&path);
        let giver = UnixListener::bind(&path).unwrap();
        let sockets: [OwnedFd; 2] =
            [self.tcp.try_clone().unwrap().into(), self.unix.try_clone().unwrap().into()];
        thread::spawn(move || sockets.into_iter().for_each(|socket| give(&giver, &socket)));
        format!("given:{}", path.display())
    }
}

fn as_test(args: &[&str]) -> Vec<String> {
    ["--name", "test"].iter().chain(args).map(|&arg| arg.to_owned()).collect()
}

/// Gives a socket to whoever comes next.
fn give(giver: &UnixListener, socket: &OwnedFd) {
    let (stream, _) = giver.accept().unwrap();
    let fds = [socket.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(&stream, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
}
