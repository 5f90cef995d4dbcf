//! Those who have not logged in: whatever they send, the server stays up, bounded and quiet.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rexec::server::PLACES;
use serde_json::json;

use super::penalties::status;
use super::support::{PATIENCE, Server, is_seen, raw::Raw, wait_until};

/// What 2,000 connections of strangers may add to the server.
const GROWTH_KIB: u64 = 16 * 1024;

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Waits until the server has closed; what it said before.
fn until_closed(mut stream: impl Read) -> Vec<u8> {
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(e) if e.kind() != std::io::ErrorKind::ConnectionReset => panic!("not closed: {e}"),
        _ => said,
    }
}

/// The server serves, and has logged at most a line a second since it had logged `before` bytes.
#[track_caller]
fn is_well_and_quiet(server: &Server, before: &str, since: Instant) {
    assert_eq!(server.run(&["echo well"]).expect(0).text(), "well\n");
    let log = server.log();
    let lines = log[before.len()..].lines().count() as u64;
    assert!(lines <= since.elapsed().as_secs() + 2, "{lines} lines: {log}");
    assert!(log[before.len()..].bytes().all(|b| b == b'\n' || b >= b' '), "{log:?}");
}

#[test]
fn whatever_is_no_tls_is_closed_and_the_server_stays_quiet() {
    let server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    let (log, start, memory) = (server.log(), Instant::now(), server.memory_kib("VmRSS"));
    let mut garbage = vec![0; 70_000];
    garbage.iter_mut().enumerate().for_each(|(i, b)| *b = (i * 131 + i / 256) as u8);
    let tls_record_of_nothing = [&[22, 3, 1, 0x40, 0][..], &[0xff; 0x4000]].concat();
    let inputs: [&[u8]; 9] = [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nls -l",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        &[0xff; 4096],
        &[0; 4096],
        &garbage,
        &tls_record_of_nothing,
    ];
    for _ in 0..20 {
        for input in inputs {
            let mut stream = connect(&server);
            // The server may have seen enough before all is sent.
            let _ = stream.write_all(input);
            let _ = stream.shutdown(Shutdown::Write);
            until_closed(stream);
            drop(connect(&server));
        }
    }
    is_well_and_quiet(&server, &log, start);
    assert!(server.memory_kib("VmRSS") < memory + GROWTH_KIB);
}

#[test]
fn a_tls_client_of_another_kind_is_told_so_by_tls_and_named_in_the_log() {
    let server = Server::start(&[]);
    let (host, port) = server.addr.split_once(':').unwrap();
    let python = "import socket, ssl, sys\n\
        context = ssl.create_default_context()\n\
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n\
        if len(sys.argv) > 3: context.set_alpn_protocols(sys.argv[3:])\n\
        context.wrap_socket(socket.create_connection(sys.argv[1:3])).recv(1)";
    let url = format!("https://{}/", server.addr);
    let clients: [&[&str]; 6] = [
        &["python3", "-c", python, host, port],
        &["python3", "-c", python, host, port, "rexec/1"],
        &["python3", "-c", python, host, port, "h2", "http/1.1"],
        &["openssl", "s_client", "-tls1_2", "-connect", &server.addr],
        &["openssl", "s_client", "-tls1_3", "-alpn", "rexec/1", "-connect", &server.addr],
        &["curl", "-ksS", &url],
    ];
    let mut tried = 0;
    for client in clients {
        let run = Command::new(client[0]).args(&client[1..]).stdin(Stdio::null()).output();
        // Not every machine has each of them.
        let Ok(run) = run else { continue };
        tried += 1;
        assert!(!run.status.success(), "{client:?} got in");
    }
    assert!(tried > 0, "none of the programs is here");
    wait_until("what the server says of it", || server.log().contains("another kind of TLS"));
    server.run(&["true"]).expect(0);
}

