//! Those who have logged in and send what they should not: each gets one clear word, nobody else
//! notices, and the server holds and logs no more for it.

use std::time::{Duration, Instant};

use rexec::proto::digest::Digest;
use rexec::proto::frame::encode;
use serde_json::{Value, json};

use super::durable::verb;
use super::support::{Server, raw::Raw, wait_until};

fn frame(header: &Value, body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(header, body, &mut frame).unwrap();
    frame
}

/// The connection ends with this code and this in its text.
#[track_caller]
fn ends_with(raw: &mut Raw, code: &str, text: &str) {
    let frames = raw.until("error");
    let (error, _) = frames.last().unwrap();
    assert_eq!(error["code"], code, "{error}");
    assert!(error["text"].as_str().unwrap().contains(text), "{text}: {error}");
    assert!(raw.next().is_none(), "the connection goes on after {error}");
}

#[test]
fn a_frame_that_has_no_place_ends_the_connection_with_a_word() {
    let server = Server::start(&[]);
    let piece = json!({"type": "stdin", "offset": 0, "hash": Digest::of(b"x")});
    let cases = [
        (json!({"type": "hello", "client": "again"}), "bad_frame", "hello was said already"),
        (piece, "bad_frame", "stdin without a run"),
        (json!({"type": "ack"}), "bad_frame", "missing field `seq`"),
        (json!({"type": "ack", "seq": -1}), "bad_frame", "invalid value"),
        (json!({"type": "ack", "seq": 1.5}), "bad_frame", "invalid type"),
        (json!({"type": "run", "id": 7}), "bad_frame", "invalid type"),
        (json!({"type": "signal", "signal": "NOSUCH"}), "bad_request", "unknown signal"),
    ];
    for (header, code, text) in cases {
        let mut raw = Raw::login(&server);
        raw.send(&header, b"");
        ends_with(&mut raw, code, text);
    }
    server.run(&["true"]).expect(0);
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_with_a_word() {
    let server = Server::start(&[]);
    let header = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let nested = format!(r#"{{"type":"ack","seq":{}"#, "[".repeat(60_000));
    let cases = [
        (u32::MAX.to_le_bytes().to_vec(), "4294967295 bytes is over the limit of 65536"),
        (65_537u32.to_le_bytes().to_vec(), "65537 bytes is over the limit of 65536"),
        (header(&nested), "not a JSON object"),
        (header(r#"{"type":"run","size":1048577}"#), "1048577 bytes is over the limit of 1048576"),
        (header(r#"{"type":"run","size":18446744073709551615}"#), "over the limit"),
        (header(r#"{"type":"run","size":99999999999999999999}"#), "not a JSON object"),
        // A body that is longer than said is read as the next frame.
        (frame(&json!({"type": "heartbeat"}), b"").repeat(2)[..30].to_vec(), ""),
        ([frame(&json!({"type": "x"}), b"abc"), b"surplus!".to_vec()].concat(), "over the limit"),
    ];
    for (bytes, text) in cases {
        let mut raw = Raw::login(&server);
        raw.send_bytes(&bytes);
        if text.is_empty() {
            // Half a frame is no error yet; the client that leaves in it has only itself to blame.
            continue;
        }
        ends_with(&mut raw, "bad_frame", text);
    }
    server.run(&["true"]).expect(0);
}

#[test]
fn frames_of_an_unknown_type_are_passed_over() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    for size in [0, 1, 1 << 20] {
        let padding = "x".repeat(60_000);
        raw.send(&json!({"type": "from_the_future", "padding": padding}), &vec![7; size]);
    }
    raw.run("after", "echo still here", json!({"member_of_the_future": [1, 2]}));
    let frames = raw.until("verdict");
    assert_eq!(frames[1].1, b"still here\n");
}

/// What the request says against itself is refused; the connection goes on, and nothing was started.
#[test]
fn a_request_that_contradicts_itself_is_refused() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    let run = |form: &str, more: Value| {
        let mut header = json!({"type": "run", "id": "x", "form": form, "words": 1});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        header
    };
    let many = u64::MAX;
    let cases: [(Value, &[u8], &str, &str); 17] = [
        (run("shell", json!({"words": 2})), b"a\0b\0", "bad_request", "one word, not 2"),
        (run("shell", json!({"words": 0})), b"", "bad_request", "one word, not 0"),
        (run("argv", json!({"words": 0})), b"", "bad_request", "at least one word"),
        (run("script", json!({"words": 1})), b"a\0", "bad_request", "no words"),
        (run("argv", json!({"words": 3})), b"a\0b\0", "bad_request", "counts 3 strings"),
        (run("argv", json!({"words": 1})), b"a\0b\0", "bad_request", "holds 2"),
        (run("argv", json!({"words": many})), b"a\0", "bad_request", "strings, the body holds 1"),
        (run("argv", json!({"words": 1, "env": many})), b"a\0", "bad_request", "holds 1"),
        (run("argv", json!({"words": many, "env": many})), b"a\0", "bad_request", "holds 1"),
        (run("shell", json!({})), b"true", "bad_request", "does not end with NUL"),
        (run("shell", json!({"cwd": true})), b"true\0", "bad_request", "counts 2 strings"),
        (run("shell", json!({"id": ""})), b"true\0", "bad_request", "1 to 64"),
        (run("shell", json!({"id": "../x"})), b"true\0", "bad_request", "1 to 64"),
        (run("shell", json!({"deadline_ms": many})), b"true\0", "bad_request", "2^53"),
        (run("shell", json!({"after": 1_u64 << 53})), b"true\0", "bad_request", "2^53"),
        (run("shell", json!({"grace_ms": many})), b"true\0", "bad_request", "grace"),
        (run("shell", json!({"must": ["sudo\u{1b}[2J"]})), b"true\0", "unsupported", "\"sudo[2J\""),
    ];
    for (header, body, code, text) in cases {
        raw.send(&header, body);
        let (refused, _) = raw.expect("refused");
        assert_eq!(refused["code"], code, "{refused}");
        assert!(refused["text"].as_str().unwrap().contains(text), "{text}: {refused}");
    }
    raw.run("x", "echo the id is free", json!({}));
    assert_eq!(raw.until("verdict")[1].1, b"the id is free\n");
    let accepted = server.journal().iter().filter(|line| line["type"] == "accepted").count();
    assert_eq!(accepted, 1);
}

#[test]
fn a_second_run_while_the_first_goes_on_ends_the_connection() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("first", "sleep 1000", json!({"grace_ms": 0}));
    raw.expect("started");
    raw.run("second", "echo never", json!({}));
    ends_with(&mut raw, "bad_frame", "a run is under way");
    wait_until("the end of the run whose client is gone", || {
        server.journal().iter().any(|line| line["verdict"]["run"] == "first")
    });
}

#[test]
fn confirming_what_was_never_made_ends_the_connection() {
    let server = Server::start(&[]);
    for seq in [100, u64::MAX] {
        let mut raw = Raw::login(&server);
        raw.run(&format!("run-{}", seq % 7), "sleep 1000", json!({"grace_ms": 0}));
        raw.expect("started");
        raw.send(&json!({"type": "ack", "seq": seq}), b"");
        ends_with(&mut raw, "bad_frame", "the last one made is 0");
    }
}

/// As if it had been read: there is nothing left to send, and to nobody else the run goes on.
#[test]
fn a_verdict_that_is_confirmed_before_it_was_sent_is_done_with() {
    let server = Server::start(&[]);
    let (mut raw, mut other) = (Raw::login(&server), Raw::login(&server));
    // More than a socket takes, less than the window.
    raw.run("all", "head -c 225000 /dev/zero", json!({}));
    let mut listed = || {
        other.send(&json!({"type": "list"}), b"");
        serde_json::from_slice::<Value>(&other.expect("runs").1).unwrap()
    };
    wait_until("the end of the run", || listed()[0]["state"] == "ended");
    let verdict = &listed()[0]["verdict"]["seq"];
    raw.send(&json!({"type": "ack", "seq": verdict}), b"");
    wait_until("the confirmation", || listed() == json!([]));
    let mut again = Raw::login(&server);
    again.run("all", "head -c 225000 /dev/zero", json!({"first_sent_ms_ago": 1}));
    assert_eq!(again.expect("lost").0["code"], "forgotten");
}

#[test]
fn input_out_of_place_altered_or_beyond_its_credit_ends_the_connection() {
    let server = Server::start(&[]);
    let much = vec![b'x'; 65_537];
    let piece = |offset: u64, whole: &[u8]| json!({"type": "stdin", "offset": offset, "hash": Digest::of(whole)});
    let cases: [(Value, &[u8], &str); 5] = [
        (piece(1, b"x"), b"x", "goes on at 0"),
        (piece(u64::MAX, b"x"), b"x", "goes on at 0"),
        (piece(0, b"y"), b"x", "digest"),
        (piece(0, &much), &much, "granted up to 65536, sent up to 65537"),
        (json!({"type": "stdin_end", "offset": 9, "hash": Digest::of(b"")}), b"", "goes on at 0"),
    ];
    for (n, (header, body, text)) in cases.into_iter().enumerate() {
        let mut raw = Raw::login(&server);
        raw.run(&format!("run-{n}"), "sleep 1000", json!({"stdin": true, "grace_ms": 0}));
        raw.expect("started");
        raw.send(&header, body);
        ends_with(&mut raw, "corrupt", text);
    }
}

/// One byte at a time behind a long header: the server holds bytes, not frames.
#[test]
fn input_byte_by_byte_is_held_as_bytes() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("drip", "sleep 1000", json!({"stdin": true, "grace_ms": 0}));
    raw.expect("started");
    let before = server.memory_kib("VmRSS");
    let padding = "x".repeat(30_000);
    let mut running = rexec::proto::digest::Running::new();
    for offset in 0..3000 {
        running.update(b"y");
        let hash = running.digest();
        let header = json!({"type": "stdin", "offset": offset, "hash": hash, "padding": padding});
        raw.send(&header, b"y");
    }
    // The answer comes when everything before it was taken.
    raw.send(&json!({"type": "cancel"}), b"");
    raw.until("verdict");
    let grown = server.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 8 * 1024, "grown by {grown} KiB over 90 MB of headers");
}

#[test]
fn a_client_that_asks_and_does_not_read_is_cut_off_in_bounded_memory() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("over", "true", json!({}));
    raw.until("verdict");
    let before = server.memory_kib("VmRSS");
    let cancels = frame(&json!({"type": "cancel"}), b"").repeat(1000);
    let mut sent = 0;
    // The server closes, or the socket takes no more: neither may take for ever.
    raw.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    while sent < 1_000_000 && std::io::Write::write_all(&mut raw.stream, &cancels).is_ok() {
        sent += 1000;
    }
    assert!(sent < 1_000_000, "a million questions were taken without an answer being read");
    let frames = raw.until("error");
    assert_eq!(frames.last().unwrap().0["code"], "flooded");
    let grown = server.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < 8 * 1024, "grown by {grown} KiB");
}

/// What a supervisor answers is passed on, and nothing of it is shown: the next may be asked at once.
#[test]
fn a_client_that_does_not_read_what_supervisors_answer_is_cut_off() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("job", "exec sleep 600", json!({"durable": true, "grace_ms": 0}));
    raw.expect("started");
    raw.send(&json!({"type": "detach"}), b"");
    raw.until("detached");
    let attach = frame(&json!({"type": "attach", "run": "job", "after": 1_u64 << 40}), b"");
    // Many more than there is room for, but less than may wait behind the first.
    raw.send_bytes(&attach.repeat(3000));
    let cut = "flooded: more was asked than was read of the answers";
    wait_until("its end", || server.log().contains(cut));
    verb(&server, "stop", &["job"]).expect(0);
}

