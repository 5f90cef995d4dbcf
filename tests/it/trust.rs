//! Which server is believed the first time, and afterwards.

use std::process::Command;

use super::auth::{Abroad, key};
use super::support::terminal::Terminal;
use super::support::{Client, Server, in_parallel};

/// The file of known hosts of the account that a test's client has.
fn known(abroad: &Abroad) -> std::path::PathBuf {
    abroad.path("state/.config/rexec/known_hosts")
}

#[test]
fn accept_new_remembers_a_host_and_refuses_it_with_another_key() {
    let abroad = Abroad::new("");
    let (_, print) = abroad.host_key();
    let ran = abroad.run(&["--accept-new"]).expect(0);
    assert_eq!(ran.text(), "hi\n");
    assert!(ran.stderr.contains(&print.to_string()), "{}", ran.stderr);
    let listed = std::fs::read_to_string(known(&abroad)).unwrap();
    assert!(listed.starts_with("[127.1]:") && listed.lines().count() == 1, "{listed}");
    let ran = abroad.run(&[]).expect(0);
    assert_eq!(ran.stderr, "");
    // ssh-keygen reads what was written.
    let address = abroad.address();
    let (host, port) = address.split_once(':').unwrap();
    let mut find = Command::new("ssh-keygen");
    find.args(["-F", &format!("[{host}]:{port}"), "-f"]).arg(known(&abroad));
    assert!(find.output().unwrap().status.success());
    // And what it writes is read: the names hashed.
    let mut hash = Command::new("ssh-keygen");
    assert!(hash.args(["-q", "-H", "-f"]).arg(known(&abroad)).output().unwrap().status.success());
    assert!(std::fs::read_to_string(known(&abroad)).unwrap().starts_with("|1|"));
    assert_eq!(abroad.run(&[]).expect(0).stderr, "");
    let (_, other) = key(abroad.here.path(), "other");
    std::fs::write(known(&abroad), format!("{} {other}", "[127.1]:".to_owned() + port)).unwrap();
    let ran = abroad.run(&["--accept-new"]).expect(255);
    assert!(ran.stderr.contains("Somebody may be listening in"), "{}", ran.stderr);
    let server_key = print.to_string();
    let text = format!("@revoked * {}", abroad.host_key().0);
    std::fs::write(known(&abroad), text).unwrap();
    let ran = abroad.run(&["--accept-new"]).expect(255);
    assert!(ran.stderr.contains(&format!("({server_key}) is revoked")), "{}", ran.stderr);
}

/// Of many clients that meet a host for the first time, whoever is there first writes the line.
#[test]
fn clients_that_meet_a_host_at_once_remember_it_once() {
    let abroad = Abroad::new("");
    in_parallel(8, 8, |_| {
        abroad.run(&["--accept-new"]).expect(0);
    });
    let listed = std::fs::read_to_string(known(&abroad)).unwrap();
    assert_eq!(listed.lines().count(), 1, "{listed}");
}

/// No byte of a request goes to a host before its key is remembered.
#[test]
fn a_host_that_cannot_be_remembered_is_not_believed() {
    let abroad = Abroad::new("");
    let ran = abroad.run(&["--accept-new", "--known-hosts", "/proc/no-such/file"]).expect(255);
    assert!(ran.stderr.contains("cannot be added to the known hosts"), "{}", ran.stderr);
    assert!(abroad.server.journal().iter().all(|line| line["type"] != "accepted"));
}

/// On this machine an unknown key means that somebody else answers: that is no first use.
#[test]
fn accept_new_does_not_believe_another_users_server_on_this_machine() {
    let (server, here) = (Server::start(&[]), tempfile::tempdir().unwrap());
    let client = Client::new(&here.path().join("state")).arg("--accept-new");
    let ran = client.args(&[&server.addr, "true"]).run().expect(255);
    assert!(ran.stderr.contains("another user or program answers"), "{}", ran.stderr);
    let why = "(--accept-new is for other machines)";
    assert!(ran.stderr.contains(why), "{}", ran.stderr);
    let plain = Client::new(&here.path().join("state")).args(&[&server.addr, "true"]).run();
    assert!(!plain.expect(255).stderr.contains("--accept-new"), "nobody has asked for it");
}

fn on_terminal(abroad: &Abroad) -> Terminal {
    let (key, address) = (abroad.here.path().join("friend"), abroad.address());
    let line = format!("-i {} {address} 'echo h''i'", key.display());
    Terminal::with(&abroad.path("state"), &line)
}

