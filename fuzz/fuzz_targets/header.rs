//! A header that is understood means the same after it was written and read again.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use rexec::proto::frame::{Decoded, HEADER_LIMIT, Limits, decode, encode};
use rexec::proto::header::{ClientHeader, ServerHeader};
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|data: &[u8]| {
    round_trip::<ClientHeader>(data);
    round_trip::<ServerHeader>(data);
});

fn round_trip<H: Serialize + DeserializeOwned + PartialEq + Debug>(data: &[u8]) {
    let Ok(header) = serde_json::from_slice::<H>(data) else { return };
    let mut frame = Vec::new();
    if encode(&header, b"body", &mut frame).is_err() {
        // What was left out on the way in has its default on the way out.
        assert!(data.len() > HEADER_LIMIT / 8);
        return;
    }
    let Ok(Decoded::Frame(found)) = decode(&frame, Limits::FULL) else { panic!("{header:?}") };
    assert_eq!(serde_json::from_slice::<H>(found.header).unwrap(), header);
    assert_eq!(found.body, b"body");
}
