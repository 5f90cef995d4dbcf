use std::os::unix::fs::FileExt as _;

use super::*;
use crate::proto::digest::Algorithm;
use crate::proto::frame::encoded;
use crate::runs::intake::Intake;
use crate::runs::record::Recorder;

/// The frames of a record that has come past a mark, and the place of each that clients see.
fn frames() -> Vec<(Vec<u8>, u64)> {
    let mut recorder = Recorder::new(&[Stream::Stdout, Stream::Stderr], Algorithm::Sha256);
    let mut out = |stream, piece: &[u8]| {
        recorder.output(stream, &mut Intake::of(piece), 3).unwrap().unwrap().whole().to_vec()
    };
    let claimed = encoded(&StoredHeader::Claimed { pid: 7, start: true }, b"").unwrap().to_vec();
    let running = encoded(&StoredHeader::Running { pid: 8, start_time: 9 }, b"").unwrap().to_vec();
    let before = [out(Stream::Stdout, b"one"), out(Stream::Stderr, b"two")];
    let mark = recorder.mark().unwrap().unwrap().to_vec();
    let mut out = |stream, piece: &[u8]| {
        recorder.output(stream, &mut Intake::of(piece), 3).unwrap().unwrap().whole().to_vec()
    };
    let after = [out(Stream::Stderr, b"three"), out(Stream::Stdout, b"four")];
    let [one, two] = before;
    let [three, four] = after;
    vec![(claimed, 0), (running, 0), (one, 1), (two, 2), (mark, 3), (three, 4), (four, 5)]
}

fn scanned(bytes: &[u8]) -> Scan {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(bytes, 0).unwrap();
    scan(&file).unwrap()
}

/// The bytes and the place of the last of the frames that are whole in the first `kept` bytes.
fn whole(frames: &[(Vec<u8>, u64)], kept: usize) -> (u64, u64) {
    let (mut length, mut last) = (0, 0);
    for (frame, seq) in frames {
        if length + frame.len() > kept {
            break;
        }
        length += frame.len();
        last = *seq;
    }
    (length as u64, last)
}

#[test]
fn a_record_cut_or_zeroed_behind_any_byte_is_read_up_to_its_last_whole_frame() {
    let frames = frames();
    let bytes: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
    for kept in 0..=bytes.len() {
        let expected = whole(&frames, kept);
        let cut = scanned(&bytes[..kept]);
        assert_eq!((cut.length, cut.last), expected, "cut at {kept}");
        assert_eq!(cut.torn, kept as u64 - expected.0, "cut at {kept}");
        assert_eq!(cut.claimed, (expected.0 > 0).then_some(true), "cut at {kept}");
        let mut zeroed = bytes.clone();
        zeroed[kept..].fill(0);
        let zeroed = scanned(&zeroed);
        assert_eq!((zeroed.length, zeroed.last), expected, "zeroed at {kept}");
        assert!(zeroed.verdict.is_none(), "zeroed at {kept}");
    }
}

#[test]
fn output_that_was_altered_behind_the_last_mark_ends_a_record() {
    let frames = frames();
    let bytes: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
    let mut altered = bytes.clone();
    let at = bytes.len() - frames[6].0.len() - 1;
    altered[at] ^= 1;
    assert_eq!(scanned(&altered).last, 3);
}
