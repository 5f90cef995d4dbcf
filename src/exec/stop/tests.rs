use std::fs;
use std::os::unix::fs::PermissionsExt;

use rustix::process::{PidfdFlags, getpid, pidfd_open};
use tempfile::TempDir;
use tokio::time::Instant;

use super::*;
use crate::exec::testing::{is_gone, logged, marked, pid_line, run, shell, spawn, until, within};
use crate::exec::{End, Spawned, adopt};
use crate::sys::process::prepare;
use crate::sys::process::tests::alone;

/// For a busy machine, where a look takes longer than a server waits for it.
const LONG: Duration = Duration::from_secs(60);

fn scanner() -> Scanner {
    Scanner::new().unwrap()
}

/// Starts `text`, which prints `pids` pids, stops it, and wants all of them gone.
async fn stops(text: &str, pids: usize, grace: Duration) -> Spawned {
    let mut spawned = spawn(&shell(text));
    let mut processes = Vec::new();
    for _ in 0..pids {
        processes.push(pid_line(&mut spawned.stdout).await);
    }
    assert!(processes.iter().all(|process| !is_gone(process)));
    let scanner = scanner();
    let tree = Tree { kill_grace: LONG, ..Tree::of(&spawned.child, &scanner) };
    let stopped = within(tree.stop(grace)).await.unwrap();
    assert_eq!(stopped, Stopped { left_running: 0, containment: Containment::Marks });
    assert!(processes.iter().all(is_gone), "{text}");
    assert_eq!(marked(spawned.child.mark()), [""; 0]);
    spawned
}

async fn end(spawned: &Spawned) -> End {
    within(spawned.child.exited()).await.unwrap().end
}

#[tokio::test]
async fn grandchildren_end() {
    let text = "sh -c 'sleep 1000 & echo $!; sleep 1000 & echo $!; wait' & wait";
    let spawned = stops(text, 2, TERM_GRACE).await;
    assert_eq!(end(&spawned).await, End::Signaled { signal: libc::SIGTERM, core_dumped: false });
}

#[tokio::test]
async fn leaving_group_and_session_does_not_help() {
    let text = "setsid setsid sh -c 'echo $$; exec sleep 1000' & \
                (setsid setsid sh -c 'setsid sleep 1000 & echo $!; echo $$; exec sleep 1000' &) ; wait";
    stops(text, 3, TERM_GRACE).await;
}

#[tokio::test]
async fn emptying_the_environment_does_not_help_within_the_group() {
    stops("env -i sh -c 'echo $$; exec sleep 1000' & wait", 1, TERM_GRACE).await;
}

#[tokio::test]
async fn ignoring_sigterm_helps_for_the_grace_only() {
    let text = "trap '' TERM; setsid sh -c 'echo $$; exec sleep 1000' & echo $$; exec sleep 1000";
    let start = std::time::Instant::now();
    let grace = Duration::from_millis(300);
    let spawned = stops(text, 2, grace).await;
    assert!(start.elapsed() >= grace);
    assert_eq!(end(&spawned).await, End::Signaled { signal: libc::SIGKILL, core_dumped: false });
}

#[tokio::test]
async fn a_clean_end_upon_sigterm_is_left_its_time() {
    let text = "trap 'kill $!; exit 9' TERM; sh -c 'echo $$; exec sleep 1000' & wait";
    assert_eq!(end(&stops(text, 1, TERM_GRACE).await).await, End::Exited { code: 9 });
}

#[tokio::test]
async fn what_was_paused_hears_sigterm() {
    let mut spawned =
        spawn(&shell("trap 'kill $!; exit 9' TERM; sh -c 'echo $$; exec sleep 1000' & wait"));
    pid_line(&mut spawned.stdout).await;
    spawned.child.signal_group(Signal::STOP).unwrap();
    within(stop(&spawned.child, &scanner(), TERM_GRACE)).await.unwrap();
    assert_eq!(end(&spawned).await, End::Exited { code: 9 });
}

