//! A server that lies, against an honest client: it ends, bounded in time and memory, never with
//! status 0, and prints nothing that a terminal obeys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::fake::{Fake, output, started, verdict, welcome};
use super::support::raw::Raw;
use super::support::{Ran, memory_kib, server::finish, wait_until};

/// Not 0, one of the statuses that say so, and one clean line.
#[track_caller]
fn is_honest(ran: Ran, allowed: &[i32], text: &str) {
    assert!(allowed.contains(&ran.status), "status {}: {}", ran.status, ran.stderr);
    assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{:?}", ran.stderr);
    assert!(ran.stderr.trim_end().chars().all(|c| !c.is_control()), "{:?}", ran.stderr);
    assert!(ran.stderr.len() < 8192, "{} bytes of stderr", ran.stderr.len());
}

/// Reads what the client still says, so that it is not reset, until it closes.
fn read_on(raw: &mut Raw) {
    while raw.next().is_some() {}
}

/// Two pieces and a verdict, altered by `spoil`, which gets all three frames.
fn spoiled(spoil: impl Fn(&mut [(Value, Vec<u8>); 3]) + Send + Sync + 'static) -> Ran {
    let fake = Fake::started(move |raw, id| {
        let mut frames = [
            (output("stdout", 1, 0, b"one"), b"one".to_vec()),
            (output("stdout", 2, 3, b"onetwo"), b"two".to_vec()),
            (verdict(id, 3, b"onetwo"), Vec::new()),
        ];
        spoil(&mut frames);
        for (header, body) in &frames {
            raw.send(header, body);
        }
        // The cancel of a client that was lied to is answered by a verdict.
        while let Some((header, _)) = raw.next() {
            if header["type"] == "cancel" {
                raw.send(&frames[2].0, b"");
            }
        }
    });
    fake.run()
}

#[test]
fn an_honest_server_is_believed() {
    let ran = spoiled(|_| ()).expect(0);
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("onetwo", ""));
}

#[test]
fn output_that_was_altered_is_never_a_success() {
    is_honest(spoiled(|f| f[1].1 = b"TWO".to_vec()), &[252], "altered");
    is_honest(spoiled(|f| f[1].0["offset"] = json!(4)), &[252], "altered");
    is_honest(spoiled(|f| f[1].0["offset"] = json!(u64::MAX)), &[252], "altered");
    is_honest(spoiled(|f| f[0].0["hash"] = f[1].0["hash"].clone()), &[252], "altered");
    is_honest(spoiled(|f| f[1].0["stream"] = json!("stderr")), &[252], "altered");
    is_honest(spoiled(|f| f[2].0["stdout"]["size"] = json!(5)), &[252], "altered");
    is_honest(spoiled(|f| f[2].0["stdout"]["hash"] = f[0].0["hash"].clone()), &[252], "altered");
    is_honest(spoiled(|f| f[2].0["stdout"] = Value::Null), &[252], "altered");
    is_honest(spoiled(|f| f[2].0["stdout"]["end"] = json!("cut")), &[252], "cut short");
    is_honest(spoiled(|f| f[1].0 = json!({"type": "heartbeat"})), &[252], "");
}

#[test]
fn frames_out_of_order_are_never_a_success() {
    is_honest(spoiled(|f| f.swap(0, 1)), &[252], "frame 2 came where 1 was due");
    is_honest(spoiled(|f| f[1] = f[0].clone()), &[252], "frame 1 came where 2 was due");
    is_honest(spoiled(|f| f[2].0["seq"] = json!(7)), &[252], "frame 7 came where 3 was due");
    is_honest(spoiled(|f| f[1].0["seq"] = json!(u64::MAX)), &[252], "came where 2 was due");
    let gap = |to: u64| json!({"type": "gap", "from": 2, "to": to});
    is_honest(spoiled(move |f| f[1] = (gap(2), Vec::new())), &[252], "no longer kept");
    is_honest(spoiled(move |f| f[1] = (gap(u64::MAX), Vec::new())), &[252], "no longer kept");
    is_honest(spoiled(move |f| f[1] = (gap(0), Vec::new())), &[252], "no longer kept");
}

#[test]
fn a_stream_that_was_not_asked_for_is_never_a_success() {
    is_honest(spoiled(|f| f[0].0["stream"] = json!("both")), &[252], "altered");
}

