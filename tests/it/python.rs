//! A client in another language, written from docs/protocol.md alone, against a real server.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use super::support::{Ran, Server};

/// `python3 tests/protocol_client.py SOCKET args...` with this stdin.
fn python(socket: &str, args: &[&str], stdin: &[u8]) -> Ran {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protocol_client.py");
    let mut child = Command::new("python3")
        .args([script, socket.strip_prefix("unix:").unwrap_or(socket)])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A command that does not read to the end breaks the pipe.
        scope.spawn(move || drop(pipe.write_all(stdin)));
        Ran::of(child.wait_with_output().unwrap())
    })
}

/// Bytes without a pattern that a lost or doubled piece could hide in.
fn noise(count: usize) -> Vec<u8> {
    let mut x = 1u32;
    let mut next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x.to_be_bytes()[0]
    };
    (0..count).map(|_| next()).collect()
}

/// A unix socket that carries so many bytes of the first connection's way down, then cuts it.
fn cutting(server: &Server, after: usize) -> (PathBuf, thread::JoinHandle<usize>) {
    let path = server.dir().join("cut.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let target = server.unix.strip_prefix("unix:").unwrap().to_owned();
    let carrying = thread::spawn(move || {
        for (n, client) in listener.incoming().take(2).enumerate() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&target).unwrap());
            let (up_from, up_to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let up = thread::spawn(move || carry(up_from, up_to, usize::MAX));
            carry(server, client, if n == 0 { after } else { usize::MAX });
            up.join().unwrap();
        }
        2
    });
    (path, carrying)
}

/// Carries at most so many bytes, then closes both ends.
fn carry(mut from: UnixStream, mut to: UnixStream, mut left: usize) {
    let mut buffer = [0; 4096];
    while left > 0 {
        let most = buffer.len().min(left);
        let Ok(count @ 1..) = from.read(&mut buffer[..most]) else { break };
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        left -= count;
    }
    let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
}

#[test]
fn both_streams_and_the_code_come_back_to_a_client_written_from_the_page() {
    let server = Server::start(&[]);
    let script = r"printf 'a\000\377b'; printf 'e\000' >&2; exit 37";
    let ran = python(&server.unix, &["sh", "-c", script], b"").expect(37);
    assert_eq!((ran.stdout.as_slice(), ran.stderr.as_str()), (&b"a\0\xffb"[..], "e\0"));
    python(&server.unix, &["sh", "-c", "kill -9 $$"], b"").expect(128 + 9);
    let ran = python(&server.unix, &["no-such-program"], b"").expect(254);
    assert!(ran.stderr.contains("no-such-program"), "{}", ran.stderr);
}

#[test]
fn five_mebibytes_go_there_and_back_through_a_client_written_from_the_page() {
    let server = Server::start(&[]);
    let sent = noise(5 << 20);
    let ran = python(&server.unix, &["cat"], &sent).expect(0);
    assert!(ran.stdout == sent, "{} bytes came back", ran.stdout.len());
}

#[test]
fn a_client_written_from_the_page_goes_on_after_a_cut() {
    let server = Server::start(&[]);
    let sent = noise(1 << 20);
    let (path, carrying) = cutting(&server, 300_000);
    let count = server.dir().join("count");
    let script = format!("echo once >> {}; cat; echo done >&2; exit 5", count.display());
    let ran = python(path.to_str().unwrap(), &["sh", "-c", &script], &sent).expect(5);
    assert!(ran.stdout == sent, "{} bytes came back", ran.stdout.len());
    assert_eq!(ran.stderr, "done\n");
    assert_eq!(std::fs::read_to_string(count).unwrap(), "once\n");
    assert_eq!(carrying.join().unwrap(), 2, "the link was to be cut once");
}

#[test]
fn the_client_written_from_the_page_is_short() {
    let script = include_str!("../protocol_client.py");
    assert!(script.lines().count() < 150, "{} lines", script.lines().count());
}
