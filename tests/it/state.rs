//! Starting: what stands in the way is named in one clear line, and nothing is left half-made.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use super::support::server::{finish, under};
use super::support::{
    Client, PATIENCE, Ran, Server, allow_descriptors, kill, other::Other, wait_until,
};

/// A server that is not expected to start; its state folder is `state`.
pub(super) fn server(state: &Path, args: &[&str]) -> Command {
    allow_descriptors();
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(args).env("REXEC_STATE_DIR", state).env("HOME", state);
    command
}

/// Runs a command that must end, by itself and soon.
pub(super) fn ended(mut command: Command) -> Ran {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let start = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            kill(child.id(), rustix::process::Signal::KILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    finish(child)
}

/// It ends with status 1 and one line of its own that holds each of these texts.
#[track_caller]
pub(super) fn fails(command: Command, texts: &[&str]) -> Ran {
    let ran = ended(command).expect(1);
    let lines: Vec<_> = ran.stderr.lines().filter(|l| l.starts_with("rexec-server: ")).collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    for text in texts {
        assert!(lines[0].contains(text), "{text}: {}", lines[0]);
    }
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

/// `rexec-server check`, which says that no server would start: what it says.
#[track_caller]
pub(super) fn checked(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rexec-server")).arg("check").args(args).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

const ANY: [&str; 2] = ["--listen", "127.0.0.1:0"];

/// A state folder that has keys, in a folder that is removed with the guard.
fn used_state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    drop(Server::at(&state, "127.0.0.1:0", &[], |_| ()));
    (dir, state)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_name_in_use_is_refused_and_another_one_is_kept_apart() {
    let first = Server::start(&[]);
    let args = ["--name", "test", "--listen", "127.0.0.1:0"];
    fails(server(first.state(), &args), &["\"test\"", "another --name"]);
    for name in ["", ".", "..", "a/b", "a\nb", &"x".repeat(129)] {
        let args = ["--name", name, "--listen", "127.0.0.1:0"];
        fails(server(first.state(), &args), &["cannot be the name"]);
    }
    first.run(&["true"]).expect(0);
}

#[test]
fn keys_that_others_can_read_or_that_are_damaged_stop_the_start_and_are_kept() {
    let (_guard, state) = used_state();
    for name in ["host_key", "identity"] {
        let path = state.join(name);
        let whole = std::fs::read(&path).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            set_mode(&path, mode);
            let octal = format!("(mode {mode:04o})");
            fails(server(&state, &ANY), &[path.to_str().unwrap(), &octal, "chmod go-rwx"]);
        }
        set_mode(&path, 0o600);
        for damaged in [&b""[..], b"rubbish", &whole[..whole.len() / 2], &vec![b'x'; 1 << 20]] {
            std::fs::write(&path, damaged).unwrap();
            fails(server(&state, &ANY), &[path.to_str().unwrap()]);
            assert_eq!(std::fs::read(&path).unwrap(), damaged);
        }
        std::fs::write(&path, &whole).unwrap();
    }
    let client = |mode| {
        set_mode(&state.join("identity"), mode);
        Client::new(&state).args(&["127.0.0.1:1", "true"]).run().expect(255)
    };
    assert!(client(0o644).stderr.contains("can be used by others"));
    assert!(client(0o600).stderr.contains("cannot reach"));
}

#[test]
fn a_state_folder_that_others_could_change_is_refused() {
    let (_guard, state) = used_state();
    set_mode(&state, 0o755);
    fails(server(&state, &ANY), &["is open to others (mode 0755)", "chmod 700"]);
    set_mode(&state, 0o700);
    set_mode(state.parent().unwrap(), 0o777);
    fails(server(&state, &ANY), &["can be written by others (mode 0777)", "chmod go-w"]);
    let mut relative = server(&state, &ANY);
    relative.env("REXEC_STATE_DIR", "some/where");
    fails(relative, &["REXEC_STATE_DIR=some/where is not an absolute path"]);
    let mut homeless = server(&state, &ANY);
    homeless.env_remove("REXEC_STATE_DIR").env_remove("XDG_STATE_HOME").env("HOME", "here");
    fails(homeless, &["HOME is not an absolute path"]);
}

/// A service or a container may have no HOME: then passwd(5) says where the account is at home.
#[test]
fn without_home_the_accounts_own_is_used() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    // All of /etc: useradd(8) puts a new file into the place of passwd, and what is mounted on that is gone then from
    // every namespace (mount_namespaces(7)).
    let etc = home.join("etc");
    std::fs::create_dir(&etc).unwrap();
    let passwd = format!("root:x:0:0::{}:/bin/sh\n", home.display());
    std::fs::write(etc.join("passwd"), passwd).unwrap();
    let script = "mount --bind \"$1\" /etc && shift && \
                  exec env -u HOME -u REXEC_STATE_DIR -u XDG_STATE_HOME \"$@\"";
    let mut command = server(&home, &["--listen", "unix:/no/such/folder/socket"]);
    let etc = etc.to_str().unwrap();
    under(&["unshare", "-m", "sh", "-c", script, "sh", etc])(&mut command);
    fails(command, &["/no/such/folder/socket"]);
    assert!(home.join(".local/state/rexec/host_key").exists());
}

/// Any port is what both asked for, so neither stands in the other's way.
#[test]
fn servers_on_any_port_have_names_of_their_own_and_the_next_ones_take_them_up() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let start = || {
        let mut command = server(&state, &ANY);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    for _ in 0..2 {
        let mut servers = [start(), start(), start()];
        for server in &mut servers {
            let address = listening(server);
            Client::new(&state).args(&["-n", &address, "true"]).run().expect(0);
        }
        let expected = ["127.0.0.1:0", "127.0.0.1:0~2", "127.0.0.1:0~3"];
        assert_eq!(names(&state.join("instances")), expected);
        for mut server in servers {
            kill(server.id(), rustix::process::Signal::TERM);
            wait_until("the end of a server", || server.try_wait().unwrap().is_some());
        }
    }
}

#[test]
fn a_start_that_fails_leaves_no_instance_behind() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fails(server(&state, &["--listen", &taken]), &["is in use"]);
    fails(server(&state, &["--listen", "0.0.0.0:0"]), &["no key is authorized"]);
    fails(server(&state, &["--name", "a/b", ANY[0], ANY[1]]), &["cannot be the name"]);
    assert!(!state.join("instances").exists());
}

