//! Hosts and steps from the command line and from files; what is wrong is refused before anything runs.

use std::fs;

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
    let cases: [(&[&str], &str); 9] = [
        (&["-H", &twice, "true"], "is listed twice"),
        (&["-H", "", "true"], "-H, column 1: there is no host"),
        (&["-H", "web[1-x]:80", "true"], "-H, column 1: \"1-x\" is not a range"),
        (&["--hosts", &hosts, "true"], "hosts:3, column 4: a bracket is missing"),
        (&["-H", addr, "-x", addr, "true"], "no host to run on"),
        (&["-H", addr, "-x", "other:1", "true"], "no such host to leave out"),
        (&["-H", addr], "nothing to run"),
        (&["-H", addr, "--file", &quote], "quote.txt:3: a quote"),
        (&["-H", addr, "-e", "REXEC_TEST_UNSET", "true"], "is not set here"),
    ];
    for (args, culprit) in cases {
        let ran = fleet.plain().args(args).run().expect(2);
        assert!(ran.stderr.contains(culprit), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("nothing was run") && ran.stdout.is_empty(), "{}", ran.stderr);
    }
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
