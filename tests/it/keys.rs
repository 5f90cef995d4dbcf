//! With which key a client logs in: files as ssh-keygen makes them, ssh-agent, security keys, and in which
//! order. What is made by OpenSSH's own programs is used as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::support::agent::RealAgent;
use super::support::terminal::Terminal;
use super::support::{Client, Ran, Server, program};

/// Every kind of key that can sign from a file, as `ssh-keygen -t`, `-b` has it.
pub(super) const KINDS: [[&str; 2]; 6] = [
    ["ed25519", "256"],
    ["ecdsa", "256"],
    ["ecdsa", "384"],
    ["rsa", "2048"],
    ["rsa", "3072"],
    ["rsa", "4096"],
];

/// A client that shares nothing with its server, as on another machine, and keys in a folder.
pub(super) struct Away {
    pub(super) server: Server,
    here: tempfile::TempDir,
    list: PathBuf,
}

impl Away {
    /// The server lets nobody in yet.
    pub(super) fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        let list = here.path().join("authorized_keys");
        std::fs::write(&list, "").unwrap();
        let mut home = std::fs::DirBuilder::new();
        let private = std::os::unix::fs::DirBuilderExt::mode(&mut home, 0o700);
        private.create(here.path().join("home")).unwrap();
        let server = Server::start(&["--authorized-keys", list.to_str().unwrap(), "--verbose"]);
        Self { server, here, list }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// A new key in the folder.
    pub(super) fn key(&self, name: &str, kind: [&str; 2], passphrase: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind[0], "-b", kind[1], "-C", name, "-a", "2"]);
        let made = command.args(["-N", passphrase, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        path
    }

    /// One of those that are looked for without being named.
    pub(super) fn usual(&self, name: &str, kind: [&str; 2], passphrase: &str) -> PathBuf {
        self.key(&format!("home/.ssh/{name}"), kind, passphrase)
    }

    /// Lets these lines in, and no others.
    pub(super) fn authorize(&self, lines: &[&str]) {
        std::fs::write(&self.list, lines.join("\n")).unwrap();
    }

    /// `rexec -v`, which knows the server's key.
    pub(super) fn client(&self) -> Client {
        let (_, print) = super::auth::host_key(&self.server);
        let client =
            Client::new(&self.path("home")).args(&["-v", "--host-key", &print.to_string()]);
        // The agents of whoever runs the tests are not theirs.
        client.env("SSH_AUTH_SOCK", "")
    }

    pub(super) fn run(&self, client: Client) -> Ran {
        let address = self.server.addr.replace("127.0.0.1", "127.1");
        client.args(&[&address, "echo hi"]).run()
    }

    pub(super) fn with(&self, key: &Path) -> Ran {
        self.run(self.client().arg("-i").arg(key))
    }

    /// A program that prints a passphrase, and notes each time that it was asked.
    pub(super) fn askpass(&self, prints: &str) -> PathBuf {
        let (path, asked) = (self.path("askpass"), self.path("asked"));
        let text = format!("#!/bin/sh\necho \"$1\" >> {}\n{prints}\n", asked.display());
        program::made(&path, text);
        path
    }

    /// How often it was asked, and for what.
    pub(super) fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often somebody has logged in.
    pub(super) fn logins(&self) -> usize {
        self.server.log().matches("logged in").count()
    }
}

pub(super) fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
}

