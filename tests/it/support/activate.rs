//! A service manager: makes descriptors, hands them over from 3 up, and becomes the server.

use std::process::Command;

/// Words before `--`: what to hand over. Words behind it: the command, in which `{0}` stands for the
/// address of the first descriptor. `tcp:HOST`, `unix:PATH`, `abstract:NAME`, `udp`, `connected`, `file`.
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
        let mut manager = Command::new("python3");
        manager.args(["-c", MANAGER]).args(made).arg("--").arg(env!("CARGO_BIN_EXE_rexec-server"));
        manager.args(args);
        manager.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = manager;
    }
}
