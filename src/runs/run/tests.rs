use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::exec::Signal;
use crate::proto::id::RunId;

fn run() -> Run {
    let header = json!({"id": "x", "form": "shell", "words": 1});
    let header = serde_json::from_value(header).unwrap();
    let request = Request::parse(header, Bytes::from_static(b"x\0")).unwrap();
    let key = Key { identity: "local:0".into(), id: RunId::new("x").unwrap() };
    let budget = Arc::new(Budget::new(0));
    Run::new(key, &request, &budget, Store::memory(&budget))
}

#[tokio::test]
async fn no_signal_is_lost_however_many_wait() {
    let run = run();
    let signals: Vec<u8> = (1..=31).filter_map(Signal::from_number).map(number).collect();
    for _ in 0..100 {
        for signal in &signals {
            assert!(run.signal(*signal));
        }
    }
    assert_eq!(run.orders().signals, signals);
    assert!(run.orders().signals.is_empty());
}

/// What was asked last holds: a run that was to stop and then to go on goes on.
#[tokio::test]
async fn a_signal_that_is_sent_again_comes_after_those_in_between() {
    let run = run();
    let [stop, cont] = [Signal::STOP, Signal::CONT].map(number);
    for signal in [stop, cont, stop] {
        run.signal(signal);
    }
    assert_eq!(run.orders().signals, [cont, stop]);
}

fn number(signal: Signal) -> u8 {
    u8::try_from(signal.number()).unwrap()
}
