//! Who is let in, and which server is believed: no configuration on one machine, plain OpenSSH key
//! files between machines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rexec::client::{Error, Target};
use rexec::identity::{Fingerprint, Key, KeyRing};
use rexec::proto::code::Code;
use rexec::transport::HostTrust;

use super::support::{Client, Ran, Server, other::Other, wait_until};

/// A new key pair in `dir`; its private file and the line of its public one.
pub(super) fn key(dir: &Path, name: &str) -> (PathBuf, String) {
    let path = dir.join(name);
    let mut command = Command::new("ssh-keygen");
    let made = command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
    assert!(made.status().unwrap().success());
    let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
    (path, line)
}

/// The line of a server's public key, and its fingerprint.
pub(super) fn host_key(server: &Server) -> (String, Fingerprint) {
    let line = std::fs::read_to_string(server.state().join("host_key.pub")).unwrap();
    let key = rexec::identity::PublicKey::from_base64(line.split(' ').nth(1).unwrap()).unwrap();
    (line, key.fingerprint())
}

/// A server that lets in the key `friend`, and a client that shares nothing else with it, as on
/// another machine.
pub(super) struct Abroad {
    pub(super) server: Server,
    pub(super) here: tempfile::TempDir,
    pub(super) key: PathBuf,
    pub(super) list: PathBuf,
}

impl Abroad {
    pub(super) fn new(prefix: &str) -> Self {
        Self::with(prefix, &[])
    }

    /// The key's line begins with `prefix`; the server has these further arguments.
    pub(super) fn with(prefix: &str, args: &[&str]) -> Self {
        let here = tempfile::tempdir().unwrap();
        let (key, line) = key(here.path(), "friend");
        let list = here.path().join("lists/authorized_keys");
        std::fs::create_dir(list.parent().unwrap()).unwrap();
        std::fs::write(&list, format!("# friends\n\n{prefix}{line}")).unwrap();
        let listed = ["--authorized-keys", list.to_str().unwrap()];
        let server = Server::start(&[&listed[..], args].concat());
        Self { server, here, key, list }
    }