pub(super) fn fingerprint(key: &Path) -> String {
    let listed = Command::new("ssh-keygen").arg("-lf").arg(key).output().unwrap().stdout;
    String::from_utf8(listed).unwrap().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn every_kind_of_key_that_ssh_keygen_makes_logs_in() {
    let away = Away::new();
    let keys: Vec<_> = KINDS.iter().map(|kind| away.key(&kind.concat(), *kind, "")).collect();
    let lines: Vec<_> = keys.iter().map(|key| public(key)).collect();
    away.authorize(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    for key in &keys {
        let ran = away.with(key).expect(0);
        assert_eq!(ran.text(), "hi\n");
        assert!(ran.stderr.contains(&format!("let us in as key:{}", fingerprint(key))));
    }
    assert_eq!(away.logins(), keys.len());
}

#[test]
fn a_locked_key_is_opened_by_the_program_in_rexec_askpass() {
    let away = Away::new();
    for kind in [KINDS[0], KINDS[1], KINDS[3]] {
        let key = away.key(&kind.concat(), kind, "open sesame");
        away.authorize(&[&public(&key)]);
        let askpass = away.askpass("echo 'open sesame'");
        let ran = away.run(away.client().arg("-i").arg(&key).env("REXEC_ASKPASS", &askpass));
        assert_eq!(ran.expect(0).text(), "hi\n");
        let question = format!("Passphrase for {}: ", key.display());
        assert_eq!(away.asked().pop().unwrap(), question);
    }
    assert_eq!(away.asked().len(), 3);
}

#[test]
fn a_wrong_passphrase_is_asked_for_three_times() {
    let away = Away::new();
    let key = away.key("key", KINDS[0], "open sesame");
    away.authorize(&[&public(&key)]);
    for (prints, asked, part) in [
        ("echo 'open the gate'", 3, "that is not the passphrase of"),
        ("exit 1", 1, "its passphrase was not given"),
        ("echo", 1, "its passphrase was not given"),
        ("yes | tr -d '\\n'", 1, "over the limit of 1024 bytes"),
    ] {
        let before = away.asked().len();
        let askpass = away.askpass(prints);
        let ran = away.run(away.client().arg("-i").arg(&key).env("REXEC_ASKPASS", &askpass));
        let ran = ran.expect(255);
        assert!(ran.stderr.contains(part), "{prints}: {}", ran.stderr);
        assert_eq!(away.asked().len() - before, asked, "{prints}");
    }
    let ran = away.run(away.client().arg("-i").arg(&key).env("REXEC_ASKPASS", "/no/such"));
    assert!(ran.expect(255).stderr.contains("/no/such: "));
}

/// A passphrase is asked for only when the server lists the key.
#[test]
fn nobody_is_asked_for_a_passphrase_that_would_not_help() {
    let away = Away::new();
    away.usual("id_ed25519", KINDS[0], "open sesame");
    let plain = away.usual("id_rsa", KINDS[3], "");
    away.authorize(&[&public(&plain)]);
    let askpass = away.askpass("echo 'open sesame'");
    away.run(away.client().env("REXEC_ASKPASS", &askpass)).expect(0);
    away.authorize(&[]);
    away.run(away.client().env("REXEC_ASKPASS", &askpass)).expect(254);
    assert_eq!(away.asked(), [""; 0]);
}

#[test]
fn without_anybody_to_ask_a_locked_key_is_passed_over_unless_it_was_named() {
    let away = Away::new();
    let locked = away.usual("id_ed25519", KINDS[0], "open sesame");
    let plain = away.usual("id_rsa", KINDS[3], "");
    away.authorize(&[&public(&locked), &public(&plain)]);
    let ran = away.run(away.client()).expect(0);
    let skipped = format!("left out: {} is protected by a passphrase", locked.display());
    assert!(ran.stderr.contains(&skipped), "{}", ran.stderr);
    let ran = away.with(&locked).expect(255);
    assert!(ran.stderr.contains("there is nobody to ask for it"), "{}", ran.stderr);
    assert!(ran.stderr.contains("REXEC_ASKPASS"), "{}", ran.stderr);
    // With the agent nobody needs to be asked.
    let agent = RealAgent::start();
    let opened = away.path("opened");
    std::fs::copy(&locked, &opened).unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-p", "-P", "open sesame", "-N", "", "-f"]).arg(&opened);
    assert!(keygen.stdout(std::process::Stdio::null()).status().unwrap().success());
    agent.add(&opened);
    let client = away.client().env("SSH_AUTH_SOCK", agent.socket());
    let ran = away.run(client.arg("-i").arg(&locked)).expect(0);
    assert!(ran.stderr.contains("in ssh-agent"), "{}", ran.stderr);
}

#[test]
fn a_passphrase_is_typed_on_the_terminal_and_not_shown() {
    let away = Away::new();
    let key = away.key("key", KINDS[0], "open sesame");
    away.authorize(&[&public(&key)]);
    let (_, print) = super::auth::host_key(&away.server);
    let address = away.server.addr.replace("127.0.0.1", "127.1");
    // The second one's stdin is a pipe: its terminal is asked all the same.
    for pipe in ["", "</dev/null"] {
        let line = format!("--host-key {print} -i {} {address} 'echo hi' {pipe}", key.display());
        let mut terminal = Terminal::with(&away.path("home"), &line);
        terminal.shows("Passphrase for ");
        terminal.shows(": ");
        terminal.types("open simsim\n");
        terminal.shows("that is not the passphrase");
        terminal.shows(": ");
        // Ctrl-U takes back all, and the key to the left one character.
        terminal.types("wrong\x15open sesamex\x7f\n");
        terminal.shows("hi");
        let screen = std::sync::Arc::clone(&terminal.screen);
        assert_eq!(terminal.ends(), 0);
        let screen = screen.lock().unwrap();
        assert!(!screen.contains("sesame") && !screen.contains("simsim"), "{screen}");
    }
}

#[test]
fn ctrl_c_at_the_passphrase_leaves_the_terminal_as_it_was() {
    let away = Away::new();
    let key = away.key("key", KINDS[0], "open sesame");
    away.authorize(&[&public(&key)]);
    let (_, print) = super::auth::host_key(&away.server);
    let address = away.server.addr.replace("127.0.0.1", "127.1");
    let rexec = env!("CARGO_BIN_EXE_rexec");
    let key = key.display();
    let login = format!("{rexec} --host-key {print} -i {key} {address} true");
    let line = format!("{login}; echo status $?; stty -a");
    let mut terminal = Terminal::shell(&away.path("home"), &line);
    terminal.shows("Passphrase for ");
    terminal.shows(": ");
    terminal.types("open\x03");
    terminal.shows("interrupted before the command was started");
    terminal.shows("status 130");
    let before = terminal.shows(" echo ");
    assert!(before.contains("\nisig icanon "), "{before}");
    terminal.ends();
    // A batch stops, and has its verdicts.
    let line = format!("batch --host-key {print} -i {key} -H {address} true");
    let mut terminal = Terminal::with(&away.path("home"), &line);
    terminal.shows("Passphrase for ");
    terminal.shows(": ");
    terminal.types("\x03");
    terminal.shows("stopping what runs");
    terminal.shows("0 of 1 host ended well");
    assert_eq!(terminal.ends(), 130);
}

/// -i, else ssh-agent, else the files, else the local identity: the first that the server lists.
#[test]
fn keys_are_proved_in_their_order_and_v_says_which_and_why() {
    let away = Away::new();
    let agent = RealAgent::start();
    let of_agent = away.key("agents", KINDS[0], "");
    agent.add(&of_agent);
    let files = [
        away.usual("id_ed25519", KINDS[0], ""),
        away.usual("id_ecdsa", KINDS[1], ""),
        away.usual("id_rsa", KINDS[3], ""),
    ];
    let named = away.key("named", KINDS[0], "");
    let state = away.path("home");
    let client = || away.client().env("SSH_AUTH_SOCK", agent.socket());
    // The local identity is made by the first use.
    away.run(client()).expect(254);
    let mut order: Vec<_> = std::iter::once(&of_agent).chain(&files).map(|k| public(k)).collect();
    order.push(std::fs::read_to_string(state.join("identity.pub")).unwrap().trim().to_owned());
    while !order.is_empty() {
        let lines: Vec<_> = order.iter().rev().map(String::as_str).collect();
        away.authorize(&lines);
        let ran = away.run(client()).expect(0);
        let first = away.path("first.pub");
        std::fs::write(&first, &order[0]).unwrap();
        let print = fingerprint(&first);
        assert!(ran.stderr.contains(&format!("let us in as key:{print}")), "{}", ran.stderr);
        let proving: Vec<_> =
            ran.stderr.lines().filter(|line| line.contains(": proving ")).collect();
        assert!(proving.last().unwrap().contains(&print), "{}", ran.stderr);
        // However many stand before it: the server has named it.
        assert!(proving.len() <= 2, "{}", ran.stderr);
        // A key that was named is the only one.
        away.run(client().arg("-i").arg(&named)).expect(254);
        order.remove(0);
    }
    away.authorize(&[&public(&named)]);
    let ran = away.run(client().arg("-i").arg(&named)).expect(0);
    assert!(ran.stderr.contains(&format!("{} {}", fingerprint(&named), named.display())));
    away.run(client()).expect(254);
}

#[test]
fn the_next_key_is_asked_for_when_one_cannot_be_proved() {
    let away = Away::new();
    let locked: Vec<_> = ["id_ed25519", "id_ecdsa", "id_rsa"]
        .iter()
        .zip([KINDS[0], KINDS[1], KINDS[3]])
        .map(|(name, kind)| away.usual(name, kind, "open sesame"))
        .collect();
    let lines: Vec<_> = locked.iter().map(|key| public(key)).collect();
    away.authorize(&lines.iter().map(String::as_str).collect::<Vec<_>>());
    // Only the last one's passphrase is given.
    let askpass = away.askpass("case \"$1\" in *rsa*) echo 'open sesame';; *) exit 1;; esac");
    let ran = away.run(away.client().env("REXEC_ASKPASS", &askpass)).expect(0);
    let let_in = format!("let us in as key:{}", fingerprint(&locked[2]));
    assert!(ran.stderr.contains(&let_in), "{}", ran.stderr);
    assert_eq!(away.asked().len(), 3);
    assert_eq!(ran.stderr.matches("its passphrase was not given").count(), 2, "{}", ran.stderr);
}

/// The host key and the local identity, which rexec makes itself.
#[test]
fn the_keys_that_rexec_makes_are_used_by_openssh() {
    let away = Away::new();
    let identity = Server::start(&[]);
    identity.run(&["true"]).expect(0);
    for name in ["host_key", "identity"] {
        let path = identity.state().join(name);
        let mut keygen = Command::new("ssh-keygen");
        let said = keygen.arg("-yf").arg(&path).output().unwrap();
        let (said, line) = (String::from_utf8(said.stdout).unwrap(), public(&path));
        let words = |line: &str| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(said.trim()), words(&line), "{name}");
    }
    let agent = RealAgent::start();
    let key = identity.state().join("identity");
    agent.add(&key);
    away.authorize(&[&public(&key)]);
    let ran = away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(0);
    assert!(ran.stderr.contains("in ssh-agent"), "{}", ran.stderr);
}
