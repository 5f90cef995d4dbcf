//! What a run may take: ceilings of the configuration, and what is said of a run that comes to one.

use std::path::Path;

use serde_json::Value;

use super::durable::verb;
use super::policy::Configured;
use super::support::{Client, Ran, finish, json_in, kill, wait_until};

fn with(rule: &str) -> Configured {
    Configured::start(&format!("[rule.small]\nfor = [\"local\"]\n{rule}\n"))
}

/// Runs a command; what its client did, and the verdict.
fn verdict(configured: &Configured, args: &[&str]) -> (Ran, Value) {
    let path = configured.folder.join("verdict.json");
    let ran = configured.server.run(&[&["--verdict", path.to_str().unwrap()], args].concat());
    let verdict = json_in(&path)["verdict"].clone();
    (ran, verdict)
}

#[test]
fn output_beyond_the_ceiling_is_cut_and_the_verdict_says_by_what_limit() {
    let configured = with("output = 1000");
    for durable in [&[][..], &["--durable"]] {
        for command in [
            "yes",
            "head -c 1001 /dev/zero",
            "head -c 1001 /dev/zero; sleep 1000",
            "head -c 900 /dev/zero; yes >&2",
        ] {
            let (ran, verdict) = verdict(&configured, &[durable, &[command]].concat());
            assert_eq!(ran.status, 251, "{command}: {}", ran.stderr);
            let size = |stream: &str| verdict[stream]["size"].as_u64().unwrap();
            assert_eq!(size("stdout") + size("stderr"), 1000, "{verdict}");
            assert_eq!(verdict["stopped"]["by"], "policy");
            assert_eq!(verdict["stopped"]["limit"]["output"]["bytes"], 1000);
            assert!(
                ran.stderr
                    .contains("the server's policy, by which a run writes at most 1000 bytes"),
                "{}",
                ran.stderr
            );
        }
        let (ran, verdict) = verdict(&configured, &[durable, &["head -c 1000 /dev/zero"]].concat());
        assert_eq!((ran.status, ran.stdout.len()), (0, 1000), "{}", ran.stderr);
        assert_eq!(verdict["stopped"], Value::Null);
    }
}

#[test]
fn the_deadline_of_the_policy_counts_whatever_the_client_asks_for() {
    let configured = with("deadline = \"200ms\"");
    for args in
        [&["sleep 1000"][..], &["--timeout", "1h", "sleep 1000"], &["--durable", "sleep 1000"]]
    {
        let (ran, verdict) = verdict(&configured, args);
        assert_eq!(ran.status, 251, "{}", ran.stderr);
        assert_eq!(verdict["stopped"]["by"], "policy");
        assert_eq!(verdict["stopped"]["limit"]["deadline"]["ms"], 200);
    }
    let (ran, verdict) = verdict(&configured, &["--timeout", "50ms", "sleep 1000"]);
    assert_eq!(
        (ran.status, &verdict["stopped"]["by"]),
        (124, &"deadline".into()),
        "{}",
        ran.stderr
    );
    configured.server.run(&["true"]).expect(0);
}

#[test]
fn runs_at_one_time_are_counted_over_all_connections_and_restarts_of_the_server() {
    let mut configured = with("runs = 2");
    let client = |configured: &Configured, args: &[&str]| {
        Client::new(configured.server.state()).args(args).run()
    };
    let addr = configured.server.addr.clone();
    client(&configured, &["-d", "--id", "kept", &addr, "sleep 1000"]).expect(0);
    let foreground = configured.server.client().arg("echo on; sleep 1000").spawn();
    let mut foreground = foreground;
    assert_eq!(super::support::server::line_of(&mut foreground), "on");
    let refused = configured.server.run(&["true"]).expect(254);
    assert!(
        refused.stderr.contains("rule \"small\" allows 2 runs at one time (over_limit"),
        "{}",
        refused.stderr
    );
    // Going on with a run is no new one.
    client(&configured, &["-d", "--id", "kept", &addr, "sleep 1000"]).expect(0);
    kill(foreground.id(), rustix::process::Signal::INT);
    finish(foreground);
    configured.server.run(&["true"]).expect(0);
    let config = configured.folder.join("server.toml");
    configured.server.restart_with(&["--config", config.to_str().unwrap()]);
    client(&configured, &["-d", "--id", "other", &addr, "sleep 1000"]).expect(0);
    configured.server.run(&["true"]).expect(254);
    verb(&configured.server, "stop", &["kept"]).expect(0);
    wait_until("a place", || configured.server.run(&["true"]).status == 0);
    verb(&configured.server, "stop", &["other"]).expect(0);
}

#[test]
fn starts_are_held_to_the_rate() {
    let configured = with("rate = 3");
    for _ in 0..3 {
        configured.server.run(&["true"]).expect(0);
    }
    let refused = configured.server.run(&["true"]).expect(254);
    let said = "rule \"small\" allows 3 runs a minute; the next one in ";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
}

