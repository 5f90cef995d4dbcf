//! What machines read of a run: `--json` and `--verdict`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::output::print_all;
use super::report_file::Unwritten;
use super::status::Answer;
use super::visible::json_for_stdout;
use crate::proto::verdict::Verdict;

/// One object: the whole truth about a run.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    /// The run, as it was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    /// The client's exit status.
    status: u8,
    /// What the status says, by a stable name.
    outcome: &'static str,
    /// The line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    /// The code on the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// How it ended, if it started and that is known.
    verdict: Option<&'a Verdict>,
    #[serde(flatten)]
    output: Option<Texts>,
}

/// Both streams, as text where they are text.
#[derive(Debug, Serialize)]
struct Texts {
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        answer: &'a Answer,
        verdict: Option<&'a Verdict>,
        output: Option<[Vec<u8>; 2]>,
    ) -> Self {
        Self {
            run: None,
            status: answer.status.code(),
            outcome: answer.status.name(),
            message: answer.line.as_deref(),
            code: answer.code.map(crate::proto::code::Code::name),
            verdict,
            output: output.map(texts),
        }
    }

    /// The same of a run that the command line names.
    pub(super) fn of(self, run: &'a str) -> Self {
        Self { run: Some(run), ..self }
    }

    /// One line of JSON, [without orders](without_orders).
    pub(super) fn line(&self) -> serde_json::Result<String> {
        Ok(without_orders(&serde_json::to_string(self)?) + "\n")
    }

    /// Prints it.
    pub(super) fn print(&self) -> Result<(), Unwritten> {
        let line = self.line().map_err(std::io::Error::from);
        line.and_then(|line| print_all(json_for_stdout(line).as_bytes()))
            .map_err(|e| Unwritten::on_stdout(format!("cannot write the report: {e}"), &e))
    }
}

/// CI systems obey `##[command]` wherever it stands: the second sign, which JSON has in strings alone, is written
/// as its number.
pub(super) fn without_orders(json: &str) -> String {
    json.replace("##", "#\\u0023")
}

fn texts([stdout, stderr]: [Vec<u8>; 2]) -> Texts {
    let (stdout, stdout_base64) = text_or_base64(stdout);
    let (stderr, stderr_base64) = text_or_base64(stderr);
    Texts { stdout, stdout_base64, stderr, stderr_base64 }
}

/// Bytes as text if they are UTF-8, else in base64.
pub(super) fn text_or_base64(bytes: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(e) => (None, Some(STANDARD.encode(e.as_bytes()))),
    }
}
