use tempfile::TempDir;

use super::*;
use crate::exec::End;
use crate::exec::testing::{is_gone, pid_line, run, shell, spawn, until, within};

#[tokio::test]
async fn exit_codes_are_exact() {
    for code in [0, 1, 2, 42, 124, 126, 127, 128, 137, 250, 254, 255] {
        assert_eq!(run(&shell(&format!("exit {code}"))).await.end, End::Exited { code });
    }
}

#[tokio::test]
async fn death_by_signal_is_no_exit_code() {
    for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGKILL, libc::SIGUSR1, libc::SIGPIPE, 40] {
        let outcome = run(&shell(&format!("kill -{signal} $$"))).await;
        assert_eq!(outcome.end, End::Signaled { signal, core_dumped: false });
    }
}

#[tokio::test]
async fn a_core_is_told() {
    let dir = TempDir::new().unwrap();
    let mut dumps = shell("ulimit -c unlimited || exit 9; kill -SEGV $$");
    dumps.cwd = Some(dir.path().into());
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let written = || std::fs::read_dir(dir.path()).unwrap().count() > 0;
    match run(&dumps).await.end {
        // The hard limit forbids it.
        End::Exited { code } => assert_eq!(code, 9),
        End::Signaled { signal, core_dumped } => {
            assert_eq!(signal, libc::SIGSEGV);
            assert!(pattern.contains(['|', '/']) || core_dumped == written());
        }
    }
    let outcome = run(&shell("ulimit -c 0; kill -SEGV $$")).await;
    assert!(
        matches!(outcome.end, End::Signaled { core_dumped: false, .. }) || pattern.contains('|')
    );
}

#[tokio::test]
async fn the_zombie_keeps_the_pid_until_reaped() {
    let outcome = run(&shell("exit 3")).await;
    let process = outcome.child.process();
    assert_eq!(ProcessRef::of(process.pid).unwrap(), process);
    outcome.child.signal_group(Signal::TERM).unwrap();
    assert_eq!(outcome.child.ended().unwrap().unwrap().end, End::Exited { code: 3 });
    outcome.child.reap().unwrap();
    assert!(process.open().unwrap().is_none());
}

#[tokio::test]
async fn usage_is_of_the_whole_waited_for_tree() {
    let burn = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'; :";
    let child = run(&shell(burn)).await.child;
    let usage = child.ended().unwrap().unwrap().usage;
    assert_eq!(usage, child.reap().unwrap(), "it is known before");
    assert!(usage.user + usage.system >= std::time::Duration::from_millis(5), "{usage:?}");
}

#[tokio::test]
async fn a_running_child_is_not_reaped_and_signals_reach_its_group() {
    let spawned = spawn(&shell("sleep 1000 & wait"));
    assert_eq!(spawned.child.ended().unwrap(), None);
    assert_eq!(
        process::reap(spawned.child.process().pid).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    spawned.child.signal_group(Signal::KILL).unwrap();
    let exit = within(spawned.child.exited()).await.unwrap().end;
    assert_eq!(exit, End::Signaled { signal: libc::SIGKILL, core_dumped: false });
}

#[tokio::test]
async fn a_dropped_child_leaves_no_zombie() {
    let mut spawned = spawn(&shell("echo $$; exec sleep 1000"));
    let process = pid_line(&mut spawned.stdout).await;
    drop(spawned.child);
    assert!(!is_gone(&process));
    rustix::process::kill_process(process.pid, Signal::KILL.raw()).unwrap();
    until(|| ProcessRef::of(process.pid).ok() != Some(process)).await;
}

#[tokio::test]
async fn a_child_dropped_after_its_end_is_reaped_at_once() {
    let outcome = run(&shell("exit 0")).await;
    let process = outcome.child.process();
    drop(outcome.child);
    assert_ne!(ProcessRef::of(process.pid).ok(), Some(process));
}