#[tokio::test]
async fn no_grace_is_sigkill_at_once() {
    let spawned =
        stops("trap 'exit 9' TERM; echo $$; while :; do sleep 1000; done", 1, Duration::ZERO).await;
    assert_eq!(end(&spawned).await, End::Signaled { signal: libc::SIGKILL, core_dumped: false });
}

#[tokio::test]
async fn a_stop_can_be_hurried() {
    let mut spawned = spawn(&shell("trap '' TERM; echo $$; exec sleep 1000"));
    pid_line(&mut spawned.stdout).await;
    let scanner = scanner();
    let patient = stop(&spawned.child, &scanner, Duration::from_secs(3600));
    assert!(tokio::time::timeout(Duration::from_millis(50), patient).await.is_err());
    let stopped = within(stop(&spawned.child, &scanner, Duration::ZERO)).await.unwrap();
    assert_eq!(stopped.left_running, 0);
}

/// Each process starts its successor in a session of its own and ends: a moving target.
#[tokio::test]
async fn a_respawner_is_caught() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("hop");
    // Hops end by themselves should the test fail.
    let script = "#!/bin/sh\ntrap '' TERM\n[ $1 -gt 0 ] || : > $0.end\n[ $1 -gt 0 ] || exit\nsetsid $0 $(($1-1)) &\nsleep 0.02\n";
    fs::write(dir.path().join("staged"), script).unwrap();
    fs::copy(dir.path().join("staged"), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!("sh {0} 5000 </dev/null >/dev/null 2>&1 & echo $$; wait", path.display());
    stops(&text, 1, Duration::from_millis(200)).await;
    assert!(!dir.path().join("hop.end").exists());
}

