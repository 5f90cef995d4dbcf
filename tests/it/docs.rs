//! The documents say what the program does.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use rexec::proto::code::Code;
use rexec::proto::digest::Digest;
use rexec::proto::frame::{Decoded, Limits, decode};
use rexec::proto::header::{ClientHeader, RunRequest, ServerHeader};
use rexec::proto::id;
use rexec::runs::{credit, disk, record, request, table};
use rexec::{conn, exec, handshake, identity, server};
use serde_json::Value;

use super::support::{Server, raw::Raw};

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// Every limit, in bytes, milliseconds or pieces.
fn limits() -> BTreeMap<&'static str, u128> {
    let count = |n: usize| n as u128;
    let time = |d: Duration| d.as_millis();
    BTreeMap::from([
        ("HEADER_LIMIT", count(Limits::FULL.header)),
        ("BODY_LIMIT", count(Limits::FULL.body)),
        ("HELLO_HEADER_LIMIT", count(Limits::HELLO.header)),
        ("KEYS_LIMIT", count(handshake::KEYS_LIMIT)),
        ("PROOF_LIMIT", count(identity::PROOF_LIMIT)),
        ("CERTIFICATE_LIMIT", count(identity::CERTIFICATE_LIMIT)),
        ("CERTIFICATES_LIMIT", count(handshake::CERTIFICATES_LIMIT)),
        ("HELLOS_LIMIT", count(handshake::HELLOS_LIMIT)),
        ("LOGIN_TIMEOUT", time(server::LOGIN_TIMEOUT)),
        ("PERSON_TIMEOUT", time(server::PERSON_TIMEOUT)),
        ("PLACES", count(server::PLACES)),
        ("ID_LIMIT", count(id::ID_LIMIT)),
        ("TEXT_LIMIT", count(exec::spec::TEXT_LIMIT)),
        ("DEFAULT_GRACE", time(request::DEFAULT_GRACE)),
        ("LONGEST_GRACE", time(request::LONGEST_GRACE)),
        ("OUTPUT_FLOOR", count(credit::OUTPUT.floor)),
        ("OUTPUT_FIRST", count(credit::OUTPUT.first)),
        ("OUTPUT_LARGEST", count(credit::OUTPUT.largest)),
        ("STARTED_WAIT", time(server::STARTED_WAIT)),
        ("STDIN_FIRST", count(credit::INPUT.first)),
        ("STDIN_LARGEST", count(credit::INPUT.largest)),
        ("MARK_EVERY", record::MARK_EVERY.into()),
        ("HEARTBEAT", time(conn::HEARTBEAT)),
        ("SILENCE", time(conn::SILENCE)),
        ("ARRIVING_LIMIT", count(conn::ARRIVING_LIMIT)),
        ("ARRIVING_FREE", count(conn::ARRIVING_FREE)),
        ("ARRIVING_TIME", time(conn::ARRIVING_TIME)),
        ("LONGEST_PAUSE", time(server::LONGEST_PAUSE)),
        ("HOLD_LIMIT", time(server::HOLD_LIMIT)),
        ("HELD_LIMIT", count(server::HELD_LIMIT)),
        ("LIST_LIMIT", count(server::LIST_LIMIT)),
        ("ANSWERS_LIMIT", count(server::ANSWERS_LIMIT)),
        ("JOURNAL_RESERVE", disk::writer::JOURNAL_RESERVE.into()),
        ("KEEP", time(table::KEEP)),
        ("REMEMBER", time(table::REMEMBER)),
        ("IDS_LIMIT", count(table::IDS_LIMIT)),
        ("IDENTITY_IDS_LIMIT", count(table::IDENTITY_IDS_LIMIT)),
    ])
}

/// A row such as `| SILENCE | 45 s | … |`.
fn limit(row: &str) -> Option<(&str, u128)> {
    let mut cells = row.strip_prefix("| ")?.split(" | ");
    let (name, value) = (cells.next()?, cells.next()?);
    let number: u128 = value.split(' ').next()?.replace(',', "").parse().ok()?;
    Some((name, if value.ends_with(" s") { number * 1000 } else { number }))
}

