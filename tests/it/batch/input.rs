//! Hosts and steps from the command line and from files; what is wrong is refused before anything runs.

use std::fs;

use super::super::support::Client;
use super::super::support::fleet::Fleet;

#[test]
fn what_is_wrong_is_refused_before_anything_runs() {
    let fleet = Fleet::start(1);
    let addr = &fleet.addrs()[0];
    let dir = fleet.first().dir();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let twice = format!("{addr},{addr}");
    let hosts = file("hosts", &format!("# ours\n{addr}\nweb[1-:80\n"));
    let quote = file("quote.txt", "true\n\necho 'open\n");
    let cases: [(&[&str], &str); 10] = [
        (&["-H", &twice, "true"], "is listed twice"),
        (&["-H", "", "true"], "-H, column 1: there is no host"),
        (&["-H", "web[1-x]:80", "true"], "-H, column 1: \"1-x\" is not a range"),
        (&["--hosts", &hosts, "true"], "hosts:3, column 4: a bracket is missing"),
        (&["-H", addr, "-x", addr, "true"], "no host to run on"),
        (&["-H", addr, "-x", "other:1", "true"], "other:1 is to be left out, and is no host"),
        (&["-H", addr], "nothing to run"),
        (&["-H", addr, "--file", &quote], "quote.txt:3: a quote"),
        (&["-H", addr, "-s", "true", "-s", " "], "step 2: the command is empty"),
        (&["-H", addr, "-e", "REXEC_TEST_UNSET", "true"], "is not set here"),
    ];
    for (args, culprit) in cases {
        let ran = fleet.plain().args(args).run().expect(2);
        assert!(ran.stderr.contains(culprit), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("nothing was run") && ran.stdout.is_empty(), "{}", ran.stderr);
    }
}

#[test]
fn hosts_and_commands_may_come_from_stdin() {
    let fleet = Fleet::start(2);
    let addrs = fleet.addrs().join("\n");
    let hosts = format!("# ours\n{addrs}\n");
    let ran =
        fleet.plain().args(&["--hosts", "-", "echo one"]).run_with(hosts.as_bytes()).expect(0);
    assert_eq!(ran.text().matches("one\n").count(), 2, "{}", ran.text());
    let line = ["-H", &fleet.addrs()[0], "--file", "-"];
    let ran = fleet.plain().args(&line).run_with(b"echo one\necho two\n").expect(0).text();
    assert!(ran.contains("one\n") && ran.contains("two\n"), "{ran}");
    let ran = fleet.plain().args(&["--hosts", "-", "true"]).run_with(b"web[1-:80\n").expect(2);
    assert!(ran.stderr.contains("-:1, column 4: a bracket is missing"), "{}", ran.stderr);
}

/// As editors of other systems write files.
#[test]
fn files_may_begin_with_a_byte_order_mark_and_have_carriage_returns() {
    let fleet = Fleet::start(1);
    let (addr, dir) = (&fleet.addrs()[0], fleet.first().dir());
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, format!("\u{feff}{text}").replace('\n', "\r\n")).unwrap();
        path.display().to_string()
    };
    let hosts = file("hosts", &format!("{addr}\n# that is all\n\n"));
    let steps = file("steps", "echo one\necho two \\\n  three\n");
    let plan =
        file("plan.toml", &format!("hosts = [\"{addr}\"]\n[[steps]]\ncommand = \"echo four\"\n"));
    let ran = fleet.plain().args(&["--hosts", &hosts, "--file", &steps]).run().expect(0).text();
    assert!(ran.contains("one\n") && ran.contains("two three\n"), "{ran}");
    let ran = fleet.plain().args(&["--file", &plan]).run().expect(0).text();
    assert!(ran.contains("four\n"), "{ran}");
}

