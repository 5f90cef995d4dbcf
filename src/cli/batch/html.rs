//! `--html`: one page that needs nothing else: hosts × steps over time, coloured by verdict, with their output.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::clean::neutral;
use super::ledger::{Entry, Ledger};
use super::spill::{Block, Spill};
use super::summary::time;

/// Most bytes of a step's output that the page has; `--log-dir` keeps all.
const OUTPUT_LIMIT: usize = 256 * 1024;

/// Output for the page.
#[derive(Default)]
pub(super) struct Kept {
    spill: Spill,
    sizes: HashMap<(usize, usize), usize>,
    steps: usize,
}

impl Kept {
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Takes a line of a step's, from which secrets were taken out.
    pub(super) fn line(&mut self, host: usize, step: usize, line: &[u8]) -> io::Result<()> {
        let size = self.sizes.entry((host, step)).or_default();
        let before = *size;
        *size += line.len() + 1;
        let place = host * self.steps + step;
        match (before <= OUTPUT_LIMIT, *size <= OUTPUT_LIMIT) {
            (_, true) => {
                let mut text = escaped(&String::from_utf8_lossy(&neutral(line))).into_bytes();
                text.push(b'\n');
                self.spill.push(place, &text)
            }
            (true, false) => {
                self.spill.push(place, b"[the rest is not on this page; --log-dir keeps all]\n")
            }
            (false, false) => Ok(()),
        }
    }

    fn take(&mut self, host: usize, step: usize) -> Block {
        self.spill.take(host * self.steps + step)
    }
}

/// Writes the page.
pub(super) fn write(
    to: &mut impl Write,
    ledger: &Ledger,
    kept: &mut Kept,
    elapsed: Duration,
) -> io::Result<()> {
    let counts: String = super::summary::tally(ledger)
        .into_iter()
        .map(|(name, count)| format!("<b class=\"{name}\">{count} {}</b> ", name.replace('_', " ")))
        .collect();
    let hosts = ledger.names.hosts.len();
    write!(
        to,
        "{HEAD}<h1>rexec batch</h1><p>{hosts} hosts, {}. {counts}</p>{SEARCH}<main>",
        time(elapsed)
    )?;
    for (host, entries) in ledger.entries.iter().enumerate() {
        write!(to, "<section><h2>{}</h2><div class=\"line\">", escaped(&ledger.names.hosts[host]))?;
        for (step, entry) in entries.iter().enumerate() {
            let bar = entry.as_ref().map(|entry| bar(ledger, step, entry, elapsed));
            to.write_all(bar.unwrap_or_default().as_bytes())?;
        }
        to.write_all(b"</div>")?;
        for (step, entry) in entries.iter().enumerate() {
            let block = kept.take(host, step);
            details(to, ledger, step, entry.as_ref(), &block, &kept.spill)?;
        }
        to.write_all(b"</section>")?;
    }
    writeln!(to, "</main>{SCRIPT}</html>")
}

/// A step's place in time.
fn bar(ledger: &Ledger, step: usize, entry: &Entry, elapsed: Duration) -> String {
    let Some(sent) = entry.sent else { return String::new() };
    // What an earlier batch ran is not of this one's time.
    let Ok(after) = sent.duration_since(ledger.began) else { return String::new() };
    let whole = elapsed.as_secs_f64().max(0.001);
    let share = |time: Duration| (time.as_secs_f64() / whole * 100.0).clamp(0.0, 100.0);
    format!(
        "<i class=\"{}\" style=\"left:{:.2}%;width:{:.2}%\" title=\"{}\"></i>",
        entry.outcome.name(),
        share(after),
        share(entry.elapsed),
        escaped(&ledger.names.steps[step])
    )
}

fn details(
    to: &mut impl Write,
    ledger: &Ledger,
    step: usize,
    entry: Option<&Entry>,
    block: &Block,
    spill: &Spill,
) -> io::Result<()> {
    let verdict = entry.map_or("lost", |entry| entry.outcome.name());
    let mut about = String::new();
    // Writing to a String cannot fail.
    if let Some(entry) = entry {
        let _ = write!(about, " {}", time(entry.elapsed));
        if let Some(detail) = &entry.detail {
            let _ = write!(about, ": {}", escaped(detail));
        }
    }
    write!(
        to,
        "<details><summary><b class=\"{verdict}\">{}</b> {}{about}</summary><pre>",
        verdict.replace('_', " "),
        escaped(&ledger.names.steps[step])
    )?;
    spill.read(block, |piece| to.write_all(piece))?;
    to.write_all(b"</pre></details>")
}

/// Text that HTML takes for nothing else, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '"' => plain.push_str("&quot;"),
            '\'' => plain.push_str("&#39;"),
            c => plain.push(c),
        }
    }
    plain
}

/// The policy lets the page fetch nothing, whatever stands in it.
const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>rexec batch</title><style>\
:root{color-scheme:light dark}body{font:15px/1.4 system-ui,sans-serif;margin:1.5rem auto;max-width:70rem;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1rem;margin:.8rem 0 .2rem}\
.line{position:relative;height:.7rem;background:#8883;border-radius:.2rem}\
.line i{position:absolute;top:0;height:100%;min-width:3px;border-radius:.2rem}\
b{padding:0 .35em;border-radius:.2rem;color:#fff;background:#777}summary{cursor:pointer;overflow-wrap:anywhere}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:.5rem;margin:.2rem 0;max-height:30rem;overflow:auto}\
i.ok,b.ok{background:#1a7f37}i.failed,b.failed,i.signalled,b.signalled{background:#cf222e}\
i.deadline,b.deadline,i.stopped,b.stopped{background:#9a6700}\
i.unreachable,b.unreachable,i.refused,b.refused{background:#8250df}i.lost,b.lost{background:#bc4c00}\
input{font:inherit;width:100%;box-sizing:border-box;padding:.3rem}</style>";
const SEARCH: &str = "<input id=\"q\" type=\"search\" placeholder=\"search hosts, steps, verdicts and output\" autofocus>";
const SCRIPT: &str = "<script>q.oninput=()=>{const t=q.value.toLowerCase();\
for(const s of document.querySelectorAll('section'))s.hidden=!s.textContent.toLowerCase().includes(t)}</script>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_past_the_limit_is_left_out_and_that_is_said() {
        let mut kept = Kept::new(2);
        let line = vec![b'<'; 1023];
        for _ in 0..OUTPUT_LIMIT / 1024 {
            kept.line(1, 1, &line).unwrap();
        }
        let mut text = Vec::new();
        let whole = kept.spill.take(3);
        kept.spill
            .read(&whole, |piece| {
                text.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert_eq!(text.len(), OUTPUT_LIMIT / 1024 * (1023 * 4 + 1));
        for _ in 0..2 {
            kept.line(1, 1, b"x").unwrap();
        }
        let rest = kept.take(1, 1);
        text.clear();
        kept.spill
            .read(&rest, |piece| {
                text.extend_from_slice(piece);
                Ok(())
            })
            .unwrap();
        assert!(
            text.starts_with(b"[the rest") && text.iter().filter(|b| **b == b'\n').count() == 1
        );
    }
}