#[test]
fn a_shell_that_cannot_be_run_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for (shell, reason) in [
        ("/nope", "program not found"),
        ("no-such-shell", "program not found"),
        ("/etc/passwd", "not an executable file"),
        ("/", "not an executable file"),
    ] {
        let args = ["--shell", shell, ANY[0], ANY[1]];
        fails(server(&state, &args), &[&format!("--shell {shell}: "), reason]);
        assert!(checked(&args).contains(reason));
    }
    let server = Server::start(&["--shell", "sh"]);
    assert_eq!(server.run(&["echo hi"]).expect(0).text(), "hi\n");
}

/// What people compare with what a client says that does not know the key.
#[test]
fn the_log_begins_with_the_fingerprint_of_the_host_key() {
    let server = Server::start(&[]);
    let mut keygen = Command::new("ssh-keygen");
    let listed = keygen.arg("-lf").arg(server.state().join("host_key.pub")).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let line = format!("INFO host key {}\n", listed.split(' ').nth(1).unwrap());
    assert!(server.log().lines().next().unwrap().contains(line.trim_end()), "{}", server.log());
}

/// `sudo rexec-server` with HOME kept would put root's keys into somebody's home.
#[test]
fn a_state_folder_of_another_user_is_refused_with_advice() {
    let Some(other) = Other::new() else { return };
    let home = other.folder("home");
    let as_root = |state: Option<&Path>| {
        let mut command = server(&home, &ANY);
        command.env_remove("REXEC_STATE_DIR").env_remove("XDG_STATE_HOME");
        command.envs(state.map(|path| ("REXEC_STATE_DIR", path)));
        command
    };
    fails(as_root(None), &["belongs to uid 65534", "sudo -H"]);
    fails(as_root(Some(&home)), &["belongs to uid 65534", "REXEC_STATE_DIR"]);
    let mut client = Client::new(&home).args(&["127.0.0.1:1", "true"]);
    client.command.env_remove("REXEC_STATE_DIR").env_remove("XDG_STATE_HOME");
    let ran = client.run().expect(255);
    assert!(ran.stderr.contains("sudo -H"), "{}", ran.stderr);
    assert!(names(&home).is_empty(), "something was left in another user's home");
}

#[test]
fn a_user_who_cannot_read_the_keys_or_write_the_folder_is_told_so() {
    let Some(other) = Other::new() else { return };
    let state = other.folder("state");
    let key = state.join("host_key");
    std::fs::write(&key, "root's").unwrap();
    set_mode(&key, 0o600);
    let as_other = || {
        let mut command = server(&state, &ANY);
        other.become_it(&mut command);
        command
    };
    fails(as_other(), &[key.to_str().unwrap(), "Permission denied"]);
    std::fs::remove_file(&key).unwrap();
    // Root's folder: the other user may look, and not write.
    let roots = other.path("roots");
    std::fs::create_dir(&roots).unwrap();
    set_mode(&roots, 0o755);
    let mut command = server(&roots.join("state"), &ANY);
    other.become_it(&mut command);
    fails(command, &["cannot make", "Permission denied"]);
    assert!(names(&roots).is_empty() && names(&state).is_empty());
}