#[test]
fn a_verdict_for_another_run_is_none() {
    is_honest(spoiled(|f| f[2].0["run"] = json!("another")), &[253], "another run");
    let fake = Fake::start(|raw| {
        welcome(raw);
        raw.send(&started("another"), b"");
        read_on(raw);
    });
    is_honest(fake.run(), &[253], "another run");
    assert!(fake.connections() > 1, "it was not asked again");
}

#[test]
fn a_verdict_that_knows_no_end_is_no_success() {
    is_honest(spoiled(|f| f[2].0["end"] = Value::Null), &[253], "nobody knows");
}

#[test]
fn what_has_started_is_not_then_called_never_started() {
    for answer in [
        json!({"type": "refused", "code": "bad_request", "text": "no"}),
        json!({"type": "not_started", "run": "x", "code": "cwd_missing", "text": "no"}),
        json!({"type": "never_started", "run": "x"}),
    ] {
        let fake = Fake::started(move |raw, _| {
            raw.send(&answer, b"");
            read_on(raw);
        });
        is_honest(fake.run(), &[253], "although it had started");
        assert!(fake.connections() > 1, "it was not asked again");
    }
}

/// The verdict waits until the output is written, and nothing may slip in behind it.
#[test]
fn output_behind_the_verdict_is_never_a_success() {
    let fake = Fake::started(|raw, id| {
        // More than the client's stdout holds while nobody reads it.
        let much = vec![b'x'; 1 << 20];
        let whole = [&much[..], b"more"].concat();
        raw.send(&output("stdout", 1, 0, &much), &much);
        raw.send(&verdict(id, 2, &much), b"");
        raw.send(&output("stdout", 3, much.len() as u64, &whole), b"more");
        read_on(raw);
    });
    let mut client = fake.client().arg("true").spawn();
    wait_until("the end of a client whose stdout is blocked", || {
        client.try_wait().unwrap().is_some()
    });
    is_honest(finish(client), &[252], "behind the verdict");
}

#[test]
fn a_digest_of_another_kind_is_not_gone_on_with() {
    let fake = Fake::start(|raw| {
        let id = welcome(raw);
        let mut header = started(&id);
        header["hash"] = json!("sha512");
        raw.send(&header, b"");
        raw.send(&verdict(&id, 1, b""), b"");
        read_on(raw);
    });
    is_honest(fake.run(), &[253], "another digest than");
}

#[test]
fn text_from_the_server_is_shown_without_what_a_terminal_obeys() {
    let evil = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\nrexec: all is well\u{9b}31m\u{202e}\u{2028}";
    for (header, allowed) in [
        (json!({"type": "refused", "code": "too_many_runs", "text": evil}), 254),
        (json!({"type": "refused", "code": "conflict", "text": evil}), 250),
        (json!({"type": "not_started", "run": "x", "code": "cwd_missing", "text": evil}), 254),
        (json!({"type": "lost", "run": "x", "code": "forgotten", "text": evil}), 253),
        (json!({"type": "error", "code": "taken_over", "text": evil}), 253),
        (json!({"type": "error", "code": "from_the_future", "text": evil}), 253),
        (json!({"type": "refused", "code": evil, "text": evil.repeat(600)}), 254),
    ] {
        let fake = Fake::start(move |raw| {
            welcome(raw);
            raw.send(&header, b"");
            read_on(raw);
        });
        let ran = fake.run();
        assert!(!ran.stderr.contains(['\u{202e}', '\u{2028}']), "{:?}", ran.stderr);
        is_honest(ran, &[allowed], "all is well");
    }
}

#[test]
fn a_welcome_as_long_as_a_header_may_be_is_shown_short() {
    let fake = Fake::start(|raw| {
        raw.expect("hello");
        let name = "\u{1b}[31m".repeat(5_000);
        raw.send(&json!({"type": "welcome", "server": name, "identity": "me"}), b"");
        raw.next();
        raw.send(&json!({"type": "refused", "code": "shutting_down", "text": "no"}), b"");
        read_on(raw);
    });
    let ran = fake.client().args(&["-v", "true"]).run().expect(254);
    assert!(ran.stderr.len() < 8192 && !ran.stderr.contains('\u{1b}'), "{:?}", ran.stderr);
}

