//! ssh-agents: OpenSSH's own, and one that does what a test makes it do.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::soft_key::string;
use super::wait_until;

/// OpenSSH's ssh-agent; ended on drop.
pub(crate) struct RealAgent {
    child: Child,
    dir: TempDir,
}

impl RealAgent {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        wait_until("ssh-agent's socket", || UnixStream::connect(&socket).is_ok());
        Self { child, dir }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// Has it hold the key of a file that needs no passphrase.
    pub(crate) fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        command.arg("-q").arg(key).env("SSH_AUTH_SOCK", self.socket()).stderr(Stdio::null());
        assert!(command.status().unwrap().success());
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What a fake agent answers to a message (its type and the rest): bytes to send, or none to close.
pub(crate) type Script = dyn Fn(u8, &[u8]) -> Option<Vec<u8>> + Send + Sync;

/// An agent that does as it is told.
pub(crate) struct FakeAgent {
    dir: TempDir,
    asked: Arc<Mutex<Vec<u8>>>,
}

/// The number of the request for the list of keys.
pub(crate) const LIST: u8 = 11;
/// The number of the request for a signature.
pub(crate) const SIGN: u8 = 13;

/// An answer with its length.
pub(crate) fn answer(kind: u8, body: &[u8]) -> Vec<u8> {
    string(&[&[kind], body].concat())
}

/// The answer that lists these keys.
pub(crate) fn listed(keys: &[Vec<u8>]) -> Vec<u8> {
    let mut body = u32::try_from(keys.len()).unwrap().to_be_bytes().to_vec();
    for key in keys {
        body.extend([string(key), string(b"fake")].concat());
    }
    answer(12, &body)
}

/// The key and the message of a request for a signature.
pub(crate) fn to_sign(mut body: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut take = || {
        let (length, rest) = body.split_at(4);
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let (taken, rest) = rest.split_at(length);
        body = rest;
        taken.to_vec()
    };
    (take(), take())
}

impl FakeAgent {
    pub(crate) fn start(
        script: impl Fn(u8, &[u8]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("agent")).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (script, noted): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, noted) = (Arc::clone(&script), Arc::clone(&noted));
                std::thread::spawn(move || serve(stream, &*script, &noted));
            }
        });
        Self { dir, asked }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent")
    }

    /// How often it was asked to sign.
    pub(crate) fn signatures(&self) -> usize {
        self.asked.lock().unwrap().iter().filter(|kind| **kind == SIGN).count()
    }
}

fn serve(mut stream: UnixStream, script: &Script, noted: &Mutex<Vec<u8>>) {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut message = vec![0; u32::from_be_bytes(length) as usize];
        if stream.read_exact(&mut message).is_err() {
            return;
        }
        noted.lock().unwrap().push(message[0]);
        match script(message[0], &message[1..]) {
            Some(bytes) => drop(stream.write_all(&bytes)),
            None => return,
        }
    }
}
