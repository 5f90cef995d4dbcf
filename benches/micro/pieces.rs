//! What is measured.

use std::hint::black_box;
use std::io::Write;
use std::net::Ipv4Addr;

use rexec::identity::{
    AccessFiles, Authorized, Caller, Fingerprint, Handed, Key, Presence, PublicKey, Sought,
    sign_auth, verify_auth,
};
use rexec::proto::digest::{Algorithm, Digest, Running};
use rexec::proto::frame::{Decoded, Limits, decode, encode};
use rexec::proto::header::{ClientHeader, Form, Output, ServerHeader, Started, Stream};
use rexec::runs::journal::{Accepted, Event, Journal};
use rexec::runs::shares::Usage;
use rexec::server::policy::{Asked, Command, Policy, Rights, Subject, decide};
use serde_json::json;
use tempfile::{NamedTempFile, TempDir};

/// One piece of work, with what it needs made before.
pub(crate) type Piece = Box<dyn FnMut()>;

type Prepare = fn() -> Piece;

/// Their names, and how they are prepared.
pub(crate) const ALL: [(&str, Prepare); 12] = [
    ("frame/encode", encode_frame),
    ("frame/decode", decode_frame),
    ("header/run", read_run),
    ("header/started", read_started),
    ("header/output", read_output),
    ("digest/64KiB", digest_much),
    ("digest/short", digest_little),
    ("login/prove", prove),
    ("login/verify", verify),
    ("keys/1000-changed", look_up_key),
    ("journal/line", add_line),
    ("policy/decide", decide_command),
];

/// It opens nothing.
const KEY: &str = "\
-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW
QyNTUxOQAAACBkLwLRxQtOOVXBX2yoxX8IxZWNyTUqIcMBwe7Y66WZZwAAAJBFySVuRckl
bgAAAAtzc2gtZWQyNTUxOQAAACBkLwLRxQtOOVXBX2yoxX8IxZWNyTUqIcMBwe7Y66WZZw
AAAEB+r/FWZG38Rt4LW0AF6hPTYqzU8d5Eh6YL5xSi8cA0Z2QvAtHFC045VcFfbKjFfwjF
lY3JNSohwwHB7tjrpZlnAAAADW9wZW5zIG5vdGhpbmc=
-----END OPENSSH PRIVATE KEY-----
";
const EXPORTER: [u8; 32] = [7; 32];
/// As much as one read of a full pipe brings.
const BODY: usize = 64 << 10;

fn encode_frame() -> Piece {
    let (header, body, mut out) = (output(), vec![b'x'; 100], Vec::new());
    Box::new(move || {
        out.clear();
        encode(&header, &body, &mut out).expect("a short frame");
        black_box(&out);
    })
}

fn decode_frame() -> Piece {
    let bytes = framed(&output(), &[b'x'; 100]);
    Box::new(move || {
        black_box(decode(black_box(&bytes), Limits::FULL).expect("what was encoded"));
    })
}

fn read_run() -> Piece {
    let bytes = framed(
        &json!({"type": "run", "id": "5f1c2a9e-0d3b", "form": "shell", "words": 1, "stdin": false}),
        b"true\0",
    );
    Box::new(move || {
        black_box(read::<ClientHeader>(&bytes));
    })
}

fn read_started() -> Piece {
    let started = Started {
        run: "5f1c2a9e-0d3b".into(),
        pid: 4711,
        attached: false,
        stdin_offset: 0,
        stdin_hash: Digest::of(b""),
        stdin_grant: 1 << 20,
        hash: Algorithm::Sha256.name().into(),
    };
    let bytes = framed(&ServerHeader::Started(started), b"");
    Box::new(move || {
        black_box(read::<ServerHeader>(&bytes));
    })
}

fn read_output() -> Piece {
    let bytes = framed(&output(), &[b'x'; 100]);
    Box::new(move || {
        black_box(read::<ServerHeader>(&bytes));
    })
}

fn digest_much() -> Piece {
    let body = vec![b'x'; BODY];
    let mut running = Running::new();
    Box::new(move || running.update(black_box(&body)))
}

fn digest_little() -> Piece {
    Box::new(|| {
        black_box(Digest::of(black_box(b"one short line\n")));
    })
}

