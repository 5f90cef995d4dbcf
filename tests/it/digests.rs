//! Another digest than SHA-256: agreed on in `started`, checked at every frame as SHA-256 is.

use rexec::proto::digest::{Algorithm, Digest, Running};
use serde_json::{Value, json};

use super::resume::executions;
use super::support::fake::{self, Fake};
use super::support::raw::Raw;
use super::support::relay::{Relay, Way};
use super::support::{Client, Random, Server, in_parallel, json_in};

fn blake3(bytes: &[u8]) -> Digest {
    let mut running = Running::by(Algorithm::Blake3);
    running.update(bytes);
    running.digest()
}

fn noise(count: usize) -> Vec<u8> {
    let mut random = Random::new();
    (0..count.div_ceil(8)).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect()
}

#[test]
fn blake3_that_was_asked_for_is_the_digest_of_output_and_input() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "cat; echo e >&2", json!({"stdin": true, "hash": "blake3"}));
    let (started, _) = raw.expect("started");
    assert_eq!(started["hash"], "blake3");
    assert_eq!(started["stdin_hash"], json!(blake3(b"")));
    raw.send(&json!({"type": "stdin", "offset": 0, "hash": blake3(b"abc")}), b"abc");
    let (output, body) = raw.until("output").pop().unwrap();
    assert_eq!((&output["hash"], &body[..]), (&json!(blake3(b"abc")), &b"abc"[..]));
    raw.send(&json!({"type": "stdin_end", "offset": 3, "hash": blake3(b"abc")}), b"");
    let (verdict, _) = raw.until("verdict").pop().unwrap();
    assert_eq!(verdict["hash"], "blake3", "no digest is without its name");
    assert_eq!(verdict["stdout"]["hash"], json!(blake3(b"abc")));
    assert_eq!(verdict["stderr"]["hash"], json!(blake3(b"e\n")));
    let journal = server.journal();
    let ended = journal.iter().find(|line| line["type"] == "ended").unwrap();
    assert_eq!(ended["verdict"]["hash"], "blake3");
}

#[test]
fn megabytes_go_out_and_in_by_blake3_through_the_programs() {
    let server = Server::start(&[]);
    let stdin = noise(9 << 20);
    let file = server.dir().join("verdict.json");
    let ran = server
        .client()
        .args(&["-v", "--hash", "blake3", "--verdict", file.to_str().unwrap(), "cat"])
        .run_with(&stdin)
        .expect(0);
    assert!(ran.stdout == stdin);
    assert!(ran.stderr.contains("checked by blake3"), "{}", ran.stderr);
    let verdict = &json_in(&file)["verdict"];
    assert_eq!(verdict["hash"], "blake3");
    assert_eq!(verdict["stdout"]["hash"], json!(blake3(&stdin)));
}

/// A mark of SHA-256 comes after 64 MiB. Of BLAKE3 there are none, and nothing is missing.
#[test]
fn more_than_a_marks_worth_of_output_has_no_gap() {
    let server = Server::start(&[]);
    let text = "head -c 80000000 /dev/zero";
    for hash in ["blake3", "sha256"] {
        let ran = server.run(&["--hash", hash, text]).expect(0);
        assert_eq!(ran.stdout.len(), 80_000_000, "{hash}");
    }
}

#[test]
fn a_server_that_does_not_know_it_goes_on_with_sha256() {
    let fake = Fake::start(|raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "welcome", "server": "old", "identity": "local:0"}), b"");
        let (run, _) = raw.expect("run");
        assert_eq!((&run["hash"], &run["must"]), (&json!("blake3"), &Value::Null), "{run}");
        let id = run["id"].as_str().unwrap();
        raw.send(&fake::started(id), b"");
        raw.send(&fake::output("stdout", 1, 0, b"hi"), b"hi");
        raw.send(&fake::verdict(id, 2, b"hi"), b"");
        while raw.next().is_some() {}
    });
    let ran = fake.client().args(&["-n", "-v", "--hash", "blake3", "true"]).run().expect(0);
    assert_eq!(ran.text(), "hi");
    assert!(ran.stderr.contains("checked by sha256"), "{}", ran.stderr);
}

#[test]
fn an_unknown_name_in_a_request_is_answered_by_sha256() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "printf hi", json!({"hash": "md5", "must": ["hash"]}));
    assert_eq!(raw.expect("started").0["hash"], "sha256");
    assert_eq!(raw.expect("output").0["hash"], json!(Digest::of(b"hi")));
    assert_eq!(raw.expect("verdict").0["hash"], Value::Null);
}

#[test]
fn a_durable_run_has_sha256_whatever_was_asked_for() {
    let server = Server::start(&[]);
    let file = server.dir().join("verdict.json");
    let ran = server
        .client()
        .args(&["-v", "--durable", "--hash", "blake3", "--verdict", file.to_str().unwrap(), "cat"])
        .run_with(b"durable")
        .expect(0);
    assert_eq!(ran.text(), "durable");
    assert!(ran.stderr.contains("checked by sha256"), "{}", ran.stderr);
    let verdict = &json_in(&file)["verdict"];
    assert_eq!(verdict["hash"], Value::Null);
    assert_eq!(verdict["stdout"]["hash"], json!(Digest::of(b"durable")));
}

