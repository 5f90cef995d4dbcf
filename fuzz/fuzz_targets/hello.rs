//! Nobody gets in without a proof, whatever they say.
//!
//! The first byte chooses where the peer comes from and whether the rest is the stream itself or one
//! header a line, each put into a frame.

#![no_main]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use rexec::conn::FrameReader;
use rexec::handshake::{HELLOS_LIMIT, Login, Origin, judge};
use rexec::identity::{AccessFiles, Authorized, Caller, Channel, Granted, Identity, PublicKey};
use rexec::proto::code::Code;
use rexec::proto::frame::{Limits, PREFIX};

/// The local identity: its private half is nowhere.
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIO+DTkkHCrlYqEAhkBNqoY+YOK1RE4kjIwUF851ZuOiM";

fuzz_target!(|data: &[u8]| {
    let Some((&mode, rest)) = data.split_first() else { return };
    let stream = if mode & 1 == 0 { rest.to_vec() } else { framed(rest) };
    let hellos = if mode & 2 == 0 { 0 } else { HELLOS_LIMIT - 1 };
    let key = PublicKey::from_base64(KEY).unwrap();
    let authorized = Arc::new(Authorized::new(AccessFiles::default(), &key));
    let loopback = mode & 4 == 0;
    let tls = Origin::Tls {
        channel: Channel { host_key: key.fingerprint(), exporter: [7; 32] },
        caller: Caller { address: Some([192, 0, 2, 1].into()), loopback },
    };
    match login(&stream, &tls, &authorized, hellos) {
        Some(Login::In { .. }) => panic!("let in without a proof"),
        Some(Login::Again(refused)) => {
            assert!(hellos == 0 && loopback && refused.code == Code::TryKey);
            assert_eq!(refused.key, Some(key.fingerprint().to_string()));
        }
        Some(Login::Out { refused, .. }) => assert!(refused.code != Code::TryKey),
        None => {}
    }
    let unix = Origin::Unix(Identity::Local { uid: 1000 });
    match login(&stream, &unix, &authorized, hellos) {
        Some(Login::In { granted, client, .. }) => {
            assert_eq!(granted, Granted::local(1000));
            assert!(client.chars().count() <= 64 && !client.contains(char::is_control));
        }
        Some(Login::Again(_)) => panic!("no key is asked for on a unix socket"),
        Some(Login::Out { refused, .. }) => assert_eq!(refused.code, Code::Unsupported),
        None => {}
    }
});

fn framed(lines: &[u8]) -> Vec<u8> {
    let mut stream = Vec::with_capacity(lines.len() + 64);
    for line in lines.split(|b| *b == b'\n') {
        stream.extend_from_slice(&u32::try_from(line.len()).unwrap().to_le_bytes()[..PREFIX]);
        stream.extend_from_slice(line);
    }
    stream
}

fn login(
    stream: &[u8],
    origin: &Origin,
    authorized: &Arc<Authorized>,
    hellos: usize,
) -> Option<Login> {
    static RUNTIME: OnceLock<Arc<tokio::runtime::Runtime>> = OnceLock::new();
    let runtime = RUNTIME
        .get_or_init(|| Arc::new(tokio::runtime::Builder::new_current_thread().build().unwrap()));
    let mut reader = FrameReader::new(stream, Limits::HELLO);
    runtime.block_on(judge(&mut reader, origin, authorized, hellos, |_| ())).ok()
}
