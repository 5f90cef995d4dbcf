//! What machines read of a batch.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::super::support::Ran;
use super::super::support::fake::Fake;
use super::super::support::fleet::Fleet;
use super::super::support::server::under;
use super::nobody;

pub(super) fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_says_what_happens_and_ends_with_one_verdict_for_each_step() {
    let fleet = Fleet::start(2);
    let (addrs, nobody) = (fleet.addrs(), nobody());
    let report = fleet.first().dir().join("report.json");
    let args = ["--json", "--retries", "0", "--report", report.to_str().unwrap()];
    let steps = ["-s", "printf 'a\\nb'; printf '\\377' >&2", "-s", "exit 4"];
    let ran = fleet.batch(&[&nobody]).args(&args).args(&steps).run().expect(254);
    let lines = lines(&ran.text());
    assert_eq!(lines[0]["type"], "batch");
    let of = |host: &str, kind: &str| {
        let mine = |line: &&Value| line["type"] == kind && line["host"] == host;
        lines.iter().filter(mine).cloned().collect::<Vec<_>>()
    };
    for addr in &addrs {
        let texts: String = of(addr, "output").iter().filter_map(|l| l["text"].as_str()).collect();
        assert_eq!(texts, "a\nb");
        assert!(
            of(addr, "output").iter().any(|l| l["base64"] == "/w==" && l["stream"] == "stderr")
        );
        assert_eq!(of(addr, "step_begun").len(), 2);
        assert_eq!(of(addr, "step_ended").len(), 2);
    }
    let summary = lines.last().unwrap();
    assert_eq!((&summary["type"], &summary["status"]), (&"summary".into(), &254.into()));
    let verdicts = summary["verdicts"].as_array().unwrap();
    let told: Vec<_> = verdicts.iter().map(|v| v["verdict"].as_str().unwrap()).collect();
    assert_eq!(told, ["ok", "failed", "ok", "failed", "unreachable", "not_started"]);
    assert_eq!(verdicts[1]["exit_code"], 4);
    assert_eq!(verdicts[0]["end"]["stdout"]["size"], 3);
    assert_eq!(summary["counts"]["failed"], 2);
    let saved: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(&saved, summary);
}

#[test]
fn a_secret_is_masked_everywhere_and_digests_are_of_what_was_written() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir();
    let plan = dir.join("plan.toml");
    let text = "[[steps]]\nname = \"leak\"\ncommand = '''printf %s \"$TOKEN\" | cut -c1-4 | tr -d '\\n'; sleep 0.1; \
                printf '%s\\n' \"$TOKEN\" | cut -c5-; echo \"$TOKEN\" >&2; exit 1'''\nsecrets = [\"TOKEN\"]\n";
    fs::write(&plan, text).unwrap();
    let report = dir.join("report.json");
    let args = ["--file", plan.to_str().unwrap(), "--report", report.to_str().unwrap()];
    for more in [&[][..], &["--json"]] {
        let ran =
            fleet.batch(&[]).args(&args).args(more).env("TOKEN", "s3cret-value").run().expect(1);
        let saved = fs::read_to_string(&report).unwrap();
        for text in [&ran.text(), &ran.stderr, &saved] {
            assert!(!text.contains("s3cret-value"), "{text}");
        }
        assert!(ran.text().contains("***"), "{}", ran.text());
        let saved: Value = serde_json::from_str(&saved).unwrap();
        let digest = rexec::proto::digest::Digest::of(b"s3cret-value\n");
        assert_eq!(saved["verdicts"][0]["end"]["stdout"]["hash"], serde_json::json!(digest));
    }
    let ran =
        fleet.batch(&[]).args(&["-e", "TOKEN", "echo s3cret-value"]).env("TOKEN", "s3cret-value");
    let ran = ran.run().expect(2);
    assert!(ran.stderr.contains("the value of TOKEN stands in a command"), "{}", ran.stderr);
    let ran = fleet.batch(&[]).args(&args).run().expect(2);
    assert!(ran.stderr.contains("plan.toml:4:12: the secret TOKEN is not set"), "{}", ran.stderr);
}

/// Reads XML as Python does, and checks the names of elements and attributes; the schema beside this file has
/// the rest.
const CHECK: &str = r#"
import sys, xml.etree.ElementTree as tree
reason = ({"type", "message"}, set())
known = {
    "testsuites": (set(), {"testsuite"}),
    "testsuite": ({"id", "name", "package", "hostname", "timestamp", "tests", "failures", "errors", "skipped",
                   "time"}, {"properties", "testcase", "system-out", "system-err"}),
    "testcase": ({"name", "classname", "time"}, {"skipped", "error", "failure"}),
    "properties": (set(), set()), "system-out": (set(), set()), "system-err": (set(), set()),
    "skipped": ({"message"}, set()), "error": reason, "failure": reason,
}
def check(element):
    attributes, children = known[element.tag]
    assert set(element.attrib) == attributes, element.attrib
    assert {child.tag for child in element} <= children, element.tag
    for child in element: check(child)
