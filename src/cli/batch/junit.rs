//! The report that CI systems show by themselves: JUnit's XML, a suite for each host and a case for each
//! step, as the schema that Jenkins checks has it (`testsuites`, `testsuite`, `testcase`, `failure`, `error`,
//! `skipped`, `system-out`).

use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::{Entry, Ledger};
use crate::client::batch::Outcome;

/// The document.
pub(super) fn document(ledger: &Ledger, elapsed: Duration) -> String {
    let all = Counts::of(ledger.entries.iter().flatten());
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "<testsuites name=\"rexec batch\" {} time=\"{}\">",
        all.attributes(),
        seconds(elapsed)
    );
    for (host, entries) in ledger.entries.iter().enumerate() {
        suite(&mut text, ledger, host, entries);
    }
    text.push_str("</testsuites>\n");
    text
}

#[derive(Default)]
struct Counts {
    tests: usize,
    failures: usize,
    errors: usize,
    skipped: usize,
}

impl Counts {
    fn of<'a>(entries: impl Iterator<Item = &'a Option<Entry>>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            counts.tests += 1;
            match kind(entry.as_ref()) {
                None => {}
                Some("failure") => counts.failures += 1,
                Some("skipped") => counts.skipped += 1,
                Some(_) => counts.errors += 1,
            }
        }
        counts
    }

    fn attributes(&self) -> String {
        let Self { tests, failures, errors, .. } = self;
        format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"")
    }
}

/// The element that says how a step ended; none if it ended well.
fn kind(entry: Option<&Entry>) -> Option<&'static str> {
    match entry.map(|entry| entry.outcome) {
        Some(Outcome::Ok) => None,
        Some(Outcome::Failed { .. } | Outcome::Signalled { .. }) => Some("failure"),
        Some(Outcome::NotStarted(_)) => Some("skipped"),
        _ => Some("error"),
    }
}

fn suite(text: &mut String, ledger: &Ledger, host: usize, entries: &[Option<Entry>]) {
    let name = attribute(&ledger.names.hosts[host]);
    let counts = Counts::of(entries.iter());
    let took = entries.iter().flatten().map(|entry| entry.elapsed).sum();
    let _ = writeln!(
        text,
        "  <testsuite name=\"{name}\" {} skipped=\"{}\" time=\"{}\">",
        counts.attributes(),
        counts.skipped,
        seconds(took)
    );
    for (step, entry) in entries.iter().enumerate() {
        case(text, &name, &attribute(&ledger.names.steps[step]), entry.as_ref());
    }
    text.push_str("  </testsuite>\n");
}

fn case(text: &mut String, host: &str, step: &str, entry: Option<&Entry>) {
    let took = seconds(entry.map_or(Duration::ZERO, |entry| entry.elapsed));
    let _ = write!(text, "    <testcase name=\"{step}\" classname=\"{host}\" time=\"{took}\"");
    let Some(kind) = kind(entry) else {
        text.push_str("/>\n");
        return;
    };
    let verdict = entry.map_or("lost", |entry| entry.outcome.name()).replace('_', " ");
    let detail = entry.and_then(|entry| entry.detail.as_deref());
    let message = attribute(detail.unwrap_or(&verdict));
    let run = entry
        .and_then(|entry| entry.run.as_ref())
        .map(|run| format!("run {run}"))
        .unwrap_or_default();
    let _ = match kind {
        "skipped" => writeln!(text, ">\n      <skipped message=\"{message}\"/>\n    </testcase>"),
        _ => writeln!(
            text,
            ">\n      <{kind} type=\"{verdict}\" message=\"{message}\">{}</{kind}>\n    </testcase>",
            attribute(&run)
        ),
    };
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// Text for an attribute or an element (XML 1.0, 2.2 and 2.4): what no document may have becomes U+FFFD.
fn attribute(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            '\t' | '\n' | '\r' => {
                let _ = write!(clean, "&#{};", u32::from(c));
            }
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => clean.push('\u{fffd}'),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            attribute("a<b>&\"c\"\n\x1b\u{ffff}"),
            "a&lt;b&gt;&amp;&quot;c&quot;&#10;\u{fffd}\u{fffd}"
        );
        assert_eq!(seconds(Duration::from_millis(61_005)), "61.005");
    }
}
