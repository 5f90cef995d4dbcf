//! With which key a client logs in: files as ssh-keygen makes them, ssh-agent, security keys, and in which
//! order. What is made by OpenSSH's own programs is used as it is.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::support::agent::{FakeAgent, LIST, RealAgent, answer, listed, to_sign};
use super::support::soft_key::{SoftKey, TOUCHED, string};
use super::support::terminal::Terminal;
use super::support::{Client, Ran, Server};

/// Every kind of key that can sign from a file, as `ssh-keygen -t`, `-b` has it.
const KINDS: [[&str; 2]; 6] = [
    ["ed25519", "256"],
    ["ecdsa", "256"],
    ["ecdsa", "384"],
    ["rsa", "2048"],
    ["rsa", "3072"],
    ["rsa", "4096"],
];

/// A client that shares nothing with its server, as on another machine, and keys in a folder.
struct Away {
    server: Server,
    here: tempfile::TempDir,
    list: PathBuf,
}

impl Away {
    /// The server lets nobody in yet.
    fn new() -> Self {
        let here = tempfile::tempdir().unwrap();
        let list = here.path().join("authorized_keys");
        std::fs::write(&list, "").unwrap();
        let mut home = std::fs::DirBuilder::new();
        let private = std::os::unix::fs::DirBuilderExt::mode(&mut home, 0o700);
        private.create(here.path().join("home")).unwrap();
        let server = Server::start(&["--authorized-keys", list.to_str().unwrap(), "--verbose"]);
        Self { server, here, list }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    /// A new key in the folder.
    fn key(&self, name: &str, kind: [&str; 2], passphrase: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", kind[0], "-b", kind[1], "-C", name, "-a", "2"]);
        let made = command.args(["-N", passphrase, "-f"]).arg(&path).status();
        assert!(made.unwrap().success());
        path
    }

    /// One of those that are looked for without being named.
    fn usual(&self, name: &str, kind: [&str; 2], passphrase: &str) -> PathBuf {
        self.key(&format!("home/.ssh/{name}"), kind, passphrase)
    }

    /// Lets these lines in, and no others.
    fn authorize(&self, lines: &[&str]) {
        std::fs::write(&self.list, lines.join("\n")).unwrap();
    }

    /// `rexec -v`, which knows the server's key.
    fn client(&self) -> Client {
        let (_, print) = super::auth::host_key(&self.server);
        let client =
            Client::new(&self.path("home")).args(&["-v", "--host-key", &print.to_string()]);
        // The agents of whoever runs the tests are not theirs.
        client.env("SSH_AUTH_SOCK", "")
    }

    fn run(&self, client: Client) -> Ran {
        let address = self.server.addr.replace("127.0.0.1", "127.1");
        client.args(&[&address, "echo hi"]).run()
    }

    fn with(&self, key: &Path) -> Ran {
        self.run(self.client().arg("-i").arg(key))
    }

    /// A program that prints a passphrase, and notes each time that it was asked.
    fn askpass(&self, prints: &str) -> PathBuf {
        let (path, asked) = (self.path("askpass"), self.path("asked"));
        let text = format!("#!/bin/sh\necho \"$1\" >> {}\n{prints}\n", asked.display());
        std::fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    /// How often it was asked, and for what.
    fn asked(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often somebody has logged in.
    fn logins(&self) -> usize {
        self.server.log().matches("logged in").count()
    }
}

fn public(key: &Path) -> String {
    std::fs::read_to_string(key.with_extension("pub")).unwrap().trim().to_owned()
}

fn fingerprint(key: &Path) -> String {
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
fn every_kind_of_key_logs_in_through_ssh_agent() {
    let away = Away::new();
    let agent = RealAgent::start();
    // The agent has the keys that rexec cannot use too.
    let others = [["ecdsa", "521"], ["rsa", "1024"]];
    let keys: Vec<_> = others
        .iter()
        .chain(&KINDS)
        .map(|kind| {
            let key = away.key(&kind.concat(), *kind, "");
            agent.add(&key);
            std::fs::remove_file(&key).unwrap();
            key
        })
        .collect();
    for key in &keys[others.len()..] {
        away.authorize(&[&public(key)]);
        let ran = away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(0);
        let print = fingerprint(&key.with_extension("pub"));
        assert!(ran.stderr.contains(&format!("let us in as key:{print}")), "{}", ran.stderr);
        assert!(ran.stderr.contains("ssh-agent has 6 keys that can be used"), "{}", ran.stderr);
        // The file of the public key says which of the agent's keys is meant.
        for named in [key.with_extension("pub"), key.clone()] {
            let client = away.client().env("SSH_AUTH_SOCK", agent.socket());
            let ran = away.run(client.arg("-i").arg(named)).expect(0);
            assert!(ran.stderr.contains("proving") && ran.stderr.contains(&print));
        }
    }
    for key in &keys[..others.len()] {
        away.authorize(&[&public(key)]);
        away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(254);
    }
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
    terminal.shows("its passphrase was not given");
    terminal.shows("status 255");
    let before = terminal.shows(" echo ");
    assert!(before.contains("\nisig icanon "), "{before}");
    terminal.ends();
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

/// No agent is asked, and no key looked for, by a server of this account on this machine.
#[test]
fn this_accounts_own_server_is_shown_the_local_identity() {
    let server = Server::start(&[]);
    let agent = FakeAgent::start(|_, _| None);
    let client = Client::new(server.state()).arg("-v").env("SSH_AUTH_SOCK", agent.socket());
    let ran = client.args(&[&server.addr, "echo hi"]).run().expect(0);
    assert!(ran.stderr.contains("this account's own"), "{}", ran.stderr);
    assert!(ran.stderr.contains("let us in as local:"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("ssh-agent"), "{}", ran.stderr);
}

/// One line each, and the next key is tried.
#[test]
fn an_agent_that_fails_is_told_of_and_passed_over() {
    let away = Away::new();
    let file = away.usual("id_ed25519", KINDS[0], "");
    let agents = away.key("agents", KINDS[0], "");
    away.authorize(&[&public(&file), &public(&agents)]);
    let blob = {
        use base64::Engine as _;
        let line = public(&agents);
        base64::engine::general_purpose::STANDARD.decode(line.split(' ').nth(1).unwrap()).unwrap()
    };
    let keys = move || listed(&[blob.clone()]);
    let at_list = |reply: Option<Vec<u8>>| FakeAgent::start(move |_, _| reply.clone());
    let at_sign = |reply: Option<Vec<u8>>| {
        let keys = keys.clone();
        FakeAgent::start(move |kind, _| if kind == LIST { Some(keys()) } else { reply.clone() })
    };
    let long = (256u32 << 10) + 1;
    let other = SoftKey::new(true);
    let signature = |name: &[u8], bytes: &[u8]| {
        Some(answer(14, &string(&[string(name), string(bytes)].concat())))
    };
    let rows = [
        ("closes", at_list(None), "ssh-agent closed the connection"),
        ("fails", at_list(Some(answer(5, b""))), "ssh-agent refused"),
        (
            "too long",
            at_list(Some(long.to_be_bytes().to_vec())),
            "of 262145 bytes; the limit is 262144",
        ),
        ("much too long", at_list(Some(vec![0xff; 4])), "of 4294967295 bytes"),
        ("rubbish", at_list(Some(answer(99, b"?"))), "answer is damaged"),
        ("empty", at_list(Some(vec![0; 4])), "answer is damaged"),
        ("counts more", at_list(Some(answer(12, &[0xff; 4]))), "answer is damaged"),
        (
            "lengths lie",
            at_list(Some(answer(12, &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]))),
            "is damaged",
        ),
        ("goes on", at_list(Some(answer(12, &[0; 5]))), "answer is damaged"),
        ("signs not", at_sign(Some(answer(5, b""))), "ssh-agent refused"),
        ("closes late", at_sign(None), "ssh-agent closed the connection"),
        ("signs rubbish", at_sign(Some(answer(14, &string(b"?")))), "answer is damaged"),
        ("signs wrong", at_sign(signature(b"ssh-ed25519", &[7; 64])), "does not prove the key"),
        ("another type", at_sign(signature(b"rsa-sha2-512", &[7; 256])), "does not prove the key"),
        (
            "another key",
            at_sign(Some(answer(14, &string(&other.sign(b"", TOUCHED, 1))))),
            "not prove",
        ),
    ];
    for (name, agent, part) in rows {
        let ran = away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(0);
        let told: Vec<_> = ran.stderr.lines().filter(|line| line.contains(part)).collect();
        assert_eq!(told.len(), 1, "{name}: {}", ran.stderr);
        let let_in = format!("let us in as key:{}", fingerprint(&file));
        assert!(ran.stderr.contains(&let_in), "{name}: {}", ran.stderr);
        // It is told without -v too, but a socket that was left behind is not.
        let (_, print) = super::auth::host_key(&away.server);
        let client = Client::new(&away.path("home")).args(&["--host-key", &print.to_string()]);
        let ran = away.run(client.env("SSH_AUTH_SOCK", agent.socket())).expect(0);
        assert_eq!(ran.stderr.lines().count(), 1, "{name}: {}", ran.stderr);
    }
    let (_, print) = super::auth::host_key(&away.server);
    let client = Client::new(&away.path("home")).args(&["--host-key", &print.to_string()]);
    let ran = away.run(client.env("SSH_AUTH_SOCK", away.path("no-such"))).expect(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn an_agent_that_hangs_is_given_up() {
    let away = Away::new();
    let file = away.usual("id_ed25519", KINDS[0], "");
    away.authorize(&[&public(&file)]);
    let agent = FakeAgent::start(|_, _| {
        std::thread::sleep(Duration::from_secs(3600));
        None
    });
    let ran = away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(0);
    assert!(ran.stderr.contains("ssh-agent did not answer within 5 s"), "{}", ran.stderr);
}

/// An agent with security keys, which count each touch. `flags`: what they say of the person.
fn with_security_keys(keys: Vec<SoftKey>, flags: u8) -> FakeAgent {
    FakeAgent::start(move |kind, body| {
        if kind == LIST {
            return Some(listed(&keys.iter().map(SoftKey::blob).collect::<Vec<_>>()));
        }
        let (blob, message) = to_sign(body);
        let key = keys.iter().find(|key| key.blob() == blob)?;
        Some(answer(14, &string(&key.sign(&message, flags, 1))))
    })
}

/// With a security key in software: no device is at hand, and OpenSSH's own software one is not packaged.
#[test]
fn a_security_key_is_touched_once_and_only_for_a_server_that_lists_it() {
    let away = Away::new();
    for is_ed25519 in [true, false] {
        let (key, other) = (SoftKey::new(is_ed25519), SoftKey::new(!is_ed25519));
        let line = key.line();
        let agent = with_security_keys(vec![other, key], TOUCHED);
        let client = || away.client().env("SSH_AUTH_SOCK", agent.socket());
        away.authorize(&[]);
        away.run(client()).expect(254);
        assert_eq!(agent.signatures(), 0, "the server lists none of them");
        away.authorize(&[&line]);
        let ran = away.run(client()).expect(0);
        assert_eq!(agent.signatures(), 1, "only the one that the server has named");
        assert!(ran.stderr.contains("touch the security key to prove sk-"), "{}", ran.stderr);
        // A key that nobody has to touch goes first, if the server lists it.
        let plain = away.usual("id_ed25519", KINDS[0], "");
        away.authorize(&[&line, &public(&plain)]);
        away.run(client()).expect(0);
        assert_eq!(agent.signatures(), 1);
        std::fs::remove_dir_all(away.path("home/.ssh")).unwrap();
    }
}

#[test]
fn a_security_key_that_nobody_touched_is_not_let_in() {
    let away = Away::new();
    let key = SoftKey::new(true);
    away.authorize(&[&key.line()]);
    let agent = with_security_keys(vec![key], 0);
    let ran = away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(254);
    assert!(ran.stderr.contains("was not touched for this signature"), "{}", ran.stderr);
}

/// Its file is a handle: what signs is the device, through ssh-agent.
#[test]
fn the_file_of_a_security_key_says_to_use_ssh_agent() {
    let away = Away::new();
    let (path, key) = (away.path("id_ed25519_sk"), SoftKey::new(true));
    std::fs::write(&path, handle(&key)).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&path, mode).unwrap();
    let listed = Command::new("ssh-keygen").args(["-y", "-f"]).arg(&path).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().starts_with(&key.line()));
    let ran = away.with(&path).expect(255);
    assert!(ran.stderr.contains("through ssh-agent; run: ssh-add"), "{}", ran.stderr);
    // With it, the file says which key is meant.
    away.authorize(&[&key.line()]);
    let agent = with_security_keys(vec![SoftKey::new(true), key], TOUCHED);
    let client = away.client().env("SSH_AUTH_SOCK", agent.socket());
    away.run(client.arg("-i").arg(&path)).expect(0);
    assert_eq!(agent.signatures(), 1);
}

/// The file that ssh-keygen makes for a security key.
fn handle(key: &SoftKey) -> String {
    use ssh_key::private::{KeypairData, SkEd25519};
    let public = ssh_key::PublicKey::from_bytes(&key.blob()).unwrap();
    let public = public.key_data().sk_ed25519().unwrap().clone();
    let private = SkEd25519::new(public, TOUCHED, vec![7; 64]).unwrap();
    let file = ssh_key::PrivateKey::new(KeypairData::SkEd25519(private), "sk").unwrap();
    file.to_openssh(ssh_key::LineEnding::LF).unwrap().to_string()
}

/// A server that names keys is asked so often, not for ever.
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
