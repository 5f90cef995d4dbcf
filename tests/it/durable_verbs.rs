//! What those who look after durable runs ask for beside their output.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::durable::{gate, leave, verb};
use super::support::{Client, Ran, Server, finish, kill, supervisors, wait_until};

/// `rexec VERB ARGS...`, with a word in front of its address.
fn asks(server: &Server, words: &[&str], runs: &[&str]) -> Child {
    Client::new(server.state()).args(words).arg(&server.addr).args(runs).spawn()
}

/// The next line that a client shows.
fn line(shown: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    shown.read_line(&mut line).unwrap();
    line
}

fn shown_by(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().unwrap())
}

#[test]
fn of_several_the_first_that_ends_is_waited_for_or_all_in_the_order_asked_for() {
    let server = Server::start(&[]);
    let [(early, waits), (late, waits_longer)] = ["early", "late"].map(|name| gate(&server, name));
    let good = leave(&server, &waits_longer);
    let bad = leave(&server, &format!("{waits}; exit 3"));
    let runs = [&*good, &*bad];
    let (any, all) = (asks(&server, &["wait", "--any"], &runs), asks(&server, &["wait"], &runs));
    std::fs::write(early, "").unwrap();
    let any = finish(any).expect(3);
    assert!(any.text().starts_with(&bad) && any.text().lines().count() == 1, "{}", any.text());
    let one = verb(&server, "wait", &[&bad]).expect(3);
    assert_eq!(one.text(), "", "nobody has to be told which");
    std::fs::write(late, "").unwrap();
    let all = finish(all).expect(3).text();
    let order: Vec<_> = all.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(order, runs);
    assert_eq!(finish(asks(&server, &["wait", "--all"], &runs)).expect(3).text(), all);
}