#[test]
fn a_later_request_of_the_same_run_has_the_runs_own_digest() {
    let server = Server::start(&[]);
    let text = "printf hi; read x";
    for (id, first, later) in [("one", "blake3", "sha256"), ("two", "sha256", "blake3")] {
        let mut raw = Raw::login(&server);
        raw.run(id, text, json!({"stdin": true, "hash": first}));
        raw.until("output");
        drop(raw);
        let mut raw = Raw::login(&server);
        raw.run(id, text, json!({"stdin": true, "hash": later, "was_started": true}));
        let (started, _) = raw.expect("started");
        assert_eq!((&started["hash"], &started["attached"]), (&json!(first), &json!(true)));
        let of_hi = if first == "blake3" { blake3(b"hi") } else { Digest::of(b"hi") };
        assert_eq!(raw.expect("output").0["hash"], json!(of_hi));
    }
}

#[test]
fn a_link_that_is_cut_anywhere_is_resumed_by_blake3() {
    let server = Server::start(&[]);
    let stdin = noise(600_000);
    let mut random = Random::new();
    let cuts: Vec<_> = (0..24)
        .map(|n| (if n % 2 == 0 { Way::Up } else { Way::Down }, 5_000 + random.below(500_000)))
        .collect();
    in_parallel(6, cuts.len(), |n| {
        let relay = Relay::to(&server.addr);
        // Twice, the second time in what is left of it.
        relay.cut_after(&[cuts[n], (cuts[n].0, 30_000)]);
        let effect = server.dir().join(format!("effect{n}"));
        let text = format!("echo x >> {}; cat; echo e >&2; exit 7", effect.display());
        let client = Client::new(server.state()).args(&["--hash", "blake3", &relay.addr, &text]);
        let ran = client.run_with(&stdin).expect(7);
        assert!(ran.stdout == stdin && ran.stderr == "e\n", "{:?}: {}", cuts[n], ran.stderr);
        assert_eq!(executions(&effect), 1, "{:?}", cuts[n]);
        assert!(relay.connections() >= 2, "{:?}", cuts[n]);
    });
}

/// A server that says `blake3`, sends one piece with this digest, and a verdict.
fn said_blake3(of_piece: Digest, named: Value, of_end: Digest) -> super::support::Ran {
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        let mut started = fake::started(&id);
        (started["hash"], started["stdin_hash"]) = (json!("blake3"), json!(blake3(b"")));
        raw.send(&started, b"");
        let mut output = fake::output("stdout", 1, 0, b"");
        output["hash"] = json!(of_piece);
        raw.send(&output, b"hi");
        let mut verdict = fake::verdict(&id, 2, b"hi");
        verdict["hash"] = named.clone();
        (verdict["stdout"]["hash"], verdict["stderr"]["hash"]) =
            (json!(of_end), json!(blake3(b"")));
        raw.send(&verdict, b"");
        while let Some((header, _)) = raw.next() {
            if header["type"] == "cancel" {
                raw.send(&verdict, b"");
            }
        }
    });
    fake.client().args(&["-n", "--hash", "blake3", "true"]).run()
}

#[test]
fn a_wrong_digest_is_never_a_success() {
    let right = blake3(b"hi");
    assert_eq!(said_blake3(right, json!("blake3"), right).expect(0).text(), "hi");
    for (of_piece, named, of_end) in [
        (blake3(b"ho"), json!("blake3"), right),
        (right, json!("blake3"), blake3(b"ho")),
        // Another algorithm than was agreed on.
        (Digest::of(b"hi"), json!("blake3"), right),
        (right, json!("blake3"), Digest::of(b"hi")),
        (right, Value::Null, right),
        (right, json!("md5"), right),
    ] {
        let ran = said_blake3(of_piece, named.clone(), of_end).expect(252);
        assert!(ran.stderr.contains("altered"), "{named}: {}", ran.stderr);
    }
}

#[test]
fn input_with_a_wrong_digest_does_not_reach_the_command() {
    let server = Server::start(&[]);
    for hash in [blake3(b"abd"), Digest::of(b"abc")] {
        let mut raw = Raw::login(&server);
        raw.run(&format!("in-{hash}")[..20], "cat", json!({"stdin": true, "hash": "blake3"}));
        raw.expect("started");
        raw.send(&json!({"type": "stdin", "offset": 0, "hash": hash}), b"abc");
        assert_eq!(raw.until("error").pop().unwrap().0["code"], "corrupt");
    }
}

#[test]
fn a_server_that_changes_the_digest_on_the_way_is_not_gone_on_with() {
    let connection = std::sync::atomic::AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        let mut started = fake::started(&id);
        let nth = connection.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        started["hash"] = json!(if nth == 0 { "blake3" } else { "sha256" });
        raw.send(&started, b"");
        if nth > 0 {
            raw.send(&fake::verdict(&id, 1, b""), b"");
            while raw.next().is_some() {}
        }
    });
    let ran = fake.client().args(&["-n", "--hash", "blake3", "true"]).run().expect(253);
    assert!(ran.stderr.contains("another digest than"), "{}", ran.stderr);
}

#[test]
fn an_unknown_name_on_the_command_line_is_wrong_usage() {
    let server = Server::start(&[]);
    let ran = server.run(&["--hash", "md5", "true"]).expect(2);
    assert!(ran.stderr.contains("md5") && ran.stderr.contains("blake3"), "{}", ran.stderr);
}
