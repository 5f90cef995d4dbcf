//! Records that a crash of the machine has cut or filled with zeros.

use std::path::Path;

use rexec::proto::digest::Digest;
use rexec::proto::frame::{Decoded, Limits, decode};
use serde_json::{Value, json};

use super::durable::{gate, verb, wait_until_noted};
use super::durable_places::run_folder;
use super::support::raw::Raw;
use super::support::{Client, Server, supervisors, wait_until};

/// One frame of a record: where it ends, and what it brings to standard output.
struct Piece {
    end: usize,
    output: Vec<u8>,
}

fn pieces(record: &[u8]) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    while let Decoded::Frame(frame) = decode(&record[at..], Limits::FULL).unwrap() {
        at += frame.len();
        pieces.push(Piece { end: at, output: frame.body.to_vec() });
    }
    assert_eq!(at, record.len());
    pieces
}

/// Adds a run to those that a server will find: another's, with another id and record.
fn plant(like: &Path, id: &str, record: &[u8]) {
    let meta = std::fs::read(like.join("meta.json")).unwrap();
    let mut meta: Value = serde_json::from_slice(&meta).unwrap();
    meta["run"] = id.into();
    let key = format!("{}\0{id}", meta["identity"].as_str().unwrap());
    let name = Digest::of(key.as_bytes()).to_string();
    let folder = like.parent().unwrap().join(&name[..32]);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("meta.json"), meta.to_string()).unwrap();
    std::fs::write(folder.join("record"), record).unwrap();
}

/// A server that is dead, with the folder of a run that ended and of which it wrote down no outcome.
fn left_behind() -> (Server, std::path::PathBuf) {
    let mut server = Server::start(&[]);
    let gates = ["a", "b"].map(|name| gate(&server, name));
    let text = format!("echo one; {}; echo two; {}; echo three; exit 7", gates[0].1, gates[1].1);
    let args = ["--id", "job", "-d", &server.unix, &text];
    Client::new(server.state()).args(&args).run().expect(0);
    let logs = || Client::new(server.state()).args(&["logs", &server.unix, "job"]).run().text();
    for (written, (gate, _)) in ["one\n", "one\ntwo\n"].into_iter().zip(&gates) {
        wait_until(written, || logs() == written);
        std::fs::write(gate, "").unwrap();
    }
    Client::new(server.state()).args(&["wait", &server.unix, "job"]).run().expect(7);
    wait_until("the end of its supervisor", || supervisors(server.state()).is_empty());
    let folder = run_folder(&server);
    wait_until_noted(&folder);
    server.crash();
    std::fs::remove_file(folder.join("outcome.json")).unwrap();
    (server, folder)
}

/// What a viewer sees: the bytes of output, and the last frame.
fn seen(raw: &mut Raw, id: &str) -> (Vec<u8>, Value) {
    raw.send(&json!({"type": "attach", "run": id}), b"");
    raw.expect("started");
    let mut output = Vec::new();
    loop {
        let (header, body) = raw.next().unwrap();
        match header["type"].as_str().unwrap() {
            "output" => {
                assert_eq!(header["offset"], output.len(), "{id}");
                output.extend(body);
                assert_eq!(header["hash"], json!(Digest::of(&output)), "{id}");
            }
            "heartbeat" => {}
            _ => return (output, header),
        }
    }
}