fn prove() -> Piece {
    let (key, host) = (key(), Fingerprint::of_blob(b"host"));
    Box::new(move || {
        black_box(sign_auth(&key, &host, None, &EXPORTER).expect("a key that signs"));
    })
}

fn verify() -> Piece {
    let (key, host) = (key(), Fingerprint::of_blob(b"host"));
    let proof = sign_auth(&key, &host, None, &EXPORTER).expect("a key that signs");
    let text = key.public().to_base64();
    let presence = Presence { touch: false, verify: false };
    Box::new(move || {
        let key = PublicKey::from_base64(&text).expect("a key");
        verify_auth(&key, &proof, &host, None, &EXPORTER, presence).expect("a proof");
    })
}

/// The first question after a list of 1,000 lines was changed. Each tenth has options.
fn look_up_key() -> Piece {
    let one = key();
    let blob = |n: u64| [&one.public().blob()[..43], &n.to_be_bytes()].concat();
    let line = |n: u64| {
        let key = PublicKey::from_blob(&blob(n)).expect("any 32 bytes are a key");
        let options = if n.is_multiple_of(10) { "restrict,from=\"127.0.0.0/8,10.*\" " } else { "" };
        format!("{options}{key} user-{n}@example.com\n")
    };
    let text: String = (0..1000).map(line).collect();
    let texts = [text.clone(), text + "\n"];
    let asked = Sought::Key(PublicKey::from_blob(&blob(500)).expect("a key"));
    let caller = Caller { address: Some(Ipv4Addr::LOCALHOST.into()), loopback: true };
    let handed = Handed::new("list".into());
    let authorized = Authorized::as_user("me", AccessFiles::default(), vec![handed.clone()]);
    let mut turn = texts.into_iter().cycle();
    Box::new(move || {
        handed.put(Ok(turn.next()));
        authorized.lookup(std::slice::from_ref(&asked), caller).found.expect("it is listed");
    })
}

fn add_line() -> Piece {
    let folder = tempfile::tempdir().expect("a folder");
    let (journal, _) = Journal::open(folder.path(), |_, _| ()).expect("a journal");
    let event = Event::Accepted(Accepted {
        run: "5f1c2a9e-0d3b".into(),
        identity: "local:1000".into(),
        boottime_ms: 123_456_789,
        mark: "0123456789abcdef".into(),
        command: Some("make -j4 test".into()),
        asked: None,
        uid: None,
        digest: Digest::of(b"make -j4 test\0"),
        durable: false,
    });
    Box::new(move || {
        let _in_folder: &TempDir = &folder;
        journal.add(&event).expect("a line");
    })
}

fn decide_command() -> Piece {
    let text = "[rule.r]\nfor = [\"local\"]\nallow = [[\"git\", \"pull\"], [\"restart\", \"{s:[a-z-]+}\"]]\n";
    let policy = Policy::parse(text).expect("a policy");
    Box::new(move || {
        let words = vec![&b"restart"[..], b"web-server"];
        let command = Command { form: Form::Argv, words, cwd: None, env: vec![] };
        let subject = Subject { identity: "local:0", rights: Rights::default() };
        black_box(decide(&policy, subject, &Asked::Run(command), Usage::default()).is_ok());
    })
}

fn output() -> ServerHeader {
    ServerHeader::Output(Output {
        stream: Stream::Stdout,
        seq: 3,
        offset: 4096,
        hash: Digest::of(b"output"),
        filename: None,
        time_ms: 12,
    })
}

fn framed<H: serde::Serialize>(header: &H, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(header, body, &mut bytes).expect("a short frame");
    bytes
}

fn read<H: serde::de::DeserializeOwned>(bytes: &[u8]) -> H {
    match decode(black_box(bytes), Limits::FULL) {
        Ok(Decoded::Frame(frame)) => serde_json::from_slice(frame.header).expect("a header"),
        other => panic!("{other:?}"),
    }
}

/// The same each time, as what a signature costs to verify differs from key to key.
fn key() -> Key {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(KEY.as_bytes()).expect("a file");
    Key::load(file.path()).expect("a key")
}
