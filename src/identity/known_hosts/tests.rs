use std::process::Command;

use super::*;

const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";

fn key(line: &str) -> PublicKey {
    let (kind, base64) = word(line);
    PublicKey::from_words(kind, base64).unwrap()
}

/// Another key.
fn b() -> String {
    let mut spki = key(A).to_spki().unwrap().to_vec();
    spki[43] ^= 1;
    PublicKey::from_spki(&spki).unwrap().to_string()
}

fn check(text: &str, host: &str, port: u16) -> Known {
    KnownHosts::parse(text).check(host, port, &key(A))
}

const fn known(line: usize) -> Known {
    Known::Known { line }
}

#[test]
fn names_and_ports() {
    assert_eq!(check(&format!("host {A}"), "host", 22), known(1));
    assert_eq!(check(&format!("host {A} comment"), "HOST", 8080), known(1));
    assert_eq!(check(&format!("[host]:8080 {A}"), "host", 8080), known(1));
    assert_eq!(check(&format!("[host]:8080 {A}"), "host", 8081), Known::Unknown);
    assert_eq!(check(&format!("[host]:8080 {A}"), "host", 22), Known::Unknown);
    assert_eq!(check(&format!("[::1]:8080 {A}"), "::1", 8080), known(1));
    assert_eq!(check(&format!("# c\n\n\ta,host,b\t{A}"), "host", 1), known(3));
    assert_eq!(check("", "host", 1), Known::Unknown);
}

#[test]
fn the_line_to_add_is_found() {
    for (host, port) in [("Host", 22), ("host", 8080), ("::1", 8080)] {
        assert_eq!(check(&line_for(host, port, &key(A)), host, port), known(1));
    }
}

#[test]
fn another_key_is_a_change() {
    let b = b();
    let fingerprint = key(&b).fingerprint();
    let changed = |line| Known::Changed { line, fingerprint };
    assert_eq!(check(&format!("[host]:1 {b}"), "host", 1), changed(1));
    assert_eq!(check(&format!("host {b}"), "host", 1), changed(1));
    assert_eq!(check(&format!("host {b}\nhost {A}"), "host", 1), known(2));
    assert_eq!(check(&format!("host {A}\n[host]:1 {b}"), "host", 1), changed(2), "exact first");
    assert_eq!(check(&format!("host {b}\n[host]:1 {A}"), "host", 1), known(2), "exact first");
}

#[test]
fn wildcards_and_negation() {
    let text = format!("*.example.com,!bad.example.com {A}\n10.0.0.? {A}");
    assert_eq!(check(&text, "a.example.com", 8080), known(1));
    assert_eq!(check(&text, "bad.example.com", 8080), Known::Unknown);
    assert_eq!(check(&text, "example.com", 8080), Known::Unknown);
    assert_eq!(check(&text, "10.0.0.7", 1), known(2));
    assert_eq!(check(&text, "10.0.0.77", 1), Known::Unknown);
    assert_eq!(check(&format!("*,!bad {A}"), "bad", 8080), Known::Unknown);
    assert_eq!(check(&format!("*,!bad {A}"), "good", 8080), known(1));
    assert_eq!(check(&format!("!host {A}"), "other", 1), Known::Unknown);
}

#[test]
fn revoked_goes_first_wherever_it_stands() {
    let revoked = Known::Revoked { line: 2 };
    assert_eq!(check(&format!("host {A}\n@revoked host {A}"), "host", 1), revoked);
    assert_eq!(check(&format!("[host]:1 {A}\n@revoked * {A}"), "host", 1), revoked);
    assert_eq!(check(&format!("host {A}\n@revoked other {A}"), "host", 1), known(1));
    assert_eq!(check(&format!("@revoked * {}", b()), "host", 1), Known::Unknown);
    assert_eq!(check(&format!("@revoked * {}\nhost {A}", b()), "host", 1), known(2));
}

#[test]
fn lines_left_out_are_reported() {
    let text = format!(
        "@cert-authority *.example.com {A}\n@other h {A}\nh\nh ssh-ed25519\nh nonsense AAAA\n\
         |1|x|y {A}\n|1|{A}\nh ssh-ed25519 AAAA\nh {A}"
    );
    let hosts = KnownHosts::parse(&text);
    let lines: Vec<_> = hosts.errors().iter().map(|e| e.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(hosts.errors()[0].reason, LineReason::CertAuthority);
    assert_eq!(hosts.check("a.example.com", 1, &key(A)), Known::Unknown);
    assert_eq!(hosts.check("h", 1, &key(A)), known(9));
}

#[test]
fn a_line_over_the_limit() {
    let room = LINE_LIMIT - "h ".len() - A.len() - 1;
    let line = |n| format!("h {A} {}", "c".repeat(n));
    assert_eq!(check(&line(room), "h", 1), known(1));
    let hosts = KnownHosts::parse(&line(room + 1));
    assert_eq!(hosts.errors()[0].reason, LineReason::TooLong);
}

/// Files as ssh-keygen hashes them, with an RSA line that is no change of the Ed25519 key.
#[test]
fn hashed_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("known_hosts");
    let rsa = dir.path().join("rsa");
    let run = |command: &mut Command| assert!(command.status().unwrap().success());
    run(Command::new("ssh-keygen").args(["-q", "-t", "rsa", "-N", "", "-f"]).arg(&rsa));
    let rsa = std::fs::read_to_string(rsa.with_extension("pub")).unwrap();
    let text = format!("plain {A}\n[port]:8080 {A}\nother {rsa}");
    crate::sys::fs::testing::put(&path, 0o600, text.as_bytes());
    run(Command::new("ssh-keygen")
        .args(["-q", "-H", "-f"])
        .arg(&path)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null()));
    let hashed = std::fs::read_to_string(&path).unwrap();
    assert!(hashed.starts_with("|1|") && !hashed.contains("plain"));
    let hosts = KnownHosts::load(&path).unwrap();
    assert_eq!(hosts.errors(), []);
    assert_eq!(hosts.check("PLAIN", 8080, &key(A)), known(1));
    assert_eq!(hosts.check("port", 8080, &key(A)), known(2));
    assert_eq!(hosts.check("port", 22, &key(A)), Known::Unknown);
    assert_eq!(hosts.check("other", 22, &key(A)), Known::Unknown);
}

#[test]
fn cannot_read_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("known_hosts");
    let hosts = KnownHosts::load(&path).unwrap();
    assert_eq!(hosts.check("h", 1, &key(A)), Known::Unknown);
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(KnownHosts::load(&path), Err(FsError::NotAFile(_))));
    std::fs::remove_dir(&path).unwrap();
    crate::sys::fs::testing::put(&path, 0o666, b"");
    assert!(matches!(KnownHosts::load(&path), Err(FsError::Writable { .. })));
}
