//! `rexec-server journal verify`: each kind of tampering, with and without an anchor.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rexec::proto::verdict::Anchor;
use rexec::runs::journal::verify::verify;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::support::{Ran, Server, json_in};

/// A copy of a server's journal, in three segments of these many lines.
const SEGMENTS: [usize; 3] = [4, 4, 5];

struct Copy {
    dir: TempDir,
    /// The lines as the server wrote them.
    lines: Vec<String>,
}

impl Copy {
    /// Four runs on a real server, which is gone then.
    fn new() -> Self {
        let server = Server::start(&[]);
        for text in ["exit 0", "exit 1", "exit 2", "exit 3"] {
            server.run(&[text]);
        }
        let text = fs::read_to_string(journal_of(&server).join("000001.jsonl")).unwrap();
        // Without the logins, so that each run has three lines.
        let lines = text.lines().filter(|line| !line.contains(r#""type":"login""#));
        let lines = forged(lines.map(String::from).collect(), 0);
        let copy = Self { dir: tempfile::tempdir().unwrap(), lines };
        assert_eq!(copy.lines.len(), SEGMENTS.iter().sum::<usize>());
        copy.write(&copy.lines);
        copy
    }

    /// Another folder with the same lines.
    fn again(&self) -> Self {
        let copy = Self { dir: tempfile::tempdir().unwrap(), lines: self.lines.clone() };
        copy.write(&copy.lines);
        copy
    }

    fn segment(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("{number:06}.jsonl"))
    }

    /// Puts these lines into the segments.
    fn write(&self, lines: &[String]) {
        let mut lines = lines.iter();
        for (number, count) in (1..).zip(SEGMENTS) {
            let text: String = lines.by_ref().take(count).map(|line| format!("{line}\n")).collect();
            fs::write(self.segment(number), text).unwrap();
        }
    }

    /// Has `change` alter the text of a segment.
    fn alter(&self, number: usize, change: impl FnOnce(Vec<String>) -> Vec<String>) {
        let text = fs::read_to_string(self.segment(number)).unwrap();
        let lines = change(text.lines().map(String::from).collect());
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        fs::write(self.segment(number), text).unwrap();
    }

    /// `SEQ:HASH` of a line as the server wrote it.
    fn anchor(&self, seq: usize) -> String {
        format!("{seq}:{}", sha256(&self.lines[seq - 1]))
    }

    fn verify(&self, anchors: &[String]) -> Ran {
        let mut args =
            vec!["verify".into(), "--folder".into(), self.dir.path().display().to_string()];
        args.extend(anchors.iter().flat_map(|anchor| ["--anchor".into(), anchor.clone()]));
        journal_tool(self.dir.path(), &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The check must name exactly this, in one line.
    #[track_caller]
    fn is_broken(&self, anchors: &[String], place: &str, what: &str) {
        let ran = self.verify(anchors).expect(1);
        let expected = format!("{}/{place}: {what}", self.dir.path().display());
        assert!(ran.stderr.contains(&expected), "expected {expected}\n{}", ran.stderr);
        assert_eq!((ran.stderr.lines().count(), ran.text().as_str()), (1, ""), "{}", ran.stderr);
    }

    #[track_caller]
    fn is_intact(&self, anchors: &[String], lines: usize) -> String {
        let text = self.verify(anchors).expect(0).text();
        assert!(text.starts_with(&format!("intact: {lines} lines, 2")), "{text}");
        text
    }
}

fn sha256(line: &str) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn journal_of(server: &Server) -> PathBuf {
    server.state().join("instances/test/journal")
}

/// Runs `rexec-server journal ARGS`.
pub(crate) fn journal_tool(state: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.arg("journal").args(args).env("REXEC_STATE_DIR", state).env("HOME", state);
    Ran::of(command.output().unwrap())
}

/// The lines from the one with this index on, chained anew: what whoever can write the folder does.
fn forged(mut lines: Vec<String>, from: usize) -> Vec<String> {
    for at in from..lines.len() {
        let mut line: Value = serde_json::from_str(&lines[at]).unwrap();
        line["prev"] = if at == 0 { Value::Null } else { sha256(&lines[at - 1]).into() };
        line["seq"] = (at + 1).into();
        lines[at] = line.to_string();
    }
    lines
}

#[test]
fn an_intact_journal_is_counted_and_its_head_can_be_kept() {
    let copy = Copy::new();
    let text = copy.is_intact(&[], 13);
    let time = |line: &str| serde_json::from_str::<Value>(line).unwrap()["time"].clone();
    let (first, last) = (time(&copy.lines[0]), time(&copy.lines[12]));
    let expected = format!(
        "intact: 13 lines, {} to {}\nhead: {}\n",
        first.as_str().unwrap(),
        last.as_str().unwrap(),
        copy.anchor(13)
    );
    assert_eq!(text, expected);
    let all: Vec<_> = (1..=13).map(|seq| copy.anchor(seq)).collect();
    assert!(copy.is_intact(&all, 13).contains("anchors: 13, each on its line\n"));
}

#[test]
fn a_verdicts_journal_is_an_anchor() {
    let server = Server::start(&[]);
    let file = server.dir().join("verdict");
    server.client().args(&["--verdict", file.to_str().unwrap(), "exit 3"]).run().expect(3);
    let kept = &json_in(&file)["verdict"]["journal"];
    let anchor = format!("{}:{}", kept["seq"], kept["hash"].as_str().unwrap());
    journal_tool(server.state(), &["verify", "--anchor", &anchor]).expect(0);
    let path = journal_of(&server).join("000001.jsonl");
    let text = fs::read_to_string(&path).unwrap().replace(r#"{"code":3}"#, r#"{"code":0}"#);
    fs::write(&path, text).unwrap();
    journal_tool(server.state(), &["verify"]).expect(0);
    let ran = journal_tool(server.state(), &["verify", "--anchor", &anchor]).expect(1);
    assert!(ran.stderr.contains("000001.jsonl, line 5, seq 5: changed"), "{}", ran.stderr);
}

#[test]
fn a_changed_line_is_named() {
    let copy = Copy::new();
    let change = |at: usize, from: &'static str, to: &'static str| {
        let copy = copy.again();
        copy.alter(2, |mut lines| {
            assert!(lines[at].contains(from), "{}", lines[at]);
            lines[at] = lines[at].replacen(from, to, 1);
            lines
        });
        copy
    };
    let place = "000002.jsonl, line 2, seq 6";
    let anchors: Vec<_> = (5..=8).map(|seq| copy.anchor(seq)).collect();
    change(1, "\"running\"", "\"runninG\"").is_broken(
        &[],
        place,
        "changed: no server wrote this line",
    );
    change(1, "\"time\":\"2", "\"time\":\"1").is_broken(
        &[],
        place,
        "changed: the next line holds another",
    );
    change(1, "\"time\":\"2", "\"time\":\"1").is_broken(
        &anchors,
        place,
        "changed: its hash is not the anchor's",
    );
    change(1, "\"seq\":6", "\"seq\":9").is_broken(&[], place, "changed: it does not go on");
    change(1, "\"prev\":\"", "\"prev\":null,\"x\":\"").is_broken(
        &[],
        place,
        "changed: it does not go on",
    );
}

/// Without an anchor nobody can tell whether the last line is as it was, or which of the last two is not.
#[test]
fn a_change_of_the_last_line_takes_an_anchor_to_be_found() {
    let copy = Copy::new();
    copy.alter(3, |mut lines| {
        lines[4] = lines[4].replace("\"exited\":{\"code\":3}", "\"exited\":{\"code\":0}");
        lines
    });
    copy.is_intact(&[], 13);
    copy.is_broken(&[copy.anchor(13)], "000003.jsonl, line 5, seq 13", "changed: its hash");
    let copy = copy.again();
    copy.alter(3, |mut lines| {
        lines[4] = lines[4].replace("\"prev\":\"", "\"prev\":null,\"x\":\"");
        lines
    });
    copy.is_broken(&[], "000003.jsonl, line 4, seq 12", "changed: this line, or the hash of it");
    for seq in [12, 13] {
        copy.is_broken(
            &[copy.anchor(seq)],
            "000003.jsonl, line 5, seq 13",
            "changed: it does not go on",
        );
    }
}

#[test]
fn a_removed_line_is_named() {
    let copy = Copy::new();
    let without = |seq: usize| {
        let copy = copy.again();
        copy.alter((seq - 1) / 4 + 1, |mut lines| {
            lines.remove((seq - 1) % 4);
            lines
        });
        copy
    };
    without(1).is_broken(&[], "000001.jsonl, line 1, seq 1", "removed: it is missing here");
    without(6).is_broken(&[], "000002.jsonl, line 2, seq 6", "removed: it is missing here");
    without(8).is_broken(&[], "000003.jsonl, line 1, seq 8", "removed: it is missing here");
    let all: Vec<_> = (1..=13).map(|seq| copy.anchor(seq)).collect();
    without(6).is_broken(&all, "000002.jsonl, line 2, seq 6", "removed: it is missing here");
}

#[test]
fn lines_removed_at_the_end_take_an_anchor_to_be_found() {
    let copy = Copy::new();
    copy.alter(3, |mut lines| {
        lines.truncate(3);
        lines
    });
    copy.is_intact(&[copy.anchor(11)], 11);
    let place = "000003.jsonl, line 4, seq 12";
    copy.is_broken(&[copy.anchor(13)], place, "cut: the journal ends before it");
    fs::remove_file(copy.segment(3)).unwrap();
    copy.is_intact(&[], 8);
    copy.is_broken(
        &[copy.anchor(13)],
        "000002.jsonl, line 5, seq 9",
        "cut: the journal ends before it",
    );
}

#[test]
fn a_line_that_was_moved_or_repeated_is_named() {
    let copy = Copy::new();
    copy.alter(2, |mut lines| {
        lines.swap(1, 2);
        lines
    });
    let there =
        format!("reordered: seq 7 stands here, and seq 6 at {}, line 3", copy.segment(2).display());
    copy.is_broken(&[], "000002.jsonl, line 2, seq 6", &there);
    copy.is_broken(&[copy.anchor(7)], "000002.jsonl, line 2, seq 6", &there);
    let copy = copy.again();
    copy.alter(2, |mut lines| {
        lines.insert(2, lines[1].clone());
        lines
    });
    copy.is_broken(&[], "000002.jsonl, line 3, seq 7", "added or moved: seq 6 stands here");
}

#[test]
fn a_removed_or_exchanged_segment_is_named() {
    let copy = Copy::new();
    fs::remove_file(copy.segment(2)).unwrap();
    copy.is_broken(
        &[],
        "000003.jsonl, line 1, seq 5",
        "removed: the lines 5 to 8 are missing here",
    );
    copy.is_broken(&[copy.anchor(13)], "000003.jsonl, line 1, seq 5", "removed: the lines 5 to 8");
    let copy = copy.again();
    fs::remove_file(copy.segment(1)).unwrap();
    copy.is_broken(
        &[],
        "000002.jsonl, line 1, seq 1",
        "removed: the lines 1 to 4 are missing here",
    );
    let copy = copy.again();
    fs::write(copy.segment(2), "").unwrap();
    copy.is_broken(&[], "000003.jsonl, line 1, seq 5", "removed: the lines 5 to 8");
    let copy = copy.again();
    fs::rename(copy.segment(2), copy.segment(4)).unwrap();
    copy.is_broken(
        &[],
        "000003.jsonl, line 1, seq 5",
        "reordered: seq 9 stands here, and seq 5 at",
    );
    for number in [1, 3, 4] {
        fs::remove_file(copy.segment(number)).unwrap();
    }
    let ran = copy.verify(&[]).expect(1);
    assert!(ran.stderr.contains("there is not one line"), "{}", ran.stderr);
    let ran = copy.verify(&[copy.anchor(13)]).expect(1);
    assert!(ran.stderr.contains("an anchor says that seq 13 was there"), "{}", ran.stderr);
}

/// What a machine that went down leaves behind: a part of the last line, or zeros.
#[test]
fn an_unfinished_last_line_is_no_tampering_unless_an_anchor_says_that_it_was_whole() {
    let copy = Copy::new();
    let whole = fs::read(copy.segment(3)).unwrap();
    let last = copy.lines[12].len() + 1;
    let kept = &whole[..whole.len() - last];
    let tails = [
        whole[kept.len()..whole.len() - 1].to_vec(),
        whole[kept.len()..][..10].to_vec(),
        vec![0; last],
        vec![0; 2 << 20],
        [&whole[kept.len()..][..10], &vec![0; 2 << 20]].concat(),
    ];
    let place = "000003.jsonl, line 5, seq 13";
    for tail in tails {
        fs::write(copy.segment(3), [kept, &tail].concat()).unwrap();
        let text = copy.is_intact(&[copy.anchor(12)], 12);
        let said = format!("{}, line 5: {} bytes;", copy.segment(3).display(), tail.len());
        assert!(text.contains(&format!("unfinished: {said}")), "{text}");
        assert!(text.ends_with(&format!("head: {}\n", copy.anchor(12))), "{text}");
        copy.is_broken(&[copy.anchor(13)], place, "cut: the journal ends before it");
    }
    fs::write(copy.segment(3), [kept, &vec![b'x'; 2 << 20]].concat()).unwrap();
    copy.is_broken(&[], place, "changed: no server wrote this line: it has more than");
}

#[test]
fn a_segment_that_ends_within_a_line_before_another_segment_is_cut() {
    let copy = Copy::new();
    let whole = fs::read(copy.segment(2)).unwrap();
    fs::write(copy.segment(2), &whole[..whole.len() - 5]).unwrap();
    copy.is_broken(&[], "000002.jsonl, line 4, seq 8", "cut: the file ends within this line");
}

/// The chain alone cannot show that all of it was written anew.
#[test]
fn a_forged_chain_takes_an_anchor_to_be_found() {
    let copy = Copy::new();
    let mut lines = copy.lines.clone();
    lines[5] = lines[5].replace("\"time\":\"2", "\"time\":\"1");
    copy.write(&forged(lines, 6));
    copy.is_intact(&[copy.anchor(5)], 13);
    copy.is_broken(
        &[copy.anchor(13)],
        "000003.jsonl, line 5, seq 13",
        "changed: its hash is not the anchor's",
    );
    let both = [copy.anchor(13), copy.anchor(6)];
    copy.is_broken(&both, "000002.jsonl, line 2, seq 6", "changed: its hash is not the anchor's");
    // A run that never was: the lines after it have other numbers.
    let mut lines = copy.lines.clone();
    lines.remove(3);
    copy.write(&forged(lines, 3));
    copy.is_intact(&[], 12);
    copy.is_broken(
        &[copy.anchor(4)],
        "000001.jsonl, line 4, seq 4",
        "changed: its hash is not the anchor's",
    );
}

#[test]
fn a_flip_of_any_byte_is_found_and_its_line_named() {
    let copy = Copy::new();
    let anchor =
        Anchor { seq: 13, hash: rexec::proto::digest::Digest::of(copy.lines[12].as_bytes()) };
    let mut seq = 1;
    for number in 1..=3 {
        let whole = fs::read(copy.segment(number)).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(copy.segment(number), &flipped).unwrap();
            let fault = verify(copy.dir.path(), &[anchor]).unwrap().fault;
            assert_eq!(fault.as_ref().map(|f| f.seq), Some(seq), "byte {at}: {fault:?}");
            seq += u64::from(whole[at] == b'\n');
        }
        fs::write(copy.segment(number), &whole).unwrap();
    }
    assert_eq!(seq, 14);
}
