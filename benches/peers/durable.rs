//! Durable runs beside foreground ones: what they add, and what they cost.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rexec::proto::digest::Running;

use crate::Fallible;
use crate::contenders::Peers;
use crate::report::{Limit, Line, Mark, Row};
use crate::rounds::Rounds;
use crate::spawn::{self, Sample};
use crate::turns::{self, Run, TURNS};

/// What must be there is waited for this long.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);
/// Bytes that are read, hashed and written at a time.
const PIECE: usize = 256 * 1024;

pub(crate) fn client(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rexec"));
    command.args(words);
    command
}

/// What durability adds to a short command.
pub(crate) fn cold(peers: &Peers, rounds: Rounds) -> Fallible<Row> {
    let addr = peers.rexec.addr.as_str();
    let all: [(&str, &[&str]); 3] = [
        ("rexec", &[addr, "true"]),
        ("rexec --durable", &["--durable", addr, "true"]),
        ("rexec -d", &["-d", addr, "true"]),
    ];
    let mut lines = vec![Line::new("local sh -c")];
    lines.extend(all.iter().map(|(name, _)| Line::new(*name)));
    let local = &peers.contenders()[0];
    let mut runs: Vec<Run> = vec![Box::new(|| Ok(spawn::ms(local.run("true"))?))];
    runs.extend(all.map(|(_, words)| -> Run { Box::new(|| Ok(spawn::ms(client(words))?)) }));
    turns::measure(rounds, TURNS, &mut runs, &mut lines)?;
    let added = |at: usize| {
        let of = |line: usize| lines[line].samples.iter();
        let rounds = of(at).zip(of(1)).zip(of(0));
        rounds.map(|((durable, plain), local)| (durable - plain) / local).collect()
    };
    let limit = Limit::AtMost(2.0);
    let mark = |line| Mark { line, what: "local spawns added", limit, figures: added(line) };
    let marks = vec![mark(2), mark(3)];
    let title = "durable: a client process that runs `true`".into();
    let notes = vec![
        turns::NOTE.into(),
        "a local spawn: `sh -c true`; -d returns when the run is safe".into(),
    ];
    Ok(Row { title, unit: "ms", notes, lines, marks })
}

/// How fast a supervisor writes, beside dd in the same folder.
pub(crate) fn record(peers: &Peers, rounds: Rounds, mib: u64) -> Fallible<Row> {
    let addr = peers.rexec.addr.as_str();
    let folder = tempfile::tempdir_in(state()?)?;
    let file = folder.path().join("dd");
    // The same program, into the record instead of the file.
    let text = dd_words(mib).join(" ");
    let names = [
        "dd, to the disk (fdatasync)",
        "dd, to memory",
        "a pipe, SHA-256 and a file",
        "rexec, record",
    ];
    let mut lines: Vec<_> = names.iter().map(|name| Line::new(*name)).collect();
    for _ in rounds.counted() {
        let id = new_id("record");
        for (at, line) in lines.iter_mut().enumerate() {
            // Nor is the disk busy with what another one has left.
            spawn::run(Command::new("sync"))?;
            let took = match at {
                0 => timed(|| dd(&file, mib, &["conv=fdatasync"]))?,
                1 => timed(|| dd(&file, mib, &[]))?,
                2 => timed(|| least(&file, &text))?,
                _ => timed(|| {
                    spawn::run(client(&["-d", "--id", &id, addr, &text]))?;
                    spawn::run(client(&["wait", addr, &id]))
                })?,
            };
            line.samples.push(speed(mib, took));
            // The next one finds as much memory as this one.
            if at < 3 {
                fs::remove_file(&file)?;
            }
        }
        spawn::run(client(&["rm", addr, &id]))?;
    }
    let mut row = Row {
        title: format!("record: {mib} MiB into one folder"),
        unit: "GB/s",
        notes: vec![
            "dd has 256 KiB blocks of zeros, and is what is run for the record too; that also has every byte's SHA-256, a \
             pipe, and the time of a client process twice; only dd to the disk waits for that"
                .into(),
            "a pipe, SHA-256 and a file: the least that a record is, without frames, a server or a client: one thread reads \
             the command's pipe, the second hashes, the third writes"
                .into(),
        ],
        lines,
        marks: Vec::new(),
    };
    let figures = row.ratios(0, 3);
    let what = "times as long as dd to the disk";
    row.marks.push(Mark { line: 3, what, limit: Limit::AtMost(1.25), figures });
    Ok(row)
}

fn dd(file: &Path, mib: u64, more: &[&str]) -> std::io::Result<Sample> {
    let [program, args @ ..] = dd_words(mib);
    let mut command = Command::new(program);
    command.args(args).arg(format!("of={}", file.display())).args(more);
    spawn::run(command)
}

fn dd_words(mib: u64) -> [String; 5] {
    ["dd", "if=/dev/zero", "bs=256k", "status=none", &format!("count={}", mib * 4)].map(Into::into)
}