/// Connections that have sent all of a request of 1 MiB but its last byte; it was `sent` so far.
fn push(request: &[u8], sent: &mut [(Raw, usize)]) -> usize {
    let most = request.len() - 1;
    for (raw, sent) in sent.iter_mut() {
        while *sent < most {
            match std::io::Write::write(&mut raw.stream, &request[*sent..most]) {
                Ok(count) => *sent += count,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) => panic!("the server closed after {sent} bytes: {e}"),
            }
        }
    }
    sent.iter().filter(|(_, sent)| *sent == most).count()
}

#[test]
fn requests_that_stay_unfinished_hold_no_more_than_there_is_room_for() {
    const ROOM: usize = rexec::conn::ARRIVING_LIMIT;
    let server = Server::start(&[]);
    let header = json!({"type": "run", "id": "x", "form": "shell", "words": 1});
    let request = frame(&header, &vec![b' '; 1 << 20]);
    let fit = ROOM / request.len();
    let before = server.memory_kib("VmRSS");
    let mut sent: Vec<(Raw, usize)> = (0..3 * fit).map(|_| (Raw::login(&server), 0)).collect();
    for (raw, _) in &sent {
        raw.stream.set_nonblocking(true).unwrap();
    }
    wait_until("the room to be full", || push(&request, &mut sent) >= fit);
    // Whoever asks for little is served, and the others go on waiting.
    for _ in 0..3 {
        server.run(&["true"]).expect(0);
        assert_eq!(push(&request, &mut sent), fit);
    }
    let grown = server.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < (ROOM as u64 / 1024) * 3 / 2, "grown by {grown} KiB");
    let most = request.len() - 1;
    let (done, rest): (Vec<_>, Vec<_>) = sent.into_iter().partition(|(_, sent)| *sent == most);
    drop(done);
    sent = rest;
    wait_until("the next to have room", || push(&request, &mut sent) == fit);
}