    /// Replaces what stands before the key.
    pub(super) fn list_with(&self, prefix: &str) {
        let line = std::fs::read_to_string(self.key.with_extension("pub")).unwrap();
        std::fs::write(&self.list, format!("{prefix}{line}")).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    pub(super) fn host_key(&self) -> (String, Fingerprint) {
        host_key(&self.server)
    }

    /// The server's address as that of another machine: to this program a name is not loopback, and
    /// to the resolver (`inet_aton(3)`) this one is.
    pub(super) fn address(&self) -> String {
        self.server.addr.replace("127.0.0.1", "127.1")
    }

    /// Runs `rexec -i KEY options... ADDR echo hi` with a state folder of its own.
    pub(super) fn run(&self, options: &[&str]) -> Ran {
        let client = Client::new(&self.path("state")).arg("-i").arg(&self.key).args(options);
        client.args(&[&self.address(), "echo hi"]).run()
    }

    /// `rexec -i KEY --host-key FINGERPRINT WORDS...`, or with a verb first: `rexec VERB -i KEY ...`.
    pub(super) fn trusted(&self, verb: Option<&str>) -> Client {
        let client = Client::new(&self.path("state")).args(verb.as_slice());
        client.arg("-i").arg(&self.key).args(&["--host-key", &self.host_key().1.to_string()])
    }

    pub(super) fn pinned(&self) -> Ran {
        self.run(&["-v", "--host-key", &self.host_key().1.to_string()])
    }
}

#[test]
fn a_listed_key_is_let_in_by_a_server_whose_key_is_pinned() {
    let abroad = Abroad::new("");
    let ran = abroad.pinned().expect(0);
    assert_eq!(ran.text(), "hi\n");
    assert!(ran.stderr.contains("let us in as key:SHA256:"), "{}", ran.stderr);
}

#[test]
fn a_line_with_an_option_that_is_not_known_lets_nobody_in_and_is_named_in_the_log() {
    let abroad = Abroad::new("restrict,unheard-of ");
    let ran = abroad.pinned().expect(254);
    assert!(ran.stderr.contains("not_authorized"), "{}", ran.stderr);
    let log = abroad.server.log();
    assert!(log.contains("line 3: the option \"unheard-of\" is not known"), "{log}");
}

/// The error holds the very line that, put where the error says, makes it go away.
#[test]
fn an_unknown_host_is_refused_with_the_line_that_makes_it_known() {
    let abroad = Abroad::new("");
    let known = abroad.path("known_hosts");
    let file = known.to_str().unwrap();
    let ran = abroad.run(&["--known-hosts", file]).expect(255);
    let (host_line, fingerprint) = abroad.host_key();
    assert!(ran.stderr.contains(&fingerprint.to_string()), "{}", ran.stderr);
    let (_, line) = ran.stderr.trim_end().split_once(&format!("line to {file}: ")).unwrap();
    let host_key = host_line.split(' ').nth(1).unwrap();
    assert!(line.starts_with("[127.1]:") && line.ends_with(host_key), "{line}");
    wait_until("what the server says of it", || {
        abroad.server.log().contains("does not accept this server's key")
    });
    std::fs::write(&known, format!("{line}\n")).unwrap();
    assert_eq!(abroad.run(&["--known-hosts", file]).expect(0).text(), "hi\n");
}

#[test]
fn the_folder_of_known_hosts_is_to_be_made_first_where_it_is_missing() {
    let abroad = Abroad::new("");
    let ran = abroad.run(&[]).expect(255);
    let folder = abroad.path("state").join(".config/rexec");
    let advice =
        format!("run mkdir -p {0} and add this line to {0}/known_hosts: [", folder.display());
    assert!(ran.stderr.contains(&advice), "{}", ran.stderr);
    std::fs::create_dir_all(&folder).unwrap();
    let ran = abroad.run(&[]).expect(255);
    assert!(!ran.stderr.contains("mkdir"), "{}", ran.stderr);
}

#[test]
fn a_public_key_is_told_from_a_private_one() {
    let abroad = Abroad::new("");
    let with = |key: &Path| {
        let client = Client::new(&abroad.path("state")).arg("-i").arg(key);
        client.args(&[&abroad.address(), "true"]).run().expect(255).stderr
    };
    let public = abroad.key.with_extension("pub");
    let advice = format!("is the public key; give the private one, {}", abroad.key.display());
    for mode in [0o644, 0o600] {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&public, mode).unwrap();
        assert!(with(&public).contains(&advice), "{}", with(&public));
    }
    let renamed = abroad.path("renamed");
    std::fs::rename(&public, &renamed).unwrap();
    assert!(with(&renamed).contains("is the public key; give the private one"));
}

#[test]
fn a_host_whose_key_has_changed_is_refused() {
    let abroad = Abroad::new("");
    let (_, other) = key(abroad.here.path(), "other");
    let port = abroad.server.addr.rsplit(':').next().unwrap();
    let known = abroad.path("known_hosts");
    std::fs::write(&known, format!("[127.1]:{port} {other}")).unwrap();
    let ran = abroad.run(&["--known-hosts", known.to_str().unwrap()]).expect(255);
    assert!(ran.stderr.contains("Somebody may be listening in"), "{}", ran.stderr);
    assert!(ran.stderr.contains("line 1 of"), "{}", ran.stderr);
    let ran = abroad.run(&["--host-key", &format!("SHA256:{}", "A".repeat(43))]).expect(255);
    assert!(ran.stderr.contains("not the one asked for"), "{}", ran.stderr);
}

#[test]
fn known_hosts_that_cannot_be_read_are_not_empty() {
    let abroad = Abroad::new("");
    let folder = abroad.path("folder");
    std::fs::create_dir(&folder).unwrap();
    let ran = abroad.run(&["--known-hosts", folder.to_str().unwrap()]).expect(255);
    assert!(ran.stderr.contains("known hosts cannot be read"), "{}", ran.stderr);
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let abroad = Abroad::new("");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(&abroad.key, mode).unwrap();
    let ran = abroad.pinned().expect(255);
    assert!(ran.stderr.contains("can be used by others (mode 0640)"), "{}", ran.stderr);
}

