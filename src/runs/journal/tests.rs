use rustix::fs::OFlags;

use super::history::{History, Outcome};
use super::read::Reader;
use super::verify::verify;
use super::*;

fn buried(run: &str) -> Event {
    Event::Buried { run: run.into(), identity: "local:0".into() }
}

fn lines(folder: &Path) -> Vec<Line> {
    let mut lines = Vec::new();
    Journal::open(folder, |line, _| lines.push(line)).unwrap();
    lines
}

#[test]
fn lines_are_chained_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| panic!("empty")).unwrap();
    let first = journal.add(&buried("a")).unwrap();
    let second = journal.add(&buried("b")).unwrap();
    drop(journal);
    let lines = lines(dir.path());
    assert_eq!(
        lines.iter().map(|l| (l.seq, l.prev)).collect::<Vec<_>>(),
        [(1, None), (2, Some(first.hash))]
    );
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    assert_eq!(journal.add(&buried("c")).unwrap().seq, 3);
    assert_eq!(self::lines(dir.path())[2].prev, Some(second.hash));
}

#[test]
fn a_torn_tail_is_cut_off_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    journal.add(&buried("a")).unwrap();
    let path = path_of(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        let mut torn = whole.clone();
        torn.extend_from_slice(&whole[..cut]);
        fs::write(&path, torn).unwrap();
        let (journal, count) = Journal::open(dir.path(), |_, _| ()).unwrap();
        assert_eq!((count, fs::read(&path).unwrap() == whole), (cut as u64, true));
        assert_eq!(journal.add(&buried("b")).unwrap().seq, 2);
    }
}

#[test]
fn a_changed_line_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    for run in ["a", "b", "c"] {
        journal.add(&buried(run)).unwrap();
    }
    let path = path_of(dir.path(), 1);
    let text = fs::read_to_string(&path).unwrap().replace(r#""run":"b""#, r#""run":"x""#);
    fs::write(&path, text).unwrap();
    let error = Journal::open(dir.path(), |_, _| ()).unwrap_err();
    assert!(matches!(error, JournalError::Broken { line: 3, .. }), "{error}");
}

#[test]
fn the_chain_goes_on_in_the_next_segment() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    let first = journal.add(&buried("a")).unwrap();
    journal.rotate(&[]).unwrap();
    assert_eq!(newest_segment(dir.path()).unwrap(), Some(1), "not full");
    journal.tail.lock().unwrap().length = SEGMENT_LIMIT;
    journal.rotate(&[buried("carried")]).unwrap();
    drop(journal);
    let lines = lines(dir.path());
    assert_eq!((lines.len(), lines[0].seq, lines[0].prev), (1, 2, Some(first.hash)));
}

#[test]
fn a_segment_without_a_line_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    let first = journal.add(&buried("a")).unwrap();
    fs::write(path_of(dir.path(), 2), "").unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    assert_eq!(journal.add(&buried("b")).unwrap().seq, 2);
    journal.tail.lock().unwrap().length = SEGMENT_LIMIT;
    journal.rotate(&[buried("c"), buried("d")]).unwrap();
    assert_eq!(lines(dir.path()).iter().map(|l| l.seq).collect::<Vec<_>>(), [3, 4]);
    assert_ne!(lines(dir.path())[0].prev, Some(first.hash));
}

#[test]
fn a_line_one_past_the_limit_is_no_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_of(dir.path(), 1);
    for (length, torn) in [(LINE_LIMIT, true), (LINE_LIMIT + 1, false)] {
        fs::write(&path, vec![b'x'; length]).unwrap();
        let opened = Journal::open(dir.path(), |_, _| ());
        assert_eq!(opened.is_ok_and(|(_, cut)| cut == length as u64), torn, "{length}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), LINE_LIMIT as u64 + 1, "left as it is");
}

#[test]
fn a_full_disk_leaves_no_part_of_a_line() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("000001.jsonl")).unwrap();
    let tail = Tail {
        file: open_segment(&path_of(dir.path(), 1)).unwrap(),
        segment: 1,
        length: 0,
        seq: 0,
        last: None,
        torn: false,
        doubtful: false,
    };
    let names = File::open(dir.path()).unwrap();
    let journal =
        Journal { folder: dir.path().into(), names, tail: Mutex::new(tail), copier: None };
    let error = journal.add(&buried("a")).unwrap_err().to_string();
    assert!(error.contains("No space left"), "{error}");
    assert_eq!(journal.tail.lock().unwrap().seq, 0);
}

