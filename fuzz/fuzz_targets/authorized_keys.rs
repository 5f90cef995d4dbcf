//! Each line lets one key in or is reported, an option that is not known lets nobody in, and what is held
//! back stays so: whatever stands before and after.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::authorized_keys::parse;
use rexec::identity::{KeyOptions, Permits};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO+DTkkHCrlYqEAhkBNqoY+YOK1RE4kjIwUF851ZuOiM me";

fuzz_target!(|text: &str| {
    let all = Permits { environment: true };
    let (entries, errors) = parse(text, all);
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = plain.split('\n').map(|l| l.trim_matches([' ', '\t', '\r'])).collect();
    assert_eq!(entries.len() + errors.len(), lines.iter().filter(|l| said(l)).count());
    for entry in &entries {
        assert!(lines[entry.line - 1].contains(&entry.key.algorithm()));
        assert!(!entry.comment.contains(char::is_control));
    }
    let strict = parse(text, Permits::default()).0;
    assert!(strict.iter().all(|entry| entry.options.environment.is_empty()));
    let unknown: Vec<String> =
        lines.iter().filter(|l| said(l)).map(|l| format!("unheard-of,{l}")).collect();
    assert!(parse(&unknown.join("\n"), all).0.is_empty(), "an option was ignored");
    let (more, _) = parse(&format!("{text}\n{KEY}"), all);
    assert_eq!(more.len(), entries.len() + 1);
    assert_eq!(more[entries.len()].comment, "me");
    options(text);
});

/// What is restricted stays restricted whatever follows; a command that is quoted reads back as it was.
fn options(text: &str) {
    let all = Permits { environment: true };
    if let Ok(options) = KeyOptions::parse(&format!("restrict,{text}"), all) {
        assert!(options.restrict && options.is_restricted());
    }
    let usable = !text.trim().is_empty() && !text.contains(['\u{fffd}', '\n']);
    if usable && !text.contains("\\\"") && !text.ends_with('\\') {
        let quoted = format!("command=\"{}\"", text.replace('"', "\\\""));
        let read = KeyOptions::parse(&quoted, all).map(|options| options.command);
        assert!(read.is_err() || read == Ok(Some(text.to_owned())), "{read:?}");
        assert_eq!(read.is_ok(), !text.contains(|c: char| c.is_control() && c != '\t'));
    }
}