#[test]
fn a_flood_of_signals_does_not_keep_a_run_from_ending() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("calm", "trap '' WINCH; read line; echo $line", json!({"stdin": true}));
    raw.expect("started");
    let signals = frame(&json!({"type": "signal", "signal": "WINCH"}), b"");
    raw.send_bytes(&signals.repeat(50_000));
    let end = json!({"type": "stdin", "offset": 0, "hash": Digest::of(b"done\n")});
    raw.send(&end, b"done\n");
    let frames = raw.until("verdict");
    assert_eq!(frames.last().unwrap().0["end"], json!({"exited": {"code": 0}}));
}

/// The writer is in the middle of a frame that nobody reads: the session ends all the same.
#[test]
fn a_client_that_never_reads_cannot_hold_its_connection() {
    let server = Server::start(&["--max-connections", "1"]);
    let mut raw = Raw::login(&server);
    raw.run("loud", "cat /dev/zero", json!({"grace_ms": 0}));
    // The window is full when the server has sent what the socket takes.
    wait_until("a run", || server.journal().iter().any(|line| line["type"] == "running"));
    raw.send(&json!({"type": "hello", "client": "again"}), b"");
    wait_until("the end of the run whose client broke the rules", || {
        server.journal().iter().any(|line| line["type"] == "ended")
    });
    wait_until("the connection's place to be free", || server.run(&["true"]).status == 0);
}

