//! Lines of a journal, whole or not: one that is taken for whole has the digest of its bytes, and no run ends
//! twice.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::proto::digest::Digest;
use rexec::runs::journal::history::History;
use rexec::runs::journal::read::{Found, parse};

fuzz_target!(|text: &[u8]| {
    let (mut history, mut accepted, mut told) = (History::default(), 0, 0);
    for bytes in text.split(|byte| *byte == b'\n') {
        let Found::Line(line, hash) = parse(bytes) else { continue };
        assert_eq!(hash, Digest::of(bytes));
        accepted += usize::from(line.event.run().is_some());
        told += usize::from(history.take(*line).is_some());
    }
    assert!(told + history.rest().len() <= accepted);
});
