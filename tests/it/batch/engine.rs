//! The same engine in a program: a stream of typed events.

use std::time::Duration;

use rexec::Command;
use rexec::client::Target;
use rexec::client::batch::{
    Batch, BatchError, Cause, Event, Host, How, OnError, Options, Outcome, RetryOn, Step, Why,
};
use rexec::sys::fs::StateDir;

use super::super::support::fleet::Fleet;

fn hosts(fleet: &Fleet) -> Vec<Host> {
    let state = StateDir::open(fleet.first().state()).unwrap();
    let target = |addr: &String| Target::local(addr.parse().unwrap(), &state).unwrap();
    fleet.addrs().iter().map(|addr| Host::new(addr, target(addr))).collect()
}

async fn all(batch: Batch) -> Vec<Event> {
    let mut running = batch.start().unwrap();
    let mut events = Vec::new();
    while let Some(event) = running.next().await {
        events.push(event);
    }
    events
}

fn outcomes(events: &[Event], host: usize) -> Vec<Outcome> {
    let mine = events.iter().filter_map(|event| match event {
        Event::StepEnded { host: at, step, end } if *at == host => Some((*step, end.outcome)),
        _ => None,
    });
    let (steps, outcomes): (Vec<_>, Vec<_>) = mine.unzip();
    assert_eq!(steps, (0..steps.len()).collect::<Vec<_>>(), "in order, each once");
    outcomes
}

#[tokio::test]
async fn events_tell_everything_in_order() {
    let fleet = Fleet::start(2);
    let mut failing = Step::new("b", Command::shell("exit 3"));
    failing.on_error = OnError::Continue;
    let steps = vec![
        Step::new("a", Command::shell("echo out")),
        failing,
        Step::new("c", Command::shell("true")),
    ];
    let events = all(Batch { hosts: hosts(&fleet), steps, options: Options::default() }).await;
    for host in 0..2 {
        let expected = [Outcome::Ok, Outcome::Failed { code: 3 }, Outcome::Ok];
        assert_eq!(outcomes(&events, host), expected);
        let written: Vec<u8> = events
            .iter()
            .filter_map(|event| match event {
                Event::Output { host: at, bytes, .. } if *at == host => Some(bytes.to_vec()),
                _ => None,
            })
            .flatten()
            .collect();
        assert_eq!(written, b"out\n");
    }
}

#[tokio::test]
async fn a_batch_is_ended_early_from_elsewhere() {
    let fleet = Fleet::start(2);
    let steps = vec![Step::new("sleep", Command::shell("echo ready; exec sleep 600"))];
    let options = Options { at_once: 1, ..Options::default() };
    let mut running = Batch { hosts: hosts(&fleet), steps, options }.start().unwrap();
    let halter = running.halter();
    let mut events = Vec::new();
    while let Some(event) = running.next().await {
        if matches!(event, Event::Output { .. }) {
            halter.halt(Why::Terminated, How::Stop);
        }
        events.push(event);
    }
    assert_eq!(outcomes(&events, 0), [Outcome::Stopped(Some(Why::Terminated))]);
    assert_eq!(outcomes(&events, 1), [Outcome::NotStarted(Cause::Batch(Why::Terminated))]);
}

#[tokio::test]
async fn a_command_is_tried_again_only_if_that_was_asked_for() {
    let fleet = Fleet::start(1);
    let log = fleet.first().dir().join("log");
    let text = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3", log.display());
    let mut step = Step::new("flaky", Command::shell(text));
    step.retries = Some(5);
    let batch = |step: &Step| Batch {
        hosts: hosts(&fleet),
        steps: vec![step.clone()],
        options: Options::default(),
    };
    assert_eq!(outcomes(&all(batch(&step)).await, 0), [Outcome::Failed { code: 1 }]);
    step.retry_on = RetryOn::Failure;
    assert_eq!(outcomes(&all(batch(&step)).await, 0), [Outcome::Ok]);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "x\nx\nx\n");
}

#[tokio::test]
async fn a_step_that_was_to_be_tried_again_when_the_batch_ended_keeps_its_verdict() {
    let fleet = Fleet::start(1);
    let mut step = Step::new("failing", Command::shell("exit 3"));
    (step.retries, step.retry_on) = (Some(5), RetryOn::Failure);
    // In the pause, or when the next try has been told of.
    for tries in [1, 2] {
        let (hosts, steps) = (hosts(&fleet), vec![step.clone()]);
        let mut running = Batch { hosts, steps, options: Options::default() }.start().unwrap();
        let halter = running.halter();
        let mut events = Vec::new();
        while let Some(event) = running.next().await {
            let is_due = match &event {
                Event::Retrying { .. } => tries == 1,
                Event::StepBegun { attempt, .. } => *attempt == tries && tries > 1,
                _ => false,
            };
            if is_due {
                halter.halt(Why::Interrupted, How::Stop);
            }
            events.push(event);
        }
        match outcomes(&events, 0)[..] {
            [Outcome::Failed { code: 3 }] => {}
            // The next try may have been asked for by then.
            [Outcome::Stopped(_)] if tries > 1 => {}
            _ => panic!("{events:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_run_is_no_batch() {
    let fleet = Fleet::start(1);
    let (mut hosts, step) = (hosts(&fleet), Step::new("a", Command::shell("true")));
    let fault = |hosts: &[Host], steps: &[Step], options: Options| {
        let batch = Batch { hosts: hosts.to_vec(), steps: steps.to_vec(), options };
        batch.start().err().unwrap()
    };
    let none = Options { at_once: 0, ..Options::default() };
    assert_eq!(fault(&[], std::slice::from_ref(&step), Options::default()), BatchError::NoHosts);
    assert_eq!(fault(&hosts, &[], Options::default()), BatchError::NoSteps);
    assert_eq!(fault(&hosts, std::slice::from_ref(&step), none), BatchError::NoRoom);
    let bad = Step::new("bad", Command::argv(["a\0b"]));
    assert!(
        matches!(fault(&hosts, &[bad], Options::default()), BatchError::Step(name, _) if name == "bad")
    );
    hosts.extend(hosts.clone());
    assert!(matches!(fault(&hosts, &[step], Options::default()), BatchError::Twice(_)));
}

/// A caller that takes its time gets every event all the same.
#[tokio::test]
async fn a_slow_caller_loses_nothing() {
    let fleet = Fleet::start(2);
    let steps = vec![Step::new("flood", Command::argv(["seq", "200000"]))];
    let mut running =
        Batch { hosts: hosts(&fleet), steps, options: Options::default() }.start().unwrap();
    let mut sizes = [0; 2];
    while let Some(event) = running.next().await {
        match event {
            Event::Output { host, bytes, .. } => {
                sizes[host] += bytes.len();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Event::StepEnded { end, .. } => assert_eq!(end.outcome, Outcome::Ok),
            _ => {}
        }
    }
    assert_eq!(sizes, [1_288_895; 2]);
}
