//! `rexec batch`: hosts × steps, one verdict for each, an honest status.

mod bad_days;
mod ci;
mod engine;
mod input;
mod page;
mod report;
mod resume;
mod rules;
mod scale;
mod shown;
mod steps;

use super::support::fleet::Fleet;
use super::support::server::own_port as nobody;

#[test]
fn every_step_runs_on_every_host_in_order() {
    let fleet = Fleet::start(3);
    let ran = fleet
        .batch(&[])
        .args(&["-s", "echo one; echo to-err >&2", "-s", "echo two"])
        .run()
        .expect(0);
    for addr in fleet.addrs() {
        let mine: Vec<_> =
            ran.text().lines().filter(|l| l.starts_with(&addr)).map(str::to_owned).collect();
        assert_eq!(mine, [format!("{addr} out: one"), format!("{addr} out: two")]);
        assert!(ran.stderr.contains(&format!("{addr} err: to-err\n")), "{}", ran.stderr);
    }
    assert!(
        ran.stderr.contains("3 of 3 hosts ended well, 0 did not; 2 steps each: 6 ok"),
        "{}",
        ran.stderr
    );
}

/// Thread: clustershell#260 and #383: a host that is not reached is never lost in silence.
#[test]
fn a_host_that_is_not_reached_is_told_and_is_no_success() {
    let fleet = Fleet::start(2);
    let nobody = nobody();
    let ran =
        fleet.batch(&[&nobody]).args(&["--retries", "0", "-s", "echo here", "-s", "true"]).run();
    let ran = ran.expect(254);
    assert_eq!(ran.text().lines().count(), 2);
    assert!(
        ran.stderr.contains(&format!("{nobody}: step \"echo here\" unreachable: ")),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("4 ok, 1 unreachable, 1 not started"), "{}", ran.stderr);
}

/// Thread: appleboy/ssh-action#42: a step behind a failed one does not turn the job green.
#[test]
fn a_failed_step_ends_its_host_and_its_code_is_the_status() {
    let fleet = Fleet::start(2);
    let file = fleet.first().dir().join("behind");
    let steps = ["exit 7".to_owned(), format!("touch {}", file.display())];
    let ran = fleet.batch(&[]).args(&["-s", &steps[0], "-s", &steps[1]]).run().expect(7);
    assert!(!file.exists());
    assert!(ran.stderr.contains("2 failed, 2 not started"), "{}", ran.stderr);
}