/// As of an account without a home, or with one that is read-only.
#[test]
fn a_home_that_takes_no_folder_is_told_with_what_to_set() {
    for (program, args) in [
        (env!("CARGO_BIN_EXE_rexec"), &["127.0.0.1:1", "true"][..]),
        (env!("CARGO_BIN_EXE_rexec-server"), &ANY),
    ] {
        let mut command = Command::new(program);
        command.args(args).env("HOME", "/proc/none");
        command.env_remove("REXEC_STATE_DIR").env_remove("XDG_STATE_HOME");
        let told = Ran::of(command.output().unwrap()).stderr;
        assert!(told.contains("/proc/none") && told.lines().count() == 1, "{told}");
        assert!(told.contains("REXEC_STATE_DIR names another state folder"), "{told}");
    }
}

/// Whether this process may give its children other mounts.
fn may_mount() -> bool {
    let tried =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    let may = tried.is_ok_and(|t| t.status.success());
    if !may {
        println!("left out: mounting is not permitted here");
    }
    may
}

/// Runs a server under a shell that has mounts of its own; `$@` is the server.
fn with_mounts(script: &str, state: &Path) -> Command {
    let mut command = server(state, &ANY);
    under(&["unshare", "-m", "sh", "-c", script, "sh"])(&mut command);
    command
}

#[test]
fn a_full_disk_at_the_first_start_leaves_nothing_half_written() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=16k,mode=700 none $REXEC_STATE_DIR || exit 9; \
                  head -c 16384 /dev/zero > $REXEC_STATE_DIR/fill; \
                  \"$@\"; status=$?; ls -A $REXEC_STATE_DIR; exit $status";
    let ran = fails(with_mounts(script, dir.path()), &["host_key", "No space left on device"]);
    assert_eq!(ran.text(), "fill\n");
}

#[test]
fn a_vanished_proc_is_told_in_one_line() {
    if !may_mount() {
        return;
    }
    let (_guard, state) = used_state();
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    fails(with_mounts(script, &state), &["/proc"]);
}

/// A port of the test's own behind which servers appear later: clients may come first.
struct Gate {
    addr: String,
    target: std::sync::Arc<OnceLock<String>>,
}

impl Gate {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let target = std::sync::Arc::new(OnceLock::<String>::new());
        let known = std::sync::Arc::clone(&target);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(known.wait()).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Write);
                    });
                }
            }
        });
        Self { addr, target }
    }
}

fn listening(server: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim_end().strip_prefix("listening on ").expect("a server started").to_owned()
}

/// Whoever comes first makes the keys, and everybody uses them.
#[test]
fn fifty_clients_and_servers_at_once_agree_on_one_pair_of_keys() {
    const SERVERS: usize = 5;
    let mut seen = HashSet::new();
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let gate = Gate::new();
        let mut servers = Vec::new();
        let mut clients = Vec::new();
        for n in 0..50 {
            if n % (50 / SERVERS) == 7 {
                let name = format!("server-{n}");
                let mut command = server(&state, &["--name", &name, "--listen", "127.0.0.1:0"]);
                let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
                servers.push(command.spawn().unwrap());
            } else {
                // All of them wait until there is a server.
                let client = Client::new(&state).args(&["-n", "--connect-timeout", "1m"]);
                clients.push(client.args(&[&gate.addr, "true"]).spawn());
            }
        }
        let addresses: Vec<_> = servers.iter_mut().map(listening).collect();
        gate.target.set(addresses[0].clone()).unwrap();
        for client in clients {
            finish(client).expect(0);
        }
        for (address, server) in addresses.iter().zip(&servers) {
            Client::new(&state).args(&["-n", address, "true"]).run().expect(0);
            kill(server.id(), rustix::process::Signal::TERM);
        }
        for mut server in servers {
            wait_until("the end of a server", || server.try_wait().unwrap().is_some());
        }
        let expected = ["host_key", "host_key.pub", "identity", "identity.pub", "instances"];
        assert_eq!(names(&state), expected);
        assert!(seen.insert(std::fs::read(state.join("host_key")).unwrap()), "a key twice");
    }
}

/// Two accounts with one folder above: each has its own keys.
#[test]
fn a_folder_given_to_another_user_after_its_first_use_is_refused() {
    let Some(_) = Other::new() else { return };
    let (_guard, state) = used_state();
    chown(state.join("host_key"), Some(65534), Some(65534)).unwrap();
    fails(server(&state, &ANY), &["host_key", "belongs to uid 65534"]);
}