#[test]
fn a_round_has_at_least_one_host() {
    let state = tempfile::tempdir().unwrap();
    for none in ["0", "0%"] {
        let args = ["batch", "-H", "127.0.0.1:1", "--serial", none, "true"];
        let ran = Client::new(state.path()).args(&args).run().expect(2);
        assert!(ran.stderr.contains("at least one host"), "{}", ran.stderr);
    }
}

#[test]
fn a_dry_run_shows_the_commands_of_steps_that_have_names() {
    let fleet = Fleet::start(1);
    let plan = fleet.first().dir().join("plan.toml");
    fs::write(&plan, "[[steps]]\nname = \"build\"\nargv = [\"echo\", \"a b\"]\n").unwrap();
    let args = ["-H", &fleet.addrs()[0], "--file", plan.to_str().unwrap(), "--dry-run"];
    let shown = fleet.plain().args(&args).run().expect(0).text();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[0].replace('"', "'"), "step 1: build: echo 'a b'");
}

#[test]
fn hosts_and_steps_come_from_files() {
    let fleet = Fleet::start(3);
    let addrs = fleet.addrs();
    let dir = fleet.first().dir();
    let (hosts, steps) = (dir.join("hosts"), dir.join("steps.txt"));
    fs::write(&hosts, format!("{} # one\n\n# two\n{},{}\n", addrs[0], addrs[1], addrs[2])).unwrap();
    fs::write(&steps, "# first\necho one\\\n  two\n\necho '# three' # four\n").unwrap();
    let files = [hosts.display().to_string(), steps.display().to_string()];
    let args = ["--hosts", &files[0], "--file", &files[1], "-x", &addrs[1]];
    let shown = fleet.plain().args(&args).args(&["--dry-run"]).run().expect(0).text();
    let expected = format!(
        "step 1: echo one  two\nstep 2: echo '# three' # four\non {}\non {}\n",
        addrs[0], addrs[2]
    );
    assert_eq!(shown, expected);
    let ran = fleet.plain().args(&args).args(&["-j", "1"]).run().expect(0);
    let expected: String = [&addrs[0], &addrs[2]]
        .iter()
        .map(|addr| format!("{addr} out: one two\n{addr} out: # three\n"))
        .collect();
    assert_eq!(ran.text(), expected);
}

#[test]
fn names_and_groups_of_the_configuration_stand_for_servers() {
    let fleet = Fleet::start(2);
    let addrs = fleet.addrs();
    let folder = fleet.first().state().join(".config/rexec");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "[hosts.one]\naddress = \"{}\"\n[hosts.two]\naddress = \"{}\"\n\
         [groups]\nall = [\"one\", \"@rest\"]\nrest = [\"two\"]\nloop = [\"@loop\"]\n",
        addrs[0], addrs[1]
    );
    fs::write(folder.join("config.toml"), text).unwrap();
    let ran = fleet.plain().args(&["-H", "@all", "echo hi"]).run().expect(0);
    let mut lines: Vec<_> = ran.text().lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one out: hi", "two out: hi"]);
    let plain = |args: &[&str]| Client::new(fleet.first().state()).args(args).run();
    assert_eq!(plain(&["two", "echo plain"]).expect(0).text(), "plain\n");
    plain(&["ps", "two"]).expect(0);
    for (args, culprit) in [
        (["-H", "@all,two", "true"], "column 6: two is listed twice"),
        (["-H", "@loop", "true"], "group \"loop\", column 1: the group \"loop\" has itself"),
        (["-H", "@none", "true"], "no group \"none\""),
        (["-H", "three", "true"], "\"three\" has no entry"),
    ] {
        let ran = fleet.plain().args(&args).run().expect(2);
        assert!(ran.stderr.contains(culprit), "{}", ran.stderr);
    }
    fs::write(folder.join("config.toml"), "[hosts.one]\nadress = 1\n").unwrap();
    let ran = fleet.plain().args(&["-H", "one", "true"]).run().expect(2);
    assert!(ran.stderr.contains("config.toml:2:1: unknown field `adress`"), "{}", ran.stderr);
}
