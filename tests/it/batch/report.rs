//! What machines read of a batch.

use std::fs;

use serde_json::Value;

use super::super::support::fleet::Fleet;
use super::super::support::{Client, wait_until};
use super::nobody;

fn lines(text: &str) -> Vec<Value> {
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

#[test]
fn resuming_runs_only_what_did_not_end_well() {
    let fleet = Fleet::start(2);
    let dir = fleet.first().dir();
    let (report, again, log) = (dir.join("r.json"), dir.join("r2.json"), dir.join("log"));
    let steps = [
        format!("echo one >> {}", log.display()),
        format!("echo two >> {0}; test -e {0}.ok", log.display()),
    ];
    let ok = format!("{}.ok", log.display());
    let args =
        ["--report", report.to_str().unwrap(), "-s", &steps[0], "-s", &steps[1], "-s", "true"];
    fleet.batch(&[]).args(&args).run().expect(1);
    let shown =
        fleet.plain().args(&["--resume", report.to_str().unwrap(), "--dry-run"]).run().expect(0);
    assert!(shown.text().contains(&steps[1]), "{}", shown.text());
    let left = format!("on {}: steps 2, 3\n", fleet.addrs()[1]);
    assert!(shown.text().contains(&left), "{}", shown.text());
    fs::write(ok, "").unwrap();
    let resume = ["--resume", report.to_str().unwrap(), "--report", again.to_str().unwrap()];
    let ran = fleet.plain().args(&resume).run().expect(0);
    assert!(ran.stderr.contains("6 ok"), "{}", ran.stderr);
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!((text.matches("one").count(), text.matches("two").count()), (2, 4));
    let [first, second] = [&report, &again]
        .map(|path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap());
    assert_eq!(first["verdicts"][0], second["verdicts"][0], "what was ok is told as it was");
    assert_ne!(first["verdicts"][1]["run"], second["verdicts"][1]["run"]);
    let ran = fleet.plain().args(&["--resume", again.to_str().unwrap(), "--json"]).run().expect(0);
    assert!(!ran.text().contains("step_begun"), "{}", ran.text());
}

/// Thread: brevdev/brev-cli#457: what may have run is never run a second time.
#[test]
fn resuming_what_nobody_knows_the_end_of_asks_under_the_same_id_and_never_runs_it_twice() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir();
    let (log, events, hold) = (dir.join("log"), dir.join("events"), dir.join("hold"));
    fs::write(&hold, "").unwrap();
    let plan = dir.join("plan.toml");
    let text = format!(
        "[[steps]]\ncommand = \"echo ran >> {}; while [ -e {} ]; do sleep 0.02; done; echo done\"\ndurable = true\n",
        log.display(),
        hold.display()
    );
    fs::write(&plan, text).unwrap();
    let mut client = fleet.batch(&[]).args(&["--json", "--file", plan.to_str().unwrap()]);
    client.command.stdout(fs::File::create(&events).unwrap());
    let mut child = client.command.spawn().unwrap();
    wait_until("the command runs", || log.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_file(&hold).unwrap();
    let ran = fleet.plain().args(&["--resume", events.to_str().unwrap(), "--json"]).run().expect(0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "ran\n");
    let (before, after) = (lines(&fs::read_to_string(&events).unwrap()), lines(&ran.text()));
    let run = |lines: &[Value]| {
        let begun = lines.iter().find(|line| line["type"] == "step_begun").unwrap();
        (begun["run"].clone(), begun["sent_ms"].clone())
    };
    assert_eq!(run(&before), run(&after));
    assert!(ran.text().contains("done\\n"), "{}", ran.text());
}

#[test]
fn what_nobody_knows_stays_unknown_while_the_host_is_away() {
    let mut server = super::super::support::Server::start(&[]);
    let dir = server.dir().to_owned();
    let report = dir.join("r.json");
    let batch = |args: &[&str]| Client::new(server.state()).args(&["batch"]).args(args);
    let lost = batch(&["--json", "-H", &server.addr, "-s", "echo x"]).run().expect(0).text();
    let begun: Vec<&str> =
        lost.lines().filter(|line| !line.contains("ended") && !line.contains("summary")).collect();
    fs::write(&report, begun.join("\n")).unwrap();
    let resume = ["--resume", report.to_str().unwrap(), "--reconnect-timeout", "300ms", "--report"];
    let again = dir.join("r2.json");
    let batch = batch(&resume).arg(&again);
    server.crash();
    let ran = batch.run().expect(253);
    assert!(ran.stderr.contains("1 lost"), "{}", ran.stderr);
    let [first, second]: [Value; 2] = [
        lines(&begun.join("\n"))[2].clone(),
        serde_json::from_slice(&fs::read(again).unwrap()).unwrap(),
    ];
    assert_eq!(first["run"], second["verdicts"][0]["run"]);
    assert_eq!(first["sent_ms"], second["verdicts"][0]["sent_ms"]);
}

/// Reads XML as Python does, and checks every element and attribute against those of the schema that Jenkins
/// publishes (jenkins-junit.xsd).
const CHECK: &str = r#"
import sys, xml.etree.ElementTree as tree
known = {
    "testsuites": ({"name", "time", "tests", "failures", "disabled", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "disabled", "skipped", "timestamp",
                   "hostname", "id", "package"}, {"properties", "testcase", "system-out", "system-err"}),
    "testcase": ({"name", "assertions", "time", "classname", "status"},
                 {"skipped", "error", "failure", "system-out", "system-err"}),
    "skipped": ({"type", "message"}, set()), "error": ({"type", "message"}, set()),
    "failure": ({"type", "message"}, set()),
}
def check(element):
    attributes, children = known[element.tag]
    assert set(element.attrib) <= attributes, element.attrib
    assert {child.tag for child in element} <= children, element.tag
    for child in element: check(child)
root = tree.parse(sys.argv[1]).getroot()
check(root)
for suite in root:
    for case in suite:
        print(suite.get("name"), case.get("name"), *[f"{c.tag}={c.get('message')}" for c in case], sep="|")
    print(suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped"))
"#;

#[test]
fn junit_is_what_ci_systems_read() {
    let fleet = Fleet::start(1);
    let (addr, nobody) = (&fleet.addrs()[0], nobody());
    let path = fleet.first().dir().join("junit.xml");
    let steps = ["-s", "echo '<&>\"'", "-s", "exit 3", "-s", "true"];
    let args = ["--retries", "0", "--junit", path.to_str().unwrap()];
    fleet.batch(&[&nobody]).args(&args).args(&steps).run().expect(254);
    let read =
        std::process::Command::new("python3").args(["-c", CHECK]).arg(&path).output().unwrap();
    let read = super::super::support::Ran::of(read).expect(0).text();
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

/// Reads the page as a browser does: the elements that there are, and their text.
const PAGE: &str = r#"
import sys, html.parser
class Page(html.parser.HTMLParser):
    tags, open = {}, []
    def handle_starttag(self, tag, attributes):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attributes:
            assert name not in ("src", "href", "onclick", "onerror"), (tag, name)
            assert "url(" not in (value or ""), value
        self.open.append(tag)
    def handle_endtag(self, tag):
        while self.open.pop() != tag: pass
    def handle_data(self, data):
        if "pre" in self.open: print("pre:", data.strip())
page = Page()
page.feed(open(sys.argv[1], encoding="utf-8").read())
print(sorted(page.tags.items()))
"#;

#[test]
fn the_page_has_every_step_and_its_output_and_fetches_nothing() {
    let fleet = Fleet::start(2);
    let path = fleet.first().dir().join("page.html");
    let evil = "</pre><script src=//evil>x</script><img onerror=y src=z>";
    let args = ["--html", path.to_str().unwrap(), "-e", "TOKEN", "-s"];
    let steps = [format!("echo '{evil}'; echo \"$TOKEN\""), "-s".into(), "exit 3".into()];
    let batch = fleet
        .batch(&[&nobody()])
        .args(&["--retries", "0"])
        .args(&args)
        .args(&steps.each_ref().map(String::as_str));
    batch.env("TOKEN", "s3cret-value").run().expect(254);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("s3cret-value") && text.contains("default-src 'none'"), "{text}");
    let read =
        std::process::Command::new("python3").args(["-c", PAGE]).arg(&path).output().unwrap();
    let read = super::super::support::Ran::of(read).expect(0).text();
    assert_eq!(read.matches(&format!("pre: {evil}\n***\n")).count(), 2, "{read}");
    for count in ["('details', 6)", "('section', 3)", "('script', 1)", "('i', 5)"] {
        assert!(read.contains(count), "{count}: {read}");
    }
    assert!(!read.contains("'img'"), "{read}");
}
