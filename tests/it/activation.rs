//! Sockets that a service manager hands over (sd_listen_fds(3)).

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::support::activate::activated;
use super::support::{Client, Ran, Server, allow_descriptors, has_ipv6};

/// What a server says that must not start with these descriptors and arguments.
fn refused(status: i32, made: &[&str], args: &[&str], env: &[(&str, &str)]) -> String {
    allow_descriptors();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("true");
    command.env("REXEC_STATE_DIR", dir.path().join("state")).envs(env.iter().copied());
    activated(made, args)(&mut command);
    let mut limited = Command::new("timeout");
    limited.arg("60").arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(limited.stdin(Stdio::null()).output().unwrap()).expect(status);
    assert_eq!(ran.text(), "");
    ran.stderr
}

fn one_line(text: &str) -> &str {
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn without_listen_it_serves_what_was_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let unix = format!("unix:{}", path.display());
    let mut server = Server::with(&[], activated(&["tcp:127.0.0.1", &unix], &[]));
    assert_eq!(server.unix, unix);
    server.run(&["true"]).expect(0);
    let ran = Client::new(server.state()).args(&[&server.unix, "env"]).run().expect(0);
    assert!(!ran.text().contains("LISTEN_"), "{}", ran.text());
    let instance = server.state().join("instances").join(&server.addr);
    assert!(instance.is_dir(), "{}", instance.display());
    // The manager has made the file, and listens on.
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    assert!(path.exists());
}

/// The addresses are taken: binding them anew would fail.
#[test]
fn a_socket_that_was_handed_over_is_used_for_its_listen_address() {
    if !has_ipv6() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/s", dir.path().display());
    let made = ["tcp:127.0.0.1", &unix, "tcp:::1"];
    let args = ["--listen", "{0}", "--listen", "{1}", "--listen", "{2}", "--listen", "127.0.0.1:0"];
    let mut server = Server::with(&[], activated(&made, &args));
    let v6 = server.announced();
    let fresh = server.announced();
    assert!(v6.starts_with("[::1]:"), "{v6}");
    assert!(fresh.starts_with("127.0.0.1:") && fresh != server.addr, "{fresh}");
    for address in [&server.addr, &server.unix, &v6, &fresh] {
        Client::new(server.state()).args(&[address, "true"]).run().expect(0);
    }
}

#[test]
fn what_is_no_listening_stream_socket_is_refused() {
    for made in ["udp", "connected", "file"] {
        let said = refused(1, &["tcp:127.0.0.1", made], &[], &[]);
        let line = one_line(&said);
        assert!(line.contains("descriptor 4 (\"web\")") && line.contains("Accept=no"), "{line}");
    }
    let said = refused(1, &["abstract:rexec-test"], &[], &[]);
    assert!(one_line(&said).contains("ListenStream=/path"), "{said}");
}

#[test]
fn a_socket_that_no_listen_names_is_refused_with_its_address() {
    let said = refused(1, &["tcp:127.0.0.1"], &["--listen", "127.0.0.1:0"], &[]);
    assert!(one_line(&said).contains("no --listen names it: add --listen 127.0.0.1:"), "{said}");
}

#[test]
fn others_may_reach_it_only_if_somebody_is_authorized() {
    let said = refused(1, &["tcp:0.0.0.0"], &[], &[]);
    assert!(one_line(&said).contains("--authorized-keys"), "{said}");
}

#[test]
fn what_was_handed_over_to_another_process_or_is_not_there_is_not_taken() {
    let said = refused(2, &["tcp:127.0.0.1"], &[], &[("LISTEN_PID", "1")]);
    assert!(said.contains("nothing to listen on: give --listen ADDR"), "{said}");
    for wrong in [("LISTEN_FDS", "2"), ("LISTEN_FDS", "x"), ("LISTEN_FDNAMES", "a:b")] {
        let said = refused(1, &["tcp:127.0.0.1"], &[], &[wrong]);
        assert!(one_line(&said).contains("sd_listen_fds(3)"), "{wrong:?}: {said}");
    }
}

/// A descriptor that a script has left open may hold a lock for as long as the server lives.
#[test]
fn a_descriptor_that_is_not_meant_for_it_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let held = dir.path().join("held");
    let text = format!("exec 3>'{}'; exec \"$@\"", held.display());
    let server = Server::with(&[], super::support::server::under(&["sh", "-c", &text, "sh"]));
    server.run(&["true"]).expect(0);
    let folder = format!("/proc/{}/fd", server.pid());
    let open = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files = open.filter_map(|fd| std::fs::read_link(fd).ok());
    assert!(files.any(|file| file == Path::new(&held)));
}
