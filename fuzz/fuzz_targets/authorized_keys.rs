//! Each line lets one key in or is reported, and no option is ever ignored.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::identity::authorized_keys::parse;

const LINE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO+DTkkHCrlYqEAhkBNqoY+YOK1RE4kjIwUF851ZuOiM me";

fuzz_target!(|text: &str| {
    let (entries, errors) = parse(text);
    let said = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let plain = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = plain.split('\n').map(|l| l.trim_matches([' ', '\t', '\r'])).collect();
    assert_eq!(entries.len() + errors.len(), lines.iter().filter(|l| said(l)).count());
    for entry in &entries {
        assert!(lines[entry.line - 1].starts_with("ssh-ed25519"));
        assert!(!entry.comment.contains(char::is_control));
    }
    let restricted: Vec<String> =
        lines.iter().filter(|l| said(l)).map(|l| format!("restrict {l}")).collect();
    assert!(parse(&restricted.join("\n")).0.is_empty(), "an option was ignored");
    let (more, _) = parse(&format!("{text}\n{LINE}"));
    assert_eq!(more.len(), entries.len() + 1);
    assert_eq!(more[entries.len()].comment, "me");
});