#[test]
fn on_a_terminal_an_unknown_host_is_asked_about_with_its_fingerprint() {
    let abroad = Abroad::new("");
    let (_, print) = abroad.host_key();
    for (typed, status) in [("no\n", 255), ("\x04", 255)] {
        let mut terminal = on_terminal(&abroad);
        terminal.shows(&format!("ssh-ed25519 {print}"));
        terminal.shows("(yes/no/fingerprint)? ");
        terminal.types(typed);
        terminal.shows("is not known");
        assert_eq!(terminal.ends(), status);
        assert!(!known(&abroad).exists());
    }
    for answer in ["yes".to_owned(), print.to_string()] {
        let mut terminal = on_terminal(&abroad);
        terminal.shows("(yes/no/fingerprint)? ");
        terminal.types(format!("y\nSHA256:{}\n", "A".repeat(43)));
        terminal.shows("Type yes, no or the fingerprint: ");
        terminal.shows("Type yes, no or the fingerprint: ");
        terminal.types(format!("{answer}\n"));
        terminal.shows("hi");
        assert_eq!(terminal.ends(), 0);
        // It is not asked again.
        let mut terminal = on_terminal(&abroad);
        assert!(!terminal.shows("hi").contains("yes/no"));
        assert_eq!(terminal.ends(), 0);
        std::fs::remove_file(known(&abroad)).unwrap();
    }
}

/// At a question too, of whatever asks it, keys do what they do elsewhere.
#[test]
fn keys_that_are_signals_end_or_suspend_a_question() {
    let abroad = Abroad::new("");
    let (key, address) = (abroad.here.path().join("friend"), abroad.address());
    let key = key.display();
    for (typed, status) in [("\x03", 130), ("ye\x1c", 131)] {
        for verb in ["", "ps ", "-d "] {
            let command = if verb == "ps " { "" } else { "true" };
            let line = format!("{verb}-i {key} {address} {command}");
            let mut terminal = Terminal::with(&abroad.path("state"), &line);
            terminal.shows("(yes/no/fingerprint)? ");
            terminal.types(typed);
            let screen = std::sync::Arc::clone(&terminal.screen);
            assert_eq!(terminal.ends(), status, "{line}");
            assert!(!screen.lock().unwrap().contains("add this line"), "{line}");
        }
    }
    let rexec = env!("CARGO_BIN_EXE_rexec");
    let line = format!("set -m; {rexec} -i {key} {address} 'echo h''i'; echo slept; fg");
    let mut terminal = Terminal::shell(&abroad.path("state"), &line);
    terminal.shows("(yes/no/fingerprint)? ");
    terminal.types("n\x1a");
    terminal.shows("slept");
    terminal.shows("(yes/no/fingerprint)? ");
    terminal.types("yes\n");
    terminal.shows("hi");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_changed_key_is_never_asked_about() {
    let abroad = Abroad::new("");
    let (_, other) = key(abroad.here.path(), "other");
    std::fs::create_dir_all(known(&abroad).parent().unwrap()).unwrap();
    let line = format!("[{}]:{} {other}", "127.1", abroad.address().split_once(':').unwrap().1);
    std::fs::write(known(&abroad), &line).unwrap();
    let mut terminal = on_terminal(&abroad);
    assert!(!terminal.shows("Somebody may be listening in").contains("yes/no"));
    assert_eq!(terminal.ends(), 255);
    assert_eq!(std::fs::read_to_string(known(&abroad)).unwrap(), line);
}

#[test]
fn host_key_prints_what_a_server_shows_and_says_that_nobody_has_verified_it() {
    let abroad = Abroad::new("");
    let (line, print) = abroad.host_key();
    let show =
        |address: &str| Client::new(&abroad.path("state")).args(&["host-key", address]).run();
    let ran = show(&abroad.address()).expect(0);
    let blob = line.split(' ').nth(1).unwrap();
    let port = abroad.address().split_once(':').unwrap().1.to_owned();
    let expected =
        format!("# 127.1:{port} {print}, not verified\n[127.1]:{port} ssh-ed25519 {blob}\n");
    assert_eq!(ran.text(), expected);
    assert!(ran.stderr.contains("before you trust it"), "{}", ran.stderr);
    // All of it may go into the file.
    let file = abroad.path("known_hosts");
    std::fs::write(&file, ran.stdout).unwrap();
    abroad.run(&["--known-hosts", file.to_str().unwrap()]).expect(0);
    assert!(show(&abroad.server.unix).expect(255).stderr.contains("no host key on a unix socket"));
    assert!(show("127.0.0.1:1").expect(255).stderr.contains("cannot reach"));
}
