//! A server that says what the test makes it say, behind a unix socket.

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rexec::proto::digest::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::raw::Raw;
use super::{Client, Ran};

/// A server that is none. Its threads end when their clients close.
pub(crate) struct Fake {
    dir: TempDir,
    connections: Arc<AtomicUsize>,
}

impl Fake {
    /// Follows `script` on every connection.
    pub(crate) fn start(script: impl Fn(&mut Raw) + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (script, count) = (Arc::new(script), Arc::clone(&connections));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::Relaxed);
                let script = Arc::clone(&script);
                thread::spawn(move || script(&mut Raw::over(stream)));
            }
        });
        Self { dir, connections }
    }

    /// Welcomes every client, says that its run has started, and goes on with `script` and the run's id.
    pub(crate) fn started(script: impl Fn(&mut Raw, &str) + Send + Sync + 'static) -> Self {
        Self::start(move |raw| {
            let id = welcome(raw);
            raw.send(&started(&id), b"");
            script(raw, &id);
        })
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.dir.path().join("socket").display())
    }

    /// A client of it that does not look for a lost server for long.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.dir.path()).args(&["--reconnect-timeout", "300ms", &self.address()])
    }

    /// Runs `rexec VERB ADDR RUN`, for a client that does not look for a lost server for long.
    pub(crate) fn verb(&self, verb: &str, run: Option<&str>) -> Ran {
        let client = Client::new(self.dir.path()).args(&[verb, "--reconnect-timeout", "300ms"]);
        client.arg(self.address()).args(run.as_slice()).run()
    }

    /// Runs `rexec ADDR true`.
    pub(crate) fn run(&self) -> Ran {
        self.client().arg("true").run()
    }
}

/// Lets a client in; the id of the run that it asks for.
pub(crate) fn welcome(raw: &mut Raw) -> String {
    raw.expect("hello");
    raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
    let (run, _) = raw.next().unwrap();
    run["id"].as_str().unwrap().to_owned()
}

/// The header that says that a run has started.
pub(crate) fn started(id: &str) -> Value {
    json!({
        "type": "started", "run": id, "pid": 1, "attached": false, "stdin_offset": 0,
        "stdin_hash": Digest::of(b""), "stdin_grant": 65536, "hash": "sha256"
    })
}

/// The header of a piece of output; `whole` is the stream up to its end.
pub(crate) fn output(stream: &str, seq: u64, offset: u64, whole: &[u8]) -> Value {
    json!({
        "type": "output", "stream": stream, "seq": seq, "offset": offset,
        "hash": Digest::of(whole), "filename": null, "time_ms": 1
    })
}

/// A verdict of success over this stdout.
pub(crate) fn verdict(id: &str, seq: u64, stdout: &[u8]) -> Value {
    let end = |bytes: &[u8]| json!({"size": bytes.len(), "hash": Digest::of(bytes), "end": "eof"});
    json!({
        "type": "verdict", "seq": seq, "run": id, "end": {"exited": {"code": 0}}, "stopped": null,
        "stdout": end(stdout), "stderr": end(b""), "started": "2026-01-01T00:00:00.000Z",
        "elapsed_ms": 1, "usage": {"user_ms": 0, "system_ms": 0}, "containment": "marks",
        "left_running": 0
    })
}
