//! Durable runs of users in system mode: their supervisors and records are root's, their commands are not.

use std::path::Path;

use rustix::process::Signal;

use super::support::server::supervisors;
use super::support::user::User;
use super::support::{Ran, is_alive, kill, pid_in, wait_until};
use super::system::{Machine, listed};

/// Starts a durable run of a user's and leaves it; its id.
fn leave(machine: &Machine, user: &User, command: &str) -> String {
    let ran = machine.client(&["-d"], &user.name).arg(command).run().expect(0);
    ran.text().trim().to_owned()
}

fn verb(machine: &Machine, user: &User, verb: &str, id: &str) -> Ran {
    machine.client(&[verb], &user.name).arg(id).run()
}

#[test]
fn a_durable_run_is_its_users_and_goes_on_when_its_server_is_killed() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    let mut machine = Machine::serving(&[&alice.name, &bob.name]);
    listed(&machine, &alice);
    listed(&machine, &bob);
    let command = "id -ru; id -u; id -G; pwd; echo $$ > pid; \
                   while ! test -e gate; do sleep 0.02; done; id -un; exit 7";
    let id = leave(&machine, &alice, command);
    pid_in(&alice.home.join("pid"));
    let served = format!("{},{}", alice.name, bob.name);
    machine.server.crash();
    machine.server.restart_with(&["--users", &served]);
    alice.write(&alice.home.join("gate"), "");
    let ran = verb(&machine, &alice, "attach", &id).expect(7);
    let (uid, home, name) = (alice.uid, alice.home.display(), &alice.name);
    assert_eq!(ran.text(), format!("{uid}\n{uid}\n{uid}\n{home}\n{name}\n"));
    // The end is on the disk now, and the next server reads it there.
    machine.server.crash();
    machine.server.restart_with(&["--users", &served]);
    assert_eq!(verb(&machine, &alice, "logs", &id).expect(0).text(), ran.text());
    let others = verb(&machine, &bob, "attach", &id).expect(254).stderr;
    assert!(others.contains("no_such_run"), "{others}");
}

#[test]
fn a_user_can_neither_end_a_supervisor_nor_reach_a_record() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let state = machine.server.state().display();
    let command = format!(
        "kill -9 $PPID && echo killed; ls {state} && echo seen; \
         for f in /proc/$PPID/fd/*; do (: > $f) && echo open; done; \
         grep -c supervise /proc/$PPID/cmdline"
    );
    let id = leave(&machine, &alice, &command);
    let ran = verb(&machine, &alice, "attach", &id).expect(0);
    assert_eq!(ran.text(), "1\n", "{}", ran.stderr);
    let owner = std::fs::metadata(machine.server.state()).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
}

#[test]
fn a_durable_run_of_a_users_takes_input_and_orders_and_is_stopped_whole() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let words = ["--id", "mine", "read line; echo \"$line $(id -un)\""];
    let ran = machine.client(&[], &alice.name).args(&words).run_with(b"I am\n").expect(0);
    assert_eq!(ran.text(), format!("I am {}\n", alice.name));
    let id = leave(&machine, &alice, "setsid sleep 613 & echo $! > pid; wait");
    let left = pid_in(&alice.home.join("pid"));
    verb(&machine, &alice, "stop", &id).expect(0);
    wait_until("the end of what left the session", || !is_alive(left));
    let journal = machine.server.journal();
    let uid = journal.iter().find_map(|line| line["uid"].as_u64());
    assert_eq!(uid, Some(alice.uid.into()));
}

#[test]
fn what_a_users_run_leaves_is_stopped_when_its_supervisor_is_killed() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let id = leave(&machine, &alice, "setsid sleep 614 & echo $! > pid; wait");
    let left = pid_in(&alice.home.join("pid"));
    let supervisors = supervisors(machine.server.state());
    let owners: Vec<_> = supervisors.iter().map(|pid| owner(*pid)).collect();
    assert_eq!(owners, [0], "the supervisor is root's");
    kill(supervisors[0], Signal::KILL);
    let ran = verb(&machine, &alice, "wait", &id).expect(253);
    assert!(ran.stderr.contains("what the run had started was stopped"), "{}", ran.stderr);
    wait_until("the end of what it left", || !is_alive(left));
}

fn owner(pid: u32) -> u32 {
    let found = std::fs::metadata(Path::new("/proc").join(pid.to_string())).unwrap();
    std::os::unix::fs::MetadataExt::uid(&found)
}

/// With any number of keys: those in the user's own list are the user's to make.
#[test]
fn a_user_who_leaves_many_records_pushes_out_none_of_anothers() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    let machine = Machine::with(&[&alice.name, &bob.name], &["--keep-count", "4"]);
    listed(&machine, &alice);
    listed(&machine, &bob);
    let bobs = ["one", "two"].map(|word| leave(&machine, &bob, &format!("echo {word}")));
    bobs.iter().for_each(|id| drop(verb(&machine, &bob, "wait", id).expect(0)));
    let alices: Vec<_> = (0..4).map(|_| leave(&machine, &alice, "echo flood")).collect();
    alices.iter().for_each(|id| drop(verb(&machine, &alice, "wait", id)));
    let is_kept = |user: &User, id: &String| verb(&machine, user, "logs", id).status == 0;
    wait_until("two of hers to go", || alices.iter().filter(|id| is_kept(&alice, id)).count() == 2);
    assert!(bobs.iter().all(|id| is_kept(&bob, id)));
}
