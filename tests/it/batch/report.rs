//! What machines read of a batch.

use std::fs;

use serde_json::Value;

use super::super::support::fleet::Fleet;
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
