//! Proofs that were made for something else, told to a real server over real TLS; what signs is OpenSSH.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rexec::conn::FrameReader;
use rexec::identity::{Channel, PublicKey, auth_text};
use rexec::proto::frame::{Limits, encode};
use rexec::transport::{HostTrust, Stream, connect};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use super::auth::Abroad;
use super::support::PATIENCE;

/// A connection on which nothing was said yet.
struct Secured {
    stream: Stream,
    channel: Channel,
}

impl Secured {
    async fn new(abroad: &Abroad) -> Self {
        let trust = HostTrust { pins: vec![abroad.host_key().1], ..HostTrust::default() };
        let endpoint = abroad.server.addr.parse().unwrap();
        let made = connect(&endpoint, Instant::now() + PATIENCE, Arc::new(trust)).await.unwrap();
        made.cork.pull_out();
        Self { stream: made.stream, channel: made.channel.unwrap() }
    }

    /// What the server answers to this `hello`.
    async fn says(mut self, hello: &Value) -> Value {
        let mut frame = Vec::new();
        encode(hello, b"", &mut frame).unwrap();
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut reader = FrameReader::new(self.stream, Limits::FULL);
        let answer = reader.next(Some(PATIENCE)).await.unwrap().unwrap();
        answer.header().unwrap()
    }
}

/// The key that the server lists.
fn listed(abroad: &Abroad) -> PublicKey {
    let line = std::fs::read_to_string(abroad.key.with_extension("pub")).unwrap();
    PublicKey::from_base64(line.split(' ').nth(1).unwrap()).unwrap()
}

/// `ssh-keygen -Y sign`, by that key.
fn signed(abroad: &Abroad, namespace: &str, text: &str) -> String {
    let mut command = Command::new("ssh-keygen");
    command.args(["-Y", "sign", "-n", namespace, "-f"]).arg(&abroad.key);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    String::from_utf8(done.stdout).unwrap()
}

fn hello(key: &PublicKey, signature: &str) -> Value {
    json!({"type": "hello", "client": "x", "key": key.to_base64(), "signature": signature})
}

#[track_caller]
fn refused(answer: &Value) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("refused"), &json!("not_authorized")));
}

#[tokio::test]
async fn a_hello_that_let_somebody_in_lets_nobody_in_on_another_connection() {
    let abroad = Abroad::new("");
    let key = listed(&abroad);
    let (first, second) = (Secured::new(&abroad).await, Secured::new(&abroad).await);
    let Channel { host_key, exporter } = &first.channel;
    let text = auth_text(host_key, None, &key, exporter).unwrap();
    let hello = hello(&key, &signed(&abroad, "rexec", &text));
    refused(&second.says(&hello).await);
    assert_eq!(first.says(&hello).await["type"], "welcome");
    refused(&Secured::new(&abroad).await.says(&hello).await);
}

#[tokio::test]
async fn a_signature_for_another_purpose_role_host_or_user_lets_nobody_in() {
    let abroad = Abroad::new("");
    let key = listed(&abroad);
    for (namespace, here, there, is_good) in [
        ("rexec", "", "", true),
        ("file", "", "", false),
        ("git", "", "", false),
        ("rexec@example.com", "", "", false),
        ("rexec", "role client", "role server", false),
        ("rexec", "\nuser -\n", "\nuser root\n", false),
        ("rexec", "host-key SHA256:", "host-key SHA256:A", false),
    ] {
        let secured = Secured::new(&abroad).await;
        let Channel { host_key, exporter } = &secured.channel;
        let text = auth_text(host_key, None, &key, exporter).unwrap();
        let signature = signed(&abroad, namespace, &text.replacen(here, there, 1));
        let answer = secured.says(&hello(&key, &signature)).await;
        match is_good {
            true => assert_eq!(answer["type"], "welcome"),
            false => refused(&answer),
        }
    }
    // A second user's name beside a proof for none.
    let secured = Secured::new(&abroad).await;
    let Channel { host_key, exporter } = &secured.channel;
    let text = auth_text(host_key, None, &key, exporter).unwrap();
    let mut hello = hello(&key, &signed(&abroad, "rexec", &text));
    hello["user"] = "root".into();
    assert_eq!(secured.says(&hello).await["type"], "refused");
}
