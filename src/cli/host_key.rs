//! `rexec host-key`: what a server shows, for people who have another way to make sure.

use tokio::time::Instant;

use super::reach::At;
use super::status::Status;
use crate::client::LONGEST_CONNECT;
use crate::identity::known_hosts::line_for;
use crate::transport::{DialError, Endpoint, host_key};

/// Prints the key; the exit status.
pub(super) async fn show(at: &At) -> u8 {
    match asked(at).await {
        Ok(text) => super::print("rexec", &text),
        Err(line) => {
            at.reach.say(&line);
            Status::Unreached.code()
        }
    }
}

/// A comment with the fingerprint and the line, both fit for known_hosts.
async fn asked(at: &At) -> Result<String, String> {
    let endpoint = &at.addr.endpoint;
    let Endpoint::Tcp { host, port } = endpoint else {
        return Err("a server has no host key on a unix socket: the kernel says whose it is".into());
    };
    let deadline = Instant::now() + at.reach.connect_timeout.min(LONGEST_CONNECT);
    let shown = host_key(endpoint, deadline).await.map_err(|e: DialError| e.to_string())?;
    let key = shown.ok_or_else(|| format!("{endpoint} showed no host key"))?;
    at.reach.say(
        "this is what answers now; compare it with what the server prints before you trust it",
    );
    let line = line_for(&host.to_string(), *port, &key);
    Ok(format!("# {endpoint} {}, not verified\n{line}\n", key.fingerprint()))
}
