use super::*;
use crate::exec::testing::{is_gone, pid_line, shell, spawn, within};
use crate::exec::{Child, stop};

fn target(child: &Child) -> Target {
    let process = child.process();
    Target {
        mark: child.mark(),
        group: None,
        grouped: false,
        uid: None,
        not_before: process.start_time,
    }
}

/// Who serves several users and may signal all of them: a mark that one has got hold of is worth nothing.
#[tokio::test]
async fn a_mark_on_a_process_that_another_user_has_started_does_not_count() {
    let scanner = Scanner::new().unwrap();
    let run = spawn(&shell("exec sleep 1000"));
    let own = rustix::process::getuid().as_raw();
    for (uid, found) in [(own, 1), (own + 1, 0)] {
        let target = Target { uid: Some(uid), ..target(&run.child) };
        let seen = scanner.scan(target, Action::Count).await.unwrap();
        assert_eq!(seen.processes.len(), found, "{uid}");
    }
    stop(&run.child, &scanner, Duration::ZERO).await.unwrap();
}

#[test]
fn the_mark_is_found_where_a_variable_begins() {
    let mark = Mark::new().unwrap();
    let with =
        |before: &str, after: &str| mark_in(format!("{before}REXEC_MARK={mark}{after}").as_bytes());
    assert_eq!(with("", ""), Some(mark));
    assert_eq!(with("A=1\0", "\0B=2\0"), Some(mark));
    assert_eq!(with("A=1\0X", ""), None);
    assert_eq!(with("", "0"), None);
    assert_eq!(with("REXEC_MARK=none\0", ""), None, "the first counts");
    assert_eq!(mark_in(b""), None);
}

#[tokio::test]
async fn one_pass_serves_all_that_wait() {
    let scanner = Scanner::new().unwrap();
    let runs: Vec<_> = (0..3).map(|_| spawn(&shell("exec sleep 1000"))).collect();
    let (answers, waiting): (Vec<_>, Vec<_>) = runs
        .iter()
        .map(|run| {
            let (answer, found) = oneshot::channel();
            (Request { target: target(&run.child), action: Action::Count, answer }, found)
        })
        .unzip();
    answer_all(answers, &mut Environ::default());
    for (run, found) in runs.iter().zip(waiting) {
        let found = found.await.unwrap().unwrap();
        assert_eq!(found.processes, [run.child.process()]);
        assert_eq!(found.watch.len(), 1);
        assert_eq!(found.containment, Containment::Marks);
    }
    for run in runs {
        within(stop(&run.child, &scanner, Duration::ZERO)).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_older_than_the_run_is_no_part_of_it() {
    let scanner = Scanner::new().unwrap();
    let mut run = spawn(&shell("echo $$; exec sleep 1000"));
    let process = pid_line(&mut run.stdout).await;
    let mut later = target(&run.child);
    later.not_before += 1;
    let found = scanner.scan(later, Action::SignalOutsiders(Signal::KILL)).await.unwrap();
    assert!(found.processes.is_empty());
    assert!(!is_gone(&process));
    within(stop(&run.child, &scanner, Duration::ZERO)).await.unwrap();
}

#[tokio::test]
async fn no_more_descriptors_than_said_are_handed_out() {
    let scanner = Scanner::new().unwrap();
    let count = WATCH_LIMIT + 1;
    let text = format!("for i in $(seq {count}); do sleep 1000 & done; echo $$; exec sleep 1000");
    let mut run = spawn(&shell(&text));
    pid_line(&mut run.stdout).await;
    let found = scanner.scan(target(&run.child), Action::Count).await.unwrap();
    assert_eq!((found.processes.len(), found.watch.len()), (count + 1, WATCH_LIMIT));
    let stopped = within(stop(&run.child, &scanner, Duration::from_secs(5))).await.unwrap();
    assert_eq!(stopped.left_running, 0);
}

#[tokio::test]
async fn a_scanner_on_demand_looks_as_well() {
    let scanner = Scanner::on_demand();
    let run = spawn(&shell("exec sleep 1000"));
    for _ in 0..2 {
        let found = scanner.scan(target(&run.child), Action::Count).await.unwrap();
        assert_eq!(found.processes, [run.child.process()]);
    }
    within(stop(&run.child, &scanner, Duration::ZERO)).await.unwrap();
}
