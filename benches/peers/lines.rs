//! Short lines: very many, one now and then, and there and back.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::Fallible;
use crate::contenders::{Contender, Peers};
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn;
use crate::stats::{median, quantile};
use crate::turns::{self, Run};

/// Between two lines of [`delay`].
const EVERY: Duration = Duration::from_millis(2);

/// Very many lines, written and read as fast as may be.
pub(crate) fn many(peers: &Peers, rounds: Rounds, millions: u32) -> Fallible<Row> {
    let all = peers.contenders();
    let count = millions * 1_000_000;
    let mut lines: Vec<_> = all.iter().map(|contender| Line::new(contender.name)).collect();
    let text = format!("seq 1 {count}");
    let bytes: u64 = spawn::run(all[0].run(&text))?.bytes;
    for _ in rounds.counted() {
        for (contender, line) in all.iter().zip(&mut lines) {
            let sample = spawn::run(contender.run(&text))?;
            if sample.bytes != bytes {
                return Err(format!("{} brought {} bytes", contender.name, sample.bytes).into());
            }
            line.samples.push(f64::from(count) / 1e6 / sample.wall.as_secs_f64());
        }
    }
    let mut row = Row {
        title: format!("lines: {millions} million short lines"),
        unit: "M/s",
        notes: Vec::new(),
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 2), "times ssh", Limit::AtLeast(1.0));
    Ok(row)
}

/// From the moment when a line is written to the moment when it is there.
pub(crate) fn delay(peers: &Peers, rounds: Rounds, count: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let writer = std::env::current_exe()?;
    let text = format!("exec '{}' --write-lines {count}", writer.display());
    let mut lines: Vec<_> = all.iter().map(|contender| Line::new(contender.name)).collect();
    let mut latest = vec![Vec::new(); all.len()];
    for _ in rounds.counted() {
        for (at, contender) in all.iter().enumerate() {
            let mut child =
                contender.run(&text).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let delays = delays(&mut child)?;
            if !child.wait()?.success() || delays.len() != count {
                return Err(format!("{} brought {} lines", contender.name, delays.len()).into());
            }
            lines[at].samples.push(median(&delays));
            latest[at].push(quantile(&delays, 0.99));
        }
    }
    for (line, latest) in lines.iter_mut().zip(&latest) {
        line.beside.push(("99 of 100 within ms", median(latest)));
    }
    let figures = lines[1].samples.clone();
    let mark = Mark { line: 1, what: "ms", limit: Limit::AtMost(1.0), figures };
    Ok(Row {
        title: format!("delay: of each of {count} lines, {} ms apart", EVERY.as_millis()),
        unit: "ms",
        notes: vec!["one writer that flushes each line, one reader, one clock".into()],
        lines,
        marks: vec![mark],
    })
}

fn delays(child: &mut Child) -> Fallible<Vec<f64>> {
    let Some(stdout) = child.stdout.take() else { return Ok(Vec::new()) };
    let mut delays = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let written: u64 = line?.parse()?;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ns")]
        delays.push(now().saturating_sub(written) as f64 / 1e6);
    }
    Ok(delays)
}

/// The other end of [`delay`]: writes the time, now and then.
pub(crate) fn write_times(count: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for _ in 0..count {
        thread::sleep(EVERY);
        writeln!(out, "{}", now())?;
        out.flush()?;
    }
    Ok(())
}

/// Nanoseconds of a clock that all processes of the machine share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

/// A line there and back.
pub(crate) fn echo(peers: &Peers, rounds: Rounds, count: usize) -> Fallible<Row> {
    let all = peers.contenders();
    let mut lines: Vec<_> = all.iter().map(|contender| Line::new(contender.name)).collect();
    let mut echoes = all.iter().map(Echo::start).collect::<Fallible<Vec<_>>>()?;
    let runs = echoes.iter_mut().map(|echo| -> Run { Box::new(|| echo.once()) });
    turns::measure(rounds, count, &mut runs.collect::<Vec<_>>(), &mut lines)?;
    echoes.into_iter().try_for_each(Echo::end)?;
    let mut row = Row {
        title: format!("echo: a line through `cat`, {count} of each in turn"),
        unit: "ms",
        notes: Vec::new(),
        lines,
        marks: Vec::new(),
    };
    row.mark_ratio((1, 2), "times ssh", Limit::AtMost(1.0));
    Ok(row)
}

/// A `cat` and both of its pipes.
struct Echo {
    name: &'static str,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Echo {
    fn start(contender: &Contender) -> Fallible<Self> {
        let mut command = contender.run("cat");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".into());
        };
        Ok(Self { name: contender.name, child, stdin, stdout: BufReader::new(stdout) })
    }

    /// Milliseconds of one line.
    fn once(&mut self) -> Fallible<f64> {
        let before = now();
        self.stdin.write_all(b"a line of some words\n")?;
        if self.stdout.read_line(&mut String::new())? == 0 {
            return Err(format!("{} ended early", self.name).into());
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ns")]
        Ok((now() - before) as f64 / 1e6)
    }

    fn end(mut self) -> Fallible<()> {
        drop(self.stdin);
        let is_success = self.child.wait()?.success();
        is_success.then_some(()).ok_or_else(|| format!("{} failed", self.name).into())
    }
}