/// The objects that a client has printed, one a line.
fn objects(ran: &Ran) -> Vec<Value> {
    ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A script that waits for several gets an object for each that it has named, by the name that it has used.
#[test]
fn json_tells_how_each_run_has_ended_that_was_waited_for() {
    let server = Server::start(&[]);
    let bad = leave(&server, "exit 3");
    Client::new(server.state()).args(&["--id", "good", &server.addr, "true"]).run().expect(0);
    let ran = finish(asks(&server, &["wait", "--json"], &["good", &bad[20..], "none"])).expect(3);
    let told = objects(&ran);
    let row = |of: &Value| json!([of["run"], of["status"], of["outcome"], of["code"]]);
    assert_eq!(
        told.iter().map(row).collect::<Vec<_>>(),
        [
            json!(["good", 0, "exited", null]),
            json!([bad[20..], 3, "exited", null]),
            json!(["none", 254, "refused", "no_such_run"]),
        ]
    );
    assert_eq!(told[1]["verdict"]["run"], json!(bad));
    assert!(told[2]["verdict"].is_null() && told[2]["message"].is_string(), "{}", told[2]);
    assert!(ran.stderr.contains("none: there is no such run"), "{}", ran.stderr);
    for words in [&["wait", "--json"][..], &["wait", "--any", "--json"]] {
        let one = objects(&finish(asks(&server, words, &[&bad])).expect(3));
        assert_eq!((&one[0]["run"], one.len()), (&json!(bad), 1), "{words:?}");
        assert!(one[0].get("stdout").is_none(), "nobody has looked at it");
    }
    let none = finish(asks(&server, &["wait", "--any", "--json"], &["none"])).expect(254);
    assert_eq!(objects(&none)[0]["outcome"], "refused");
}

/// What `rexec --json` would have printed of a run that was not left.
#[test]
fn a_run_that_was_left_is_attached_to_as_one_object() {
    let server = Server::start(&[]);
    let id = leave(&server, "printf 'a##[b]'; printf '\\377' >&2; exit 7");
    let ran = finish(asks(&server, &["attach", "--json"], &[&id])).expect(7);
    assert!(!ran.text().contains("##["), "{}", ran.text());
    let told = &objects(&ran)[0];
    let output = (&told["stdout"], &told["stderr_base64"]);
    assert_eq!(output, (&json!("a##[b]"), &json!("/w==")), "{told}");
    assert_eq!((&told["status"], &told["verdict"]["run"]), (&json!(7), &json!(id)));
    let none = finish(asks(&server, &["attach", "--json"], &["none"])).expect(254);
    assert_eq!(objects(&none)[0]["outcome"], "refused");
}

#[test]
fn a_view_in_json_that_is_left_is_an_object_too() {
    let server = Server::start(&["--verbose"]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &wait);
    let logins = || server.log().matches("logged in").count();
    let before = logins();
    let viewer = asks(&server, &["attach", "--json"], &[&id]);
    wait_until("its login", || logins() > before);
    kill(viewer.id(), Signal::INT);
    let told = &objects(&finish(viewer).expect(130))[0];
    assert_eq!((&told["status"], &told["outcome"]), (&json!(130), &json!("interrupted")));
    assert!(told["verdict"].is_null() && told["message"].as_str().unwrap().contains("goes on"));
    std::fs::write(gate, "").unwrap();
    verb(&server, "wait", &[&id]).expect(0);
}

/// As `docker stop` and `systemctl stop` do: a script need not win a race against the end.
#[test]
fn a_run_that_has_ended_is_stopped() {
    let server = Server::start(&[]);
    let id = leave(&server, "exit 3");
    verb(&server, "wait", &[&id]).expect(3);
    let ran = verb(&server, "stop", &[&id]).expect(0);
    assert!(ran.stderr.contains("has ended already"), "{}", ran.stderr);
    verb(&server, "wait", &[&id]).expect(3);
    verb(&server, "signal", &[&id, "TERM"]).expect(254);
}

/// CI systems obey what a command's words say, wherever they are printed.
#[test]
fn a_list_of_runs_gives_a_ci_system_no_orders() {
    let server = Server::start(&[]);
    let id = leave(&server, "true '##[error]x'");
    verb(&server, "wait", &[&id]).expect(0);
    let list = |words: &[&str], ci: &str| {
        let client = Client::new(server.state()).env("GITHUB_ACTIONS", "").env("GITLAB_CI", "");
        client.env("CI", ci).arg("ps").args(words).arg(&server.addr).run().expect(0)
    };
    for ci in ["", "true"] {
        let json = list(&["--json"], ci);
        assert!(!json.text().contains("##"), "{}", json.text());
        assert_eq!(objects(&json)[0]["command"], "true '##[error]x'");
    }
    let table = |ci| list(&[], ci).text();
    assert!(table("").contains("'##[error]x'") && table("true").contains("'# #[error]x'"));
}

#[test]
fn of_several_the_one_that_is_lost_is_told_by_its_id_and_the_others_go_on() {
    let server = Server::start(&[]);
    let (gate, waits) = gate(&server, "gate");
    let good = leave(&server, &waits);
    let its_own = supervisors(server.state());
    let lost = leave(&server, "exec sleep 600");
    let runs = [&*good, &*lost];
    let (any, all) = (asks(&server, &["wait", "--any"], &runs), asks(&server, &["wait"], &runs));
    let mut supervisors = supervisors(server.state());
    supervisors.retain(|pid| !its_own.contains(pid));
    assert_eq!((its_own.len(), supervisors.len()), (1, 1));
    kill(supervisors[0], Signal::KILL);
    let line_of_lost = format!("{lost} unknown 253\n");
    let any = finish(any).expect(253);
    assert_eq!(any.text(), line_of_lost);
    assert!(any.stderr.contains(&lost), "{}", any.stderr);
    verb(&server, "wait", &["--any", &lost, &good]).expect(253);
    assert!(verb(&server, "ps", &[]).expect(0).text().contains("  running  "));
    std::fs::write(gate, "").unwrap();
    let all = finish(all).expect(253);
    assert_eq!(all.text(), format!("{good} exited 0\n{line_of_lost}"));
    assert!(all.stderr.contains(&lost), "{}", all.stderr);
    // A part of an id stands for what the server calls by it; what is no run has the name that it was given.
    let some = finish(asks(&server, &["wait"], &[&lost[4..20], "none"])).expect(253);
    assert_eq!(some.text(), format!("{line_of_lost}none refused 254\n"));
}

#[test]
fn whose_end_it_is_must_be_told_for_the_wait_to_be_a_success_or_a_failure_of_the_command() {
    let server = Server::start(&[]);
    let ids = [leave(&server, "exit 3"), leave(&server, "true")];
    for id in &ids {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut client = Client::new(server.state()).args(&["wait", "--any", &server.addr, id]);
        let child = client.command.stdout(full).stderr(std::process::Stdio::piped()).spawn();
        let ran = Ran::of(child.unwrap().wait_with_output().unwrap()).expect(252);
        assert!(ran.stderr.contains("cannot write to standard output"), "{}", ran.stderr);
    }
}

#[test]
fn from_the_end_only_what_is_still_to_come_is_shown() {
    let server = Server::start(&[]);
    let (gate, _) = gate(&server, "gate");
    let counts = format!(
        "i=0; while ! test -e {}; do i=$((i+1)); echo $i; sleep 0.01; done; exit 7",
        gate.display()
    );
    let id = leave(&server, &counts);
    wait_until("some lines", || verb(&server, "logs", &[&id]).text().lines().count() > 5);
    let mut viewer = asks(&server, &["attach", "--from", "end"], &[&id]);
    let mut shown = shown_by(&mut viewer);
    let mut lines = vec![line(&mut shown)];
    std::fs::write(gate, "").unwrap();
    lines.extend(std::iter::from_fn(|| Some(line(&mut shown)).filter(|line| !line.is_empty())));
    assert_eq!(viewer.wait().unwrap().code(), Some(7));
    let whole = verb(&server, "attach", &[&id]).expect(7).text();
    let rest = lines.concat();
    assert!(whole.ends_with(&rest) && whole.lines().count() > lines.len() + 4, "{rest}");
}

#[test]
fn ctrl_c_in_a_view_leaves_the_run_alone_unless_signals_are_forwarded() {
    let server = Server::start(&[]);
    let id = leave(&server, "trap 'exit 9' INT; echo ready; while :; do sleep 0.01; done");
    for (words, status) in [(&["attach"][..], 130), (&["attach", "--forward-signals"], 9)] {
        let mut viewer = asks(&server, words, &[&id]);
        let mut shown = shown_by(&mut viewer);
        assert_eq!(line(&mut shown), "ready\n");
        kill(viewer.id(), Signal::INT);
        assert_eq!(viewer.wait().unwrap().code(), Some(status), "{words:?}");
        let goes_on = verb(&server, "ps", &[]).expect(0).text().contains("  running  ");
        assert_eq!(goes_on, status == 130, "{words:?}");
    }
}

#[test]
fn a_run_is_listed_with_its_state_age_command_bytes_and_disk() {
    let server = Server::start(&[]);
    let ended = leave(&server, "echo hello; echo oops >&2; exit 3");
    verb(&server, "wait", &[&ended]).expect(3);
    let goes_on = leave(&server, "exec sleep 600");
    let text = verb(&server, "ps", &[]).expect(0).text();
    let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["RUN", "STATE", "AGE", "OUTPUT", "DISK", "COMMAND"]);
    assert_eq!(rows[1][..3], [&ended[24..], "exited", "3"]);
    assert_eq!(
        (rows[1][4], rows[1][6..].join(" ")),
        ("11", "echo hello; echo oops >&2; exit 3".into())
    );
    assert_eq!(rows[2][..2], [&goes_on[24..], "running"]);
    assert!(rows[1][3].ends_with('s') && rows[2][2].ends_with('s'), "{text}");
    let list = verb(&server, "ps", &["--json"]).expect(0).text();
    let runs: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [first, second] = &runs[..] else { panic!("{list}") };
    assert_eq!((&first["run"], &first["state"]), (&json!(ended), &json!("ended")));
    assert_eq!(
        (&first["bytes"], &first["verdict"]["end"]["exited"]["code"]),
        (&json!(11), &json!(3))
    );
    assert!(first["disk"].as_u64() >= Some(512) && first["age_s"].as_u64() < Some(600), "{first}");
    assert_eq!((&second["run"], &second["state"]), (&json!(goes_on), &json!("running")));
    assert!(second["verdict"].is_null() && second["command"] == "exec sleep 600", "{second}");
}
