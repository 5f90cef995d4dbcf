//! Whatever else a file says, a host's own line makes its key known, unless the key is revoked.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::PublicKey;
use rexec::identity::known_hosts::{Known, KnownHosts, line_for};

const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIO+DTkkHCrlYqEAhkBNqoY+YOK1RE4kjIwUF851ZuOiM";

fuzz_target!(|text: &str| {
    let key = PublicKey::from_base64(KEY).unwrap();
    let lines = text.split('\n').count();
    let read = KnownHosts::parse(text);
    assert!(read.errors().len() <= lines);
    assert!(read.errors().iter().all(|e| (1..=lines).contains(&e.line)));
    for (host, port) in [("a.example", 8080), ("::1", 22), ("A.Example", 22)] {
        let before = read.check(host, port, &key);
        let with_line = format!("{text}\n{}\n", line_for(host, port, &key));
        let after = KnownHosts::parse(&with_line).check(host, port, &key);
        match before {
            Known::Revoked { .. } | Known::Known { .. } if !is_plain(&before, port) => {
                assert_eq!(after, before);
            }
            _ => assert!(matches!(after, Known::Known { .. }), "{before:?} became {after:?}"),
        }
    }
});

/// A line without a port, which one with the port goes before.
fn is_plain(known: &Known, port: u16) -> bool {
    port != 22 && matches!(known, Known::Known { .. })
}
