//! The list of runs.

use std::sync::Arc;

use super::{Requests, on_disk};
use crate::proto::code::Code;
use crate::proto::frame::BODY_LIMIT;
use crate::proto::header::ServerHeader;
use crate::proto::listing::RunInfo;
use crate::server::end::SessionEnd;
use crate::server::policy::{Asked, Whose};

/// Most runs of one list: a client that has more asks for the newest.
pub const LIST_LIMIT: usize = 10_000;
/// How many bytes of JSON one frame holds of a list. Ten thousand of the longest, with a command
/// of 200 control characters, are then in fewer frames than may wait for a client.
const LIST_CHUNK: usize = BODY_LIMIT;

impl Requests {
    pub(super) async fn list(&mut self, limit: Option<u64>, all: bool) -> Result<(), SessionEnd> {
        if !self.may(&Asked::List(if all { Whose::All } else { Whose::Own }))? {
            return Ok(());
        }
        let limit = limit.map_or(LIST_LIMIT, |n| usize::try_from(n).unwrap_or(LIST_LIMIT));
        let (host, identity) = (Arc::clone(&self.host), Arc::clone(&self.identity));
        host.looked_for((!all).then_some(&identity)).await;
        let (runs, total) =
            on_disk(move || host.list((!all).then_some(&identity), limit.min(LIST_LIMIT))).await?;
        let mut chunks = listing_chunks(&runs)?.into_iter().peekable();
        while let Some(body) = chunks.next() {
            let more = chunks.peek().is_some();
            self.outbox.answer_with(&ServerHeader::Runs { more, total: total as u64 }, &body)?;
        }
        Ok(())
    }
}

/// The runs as arrays of JSON of at most [`LIST_CHUNK`] bytes, at least one.
fn listing_chunks(runs: &[RunInfo]) -> Result<Vec<Vec<u8>>, SessionEnd> {
    let mut chunks = Vec::new();
    let mut chunk = vec![b'['];
    for run in runs {
        let text = serde_json::to_vec(run)
            .map_err(|e| SessionEnd::word(Code::BadRequest, e.to_string()))?;
        if chunk.len() + text.len() + 2 > LIST_CHUNK {
            chunk.push(b']');
            chunks.push(std::mem::replace(&mut chunk, vec![b'[']));
        }
        if chunk.len() > 1 {
            chunk.push(b',');
        }
        chunk.extend(text);
    }
    chunk.push(b']');
    chunks.push(chunk);
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::digest::Digest;
    use crate::proto::id::ID_LIMIT;
    use crate::proto::listing::RunState;
    use crate::runs::clock::timestamp;
    use crate::server::ANSWERS_LIMIT;

    /// A run of which everything that is listed is as long as it may be.
    fn longest() -> RunInfo {
        let (size, hash) = (u64::MAX, Digest::of(b""));
        let end = json!({"size": size, "hash": hash, "end": "held"});
        let verdict = json!({
            "seq": size, "run": "x".repeat(ID_LIMIT), "end": {"signaled": {"signal": 64, "core_dumped": false}},
            "stopped": {"by": "client_lost", "after_ms": size}, "stdout": end, "stderr": end,
            "started": timestamp(), "elapsed_ms": size, "usage": {"user_ms": size, "system_ms": size},
            "containment": "cgroup", "left_running": u32::MAX, "stdin": {"size": size, "hash": hash},
            "journal": {"seq": size, "hash": hash},
        });
        RunInfo {
            run: "x".repeat(ID_LIMIT),
            identity: Some(format!("key:SHA256:{}", "x".repeat(43))),
            state: RunState::Running,
            durable: true,
            command: "\u{1}".repeat(200),
            accepted: timestamp(),
            age_s: size,
            bytes: size,
            disk: size,
            verdict: serde_json::from_value(verdict).unwrap(),
        }
    }

    #[test]
    fn the_longest_list_of_the_longest_runs_fits_into_frames_that_may_wait() {
        let runs = vec![longest(); LIST_LIMIT];
        let chunks = listing_chunks(&runs).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= BODY_LIMIT));
        assert!(chunks.len() <= ANSWERS_LIMIT / 2, "{}", chunks.len());
        let told: usize = chunks
            .iter()
            .map(|chunk| serde_json::from_slice::<Vec<RunInfo>>(chunk).unwrap().len())
            .sum();
        assert_eq!(told, LIST_LIMIT);
        assert_eq!(listing_chunks(&[]).unwrap(), [b"[]"]);
    }
}