#[test]
fn refusals_are_logged_once_a_second_and_without_what_a_terminal_obeys() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    let (before, start) = (server.log(), Instant::now());
    for n in 0..2000 {
        let must = format!("x\u{1b}]0;owned\u{7}\r\nERROR forged {n}");
        raw.run("x", "true", json!({"must": [must]}));
        raw.expect("refused");
    }
    for _ in 0..200 {
        let mut raw = Raw::login(&server);
        raw.send(&json!({"type": "hello", "client": "again"}), b"");
        raw.until("error");
    }
    let log = server.log();
    let new = &log[before.len()..];
    let lines = new.lines().count() as u64;
    assert!((1..=start.elapsed().as_secs() + 3).contains(&lines), "{lines} lines: {new}");
    assert!(new.contains("refused a request of local:"), "{new}");
    assert!(new.bytes().all(|b| b == b'\n' || b >= b' '), "{new:?}");
    assert!(!new.lines().any(|line| line.starts_with("ERROR")), "{new}");
}

#[test]
fn giving_an_id_up_again_and_again_is_written_down_once() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    for _ in 0..100 {
        raw.send(&json!({"type": "close", "id": "same"}), b"");
        raw.expect("never_started");
    }
    let buried = server.journal().iter().filter(|line| line["type"] == "buried").count();
    assert_eq!(buried, 1);
}
