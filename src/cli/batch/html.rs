//! `--html`: one page that needs nothing else: hosts × steps over time, coloured by verdict, with their output.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use super::ledger::{Entry, Ledger};
use super::spill::{Block, Spill};
use super::summary::time;
use crate::cli::clean::neutral;

/// Most bytes of a step's output that the page has; `--log-dir` keeps all.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// Most bytes of all output on it: no browser likes more.
const PAGE_LIMIT: usize = 64 << 20;

/// Output for the page.
#[derive(Default)]
pub(super) struct Kept {
    spill: Spill,
    /// Bytes of each step's, of those that wrote something; none for one whose rest is left out.
    sizes: HashMap<(usize, usize), Option<usize>>,
    /// Bytes of all.
    whole: usize,
    steps: usize,
}

impl Kept {
    pub(super) fn new(steps: usize) -> Self {
        Self { steps, ..Self::default() }
    }

    /// Takes a line of a step's, from which secrets were taken out.
    pub(super) fn line(&mut self, host: usize, step: usize, line: &[u8]) -> io::Result<()> {
        let place = host * self.steps + step;
        let size = self.sizes.entry((host, step)).or_insert(Some(0));
        let Some(before) = *size else { return Ok(()) };
        let (after, whole) = (before + line.len() + 1, self.whole + line.len() + 1);
        if after > OUTPUT_LIMIT || whole > PAGE_LIMIT {
            *size = None;
            return self
                .spill
                .push(place, b"[the rest is not on this page; --log-dir keeps all]\n");
        }
        (*size, self.whole) = (Some(after), whole);
        let mut text = escaped(&String::from_utf8_lossy(&neutral(line))).into_bytes();
        text.push(b'\n');
        self.spill.push(place, &text)
    }

    fn take(&mut self, host: usize, step: usize) -> Block {
        self.spill.take(host * self.steps + step)
    }
}

/// Writes the page: a row for each host, with its steps in time, which unfolds to them and their output.
pub(super) fn write(
    to: &mut impl Write,
    ledger: &Ledger,
    kept: &mut Kept,
    elapsed: Duration,
) -> io::Result<()> {
    let counts: String = super::summary::tally(ledger)
        .into_iter()
        .map(|(name, count)| {
            let words = name.replace('_', " ");
            format!("<button class=\"{name}\" value=\"{words}\">{count} {words}</button>")
        })
        .collect();
    let (hosts, whole) = (ledger.names.hosts.len(), time(elapsed));
    write!(to, "{HEAD}<h1>rexec batch</h1><p>{hosts} hosts, {whole}. {counts}</p>{SEARCH}")?;
    write!(to, "<div class=\"axis\"><span>0.0 s</span><span>{whole}</span></div><main>")?;
    for (host, entries) in ledger.entries.iter().enumerate() {
        let verdict = ledger.worst_of(host).name();
        write!(
            to,
            "<details class=\"host\"><summary><b class=\"{verdict}\">{}</b><span>{}</span><span class=\"line\">",
            verdict.replace('_', " "),
            escaped(&ledger.names.hosts[host])
        )?;
        for (step, entry) in entries.iter().enumerate() {
            let bar = entry.as_ref().map(|entry| bar(ledger, step, entry, elapsed));
            to.write_all(bar.unwrap_or_default().as_bytes())?;
        }
        to.write_all(b"</span></summary>")?;
        for (step, entry) in entries.iter().enumerate() {
            let block = kept.take(host, step);
            details(to, ledger, step, entry.as_ref(), &block, &kept.spill)?;
        }
        to.write_all(b"</details>")?;
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
        "<i class=\"{}\" style=\"left:{:.2}%;width:{:.2}%\" title=\"{}, {}\"></i>",
        entry.outcome.name(),
        share(after),
        share(entry.elapsed),
        escaped(&ledger.names.steps[step]),
        time(entry.elapsed)
    )
}

/// A step, which unfolds to its output if it has any.
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
        if entry.attempts > 0 {
            let _ = write!(about, " <small>{}</small>", time(entry.elapsed));
        }
        if let Some(detail) = &entry.detail {
            let _ = write!(about, ": {}", escaped(detail));
        }
    }
    let name = escaped(&ledger.names.steps[step]);
    let what = format!("<b class=\"{verdict}\">{}</b> {name}{about}", verdict.replace('_', " "));
    if block.is_empty() {
        return write!(to, "<p class=\"step\">{what}</p>");
    }
    write!(to, "<details class=\"step\"><summary>{what}</summary><pre>")?;
    spill.read(block, |piece| to.write_all(piece))?;
    to.write_all(b"</pre></details>")
}

