//! Going on where an earlier batch ended: what is known to be done is not done again, and what nobody knows
//! the end of is never run a second time.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rexec::Command;
use rexec::client::Target;
use rexec::client::batch::{Batch, Event, Host, Options, Step};
use rexec::sys::fs::StateDir;
use serde_json::{Value, json};

use super::super::support::fake::{self, Fake};
use super::super::support::fleet::Fleet;
use super::super::support::raw::Raw;
use super::super::support::{Client, wait_until};
use super::report::lines;

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

fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// The report of a batch that was killed when it had asked each of these hosts for its only step, then.
fn killed_at(sent_ms: u64, hosts: &[&Fake]) -> String {
    let addrs: Vec<String> = hosts.iter().map(|host| host.address()).collect();
    let rows: Vec<Value> =
        addrs.iter().map(|addr| json!({"name": addr, "address": addr})).collect();
    let batch =
        json!({"type": "batch", "version": 1, "hosts": rows, "steps": [{"command": "true"}]});
    let begun = |(at, host): (usize, &String)| {
        json!({"type": "step_begun", "host": host, "step": 1, "run": format!("run{at}"), "attempt": 1,
               "sent_ms": sent_ms})
    };
    let begun = addrs.iter().enumerate().map(begun);
    std::iter::once(batch).chain(begun).map(|line| format!("{line}\n")).collect()
}

/// How old each request is by its header, in milliseconds.
type Told = Arc<Mutex<Vec<u64>>>;

/// How long such a host takes, in milliseconds: by so much the next one's request is older.
const TAKES: u64 = 100;

/// A server that notes the age of each request, and takes its time.
fn that_notes(told: &Told) -> Fake {
    let told = Arc::clone(told);
    Fake::start(move |raw: &mut Raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
        let (run, _) = raw.next().unwrap();
        told.lock().unwrap().push(run["first_sent_ms_ago"].as_u64().unwrap_or(0));
        thread::sleep(Duration::from_millis(TAKES));
        let id = run["id"].as_str().unwrap();
        raw.send(&fake::started(id), b"");
        raw.send(&fake::verdict(id, 1, b""), b"");
    })
}

#[test]
fn the_age_of_a_request_is_told_from_the_first_connection_on_and_grows_while_its_host_waits() {
    let told = Told::default();
    let hosts = [that_notes(&told), that_notes(&told)];
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("events");
    fs::write(&report, killed_at(now_ms() - 5_000, &hosts.each_ref())).unwrap();
    let args = ["batch", "-j", "1", "--resume", report.to_str().unwrap()];
    Client::new(dir.path()).args(&args).run().expect(0);
    let told = told.lock().unwrap();
    let [first, second] = told[..] else { panic!("{told:?}") };
    assert!((5_000..60_000).contains(&first) && second >= first + TAKES, "{told:?}");
}

#[test]
fn a_request_that_was_sent_in_the_future_counts_as_long_ago() {
    let told = Told::default();
    let host = that_notes(&told);
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("events");
    fs::write(&report, killed_at(now_ms() + 3_600_000, &[&host])).unwrap();
    Client::new(dir.path()).args(&["batch", "--resume", report.to_str().unwrap()]).run().expect(0);
    assert!(told.lock().unwrap()[0] >= 1 << 52, "{told:?}");
}

#[test]
fn what_was_asked_for_with_another_secret_is_lost_and_never_run_under_a_new_id() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir();
    let (log, events, again) = (dir.join("log"), dir.join("events"), dir.join("r.json"));
    let step = format!("echo ran >> {}; exec sleep 600", log.display());
    let mut client =
        fleet.batch(&[]).args(&["--json", "-e", "TOKEN", "-s", &step]).env("TOKEN", "a");
    client.command.stdout(fs::File::create(&events).unwrap());
    let mut child = client.command.spawn().unwrap();
    wait_until("the command runs", || log.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let resume = |from: &std::path::Path| {
        let args = ["--resume", from.to_str().unwrap(), "--report", again.to_str().unwrap()];
        fleet.plain().args(&args).env("TOKEN", "b").run().expect(253)
    };
    let ran = resume(&events);
    assert!(ran.stderr.contains("1 lost") && ran.stderr.contains("conflict"), "{}", ran.stderr);
    resume(&again);
    assert_eq!(fs::read_to_string(&log).unwrap(), "ran\n");
}

/// Else a batch that is killed while nobody reads what it prints would leave runs that no report names.
#[tokio::test]
async fn no_request_leaves_before_the_caller_knows_its_id() {
    let host = Fake::started(|raw, id| raw.send(&fake::verdict(id, 1, b""), b""));
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(&dir.path().canonicalize().unwrap().join("state")).unwrap();
    let target = Target::local(host.address().parse().unwrap(), &state).unwrap();
    let steps =
        vec![Step::new("a", Command::shell("true")), Step::new("b", Command::shell("true"))];
    let hosts = vec![Host::new("fake", target)];
    let mut running = Batch { hosts, steps, options: Options::default() }.start().unwrap();
    while !matches!(running.next().await.unwrap(), Event::StepBegun { .. }) {}
    // Long enough for a request that would not wait.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(host.connections(), 0);
    while let Some(event) = running.next().await {
        if let Event::StepEnded { step: 0, end, .. } = event {
            assert_eq!(end.outcome.name(), "ok");
            return;
        }
    }
    panic!("no verdict");
}