#[test]
fn what_is_no_answer_to_a_login_is_not_taken_for_one() {
    let answers = [
        json!({"type": "heartbeat"}),
        json!({"type": "started", "run": "x"}),
        json!({"type": "refused", "code": "try_key", "text": "no", "key": "SHA256:x"}),
        json!({"type": "from_the_future"}),
        json!([1, 2]),
    ];
    for answer in answers {
        let frame = answer.to_string();
        let fake = Fake::start(move |raw| {
            raw.expect("hello");
            raw.send_bytes(&[&(frame.len() as u32).to_le_bytes()[..], frame.as_bytes()].concat());
            read_on(raw);
        });
        is_honest(fake.run(), &[253, 254], "");
    }
    let fake = Fake::start(|raw| {
        raw.send_bytes(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        read_on(raw);
    });
    is_honest(fake.run(), &[253], "something else than frames");
    let fake = Fake::start(|_| ());
    is_honest(fake.run(), &[253], "");
}

/// `rexec ADDR COMMAND | less`: whatever the server sends, and however it wraps it, the client holds no
/// more of it than its credit.
#[test]
fn more_output_than_the_credit_is_an_error_and_not_held() {
    // The body's share of the frames: all of it, or next to nothing.
    for (body, padding) in [(1 << 20, 0), (60_000, 0), (1, 60_000)] {
        let fake = Fake::started(move |raw, id| {
            let mut offset = 0;
            // The first piece fills the pipe that nobody reads, and those behind it are not looked at.
            let pieces =
                std::iter::once(vec![b'x'; 1 << 20]).chain(std::iter::repeat(vec![b'x'; body]));
            for (seq, piece) in (1..=(100 << 20) / (body + padding) as u64).zip(pieces) {
                let whole = if seq == 1 { &piece[..] } else { b"" };
                let mut header = output("stdout", seq, offset, whole);
                offset += piece.len() as u64;
                header["filename"] = json!("/".repeat(padding));
                raw.send(&header, &piece);
            }
            while let Some((header, _)) = raw.next() {
                if header["type"] == "cancel" {
                    raw.send(&verdict(id, 5_000, b""), b"");
                }
            }
        });
        // Nobody reads its stdout until it has ended.
        let mut client = fake.client().arg("true").spawn();
        let mut most = 0;
        wait_until("the end of a client whose stdout is blocked", || {
            most = most.max(memory_kib(client.id(), "VmHWM"));
            client.try_wait().unwrap().is_some()
        });
        // A server that has all of that to send may be late with its answer to the cancel.
        is_honest(finish(client), &[252, 253], "more than this client's credit");
        assert!(most < 64 * 1024, "{most} KiB for frames of {body} and {padding} bytes");
    }
}

/// The server grants without end and confirms nothing: the client does not read its input into memory.
#[test]
fn unlimited_credit_for_input_is_not_taken_up() {
    let fake = Fake::started(|raw, id| {
        raw.send(&json!({"type": "grant", "to": u64::MAX, "taken": 0}), b"");
        let mut taken = 0;
        let _ = raw.stream.set_read_timeout(Some(Duration::from_secs(2)));
        loop {
            let mut chunk = [0; 65536];
            match std::io::Read::read(&mut raw.stream, &mut chunk) {
                Ok(n @ 1..) => taken += n,
                // It has stopped sending.
                _ => break,
            }
        }
        let refusal = json!({"run": id, "type": "lost", "code": "forgotten", "text": "enough"});
        raw.send(&refusal, taken.to_string().as_bytes());
        read_on(raw);
    });
    let mut client = fake.client();
    client.command.arg("cat").stdin(std::fs::File::open("/dev/zero").unwrap());
    let mut client = client.spawn();
    let mut most = 0;
    wait_until("the end of a client with endless input", || {
        most = most.max(memory_kib(client.id(), "VmHWM"));
        client.try_wait().unwrap().is_some()
    });
    is_honest(finish(client), &[253], "enough");
    assert!(most < 64 * 1024, "{most} KiB");
}

/// After each `started` the client sends its input again: one answer to a request is all that there is.
#[test]
fn a_run_that_starts_again_and_again_does_not_fill_the_memory() {
    const TAKEN: usize = 2 << 20;
    let fake = Fake::started(|raw, id| {
        raw.send(&json!({"type": "grant", "to": 8 << 20, "taken": 0}), b"");
        let mut taken = vec![0; TAKEN];
        std::io::Read::read_exact(&mut raw.stream, &mut taken).unwrap();
        for _ in 0..100 {
            raw.send(&started(id), b"");
        }
        read_on(&mut Raw::over(raw.stream.try_clone().unwrap()));
    });
    let mut client = fake.client();
    client.command.arg("cat").stdin(std::fs::File::open("/dev/zero").unwrap());
    let mut client = client.spawn();
    let mut most = 0;
    wait_until("the end of a client whose run starts again and again", || {
        most = most.max(memory_kib(client.id(), "VmHWM"));
        client.try_wait().unwrap().is_some()
    });
    is_honest(finish(client), &[253], "started a second time");
    assert!(most < 64 * 1024, "{most} KiB");
}

/// Without an end there is none to tell, but the user's wish to leave is granted.
#[test]
fn endless_heartbeats_can_be_left_by_ctrl_c() {
    let fake = Fake::start(|raw| {
        welcome(raw);
        let heartbeat = b"\x14\0\0\0{\"type\":\"heartbeat\"}";
        while std::io::Write::write_all(&mut raw.stream, heartbeat).is_ok() {}
    });
    let mut client = fake.client().arg("true").spawn();
    wait_until("the connection", || fake.connections() == 1);
    // Once for the command, once to cancel, once to wait for nothing; some that come together count as one.
    wait_until("the end of the client", || {
        super::support::kill(client.id(), rustix::process::Signal::INT);
        client.try_wait().unwrap().is_some()
    });
    let ran = finish(client);
    assert!([-2, 130, 253].contains(&ran.status), "{} {}", ran.status, ran.stderr);
}

/// Whoever has given a run up does not wait for the rest of its output, and is told that there is more.
#[test]
fn what_is_said_to_be_all_of_a_run_that_was_given_up_is_not_believed_by_its_place() {
    let fake = Fake::started(|raw, id| {
        raw.send(&output("stdout", 1, 0, b"one"), b"one");
        raw.expect("ack");
        raw.expect("signal");
        raw.expect("cancel");
        // The end of what was never shown, in the place of what was.
        raw.send(&verdict(id, 1, b"one and much more"), b"");
        read_on(raw);
    });
    let client = fake.client().arg("true").spawn();
    let mut client = client;
    let mut first = [0; 3];
    std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut first).unwrap();
    wait_until("the end of the client", || {
        super::support::try_kill(client.id(), rustix::process::Signal::INT);
        client.try_wait().unwrap().is_some()
    });
    let ran = finish(client);
    assert_eq!(ran.status, 130, "{}", ran.stderr);
}