/// The limits as the kernel has them for the command, and for what it starts.
#[test]
fn the_kernel_holds_the_command_to_memory_processor_time_processes_and_niceness() {
    let configured =
        with("memory = \"64M\"\ncpu = 5\nprocesses = 4000\nnice = 7\nfolder = \"FOLDER\"");
    let own = rustix::process::getpriority_process(None).unwrap();
    let nice = (own + 7).min(19).to_string();
    let limits = "pwd; nice; (cat /proc/self/limits)";
    for args in [&[limits][..], &["--durable", limits], &["--", "sh", "-c", limits]] {
        let said = configured.server.run(args).expect(0).text();
        let mut lines = said.lines();
        assert_eq!(lines.next().map(Path::new), Some(&*configured.folder), "{said}");
        assert_eq!(lines.next(), Some(&*nice), "{said}");
        for (name, soft, hard) in [
            ("Max address space", "67108864", "67108864"),
            ("Max cpu time", "5", "6"),
            ("Max processes", "4000", "4000"),
        ] {
            let line = said.lines().find(|line| line.starts_with(name)).unwrap();
            let values: Vec<&str> = line[name.len()..].split_whitespace().collect();
            assert_eq!(values[..2], [soft, hard], "{line}");
        }
    }
    let ran = configured.server.run(&["head -c 200M /dev/zero | tail -c 200M | wc -c; echo ${#x}"]);
    assert!(!ran.text().contains("209715200"), "{}", ran.text());
    let program = configured.server.run(&["--", "no-such-program"]).expect(254);
    assert!(program.stderr.contains("program not found"), "{}", program.stderr);
}

/// The step between sees them only under other names, and leaves nothing of itself behind.
#[test]
fn the_step_that_takes_on_the_limits_obeys_no_variable_of_the_clients() {
    let configured = with("nice = 1");
    let words = ["-e", "LD_PRELOAD=/no/such.so", "-e", "_A=1", "-e", "TOKEN=a=b", "--"];
    let ran = configured.server.run(&[&words[..], &["env"]].concat()).expect(0);
    let names: Vec<String> =
        ran.text().lines().map(|l| l.split('=').next().unwrap().to_owned()).collect();
    let text = ran.text();
    assert!(text.contains("LD_PRELOAD=/no/such.so\n") && text.contains("\n_A=1\n"), "{text}");
    assert!(text.contains("TOKEN=a=b\n") && names.contains(&"REXEC_MARK".into()), "{text}");
    assert!(!names.iter().any(|n| n.starts_with("__") || n == "_PATH"), "{text}");
    // Once: by the command, not by the step before it.
    assert_eq!(ran.stderr.matches("/no/such.so").count(), 1, "{}", ran.stderr);
    let open = configured.server.run(&["ls -l /proc/self/fd"]).expect(0).text();
    assert_eq!(open.lines().filter(|line| line.contains("->")).count(), 4, "{open}");
    let status = configured.server.run(&["kill -9 $$"]);
    assert_eq!(status.status, 137);
}

#[test]
fn processor_time_that_is_used_up_ends_the_command() {
    let configured = with("cpu = 1");
    // SIGXCPU, or SIGKILL a second later.
    let ran = configured.server.run(&["while :; do :; done"]);
    assert!(matches!(ran.status, 152 | 137), "{} {}", ran.status, ran.stderr);
}

#[test]
fn an_operator_sees_and_stops_the_runs_of_others_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let (key, line) = super::auth::key(dir.path(), "bot");
    let list = dir.path().canonicalize().unwrap().join("keys");
    std::fs::write(&list, line).unwrap();
    let config = format!(
        "authorized-keys = [\"{}\"]\n[rule.op]\nfor = [\"local\"]\noperator = true\n",
        list.display()
    );
    let configured = Configured::start(&config);
    let server = &configured.server;
    let bot = |words: &[&str]| {
        let address = server.addr.replace("127.0.0.1", "127.1");
        let (_, print) = super::auth::host_key(server);
        let client = Client::new(&dir.path().join("state")).args(&words[..1]);
        let reach = ["--host-key", &print.to_string(), "-i", key.to_str().unwrap(), &address];
        client.args(&reach).args(&words[1..]).run()
    };
    let id = bot(&["-d", "echo hers; sleep 1000"]).expect(0).text().trim().to_owned();
    let own = verb(server, "ps", &["--json"]).expect(0).text();
    assert_eq!(own, "");
    let all: Value =
        serde_json::from_str(&verb(server, "ps", &["--all", "--json"]).expect(0).text()).unwrap();
    assert!(
        all["run"] == *id && all["identity"].as_str().unwrap().starts_with("key:SHA256:"),
        "{all}"
    );
    assert!(verb(server, "ps", &["--all"]).expect(0).text().contains("(key:SHA256:"));
    wait_until("its output", || verb(server, "logs", &[&id]).text() == "hers\n");
    let removed = verb(server, "rm", &[&id]).expect(254);
    assert!(removed.stderr.contains("there is no such run"), "{}", removed.stderr);
    let refused = bot(&["ps", "--all"]).expect(254);
    assert!(refused.stderr.contains("only operators"), "{}", refused.stderr);
    // The operator's run is to her as one that is not there.
    let hers = Client::new(server.state())
        .args(&["-d", &server.addr, "sleep 1000"])
        .run()
        .expect(0)
        .text();
    for words in [&["stop"][..], &["signal"], &["logs"], &["rm"]] {
        let more: &[&str] = if words == ["signal"] { &["TERM"] } else { &[] };
        let unknown = bot(&[words, &["no-such-run"], more].concat());
        let other = bot(&[words, &[hers.trim()], more].concat());
        assert_eq!((unknown.status, unknown.stderr), (other.status, other.stderr), "{words:?}");
    }
    verb(server, "stop", &[&id]).expect(0);
    let told = bot(&["wait", &id]).expect(251);
    assert!(told.stderr.contains("stopped by an operator after"), "{}", told.stderr);
    verb(server, "stop", &[hers.trim()]).expect(0);
    let told = verb(server, "wait", &[hers.trim()]).expect(251);
    assert!(told.stderr.contains("stopped by rexec stop, or another client"), "{}", told.stderr);
}
