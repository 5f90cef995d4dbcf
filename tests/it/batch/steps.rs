//! What a step can be, how it can end, and over what its host's steps go.

use std::fs;

use super::super::support::fleet::Fleet;
use super::super::support::relay::{Relay, Way};
use super::super::support::{Client, Server, json_in};

#[test]
fn one_word_is_for_the_shell_and_several_are_a_program_and_its_arguments() {
    let fleet = Fleet::start(1);
    let addr = &fleet.addrs()[0];
    for (words, printed) in [
        (&["printf '%s\n' \"a  b\" | tr a c"][..], "c  b"),
        (&["printf", "%s\n", "$HOME  'x'"], "$HOME  'x'"),
        (&["--", "pwd"], "/"),
    ] {
        let ran = fleet.batch(&[]).args(words).run().expect(0);
        assert!(ran.text().starts_with(&format!("{addr} out: {printed}")), "{}", ran.text());
    }
}

#[test]
fn a_plan_is_run_as_it_says() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir().canonicalize().unwrap();
    let plan = dir.join("plan.toml");
    let text = format!(
        "hosts = [\"{}\"]\n\
         [[steps]]\nname = \"fails\"\ncommand = \"echo out; echo err >&2; exit 9\"\nmerge = true\non_error = \"continue\"\n\
         [[steps]]\nargv = [\"sh\", \"-c\", \"echo $A $B $PWD\"]\nenv = {{ A = \"x y\" }}\nsecrets = [\"B\"]\ncwd = \"{}\"\n\
         [[steps]]\nname = \"waits\"\ncommand = \"sleep 600\"\ntimeout = \"100ms\"\n\
         [[steps]]\nname = \"is not run\"\ncommand = \"echo never\"\n",
        fleet.addrs()[0],
        dir.display()
    );
    fs::write(&plan, text).unwrap();
    let report = dir.join("report.json");
    let args = ["--file", plan.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let ran = fleet.plain().args(&args).env("B", "s3cret").run().expect(124);
    let lines: Vec<_> =
        ran.text().lines().map(|line| line.split(": ").nth(1).unwrap().to_owned()).collect();
    assert_eq!(lines, ["out", "err", &format!("x y *** {}", dir.display())]);
    let verdicts = json_in(&report)["verdicts"].clone();
    let told: Vec<_> = (0..4).map(|at| verdicts[at]["verdict"].as_str().unwrap()).collect();
    assert_eq!(told, ["failed", "ok", "deadline", "not_started"]);
}

#[test]
fn each_way_in_which_a_command_ends_has_its_verdict_and_its_status() {
    let fleet = Fleet::start(1);
    for (step, timeout, verdict, status) in [
        ("true", "1h", "1 ok", 0),
        ("exit 200", "1h", "failed: exit 200", 200),
        ("kill -9 $$", "1h", "signalled: the command was killed by signal 9", 137),
        ("exec sleep 600", "300ms", "deadline: ", 124),
    ] {
        let ran = fleet.batch(&[]).args(&["-t", timeout, step]).run().expect(status);
        assert!(ran.stderr.contains(verdict), "{step}: {}", ran.stderr);
    }
}

#[test]
fn all_steps_of_a_host_go_over_one_connection() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let batch = Client::new(server.state()).args(&["batch", "-H", &relay.addr]);
    batch.args(&["-s", "echo a", "-s", "seq 100000", "-s", "echo b"]).run().expect(0);
    assert_eq!(relay.connections(), 1);
}

/// Thread: brevdev/brev-cli#457: what was begun goes on after a cut link, and is not run again.
#[test]
fn a_host_whose_link_is_cut_goes_on_where_it_was() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Down, 30_000), (Way::Down, 300_000)]);
    let log = server.dir().join("log");
    let step = format!("echo ran >> {}; exec seq 100000", log.display());
    let batch =
        Client::new(server.state()).args(&["batch", "-H", &relay.addr, "--output", "grouped"]);
    let ran = batch.env("CI", "").args(&["-s", &step, "-s", "echo behind"]).run().expect(0);
    let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.text().contains(&numbers) && ran.text().contains("\nbehind\n"));
    assert_eq!(fs::read_to_string(log).unwrap(), "ran\n");
    assert_eq!(relay.connections(), 3);
}

/// As a single run tells it, and once however many hosts say that there is no such program.
#[test]
fn words_that_are_no_program_are_told_what_they_stand_for() {
    let fleet = Fleet::start(2);
    let told = |words: &[&str]| fleet.batch(&[]).args(words).run().expect(254).stderr;
    for (words, hint) in [
        (&["echo hi", "--json"][..], "options of rexec batch stand before the command"),
        (&["--", "echo hi"], "without -- one word is text for the server's shell"),
        (&["cd", "/srv"], "for the server's shell it has to be one word: quote all of it"),
    ] {
        let said = told(words);
        assert_eq!(said.lines().filter(|line| line.contains(hint)).count(), 1, "{words:?}: {said}");
    }
    for words in [&["/no/such", "-x"][..], &["--", "cd", "/srv"]] {
        assert!(!told(words).contains("shell"), "{words:?}");
    }
}