#[test]
fn each_limit_in_the_protocol_has_the_value_of_the_program() {
    let text = page("docs/protocol.md");
    let table = text.split("\n## Limits\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let said: BTreeMap<&str, u128> = table.lines().filter_map(limit).collect();
    assert_eq!(said, limits());
    for name in limits().keys().filter(|name| **name != "PLACES") {
        assert!(text.matches(name).count() >= 2, "{name} stands in the table alone");
    }
}

#[test]
fn the_protocol_names_every_code_field_and_frame() {
    let text = page("docs/protocol.md");
    let codes = Code::ALL.iter().map(|code| code.name());
    let frames = page("src/proto/header.rs");
    let frames: Vec<String> = frames.lines().filter_map(variant).collect();
    assert!(frames.len() > 25, "{frames:?}");
    for name in codes.chain(RunRequest::KNOWN).map(str::to_owned).chain(frames) {
        assert!(text.contains(&format!("`{name}`")), "{name} is missing");
    }
}

/// The wire's name of a variant of the two enums of frames.
fn variant(line: &str) -> Option<String> {
    let name = line.strip_prefix("    ")?;
    let end = name.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (name, rest) = name.split_at(end);
    let is_variant = name.starts_with(|c: char| c.is_ascii_uppercase())
        && (rest.starts_with(['(', ',']) || rest == " {")
        && !["Unknown", "Shell", "Argv", "Script", "Both"].contains(&name);
    let snake = |c: char| match c {
        'A'..='Z' => format!("_{}", c.to_ascii_lowercase()),
        c => c.to_string(),
    };
    is_variant.then(|| name.chars().map(snake).collect::<String>()[1..].to_owned())
}

/// One line of the example: who speaks, and the bytes.
fn example() -> Vec<(char, Vec<u8>)> {
    let text = page("docs/protocol.md");
    let lines = text.split("```frames\n").nth(1).unwrap().split("```").next().unwrap();
    let bytes = |line: &str| {
        let (prefix, rest) = line[2..].split_once(' ').unwrap();
        let (header, body) = rest.rsplit_once("} ").unwrap_or((&rest[..rest.len() - 1], ""));
        [unhex(prefix), format!("{header}}}").into_bytes(), unhex(body)].concat()
    };
    lines.lines().map(|line| (line.chars().next().unwrap(), bytes(line))).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_example_of_the_protocol_is_what_a_server_answers() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(&server);
    for (who, bytes) in example() {
        let Ok(Decoded::Frame(frame)) = decode(&bytes, Limits::FULL) else { panic!("{bytes:?}") };
        assert_eq!(frame.len(), bytes.len());
        let said: Value = serde_json::from_slice(frame.header).unwrap();
        if who == '>' {
            let header: ClientHeader = serde_json::from_value(said.clone()).unwrap();
            assert_ne!(header, ClientHeader::Unknown, "{said}");
            raw.stream.write_all(&bytes).unwrap();
            continue;
        }
        let header: ServerHeader = serde_json::from_value(said.clone()).unwrap();
        if let ServerHeader::Output(output) = header {
            assert_eq!(output.hash, Digest::of(frame.body));
        }
        let (answer, body) = raw.expect(&frame.kind);
        assert_eq!(body, frame.body);
        let members = |v: &Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(members(&answer), members(&said));
    }
}

/// `UPDATE_DOCS=1 cargo test --test it docs::` writes the page anew.
#[test]
fn the_page_of_errors_is_the_programs() {
    let made = rexec::cli::status::errors_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md"), &made).unwrap();
    }
    assert_eq!(page("docs/errors.md"), made, "run UPDATE_DOCS=1 cargo test --test it docs::");
}

/// The names of all members of a value, however deep they are.
/// The whole numbers and fractions of a text.
fn figures(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    parts.map(|part| part.trim_matches('.')).filter(|part| !part.is_empty())
}