/// Many at once, each outside of the group, faster than one pass.
#[tokio::test]
async fn a_crowd_is_stopped() {
    let text = "trap '' TERM; echo $$; n=0; while [ $n -lt 2000 ]; do \
                setsid sleep 1000 >/dev/null 2>&1 & n=$((n+1)); done; wait";
    stops(text, 1, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn what_a_run_leaves_is_counted_and_then_stopped_by_its_mark_alone() {
    let text = "setsid sleep 1000 >/dev/null 2>&1 & sleep 1000 >/dev/null 2>&1 & exit 0";
    let outcome = run(&shell(text)).await;
    let scanner = scanner();
    let left = within(count_left(&outcome.child, &scanner)).await.unwrap();
    assert_eq!(left, Stopped { left_running: 2, containment: Containment::Marks });
    let (mark, process) = (outcome.child.mark(), outcome.child.process());
    outcome.child.reap().unwrap();
    let later = process.start_time + 1_000_000;
    let left = Leftovers { mark, uid: None, not_before: process.start_time };
    let young = Leftovers { not_before: later, ..left };
    let none = within(stop_leftovers(&scanner, young, Duration::ZERO)).await.unwrap();
    assert_eq!((none.left_running, marked(mark).len()), (0, 2), "nothing is as young as that");
    let others = Leftovers { uid: Some(u32::MAX - 2), ..left };
    let none = within(stop_leftovers(&scanner, others, Duration::ZERO)).await.unwrap();
    assert_eq!((none.left_running, marked(mark).len()), (0, 2), "nothing is another user's");
    within(stop_leftovers(&scanner, left, TERM_GRACE)).await.unwrap();
    assert_eq!(marked(mark), [""; 0]);
}

#[tokio::test]
async fn nothing_left_is_nothing_counted() {
    let outcome = run(&shell("sleep 0 & wait")).await;
    let left = within(count_left(&outcome.child, &scanner())).await.unwrap();
    assert_eq!(left.left_running, 0);
}

/// As in a server: it adopts what runs leave, and so needs no pass to see that there is nothing.
#[tokio::test]
async fn a_subreaper_knows_what_is_left_and_reaps_it() {
    if !alone("exec::stop::tests::a_subreaper_knows_what_is_left_and_reaps_it") {
        return;
    }
    prepare().unwrap();
    tokio::spawn(adopt());
    // What executes something for long counts as unmarked.
    let text = "setsid sleep 1000 >/dev/null 2>&1 & until [ \"$(cat /proc/$!/comm)\" = sleep ]; do :; done";
    let leaves = run(&shell(text)).await;
    let scanner = scanner();
    let left = within(Tree::of(&leaves.child, &scanner).count_left(LONG)).await.unwrap();
    assert_eq!(left.left_running, 1);
    let clean = run(&shell("exit 0")).await;
    let left = within(Tree::of(&clean.child, &scanner).count_left(LONG)).await.unwrap();
    assert_eq!(left, Stopped { left_running: 0, containment: Containment::Marks });
    assert_eq!(orphans().unwrap().len(), 1, "another's is not its own");
    let (deaf, _kept) = Scanner::played();
    let left = within(count_left(&clean.child, &deaf)).await.unwrap();
    assert_eq!(left.containment, Containment::Group, "what is there is looked at by the scanner");
    within(stop(&leaves.child, &scanner, TERM_GRACE)).await.unwrap();
    until(|| orphans().unwrap().is_empty()).await;
    let left = within(count_left(&clean.child, &deaf)).await.unwrap();
    assert_eq!(left.containment, Containment::Marks, "nothing is there to be looked at");
    for child in [leaves.child, clean.child] {
        assert!(child.ended().unwrap().is_some(), "known zombies stay");
        child.reap().unwrap();
    }
}

#[tokio::test]
async fn a_look_that_never_ends_keeps_neither_the_group_alive_nor_the_answer_back() {
    let (deaf, _kept) = Scanner::played();
    let mut spawned = spawn(&shell("sleep 1000 & echo $!; wait"));
    let sleeper = pid_line(&mut spawned.stdout).await;
    tokio::time::pause();
    let start = Instant::now();
    let stopped = stop(&spawned.child, &deaf, Duration::ZERO).await.unwrap();
    // The timer goes by whole milliseconds.
    let late = start.elapsed() - (FREEZE_LIMIT + KILL_GRACE);
    assert!(late < Duration::from_millis(10), "{late:?}");
    tokio::time::resume();
    assert_eq!(stopped.containment, Containment::Group);
    assert_eq!(end(&spawned).await, End::Signaled { signal: libc::SIGKILL, core_dumped: false });
    until(|| is_gone(&sleeper)).await;
}

/// Each look takes long, and finds a process that nothing ends: this one.
#[tokio::test(start_paused = true)]
async fn the_answer_comes_two_seconds_after_sigkill_and_counts_what_was_seen() {
    let (slow, requests) = Scanner::played();
    let answers = tokio::spawn(async move {
        loop {
            tokio::time::sleep(KILL_GRACE * 3 / 5).await;
            let this = getpid();
            while let Ok(request) = requests.try_recv() {
                let found = Found {
                    processes: vec![ProcessRef::of(this).unwrap()],
                    watch: vec![pidfd_open(this, PidfdFlags::empty()).unwrap()],
                    containment: Containment::Marks,
                };
                let _ = request.answer.send(Ok(found));
            }
        }
    });
    let spawned = spawn(&shell("exec sleep 1000"));
    let start = Instant::now();
    let stopped = stop(&spawned.child, &slow, Duration::ZERO).await.unwrap();
    assert_eq!(start.elapsed(), FREEZE_LIMIT + KILL_GRACE);
    assert_eq!(stopped, Stopped { left_running: 1, containment: Containment::Marks });
    answers.abort();
}

#[tokio::test(start_paused = true)]
async fn a_count_that_cannot_be_made_is_of_the_main_process_and_says_so() {
    let (deaf, _kept) = Scanner::played();
    let spawned = spawn(&shell("exec sleep 1000"));
    let (log, _guard) = logged();
    let counted = count_left(&spawned.child, &deaf).await.unwrap();
    assert_eq!(counted, Stopped { left_running: 1, containment: Containment::Group });
    let pid = spawned.child.process().pid.as_raw_nonzero();
    let told = log.text();
    assert!(told.contains("could not be looked at in time"), "{told}");
    assert!(told.contains(&format!("pid={pid}")) && told.contains("left_running=1"), "{told}");
    within(stop(&spawned.child, &scanner(), Duration::ZERO)).await.unwrap();
}