/// A long connection does not outlive its rights.
#[test]
fn a_key_that_is_removed_is_refused_its_next_request_on_an_open_connection() {
    let abroad = Abroad::new("");
    let trust = HostTrust { pins: vec![abroad.host_key().1], ..HostTrust::default() };
    let target = Target {
        user: None,
        endpoint: abroad.server.addr.parse().unwrap(),
        trust: Arc::new(trust),
        keys: KeyRing::of([Key::load(&abroad.key).unwrap()]),
        connect_timeout: super::support::PATIENCE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = rexec::Client::new(target);
        client.output(&rexec::Command::shell("true")).await.unwrap();
        std::fs::write(&abroad.list, "").unwrap();
        let denied = client.output(&rexec::Command::shell("true")).await.unwrap_err();
        assert!(matches!(denied, Error::Refused { code: Code::NotAuthorized, .. }), "{denied:?}");
    });
    abroad.pinned().expect(254);
}

#[test]
fn both_families_of_localhost_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::at(&dir.path().join("state"), "localhost:0", &[], |_| ());
    let port = server.addr.rsplit(':').next().unwrap();
    let mut hosts = vec!["localhost", "127.0.0.1"];
    // The second line is the unix socket's, unless this machine has ::1.
    if server.unix.starts_with("[::1]") {
        hosts.push("[::1]");
    }
    for host in hosts {
        let client = Client::new(server.state()).args(&[&format!("{host}:{port}"), "echo hi"]);
        assert_eq!(client.run().expect(0).text(), "hi\n", "{host}");
    }
}

/// No byte of the request reaches a server that is somebody else's.
#[test]
fn another_user_who_has_the_port_first_is_not_talked_to() {
    let Some(other) = Other::new() else { return };
    let theirs = other.folder("theirs");
    let server = Server::at(&theirs.join("state"), "127.0.0.1:0", &[], |c| other.become_it(c));
    let mine = tempfile::tempdir().unwrap();
    let client = Client::new(&mine.path().join("state"));
    let ran = client.args(&[&server.addr, &format!("touch {}/effect", theirs.display())]).run();
    let ran = ran.expect(255);
    assert!(ran.stderr.contains("another user or program answers"), "{}", ran.stderr);
    assert!(!theirs.join("effect").exists());
    assert!(server.journal().iter().all(|line| line["type"] != "accepted"));
    // Over its unix socket the kernel says whose it is.
    let client = Client::new(&mine.path().join("state"));
    let ran = client.args(&[&server.unix, "true"]).run().expect(255);
    assert!(ran.stderr.contains("is served by uid 65534"), "{}", ran.stderr);
}

#[test]
fn another_user_is_let_in_neither_by_tcp_nor_by_the_unix_socket() {
    let Some(other) = Other::new() else { return };
    let theirs = other.folder("theirs");
    let dir = other.path("mine");
    std::fs::create_dir(&dir).unwrap();
    // Whatever the umask is.
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let server = Server::at(&dir.join("state"), "127.0.0.1:0", &[], |_| ());
    let as_other = |address: &str, options: &[&str]| {
        let mut client = Client::new(&theirs.join("state")).args(options).args(&[address, "true"]);
        other.become_it(&mut client.command);
        client.run()
    };
    as_other(&server.addr, &[]).expect(255);
    let pub_line = std::fs::read_to_string(server.state().join("host_key.pub")).unwrap();
    let host =
        rexec::identity::PublicKey::from_base64(pub_line.split(' ').nth(1).unwrap()).unwrap();
    let ran = as_other(&server.addr, &["--host-key", &host.fingerprint().to_string()]).expect(254);
    assert!(ran.stderr.contains("not_authorized"), "{}", ran.stderr);
    // The socket's mode keeps them out, and so does the server if somebody has changed it.
    let ran = as_other(&server.unix, &[]).expect(255);
    assert!(ran.stderr.contains("Permission denied"), "{}", ran.stderr);
    let socket = server.unix.strip_prefix("unix:").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(socket, mode).unwrap();
    let ran = as_other(&server.unix, &[]).expect(254);
    assert!(ran.stderr.contains("not_authorized"), "{}", ran.stderr);
    assert!(server.journal().iter().all(|line| line["type"] != "accepted"));
}