fn escaped(text: &str) -> String {
    crate::cli::clean::escaped(text, &[])
}

/// The policy lets the page fetch nothing, whatever stands in it.
const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>rexec batch</title><style>\
:root{color-scheme:light dark}body{font:14px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:80rem;padding:0 1rem}\
h1{font-size:1.3rem}[hidden]{display:none}\
.host>summary,.axis{display:grid;grid-template-columns:7rem minmax(8rem,1fr) 3fr;gap:.75rem;align-items:center;padding:.15rem 0}\
.host{border-top:1px solid #8883;content-visibility:auto;contain-intrinsic-size:auto 1.9rem}.host[open]{padding-bottom:.6rem}\
summary{cursor:pointer;overflow-wrap:anywhere}.host>summary:hover{background:#8881}\
.axis{color:#888;font-size:.85em}.axis span{grid-area:1/3}.axis span:last-child{justify-self:end}\
.line{position:relative;height:.9rem;background:#8882;border-radius:.2rem;overflow:hidden}\
.line i{position:absolute;top:0;height:100%;min-width:2px;box-shadow:inset -1px 0 Canvas}\
.step{margin:.25rem 0 .25rem 7.75rem;overflow-wrap:anywhere}small{color:#888}\
b,button{padding:.05em .45em;border-radius:.2rem;color:#fff;background:#6e7781;font-weight:600;text-align:center}\
button{font:inherit;border:0;margin:0 .15rem;cursor:pointer}\
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#8882;padding:.5rem;margin:.3rem 0;max-height:30rem;overflow:auto}\
.ok{background:#1a7f37}.failed,.signalled{background:#cf222e}.deadline,.stopped{background:#9a6700}\
.unreachable,.refused{background:#8250df}.lost{background:#bc4c00}\
input{font:inherit;width:100%;box-sizing:border-box;padding:.35rem .5rem}</style>";
const SEARCH: &str = "<input id=\"q\" type=\"search\" placeholder=\"search hosts, steps, verdicts and output\" autofocus>\
<p id=\"n\" role=\"status\"></p>";
/// What is looked for stands in the address too, so that it can be passed on.
const SCRIPT: &str = "<script>\
const all=[...document.querySelectorAll('.host')],text=new Map;\
const find=()=>{const t=q.value.toLowerCase();let n=0;\
for(const h of all){if(!text.has(h))text.set(h,h.textContent.toLowerCase());h.hidden=!text.get(h).includes(t);n+=!h.hidden}\
document.getElementById('n').textContent=t?`${n} of ${all.length} hosts`:'';\
history.replaceState(null,'',t?'#'+encodeURIComponent(q.value):location.pathname)};\
q.oninput=find;\
for(const b of document.querySelectorAll('button'))b.onclick=()=>{q.value=q.value===b.value?'':b.value;find()};\
if(location.hash){q.value=decodeURIComponent(location.hash.slice(1));find()}</script>";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kept: &mut Kept, host: usize, step: usize) -> Vec<u8> {
        let block = kept.take(host, step);
        let mut text = Vec::new();
        let mut add = |piece: &[u8]| {
            text.extend_from_slice(piece);
            Ok(())
        };
        kept.spill.read(&block, &mut add).unwrap();
        text
    }

    #[test]
    fn output_past_the_limit_is_left_out_and_that_is_said() {
        let mut kept = Kept::new(2);
        for _ in 0..OUTPUT_LIMIT / 1024 {
            kept.line(1, 1, &[b'<'; 1023]).unwrap();
        }
        assert_eq!(text(&mut kept, 1, 1).len(), OUTPUT_LIMIT / 1024 * (1023 * 5 + 1));
        for _ in 0..2 {
            kept.line(1, 1, b"x").unwrap();
        }
        let rest = text(&mut kept, 1, 1);
        assert!(
            rest.starts_with(b"[the rest") && rest.iter().filter(|b| **b == b'\n').count() == 1
        );
    }

    #[test]
    fn a_page_has_so_much_and_no_more() {
        let mut kept = Kept::new(1);
        let line = [b'x'; OUTPUT_LIMIT - 1];
        for host in 0..PAGE_LIMIT / OUTPUT_LIMIT {
            kept.line(host, 0, &line).unwrap();
            assert_eq!(text(&mut kept, host, 0).len(), OUTPUT_LIMIT);
        }
        kept.line(1000, 0, b"").unwrap();
        assert!(text(&mut kept, 1000, 0).starts_with(b"[the rest"));
    }
}
