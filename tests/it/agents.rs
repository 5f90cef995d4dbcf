//! Keys that ssh-agent holds: OpenSSH's own agent, agents that fail, and security keys.

use std::process::Command;
use std::time::Duration;

use super::keys::{Away, KINDS, fingerprint, public};
use super::support::agent::{FakeAgent, LIST, RealAgent, answer, listed, to_sign};
use super::support::soft_key::{SoftKey, TOUCHED, string};
use super::support::{Client, Server, wait_until};

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

/// Agents that say they hold the key of this line, and what is told of each.
fn failing(line: &str) -> Vec<(&'static str, FakeAgent, &'static str)> {
    use base64::Engine as _;
    let blob = line.split(' ').nth(1).unwrap();
    let blob = base64::engine::general_purpose::STANDARD.decode(blob).unwrap();
    let keys = move || listed(std::slice::from_ref(&blob));
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
    vec![
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
    ]
}

/// One line each, and the next key is tried.
#[test]
fn an_agent_that_fails_is_told_of_and_passed_over() {
    let away = Away::new();
    let file = away.usual("id_ed25519", KINDS[0], "");
    let agents = away.key("agents", KINDS[0], "");
    away.authorize(&[&public(&file), &public(&agents)]);
    for (name, agent, part) in failing(&public(&agents)) {
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
    away.run(away.client().env("SSH_AUTH_SOCK", agent.socket())).expect(254);
    // The peer is told what a stranger is told; the operator is told why.
    let log = || away.server.log();
    wait_until("the reason", || log().contains("was not touched for this signature"));
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