#[test]
fn a_segment_whose_name_the_disk_may_not_have_is_not_relied_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    // Of such a descriptor fsync(2) says EBADF.
    let path_only = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::PATH.bits().cast_signed())
        .open(dir.path())
        .unwrap();
    let names = std::mem::replace(&mut journal.names, path_only);
    journal.add(&buried("a")).unwrap();
    lock(&journal.tail).doubtful = true;
    journal.rotate(&[]).unwrap();
    journal.add(&buried("b")).unwrap();
    assert!(journal.is_doubtful() && journal.sync().is_err());
    journal.names = names;
    journal.rotate(&[]).unwrap();
    assert!(!journal.is_doubtful());
    assert_eq!(journal.sync().unwrap(), 2);
}

fn accepted(run: &str, mark: &str) -> Event {
    let json = serde_json::json!({
        "type": "accepted", "run": run, "identity": "local:0", "boottime_ms": 1, "mark": mark,
        "command": format!("echo {run}"), "digest": Digest::of(b"")
    });
    serde_json::from_value(json).unwrap()
}

fn outcomes(folder: &Path) -> Vec<(String, Outcome)> {
    let (mut reader, mut history, mut all) =
        (Reader::open(folder).unwrap(), History::default(), Vec::new());
    while let Some((_, found)) = reader.advance().unwrap() {
        let Found::Line(line, _) = found else { panic!("{found:?}") };
        all.extend(history.take(*line));
    }
    all.extend(history.rest());
    all.into_iter().map(|past| (past.command.unwrap_or_default(), past.outcome)).collect()
}

#[test]
fn carried_lines_are_the_runs_that_are_known_and_another_mark_is_another_run() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    let (a, b) = (accepted("a", "1"), accepted("b", "2"));
    journal.add(&a).unwrap();
    journal.add(&b).unwrap();
    journal.tail.lock().unwrap().length = SEGMENT_LIMIT;
    journal.rotate(&[a, b]).unwrap();
    let open = |run: &str| (format!("echo {run}"), Outcome::Accepted);
    assert_eq!(outcomes(dir.path()), [open("a"), open("b")]);
    let (run, identity) = ("b".into(), "local:0".into());
    journal.add(&Event::Lost { run, identity, left_running: 2 }).unwrap();
    journal.add(&accepted("a", "3")).unwrap();
    let lost = ("echo b".into(), Outcome::Lost { left_running: 2 });
    assert_eq!(outcomes(dir.path()), [lost, open("a"), open("a")]);
    let report = verify(dir.path(), &[]).unwrap();
    assert_eq!((report.lines, report.fault), (6, None));
}

#[test]
fn zeros_of_any_length_at_the_end_are_a_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    journal.add(&buried("a")).unwrap();
    let path = path_of(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    for zeros in [1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT] {
        fs::write(&path, [&whole[..], &vec![0; zeros]].concat()).unwrap();
        let (_, cut) = Journal::open(dir.path(), |_, _| ()).unwrap();
        assert_eq!((cut, fs::read(&path).unwrap() == whole), (zeros as u64, true));
    }
    fs::write(&path, [&whole[..], &vec![0; LINE_LIMIT + 1], b"x"].concat()).unwrap();
    assert!(Journal::open(dir.path(), |_, _| ()).is_err(), "something was written there");
}

#[test]
fn a_number_that_no_line_can_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    journal.add(&buried("a")).unwrap();
    let path = path_of(dir.path(), 1);
    let text = fs::read_to_string(&path).unwrap();
    for (seq, fits) in [((1_u64 << 53) - 1, true), (1 << 53, false), (u64::MAX, false)] {
        fs::write(&path, text.replace("\"seq\":1,", &format!("\"seq\":{seq},"))).unwrap();
        assert_eq!(Journal::open(dir.path(), |_, _| ()).is_ok(), fits, "{seq}");
    }
}

#[test]
fn files_that_are_no_segments_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["1.jsonl", "000001.json", "000001.jsonl.bak", "+00001.jsonl", ".jsonl", "x.jsonl"]
    {
        fs::write(dir.path().join(name), "no line").unwrap();
    }
    for number in [2, 1_000_000] {
        fs::write(path_of(dir.path(), number), "").unwrap();
    }
    let mut numbers = segments(dir.path()).unwrap();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 1_000_000]);
    let (journal, _) = Journal::open(dir.path(), |_, _| panic!("no line")).unwrap();
    assert_eq!(journal.add(&buried("a")).unwrap().seq, 1);
}

/// A reader may see a part of the line that a server is just writing, and its rest a moment later.
#[test]
fn the_rest_of_a_line_that_was_seen_unfinished_is_not_taken_for_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(dir.path(), |_, _| ()).unwrap();
    journal.add(&buried("a")).unwrap();
    journal.add(&buried("b")).unwrap();
    let path = path_of(dir.path(), 1);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    let mut reader = Reader::open(dir.path()).unwrap();
    let mut found = || reader.advance().unwrap().map(|(_, found)| found);
    assert!(matches!(found(), Some(Found::Line(..))));
    assert!(matches!(found(), Some(Found::Torn(_))));
    fs::write(&path, &whole).unwrap();
    assert_eq!(found(), None);
}
