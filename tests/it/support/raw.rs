//! A peer made of hand-made frames, over the unix socket, where no proof is needed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rexec::proto::frame::{Decoded, Limits, decode, encode};
use serde_json::{Value, json};

use super::{PATIENCE, Server};

/// A connection that says what it is told to.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    buffer: Vec<u8>,
}

impl Raw {
    /// Connected; nothing said.
    pub(crate) fn connect(server: &Server) -> Self {
        Self::over(UnixStream::connect(server.unix.strip_prefix("unix:").unwrap()).unwrap())
    }

    /// A conversation over a connection that is there already.
    pub(crate) fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Connected and logged in.
    pub(crate) fn login(server: &Server) -> Self {
        let mut raw = Self::connect(server);
        raw.send(&json!({"type": "hello", "client": "raw"}), b"");
        raw.expect("welcome");
        raw
    }

    /// Sends one frame; one that cannot be sent because the server has closed is passed over.
    pub(crate) fn send(&mut self, header: &Value, body: &[u8]) {
        self.send_at_once(&[(header, body)]);
    }

    /// The same of several frames, which come in one piece.
    pub(crate) fn send_at_once(&mut self, frames: &[(&Value, &[u8])]) {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(header, body)| encode(header, body, &mut bytes).unwrap());
        self.send_bytes(&bytes);
    }

    /// Sends bytes that need not be a frame.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a `run` of shell text.
    pub(crate) fn run(&mut self, id: &str, text: &str, more: Value) {
        let mut header = json!({"type": "run", "id": id, "form": "shell", "words": 1});
        if let (Value::Object(header), Value::Object(more)) = (&mut header, more) {
            header.extend(more);
        }
        self.send(&header, format!("{text}\0").as_bytes());
    }

    /// The next frame; none when the server has closed.
    pub(crate) fn next(&mut self) -> Option<(Value, Vec<u8>)> {
        loop {
            if let Decoded::Frame(frame) = decode(&self.buffer, Limits::FULL).unwrap() {
                let header = serde_json::from_slice(frame.header).unwrap();
                let body = frame.body.to_vec();
                let len = frame.len();
                self.buffer.drain(..len);
                return Some((header, body));
            }
            let mut chunk = vec![0; 1 << 16];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(e) => panic!("reading from the server: {e}"),
            }
        }
    }

    /// The next frame, passing over heartbeats, which must be of this type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> (Value, Vec<u8>) {
        loop {
            let Some((header, body)) = self.next() else { panic!("closed instead of {kind}") };
            if header["type"] == "heartbeat" && kind != "heartbeat" {
                continue;
            }
            assert_eq!(header["type"], kind, "{header}");
            return (header, body);
        }
    }

    /// Every frame up to the first of this type, which is the last.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: &str) -> Vec<(Value, Vec<u8>)> {
        let mut frames = Vec::new();
        loop {
            let Some(frame) = self.next() else { panic!("closed before {kind}: {frames:?}") };
            let found = frame.0["type"] == kind;
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }
}
