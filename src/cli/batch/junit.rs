//! The report that CI systems show by themselves: JUnit's XML, a suite for each host and a case for each
//! step. It has all that the strictest of the schemas in use demands (Windy Road's, for Ant), and nothing that
//! the one that Jenkins checks does not know (junit-10.xsd of its xUnit plugin).

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::ledger::{Entry, Ledger};
use crate::cli::clean::escaped;
use crate::client::batch::Outcome;

/// The document.
pub(super) fn document(ledger: &Ledger) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
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
    fn of(entries: &[Option<Entry>]) -> Self {
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
    let Counts { tests, failures, errors, skipped } = Counts::of(entries);
    let took = seconds(entries.iter().flatten().map(|entry| entry.elapsed).sum());
    let began = entries.iter().flatten().filter_map(|entry| entry.sent).min();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  <testsuite id=\"{host}\" name=\"{name}\" package=\"rexec\" hostname=\"{name}\" \
         timestamp=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" \
         skipped=\"{skipped}\" time=\"{took}\">\n    <properties/>",
        timestamp(began.unwrap_or(ledger.began)),
    );
    for (step, entry) in entries.iter().enumerate() {
        case(text, &name, &attribute(&ledger.names.steps[step]), entry.as_ref());
    }
    text.push_str("    <system-out/>\n    <system-err/>\n  </testsuite>\n");
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

/// UTC, to the second, which the schema has without a zone.
fn timestamp(at: SystemTime) -> String {
    // Before 1970 there were no batches, and after 9999 there is no such format.
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let within = since.min(Duration::from_secs(253_402_300_799));
    let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + within).to_string();
    text.trim_end_matches('Z').to_owned()
}

fn seconds(time: Duration) -> String {
    format!("{}.{:03}", time.as_secs(), time.subsec_millis())
}

/// Text for an attribute or an element (XML 1.0, 2.2 and 2.4): what no document may have becomes U+FFFD.
fn attribute(text: &str) -> String {
    let blanks = ['\t', '\n', '\r'];
    let is_barred =
        |c: char| (c < ' ' && !blanks.contains(&c)) || matches!(c, '\u{fffe}' | '\u{ffff}');
    escaped(&text.replace(is_barred, "\u{fffd}"), &blanks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(
            attribute("a<b>&\"c\"\n\x1b\u{ffff}"),
            "a&#60;b&#62;&#38;&#34;c&#34;&#10;\u{fffd}\u{fffd}"
        );
        assert_eq!(seconds(Duration::from_millis(61_005)), "61.005");
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00");
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(timestamp(latest), "9999-12-31T23:59:59");
    }
}
