//! Whatever bytes come, decoding says one clear thing, and what it decodes can be encoded again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rexec::proto::frame::{
    BODY_LIMIT, Decoded, FrameRef, HEADER_LIMIT, Limits, PREFIX, decode, encode,
};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    match decode(data, Limits::FULL) {
        Err(_) => {}
        Ok(Decoded::Incomplete { need }) => {
            assert!(data.len() < need && need <= PREFIX + HEADER_LIMIT + BODY_LIMIT);
        }
        Ok(Decoded::Frame(frame)) => whole(data, &frame),
    }
    // A stranger's limits only ever refuse more.
    if let Ok(Decoded::Frame(frame)) = decode(data, Limits::HELLO) {
        assert!(frame.header.len() <= Limits::HELLO.header && frame.body.is_empty());
        assert_eq!(decode(data, Limits::FULL), Ok(Decoded::Frame(frame)));
    }
});

fn whole(data: &[u8], frame: &FrameRef<'_>) {
    let len = frame.len();
    assert!(len <= data.len());
    for cut in [0, 1, PREFIX, PREFIX + frame.header.len(), len - 1] {
        let early = decode(&data[..cut.min(len - 1)], Limits::FULL);
        assert!(matches!(early, Ok(Decoded::Incomplete { .. })), "{early:?}");
    }
    let text = std::str::from_utf8(frame.header).unwrap();
    assert!(text.trim_ascii_start().starts_with('{'));
    // JSON can say what no value holds: 1e999, or half of a surrogate pair (RFC 8259, 8.2). In members
    // that nobody reads it does no harm.
    let Ok(mut header) = serde_json::from_str::<Map<String, Value>>(text) else { return };
    header.remove("size");
    let mut again = Vec::new();
    // Numbers such as 1e300 are longer when written out: only then may the header be over its limit.
    if encode(&header, frame.body, &mut again).is_err() {
        assert!(again.is_empty());
        return;
    }
    let Ok(Decoded::Frame(second)) = decode(&again, Limits::FULL) else { panic!("{header:?}") };
    assert_eq!((&second.kind, second.body, second.len()), (&frame.kind, frame.body, again.len()));
}
