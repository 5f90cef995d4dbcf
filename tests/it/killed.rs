//! Kill points: a server killed at each commit of state, and restarted on what it left.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::process::Child;

use super::resume::{endless, executions, journal_has};
use super::support::server::finish;
use super::support::{Server, is_alive, pid_in, wait_until};

/// A server that stops at a pause point, and a client whose run has brought it there.
pub(super) fn paused_at(point: &str, text: impl FnOnce(&Server) -> String) -> (Server, Child) {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::remove_file(&file).unwrap();
    let server = Server::with(&[], |command| {
        command.env("REXEC_PAUSE_AT", point).env("REXEC_PAUSE_FILE", &file);
    });
    let text = text(&server);
    let child = server.client().arg(text).spawn();
    wait_until(point, || file.exists());
    (server, child)
}

#[test]
fn a_server_killed_when_it_had_accepted_a_run_does_not_start_it_later() {
    let (mut server, child) = paused_at("accepted", endless);
    server.restart();
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("restarted"), "{}", ran.stderr);
    wait_until("the lost line", || journal_has(&server, "lost"));
    assert_eq!(executions(&server.dir().join("effect")), 0);
}

#[test]
fn what_was_started_when_its_server_was_killed_is_lost_stopped_and_never_started_again() {
    for point in ["spawned", "running"] {
        let (mut server, child) = paused_at(point, endless);
        let pid = pid_in(&server.dir().join("pid"));
        assert!(is_alive(pid));
        server.restart();
        let ran = finish(child).expect(253);
        assert!(ran.stderr.contains("restarted"), "{point}: {}", ran.stderr);
        wait_until("the end of what was left", || !is_alive(pid));
        wait_until("the lost line", || journal_has(&server, "lost"));
        assert_eq!(executions(&server.dir().join("effect")), 1, "{point}");
        // Nor by the next server.
        server.restart();
        server.run(&["true"]).expect(0);
        assert_eq!(executions(&server.dir().join("effect")), 1, "{point}");
    }
}

#[test]
fn a_run_whose_server_was_killed_at_its_end_is_lost_and_never_started_again() {
    for (point, lost) in [("ended", true), ("journaled", false)] {
        let (mut server, child) =
            paused_at(point, |s| format!("echo x >> {}/effect; echo out", s.dir().display()));
        server.restart();
        let ran = finish(child).expect(253);
        assert!(ran.stdout.is_empty() || ran.text() == "out\n", "{point}");
        if lost {
            wait_until("the lost line", || journal_has(&server, "lost"));
        }
        assert_eq!(journal_has(&server, "ended"), !lost, "{point}");
        assert_eq!(executions(&server.dir().join("effect")), 1, "{point}");
    }
}

#[test]
fn a_server_killed_in_the_middle_of_output_is_no_success() {
    let mut server = Server::start(&[]);
    let dir = server.dir().to_owned();
    let text =
        format!("echo x >> {0}/effect; echo $$ > {0}/pid; exec seq 1 1000000000", dir.display());
    let mut child = server.client().arg(text).spawn();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = vec![0; 1 << 20];
    stdout.read_exact(&mut start).unwrap();
    server.crash();
    let reader = std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    server.restart();
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(253), "{stderr}");
    reader.join().unwrap().unwrap();
    wait_until("the end of what was left", || !is_alive(pid_in(&dir.join("pid"))));
    assert_eq!(executions(&dir.join("effect")), 1);
}

/// Its client has the verdict, and so has the journal.
#[test]
fn a_server_killed_when_the_verdict_was_acknowledged_has_told_it_and_says_nothing_else_later() {
    let (mut server, child) =
        paused_at("confirmed", |s| format!("echo x >> {}/effect; exit 7", s.dir().display()));
    finish(child).expect(7);
    server.restart();
    server.run(&["true"]).expect(0);
    let lines = server.journal();
    let count = |kind| lines.iter().filter(|line| line["type"] == kind).count();
    assert_eq!((count("ended"), count("lost")), (2, 0), "{lines:?}");
    assert_eq!(executions(&server.dir().join("effect")), 1);
}

/// Names in the double quotes behind `before`.
fn named(folder: &Path, before: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            names.extend(named(&path, before));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            let quoted = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            names.extend(quoted.map(str::to_owned));
        }
    }
    names
}

#[test]
fn each_named_point_is_one_at_which_a_test_stops_a_program() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let points = named(&here.join("src"), "pause::point(\"");
    assert!(points.len() > 15, "{points:?}");
    let words = named(&here.join("tests/it"), "\"");
    let is_used =
        |point: &&String| words.iter().any(|word| word.rsplit(':').next() == Some(point.as_str()));
    let unused: Vec<_> = points.iter().filter(|point| !is_used(point)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
