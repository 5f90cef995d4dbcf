//! What machines read of a batch: events as JSON Lines, and the summary, from which a batch can be resumed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::cli::place::Place;
use crate::cli::report::{text_or_base64, without_orders};
use crate::client::Destination;
use crate::client::batch::plan::StepSpec;
use crate::proto::header::Stream;
use crate::proto::verdict::Verdict;
use crate::units::millis;

/// The version of the format.
pub(super) const VERSION: u32 = 1;

/// A host of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HostRow {
    pub(super) name: String,
    pub(super) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_key: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<PathBuf>,
}

impl HostRow {
    pub(super) fn of(name: &str, place: &Place) -> Self {
        Self {
            name: name.into(),
            address: place.destination().to_string(),
            host_key: place.host_key.map(|print| print.to_string()),
            identity: place.identity.clone(),
        }
    }

    /// The place that it stands for.
    pub(super) fn place(&self) -> Result<Place, String> {
        let fault = |e: &dyn std::fmt::Display| format!("{}: {e}", self.name);
        let host_key = self.host_key.as_ref().map(|print| print.parse()).transpose();
        let address: Destination = self.address.parse().map_err(|e| fault(&e))?;
        Ok(Place {
            host_key: host_key.map_err(|e: crate::identity::NotAFingerprint| fault(&e))?,
            identity: self.identity.clone(),
            ..address.into()
        })
    }
}

/// What the batch is: enough to run it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) version: u32,
    pub(super) hosts: Vec<HostRow>,
    pub(super) steps: Vec<StepSpec>,
}

/// The verdict on one step of one host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) host: String,
    /// The step's number, from 1.
    pub(super) step: usize,
    pub(super) verdict: String,
    /// What makes it differ from others of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    /// The id of the run that was asked for last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<String>,
    /// When that was, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sent_ms: Option<u64>,
    pub(super) attempts: u32,
    pub(super) elapsed_ms: u64,
    /// What the server said of its end: digests are of what the command wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<Verdict>,
}

/// One line of `--json`. Hosts by name, steps by their number, from 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Line {
    Batch(Subject),
    HostBegun {
        host: String,
    },
    StepBegun {
        host: String,
        step: usize,
        run: String,
        attempt: u32,
        sent_ms: u64,
    },
    Retrying {
        host: String,
        step: usize,
        pause_ms: u64,
        message: String,
    },
    Output {
        host: String,
        step: usize,
        stream: Stream,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
        /// Of bytes that are not UTF-8.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
    },
    StepEnded(Box<Row>),
    HostEnded {
        host: String,
    },
    Halted {
        why: String,
    },
    Summary(Summary),
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) status: u8,
    pub(super) began_ms: u64,
    pub(super) elapsed_ms: u64,
    pub(super) counts: BTreeMap<String, usize>,
    #[serde(flatten)]
    pub(super) subject: Subject,
    pub(super) verdicts: Vec<Row>,
}

impl Line {
    /// One line of JSON, [without orders](without_orders).
    pub(super) fn text(&self) -> String {
        // Every key is a string, so this cannot fail.
        let line = serde_json::to_string(self).unwrap_or_default();
        without_orders(&line) + "\n"
    }

    pub(super) fn output(host: &str, step: usize, stream: Stream, bytes: Vec<u8>) -> Self {
        let (text, base64) = text_or_base64(bytes);
        Self::Output { host: host.into(), step: step + 1, stream, text, base64 }
    }
}

/// Milliseconds since 1970; 0 for what was before.
pub(super) fn unix_ms(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// What [`unix_ms`] was made of; none for what no clock shows.
pub(super) fn from_unix_ms(ms: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

/// The cause of a `lost` of which nobody knows how it ended.
pub(super) const LOST_END: &str = "end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_gives_no_orders_and_says_the_same() {
        let text = "####[group]x\n##vso[task]\n::add-mask::\x1b[2J\n";
        let plain = Line::output("a:1", 0, Stream::Stdout, text.into()).text();
        assert!(
            !plain.contains("##") && !plain.contains('\x1b') && !plain.starts_with("::"),
            "{plain}"
        );
        let read: serde_json::Value = serde_json::from_str(&plain).unwrap();
        assert_eq!(read["text"], text);
    }
}