/// What is wrong is said in one frame, and the connection is closed.
#[test]
fn a_first_frame_that_is_no_hello_is_answered_with_what_is_wrong() {
    let server = Server::start(&[]);
    let hello = br#"{"type":"hello","client":"x"}"#;
    let nested = |depth: usize| {
        format!(r#"{{"type":"hello","client":"x","a":{}"#, "[".repeat(depth)).into_bytes()
    };
    let with_body = br#"{"type":"hello","client":"x","size":1}"#;
    let cases: [(Option<u32>, &[u8], &str); 12] = [
        (Some(u32::MAX), b"", "4294967295 bytes is over the limit"),
        (Some(16_385), b"", "16385 bytes is over the limit of 16384"),
        (Some(0), b"", "length is 0"),
        (None, b"not json", "not a JSON object"),
        (None, b"{}", "not a JSON object"),
        (None, b"\xff\xfe{}", "not a JSON object"),
        (None, &nested(15_000), "not a JSON object"),
        (None, &nested(100_000), "over the limit"),
        (None, with_body, "a body of 1 bytes is over the limit of 0"),
        (
            None,
            br#"{"type":"run","id":"x","form":"script","words":0}"#,
            "first frame must be hello",
        ),
        (None, br#"{"type":"cancel"}"#, "first frame must be hello"),
        (None, br#"{"type":"from_the_future"}"#, "first frame must be hello"),
    ];
    for (length, header, wrong) in cases {
        let mut raw = Raw::connect(&server);
        let length = length.unwrap_or_else(|| u32::try_from(header.len()).unwrap());
        raw.send_bytes(&[&length.to_le_bytes()[..], header, b"\n\n\n\n"].concat());
        let (error, _) = raw.expect("error");
        assert_eq!(error["code"], "bad_frame", "{error}");
        assert!(error["text"].as_str().unwrap().contains(wrong), "{wrong}: {error}");
        assert!(raw.next().is_none(), "the connection goes on after {error}");
    }
    // The table's own frame, put right, is answered.
    let mut raw = Raw::connect(&server);
    raw.send_bytes(&[&u32::try_from(hello.len()).unwrap().to_le_bytes()[..], hello].concat());
    raw.expect("welcome");
}

#[test]
fn a_hello_for_another_account_is_refused() {
    let server = Server::start(&[]);
    let mut raw = Raw::connect(&server);
    raw.send(&json!({"type": "hello", "client": "\u{1b}[31mred", "user": "root"}), b"");
    let (refused, _) = raw.expect("refused");
    assert_eq!(refused["code"], "unsupported");
    assert!(raw.next().is_none());
}

/// Ten seconds over TLS and login together, however the bytes are spread: the one test here that has
/// to wait for a clock.
#[test]
fn a_login_that_drips_is_ended_at_its_deadline() {
    let server = Server::start(&[]);
    let start = Instant::now();
    let hello = br#"    {"type":"hello","client":"slow"}"#;
    let drip = |mut stream: Box<dyn Write>| {
        hello.iter().cycle().position(|byte| {
            std::thread::sleep(Duration::from_millis(500));
            stream.write_all(&[*byte]).is_err() || start.elapsed() > PATIENCE
        })
    };
    let client_hello = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut half_open = connect(&server);
    half_open.write_all(&client_hello).unwrap();
    let silent = connect(&server);
    let dripping = Raw::connect(&server).stream;
    let mut length = dripping.try_clone().unwrap();
    length.write_all(&10_000u32.to_le_bytes()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drip(Box::new(dripping)));
        scope.spawn(|| drip(Box::new(half_open.try_clone().unwrap())));
        until_closed(&silent);
        until_closed(&half_open);
        until_closed(&length);
        let closed = start.elapsed();
        assert!(closed > Duration::from_secs(9), "closed after {closed:?}");
        assert!(closed < Duration::from_secs(30), "closed after {closed:?}");
    });
    wait_until("what the server says of it", || server.log().contains("no login within 10 s"));
}

#[test]
fn two_thousand_silent_connections_keep_nobody_out() {
    let server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    let (log, start, memory) = (server.log(), Instant::now(), server.memory_kib("VmRSS"));
    // A quarter of each kind: nothing, half a TLS record, a unix socket, half a frame.
    let socket = server.unix.strip_prefix("unix:").unwrap();
    let half_record = [&[22, 3, 1, 0x40, 0][..], &[1; 8_000]].concat();
    let half_frame = [&16_000u32.to_le_bytes()[..], &[b' '; 15_000]].concat();
    let (mut tcp, mut unix) = (Vec::new(), Vec::new());
    for n in 0..500 {
        tcp.extend([connect(&server), connect(&server)]);
        unix.extend([UnixStream::connect(socket).unwrap(), UnixStream::connect(socket).unwrap()]);
        // Who was shown out already cannot be written to.
        let _ = tcp[2 * n].write_all(&half_record);
        let _ = unix[2 * n].write_all(&half_frame);
        if n % 100 == 99 {
            server.run(&["true"]).expect(0);
        }
    }
    // Without one of them having come to the end of the time that strangers have.
    is_seen("somebody who is served among them", || {
        let late = || status(&server)["refused"]["late"].as_u64().unwrap();
        let _crowd: Vec<_> = (0..PLACES).map(|_| connect(&server)).collect();
        let before = late();
        server.run(&["true"]).expect(0);
        late() == before
    });
    is_well_and_quiet(&server, &log, start);
    let grown = server.memory_kib("VmHWM").saturating_sub(memory);
    assert!(grown < GROWTH_KIB, "grown by {grown} KiB");
}