#[test]
fn a_record_cut_or_zeroed_at_any_byte_of_its_last_frames_shows_what_is_whole_and_then_its_honest_end()
 {
    let (mut server, folder) = left_behind();
    let record = std::fs::read(folder.join("record")).unwrap();
    let pieces = pieces(&record);
    let [.., before, _, _, _] = &pieces[..] else { panic!("too few frames") };
    let cuts = before.end..record.len();
    for kept in cuts.clone() {
        plant(&folder, &format!("cut-{kept}-"), &record[..kept]);
        let mut zeroed = record.clone();
        zeroed[kept..].fill(0);
        plant(&folder, &format!("zeroed-{kept}-"), &zeroed);
    }
    server.restart();
    let mut raw = Raw::login(&server);
    for kept in cuts.clone() {
        let whole = pieces.iter().filter(|piece| piece.end <= kept);
        let expected: Vec<u8> = whole.flat_map(|piece| piece.output.clone()).collect();
        for how in ["cut", "zeroed"] {
            let (output, last) = seen(&mut raw, &format!("{how}-{kept}-"));
            assert_eq!(output, expected, "{how} at {kept}");
            assert_eq!(last["type"], "lost", "{how} at {kept}: {last}");
        }
    }
    let (output, verdict) = seen(&mut raw, "job");
    assert_eq!(
        (&*output, &verdict["end"]["exited"]["code"]),
        (&b"one\ntwo\nthree\n"[..], &json!(7))
    );
    // The real client's status, where a cut leaves less, and all but the verdict.
    for kept in [cuts.start, record.len() - 1] {
        let id = format!("cut-{kept}-");
        let ran = Client::new(server.state()).args(&["attach", &server.unix, &id]).run();
        assert_eq!(ran.status, 253, "{}", ran.stderr);
    }
    assert_eq!(verb(&server, "ps", &[]).status, 0);
}

/// As many as an operator may have left under way when the machine went down.
#[test]
fn a_thousand_runs_that_are_found_at_the_start_have_one_end_each_which_the_first_list_tells() {
    const FOUND: usize = 1000;
    let (mut server, folder) = left_behind();
    let record = std::fs::read(folder.join("record")).unwrap();
    for n in 1..FOUND {
        plant(&folder, &format!("found-{n}"), &record);
    }
    server.restart();
    let ps = || {
        let listed = ["ps", "--json", "--limit", "2000", &server.unix];
        let text = Client::new(server.state()).args(&listed).run().expect(0).text();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    // The first look is as true as any later one.
    let runs = ps();
    assert_eq!(runs.len(), FOUND);
    assert_eq!(runs.iter().find(|run| run["state"] != "ended"), None);
    assert!(runs.iter().all(|run| run["verdict"]["end"]["exited"]["code"] == 7));
    let ended = |line: &Value| line["type"] == "ended";
    // The one that was no copy has its line from the server before.
    assert_eq!(server.journal().iter().filter(|line| ended(line)).count(), FOUND);
}

/// Its end was noted, and the disk has lost some of its record since.
#[test]
fn a_record_that_was_damaged_after_its_end_shows_what_is_before_that_and_its_end_behind_a_gap() {
    let (mut server, folder) = left_behind();
    let record = std::fs::read(folder.join("record")).unwrap();
    server.restart();
    verb(&server, "wait", &["job"]).expect(7);
    wait_until_noted(&folder);
    let pieces = pieces(&record);
    let [.., before, two, three, _] = &pieces[..] else { panic!("too few frames") };
    let (begin, middle, verdict) = (before.end, two.end, three.end);
    for (whole, cut) in [(0, 0), (0, 5), (begin, begin + 9), (middle, middle + 9)] {
        let mut zeroed = record.clone();
        zeroed[cut..verdict].fill(0);
        for damaged in [&record[..cut], &zeroed] {
            std::fs::write(folder.join("record"), damaged).unwrap();
            let mut raw = Raw::login(&server);
            let (output, gap) = seen(&mut raw, "job");
            let expected: Vec<u8> = pieces
                .iter()
                .filter(|piece| piece.end <= whole)
                .flat_map(|piece| piece.output.clone())
                .collect();
            assert_eq!(output, expected, "at {cut}");
            assert_eq!(gap["type"], "gap", "at {cut}: {gap}");
            let (end, _) = raw.next().unwrap();
            assert_eq!(end["end"]["exited"]["code"], 7, "at {cut}: {end}");
            assert_eq!(gap["to"].as_u64().unwrap() + 1, end["seq"], "at {cut}: {gap}");
            let ran = verb(&server, "attach", &["job"]).expect(252);
            assert_eq!(ran.stdout, expected, "at {cut}");
            assert!(ran.stderr.contains("no longer kept"), "{}", ran.stderr);
        }
    }
}
