//! The bytes of each kind.

use super::*;
use crate::proto::digest::Digest;

/// The last is over many reads and holds every byte.
const COMMANDS: [&str; 6] = [
    "echo hello",
    "  printf 'a\\0b'\n",
    "echo out; echo wrong >&2; echo out",
    "true",
    "no-such-program-anywhere 2>&1",
    "head -c 500000 /dev/zero | tr '\\000' '\\377'; printf '\\000\\001\\n'",
];

fn bodies() -> [Vec<u8>; 6] {
    [
        b"hello\n".to_vec(),
        b"a\0b".to_vec(),
        b"wrong\n".to_vec(),
        Vec::new(),
        local("no-such-program-anywhere 2>&1"),
        [&[0xff; 500_000][..], b"\0\x01\n"].concat(),
    ]
}

/// What a command prints without any server.
fn local(command: &str) -> Vec<u8> {
    std::process::Command::new("/bin/sh").args(["-c", command]).output().unwrap().stdout
}

fn framed(kind: Kind, body: &[u8]) -> Vec<u8> {
    let length = |n: usize| i32::try_from(n).unwrap().to_le_bytes();
    match kind {
        Kind::Raw => body.to_vec(),
        Kind::Length => [&length(body.len()), body].concat(),
        Kind::Json => {
            let hash = Digest::of(body);
            let header =
                format!("{{\"filename\": null, \"hash\": \"{hash}\", \"size\": {}}}", body.len());
            [&length(header.len())[..], header.as_bytes(), body].concat()
        }
    }
}

#[tokio::test]
async fn every_kind_byte_for_byte_and_many_commands_on_one_connection() {
    for kind in [Kind::Json, Kind::Length, Kind::Raw] {
        let server = Server::start(kind);
        let mut peer = server.connect().await;
        for (command, body) in COMMANDS.iter().zip(bodies()) {
            let expected = framed(kind, &body);
            // Nothing would tell its end, and the next could come in the same read.
            if expected.is_empty() {
                continue;
            }
            peer.say(command).await;
            assert!(peer.take(expected.len()).await == expected, "{kind}: {command}");
        }
    }
}

#[tokio::test]
async fn the_tutorials_client_reads_each_kind() {
    for kind in [Kind::Json, Kind::Length] {
        let server = Server::start(kind);
        let output = python(kind, &server, &COMMANDS).await;
        let expected: String =
            bodies().iter().map(|body| format!("{} {}\n", body.len(), Digest::of(body))).collect();
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{kind}: {output:?}");
        assert!(output.status.success());
    }
    let server = Server::start(Kind::Raw);
    let output = python(Kind::Raw, &server, &COMMANDS[..3]).await;
    let expected: String =
        bodies()[..3].iter().map(|b| format!("{} {}\n", b.len(), Digest::of(b))).collect();
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{output:?}");
}

#[tokio::test]
async fn an_empty_command_has_no_reply() {
    let server = Server::start(Kind::Length);
    let mut peer = server.connect().await;
    peer.say(" \r\n\t").await;
    // A second white space is read with or before what follows: either way one reply comes.
    peer.say("\n").await;
    assert_eq!(peer.ask("echo one").await, "one\n");
    peer.say("\n").await;
    assert_eq!(peer.ask("\necho two\n\n").await, "two\n");
}

#[tokio::test]
async fn a_short_reply_comes_in_one_piece() {
    let server = Server::start(Kind::Json);
    let mut peer = server.connect().await;
    peer.say("echo hello").await;
    let mut buffer = [0; 1024];
    let len = within(peer.0.read(&mut buffer)).await.unwrap();
    assert_eq!(buffer[..len], framed(Kind::Json, b"hello\n"));
}

#[tokio::test]
async fn a_command_has_a_clean_environment_and_nothing_on_stdin() {
    let server = Server::start(Kind::Length);
    let mut peer = server.connect().await;
    assert_eq!(peer.ask("cat; echo $REXEC_RUN").await, "classic-1\n");
    assert_eq!(peer.ask("readlink /proc/self/fd/0").await, "/dev/null\n");
    assert_eq!(peer.ask("echo $CARGO_MANIFEST_DIR").await, "\n");
}

#[tokio::test]
async fn what_stays_in_the_background_holds_nothing_up() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let server = Server::start(Kind::Length);
    let mut peer = server.connect().await;
    let command = format!("sleep 600 & echo $! > {}; echo started", file.display());
    assert_eq!(peer.ask(&command).await, "started\n");
    let pid = pid_in(&file).await;
    assert!(!is_gone(&pid), "it ended by itself, and is not stopped");
    assert_eq!(peer.ask(&format!("kill {pid}")).await, "");
}

#[tokio::test]
async fn ipv6_and_unix_sockets_are_served_alike() {
    let server = Server::with(Kind::Length, "[::1]:0", fs::euid(), Limits::DEFAULT);
    assert_eq!(server.connect().await.ask("echo six").await, "six\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = format!("unix:{}", path.display());
    let _server = Server::with(Kind::Raw, &address, fs::euid(), Limits::DEFAULT);
    let mut unix = tokio::net::UnixStream::connect(&path).await.unwrap();
    unix.write_all(b"echo unix").await.unwrap();
    let mut reply = [0; 5];
    within(unix.read_exact(&mut reply)).await.unwrap();
    assert_eq!(&reply, b"unix\n");
}

#[tokio::test]
async fn a_shell_that_is_missing_is_said_in_the_reply() {
    let bound = bind(&"127.0.0.1:0".parse().unwrap()).unwrap().pop().unwrap();
    let listener = bound.register().unwrap();
    let Endpoint::Tcp { port, .. } = listener.address().clone() else { panic!() };
    let settings = ClassicSettings::new("/no/such/shell".into(), Scanner::new().unwrap());
    let _task = tokio::spawn(serve(listener, Kind::Length, settings, std::future::pending()));
    let mut peer = Peer(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    let reply = peer.ask("echo").await;
    assert!(reply.starts_with("rexec-server: \"/no/such/shell\": program not found"), "{reply}");
    assert_eq!(reply.lines().count(), 1);
}