/// The figures of a text that no mark of a page of benchmarks has, as exactly as the text tells them.
fn unmeasured<'a>(text: &'a str, benchmarks: &str) -> Vec<&'a str> {
    let cells = benchmarks.lines().filter_map(|line| line.split('|').nth(4));
    // Both ends of one that is told as from here to there.
    let marks: Vec<f64> = cells
        .flat_map(|cell| cell.split('–'))
        .filter_map(|mark| mark.trim().parse().ok())
        .collect();
    let is_measured = |told: &&str| {
        let digits = told.split_once('.').map_or(0, |(_, part)| part.len());
        marks.iter().any(|mark| format!("{mark:.digits$}") == **told)
    };
    figures(text).filter(|told| !is_measured(told)).collect()
}

#[test]
fn each_figure_of_the_readmes_comparison_is_among_the_marks_of_the_benchmarks() {
    let page_of = |row: &str| {
        format!("| row | line | mark | figure | |\n| a | b | c: at most 7 | {row} | kept |\n")
    };
    assert_eq!(unmeasured("67 times, or 2.4", &page_of("67.3")), ["2.4"]);
    assert_eq!(unmeasured("67.3, 7", &page_of("–")), ["67.3", "7"]);
    assert_eq!(unmeasured("67 to 72", &page_of("67.3–72.1")), Vec::<&str>::new());
    let readme = page("README.md");
    let comparison = readme.split("\n\n").find(|part| part.contains("scripts/bench")).unwrap();
    // Without figures the page need not be there.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let benchmarks = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(unmeasured(comparison, &benchmarks), Vec::<&str>::new());
}

#[test]
fn the_help_of_the_benchmark_names_each_of_its_rows() {
    let (help, rows) = (page("scripts/bench"), page("benches/peers/rows.rs"));
    let names: Vec<_> =
        rows.split("(\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() > 20, "{names:?}");
    let (_, listed) = help.split_once("only these rows:").unwrap();
    let (listed, _) = listed.split_once("--json").unwrap();
    let listed: Vec<_> = listed.split(',').map(str::trim).collect();
    assert_eq!(listed, names);
}

fn members(value: &Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            found.extend(object.keys().cloned());
            object.values().for_each(|value| members(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| members(value, found)),
        _ => {}
    }
}

#[test]
fn every_member_that_programs_read_is_documented() {
    let server = Server::start(&[]);
    let report = server.dir().join("report.json");
    let report = report.to_str().unwrap();
    let inspect = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        let output = command.args(args).env("REXEC_STATE_DIR", server.state()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let client = || super::support::Client::new(server.state());
    let texts = [
        server.run(&["--json", "printf '\\377'; echo err >&2; kill -9 $$"]).text(),
        server.run(&["--json", "--", "/no/such/program"]).text(),
        server.run(&["--json", "--id", "kept", "true"]).expect(0).text(),
        client().args(&["ps", "--json", &server.addr]).run().expect(0).text(),
        client().args(&["wait", "--json", &server.addr, "kept"]).run().expect(0).text(),
        client()
            .args(&["batch", "-H", &server.addr, "--json", "--report", report, "exit 3"])
            .run()
            .expect(3)
            .text(),
        inspect(&["journal", "show", "--json"]),
        inspect(&["status", "--json"]),
    ];
    let mut found = std::collections::BTreeSet::new();
    for line in texts.iter().flat_map(|text| text.lines()) {
        members(&serde_json::from_str(line).unwrap(), &mut found);
    }
    assert!(found.len() > 60, "{found:?}");
    let pages =
        page("docs/json.md") + &page("docs/protocol.md") + &page("docs/batch-plan.schema.json");
    let is_named = |name: &&String| {
        let ways = [format!("`{name}`"), format!("\"{name}\"")];
        ways.iter().any(|way| pages.contains(way))
    };
    let missing: Vec<_> = found
        .iter()
        .filter(|n| !is_named(n) && !rexec::client::batch::Outcome::NAMES.contains(&n.as_str()))
        .collect();
    assert!(missing.is_empty(), "not documented: {missing:?}");
    let outcomes = ["exited", "signaled", "unreached", "conflict", "output_failed"];
    assert!(outcomes.iter().all(|name| pages.contains(&format!("`{name}`"))));
}
