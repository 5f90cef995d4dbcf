//! In which order hosts come, and what ends a batch early.

use std::io::{BufRead as _, BufReader};

use super::super::support::fleet::Fleet;
use super::super::support::{at_a_deadline, finish, pid_in, wait_until};
use rustix::process::Signal;

#[test]
fn fail_fast_stops_what_runs_and_begins_nothing_more() {
    let fleet = Fleet::start(3);
    let dir = fleet.first().dir().to_owned();
    let pid = dir.join("pid");
    let script = format!(
        "if mkdir {0}/first 2>/dev/null; then echo $$ > {1}; exec sleep 600; \
         else while [ ! -s {1} ]; do sleep 0.01; done; exit 3; fi",
        dir.display(),
        pid.display()
    );
    let ran = fleet.batch(&[]).args(&["-j", "2", "--fail-fast", "-s", &script]).run().expect(3);
    assert!(ran.stderr.contains("1 failed, 1 stopped, 1 not started"), "{}", ran.stderr);
    assert!(!super::super::support::is_alive(pid_in(&pid)));
}

#[test]
fn ctrl_c_stops_everything_and_still_reports() {
    let fleet = Fleet::start(3);
    let dir = fleet.first().dir().to_owned();
    let script = format!("touch {}/$$; exec sleep 600", dir.display());
    let child = fleet.batch(&[]).args(&["-j", "2", "-s", &script, "-s", "true"]).spawn();
    let begun = || {
        let names = std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.file_name());
        names.filter(|n| n.to_string_lossy().bytes().all(|b| b.is_ascii_digit())).count()
    };
    wait_until("two hosts under way", || begun() == 2);
    super::super::support::kill(child.id(), Signal::INT);
    let ran = finish(child).expect(130);
    assert!(ran.stderr.contains("2 stopped, 4 not started"), "{}", ran.stderr);
    assert!(ran.stderr.contains("interrupted"), "{}", ran.stderr);
}

#[test]
fn a_deadline_of_the_batch_stops_what_runs() {
    let fleet = Fleet::start(2);
    let ran = at_a_deadline(|ms| {
        let deadline = format!("{ms}ms");
        let args = ["-j", "1", "--deadline", &deadline, "-s", "exec sleep 600"];
        let ran = fleet.batch(&[]).args(&args).run().expect(124);
        ran.stderr.contains("1 deadline, 1 not started").then_some(ran)
    });
    let told = ran.stderr.lines().filter(|line| line.contains(": deadline: ")).collect::<Vec<_>>();
    let is_told = |line: &&str| line.ends_with("the batch met its deadline (--deadline)");
    assert!(told.len() == 2 && told.iter().all(is_told), "{told:?}");
}

#[test]
fn rounds_end_before_the_next_begins_and_too_many_failures_end_all() {
    let fleet = Fleet::start(4);
    let log = fleet.first().dir().join("log");
    let script = format!("echo b >> {0}; sleep 0.05; echo e >> {0}", log.display());
    fleet.batch(&[]).args(&["--serial", "2", "-s", &script]).run().expect(0);
    let text = std::fs::read_to_string(&log).unwrap().replace('\n', "");
    for round in text.as_bytes().chunks(4) {
        let mut sorted = round.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, b"bbee", "{text}");
    }
    let args = ["--serial", "25%", "--max-failures", "25%", "-s", "exit 5"];
    let ran = fleet.batch(&[]).args(&args).run().expect(5);
    assert!(ran.stderr.contains("2 failed, 2 not started"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--max-failures"), "{}", ran.stderr);
}

#[test]
fn a_blocked_output_keeps_nobody_from_leaving() {
    let fleet = Fleet::start(1);
    // Nobody reads the pipe. Each empty line is printed with its host in front, so that the first piece of
    // them is more than a pipe takes.
    let flood = "head -c 200000 /dev/zero | tr '\\0' '\\n'; exec sleep 600";
    let mut child = fleet.batch(&[]).args(&["-s", flood]).spawn();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let pipe = child.stdout.as_ref().unwrap();
    wait_until("the first lines", || rustix::io::ioctl_fionread(pipe).unwrap() >= 4096);
    for expected in ["stopping what runs", "not waiting", "left at once"] {
        super::super::support::kill(child.id(), Signal::INT);
        assert!(lines.any(|line| line.contains(expected)), "{expected}");
    }
    assert_eq!(child.wait().unwrap().code(), Some(253));
}
