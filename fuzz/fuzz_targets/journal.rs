//! Whatever stands in a journal's segment, it is read to its end; and of a journal that is found whole, no line
//! but the last can be missing without being missed.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rexec::runs::journal::history::History;
use rexec::runs::journal::read::{Found, Reader};
use rexec::runs::journal::verify::{Report, verify};

/// A journal of one segment; each input is written over the one before.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("rexec-fuzz-journal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the journal");
    folder
});

fn verified(folder: &Path, text: &[u8]) -> Report {
    std::fs::write(folder.join("000001.jsonl"), text).expect("the segment");
    verify(folder, &[]).expect("the segment can be read")
}

fuzz_target!(|text: &[u8]| {
    let report = verified(&FOLDER, text);
    let mut reader = Reader::open(&FOLDER).expect("the folder can be read");
    let mut history = History::default();
    while let Some((_, found)) = reader.advance().expect("the segment can be read") {
        if let Found::Line(line, _) = found {
            history.take(*line);
        }
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    assert!(history.rest().len() <= lines.len(), "more runs without an end than lines");
    if report.fault.is_none() && report.lines >= 2 {
        // Chosen by the input, so that over time each is.
        let missing = text.len() % (report.lines as usize - 1);
        let rest = [&lines[..missing], &lines[missing + 1..]].concat().concat();
        assert!(verified(&FOLDER, &rest).fault.is_some(), "line {missing} is not missed");
    }
});