/// What the output of a command cannot be kept without: one thread reads, the second hashes, the third writes.
fn least(file: &Path, text: &str) -> Fallible<()> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = Command::new("sh").args(["-c", text]).stdout(Stdio::from(writer)).spawn()?;
    let (read, to_hash) = sync_channel(2);
    let (hashed, to_write) = sync_channel(2);
    let (empty, again) = sync_channel(8);
    let file = File::create(file)?;
    let writing = thread::spawn(move || write_all(&file, &to_write, &empty));
    let hashing = thread::spawn(move || hash_all(&to_hash, &hashed));
    loop {
        let mut piece: Vec<u8> = again.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let len = reader.read(&mut piece)?;
        if len == 0 {
            break;
        }
        piece.truncate(len);
        // Who hashes has gone if nobody writes any more: that one says why.
        if read.send(piece).is_err() {
            break;
        }
    }
    drop(read);
    hashing.join().map_err(|_| "the hashing thread is gone")?;
    writing.join().map_err(|_| "the writing thread is gone")??;
    command.wait()?.success().then_some(()).ok_or_else(|| "the command failed".into())
}

fn hash_all(to_hash: &Receiver<Vec<u8>>, hashed: &SyncSender<Vec<u8>>) {
    let mut hash = Running::new();
    for piece in to_hash {
        hash.update(&piece);
        if hashed.send(piece).is_err() {
            return;
        }
    }
}

fn write_all(
    file: &File,
    to_write: &Receiver<Vec<u8>>,
    empty: &SyncSender<Vec<u8>>,
) -> io::Result<()> {
    let mut at = 0;
    for piece in to_write {
        file.write_all_at(&piece, at)?;
        at += piece.len() as u64;
        // One more than are ever needed at once is let go of.
        let _ = empty.try_send(piece);
    }
    Ok(())
}

/// How fast a record is shown, beside a run that makes the same output now.
pub(crate) fn attach(peers: &Peers, rounds: Rounds, mib: u64) -> Fallible<Row> {
    let addr = peers.rexec.addr.as_str();
    // The same program, into the record instead of the file.
    let text = dd_words(mib).join(" ");
    let folder = tempfile::tempdir()?;
    let names = [
        "rexec, a fresh run",
        "rexec attach, one that ended",
        "rexec attach, one that goes on",
        "rexec --durable, a fresh run",
    ];
    let mut lines: Vec<_> = names.iter().map(|name| Line::new(*name)).collect();
    for _ in rounds.counted() {
        let (ended, going) = (new_id("ended"), new_id("going"));
        let [whole, gate] =
            ["whole", "gate"].map(|name| folder.path().join(format!("{name}-{going}")));
        let (whole_text, gate_text) = (whole.display(), gate.display());
        let waits =
            format!("{text}; : > {whole_text}; while ! test -e {gate_text}; do sleep 0.1; done");
        spawn::run(client(&["-d", "--id", &ended, addr, &text]))?;
        spawn::run(client(&["wait", addr, &ended]))?;
        spawn::run(client(&["-d", "--id", &going, addr, &waits]))?;
        wait_for(|| Ok(whole.exists()))?;
        let commands: [&[&str]; 4] = [
            &[addr, &text],
            &["attach", addr, &ended],
            &["logs", addr, &going],
            &["--durable", addr, &text],
        ];
        for (words, line) in commands.iter().zip(&mut lines) {
            let sample = spawn::run(client(words))?;
            if sample.bytes != mib << 20 {
                return Err(format!("{words:?} brought {} bytes", sample.bytes).into());
            }
            line.samples.push(speed(mib, sample.wall));
        }
        fs::write(gate, "")?;
        spawn::run(client(&["wait", addr, &going]))?;
        spawn::run(client(&["rm", addr, &ended, &going]))?;
    }
    let title = format!("attach: {mib} MiB of output");
    let notes = vec!["the one that goes on is shown as far as it is (`rexec logs`)".into()];
    let mut row = Row { title, unit: "GB/s", notes, lines, marks: Vec::new() };
    for line in [1, 2] {
        let figures = row.ratios(0, line);
        let what = "times as long as a fresh run";
        row.marks.push(Mark { line, what, limit: Limit::AtMost(1.1), figures });
    }
    Ok(row)
}

pub(crate) fn wait_for(mut check: impl FnMut() -> Fallible<bool>) -> Fallible<()> {
    let late = Instant::now() + PATIENCE;
    while !check()? {
        if Instant::now() > late {
            return Err("waited in vain".into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// The id of a removed run stays taken, and a row may be measured a second time.
fn new_id(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("bench-{what}-{}-{number}", std::process::id())
}

fn state() -> Fallible<PathBuf> {
    Ok(std::env::var_os("REXEC_STATE_DIR").ok_or("no REXEC_STATE_DIR")?.into())
}

fn timed<T, E>(run: impl FnOnce() -> Result<T, E>) -> Result<Duration, E> {
    let before = Instant::now();
    run()?;
    Ok(before.elapsed())
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
fn speed(mib: u64, took: Duration) -> f64 {
    (mib << 20) as f64 / 1e9 / took.as_secs_f64()
}