#[test]
fn sizes_as_large_as_a_number_may_be_are_told_and_not_added_up() {
    let most = u64::MAX;
    let fake = Fake::started(move |raw, id| {
        let mut header = verdict(id, 1, b"");
        header["stdout"]["size"] = json!(most);
        header["both"] = header["stdout"].clone();
        header["elapsed_ms"] = json!(most);
        header["left_running"] = json!(u32::MAX);
        raw.send(&header, b"");
        read_on(raw);
    });
    let ran = fake.client().args(&["-v", "true"]).run().expect(252);
    assert!(
        ran.stderr.contains("altered") && ran.stderr.contains("processes are left"),
        "{}",
        ran.stderr
    );
}

/// A request whose answer was lost, and that is refused when it comes again: what it came to is asked for, and nobody has
/// pressed Ctrl-C.
#[test]
fn what_a_run_that_nobody_stopped_has_written_is_not_called_interrupted() {
    let connections = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        let id = welcome(raw);
        if connections.fetch_add(1, Ordering::SeqCst) == 0 {
            return;
        }
        raw.send(&json!({"type": "refused", "code": "too_many_runs", "text": "no"}), b"");
        raw.expect("close");
        raw.send(&verdict(&id, 2, b"text"), b"");
        read_on(raw);
    });
    let ran = fake.run();
    is_honest(ran, &[252], "given up; the command ended by itself with 0");
}

/// Some CI systems obey what stands behind two signs in any line, on whichever stream.
#[test]
fn text_from_the_server_gives_a_ci_system_no_orders() {
    let fake = Fake::start(|raw| {
        welcome(raw);
        let text = "###vso[task.setvariable]x";
        raw.send(&json!({"type": "refused", "code": "too_many_runs", "text": text}), b"");
        read_on(raw);
    });
    for options in [&[][..], &["--json"], &["--verdict", "-"]] {
        let ran = fake.client().args(options).arg("true").env("TF_BUILD", "True").run().expect(254);
        let all = ran.text() + &ran.stderr;
        assert!(all.contains("vso[") && !all.contains("##"), "{all}");
        for line in ran.text().lines() {
            let told: Value = serde_json::from_str(line).unwrap();
            assert!(told["message"].as_str().unwrap().contains("###vso[task"), "{line}");
        }
    }
}