root = tree.parse(sys.argv[1]).getroot()
check(root)
for suite in root:
    for case in suite.iter("testcase"):
        print(suite.get("name"), case.get("name"), *[f"{c.tag}={c.get('message')}" for c in case], sep="|")
    print(suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped"))
"#;

/// Checks a file against the schema, where there is a program for that.
fn check_schema(path: &Path) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/batch/junit.xsd");
    let mut xmllint = Command::new("xmllint");
    xmllint.arg("--noout").arg("--schema").arg(schema).arg(path);
    match xmllint.output() {
        Ok(output) => drop(Ran::of(output).expect(0)),
        Err(e) => println!("xmllint (Debian: libxml2-utils) is not here ({e}): schema not checked"),
    }
}

#[test]
fn junit_is_what_ci_systems_read() {
    let fleet = Fleet::start(1);
    let (addr, nobody) = (&fleet.addrs()[0], nobody());
    let path = fleet.first().dir().join("junit.xml");
    let steps = ["-s", "echo '<&>\"'", "-s", "exit 3", "-s", "true"];
    let args = ["--retries", "0", "--junit", path.to_str().unwrap()];
    fleet.batch(&[&nobody]).args(&args).args(&steps).run().expect(254);
    check_schema(&path);
    let read = Command::new("python3").args(["-c", CHECK]).arg(&path).output().unwrap();
    let read = Ran::of(read).expect(0).text();
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines[0], format!("{addr}|echo '<&>\"'"));
    assert_eq!(lines[1], format!("{addr}|exit 3|failure=exit 3"));
    assert_eq!(lines[2], format!("{addr}|true|skipped=an earlier step did not end well"));
    assert_eq!(lines[3], "3 1 0 1");
    assert!(lines[4].starts_with(&format!("{nobody}|echo '<&>\"'|error=cannot reach")), "{read}");
    assert_eq!(lines[7], "3 0 1 2");
}

#[test]
fn githubs_page_gets_a_summary() {
    let fleet = Fleet::start(2);
    let path = fleet.first().dir().join("summary.md");
    fs::write(&path, "before\n").unwrap();
    fleet.batch(&[]).arg("exit 3 | cat | exit 3").env("GITHUB_STEP_SUMMARY", &path).run().expect(3);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("before\n### rexec batch: 2 hosts did not all end well"), "{text}");
    assert!(text.contains("| 2 | 127.0.0.1&#58;"), "{text}");
    assert!(text.contains("failed&#58; exit 3 |"), "{text}");
}

/// GitHub shows no page of more than 1 MiB, so that one host's words would hide what became of all.
#[test]
fn what_hosts_say_does_not_make_githubs_page_longer_than_is_shown() {
    let fleet = Fleet::start(1);
    let path = fleet.first().dir().join("summary.md");
    let fakes = [0, 1, 2, 3].map(|n| {
        Fake::start(move |raw| {
            raw.expect("hello");
            let text = format!("{n}{}", "|".repeat(60_000));
            raw.send(&json!({"type": "refused", "code": "not_authorized", "text": text}), b"");
        })
    });
    let addresses = fakes.each_ref().map(Fake::address);
    let batch = fleet.batch(&addresses.each_ref().map(String::as_str));
    let ran = batch.args(&["true"]).env("GITHUB_STEP_SUMMARY", &path).run().expect(254);
    assert!(ran.stderr.len() < 64 * 1024, "{} bytes", ran.stderr.len());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.len() < 1 << 20, "{} bytes", text.len());
    assert!(text.contains("| 1 | 127.0.0.1&#58;"), "the host that is well has its row");
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_anything_runs() {
    let fleet = Fleet::start(1);
    for option in ["--report", "--junit", "--html"] {
        let ran = fleet.batch(&[]).args(&[option, "/no/such/folder/x", "true"]).run().expect(2);
        assert!(
            ran.stderr.contains(&format!("cannot write {option} /no/such/folder/x")),
            "{}",
            ran.stderr
        );
    }
}

/// `ulimit -f 0` is as a disk that is full.
#[test]
fn each_report_that_cannot_be_written_is_named_and_the_old_ones_stand() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir().join("reports");
    fs::create_dir(&dir).unwrap();
    let mut client = fleet.batch(&[]);
    for option in ["--report", "--junit", "--html"] {
        let path = dir.join(&option[2..]);
        fs::write(&path, "the old one").unwrap();
        client = client.arg(option).arg(path);
    }
    client = client.arg("echo hi");
    under(&["sh", "-c", "ulimit -f 0; exec \"$@\"", "sh"])(&mut client.command);
    let ran = client.run().expect(252);
    for option in ["--report", "--junit", "--html"] {
        let told =
            format!("cannot write {option} {}/{}: File too large", dir.display(), &option[2..]);
        assert!(ran.stderr.contains(&told), "{told}\n{}", ran.stderr);
    }
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::read_to_string(&path).unwrap(), "the old one", "{}", path.display());
    }
}

#[test]
fn the_page_may_go_to_stdout_as_other_reports() {
    let fleet = Fleet::start(1);
    let ran = fleet.batch(&[]).args(&["--html", "-", "true"]).run().expect(0).text();
    assert!(ran.contains("<h1>rexec batch</h1>"), "{ran}");
}
