//! What an earlier batch did, from its report.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::Path;
use std::time::SystemTime;

use super::report::{LOST_END, Line, Row, Subject, VERSION, from_unix_ms};
use crate::client::batch::{Before, Outcome};

/// The longest line that is read. The summary of the largest batch, 65,536 hosts with some steps each, has less.
const LINE_LIMIT: u64 = 1 << 30;

/// An earlier batch.
pub(super) struct Earlier {
    pub(super) subject: Subject,
    /// What is known of each step of each host, by the host's name and the step's number.
    known: HashMap<(String, usize), Known>,
}

/// What is known of one step of one host.
enum Known {
    /// It was asked for, and the report ends there.
    Asked {
        run: String,
        sent_ms: u64,
    },
    Ended(Box<Row>),
}

/// Reads a report: the last line of `--json`, the file of `--report`, or as many lines of `--json` as a
/// program wrote that was killed.
pub(super) fn read(path: &Path) -> Result<Earlier, String> {
    let fault = |e: &dyn std::fmt::Display| format!("cannot read {}: {e}", path.display());
    let file = File::open(path).map_err(|e| fault(&e))?;
    let mut earlier: Option<Earlier> = None;
    let mut reader = BufReader::new(file);
    for number in 0.. {
        let Some(line) = next_line(&mut reader, LINE_LIMIT).map_err(|e| fault(&e))? else { break };
        let read = match serde_json::from_slice::<Line>(&line) {
            Ok(read) => read,
            // A line that was being written when its program was killed.
            Err(e) if e.is_eof() => break,
            Err(e) => return Err(format!("{}:{}: {e}", path.display(), number + 1)),
        };
        take(&mut earlier, read).map_err(|e| format!("{}:{}: {e}", path.display(), number + 1))?;
    }
    earlier.ok_or_else(|| fault(&"there is no batch in it"))
}

/// The next line, if there is one, of at most `limit` bytes.
fn next_line(reader: &mut impl BufRead, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = reader.take(limit + 1).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 > limit {
        return Err(io::Error::other(format!("it has a line of more than {limit} bytes")));
    }
    Ok((read > 0).then_some(line))
}

fn take(earlier: &mut Option<Earlier>, line: Line) -> Result<(), String> {
    match (line, earlier.as_mut()) {
        (Line::Batch(subject), _) => *earlier = Some(Earlier::new(subject)?),
        (Line::Summary(summary), _) => {
            let mut whole = Earlier::new(summary.subject)?;
            summary.verdicts.into_iter().for_each(|row| whole.ended(row));
            *earlier = Some(whole);
        }
        (Line::StepBegun { host, step, run, sent_ms, .. }, Some(earlier)) => {
            earlier.known.insert((host, step), Known::Asked { run, sent_ms });
        }
        (Line::StepEnded(row), Some(earlier)) => earlier.ended(*row),
        _ => {}
    }
    Ok(())
}

impl Earlier {
    fn new(subject: Subject) -> Result<Self, String> {
        if subject.version != VERSION {
            return Err(format!(
                "the report has version {}, and this program reads version {VERSION}",
                subject.version
            ));
        }
        Ok(Self { subject, known: HashMap::new() })
    }

    fn ended(&mut self, row: Row) {
        self.known.insert((row.host.clone(), row.step), Known::Ended(Box::new(row)));
    }

    /// What each step of a host was before.
    pub(super) fn before(&self, host: &str) -> Vec<Before> {
        let steps = 1..=self.subject.steps.len();
        steps.map(|step| self.before_step(host, step)).collect()
    }

    fn before_step(&self, host: &str, step: usize) -> Before {
        match self.known.get(&(host.to_owned(), step)) {
            Some(Known::Asked { run, sent_ms }) => asked(run, *sent_ms),
            Some(Known::Ended(row)) if row.verdict == Outcome::Ok.name() => Before::Ok,
            Some(Known::Ended(row)) => match (&row.run, row.sent_ms, row.cause.as_deref()) {
                (Some(run), Some(sent_ms), Some(LOST_END)) => asked(run, sent_ms),
                _ => Before::Nothing,
            },
            None => Before::Nothing,
        }
    }

    /// The row of a step that ended well.
    pub(super) fn row(&self, host: &str, step: usize) -> Option<&Row> {
        match self.known.get(&(host.to_owned(), step))? {
            Known::Ended(row) => Some(row),
            Known::Asked { .. } => None,
        }
    }
}

fn asked(run: &str, sent_ms: u64) -> Before {
    let first_sent = from_unix_ms(sent_ms).unwrap_or(SystemTime::UNIX_EPOCH);
    Before::Asked { run: run.into(), first_sent }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_not_read() {
        let mut text: &[u8] = b"123\n\n1234\n12345";
        assert_eq!(next_line(&mut text, 4).unwrap().unwrap(), b"123");
        assert_eq!(next_line(&mut text, 4).unwrap().unwrap(), b"");
        assert_eq!(next_line(&mut text, 4).unwrap().unwrap(), b"1234");
        let error = next_line(&mut text, 4).unwrap_err();
        assert!(error.to_string().contains("more than 4 bytes"), "{error}");
        let mut last: &[u8] = b"1234";
        assert_eq!(next_line(&mut last, 4).unwrap().unwrap(), b"1234");
        assert_eq!(next_line(&mut last, 4).unwrap(), None);
    }
}
