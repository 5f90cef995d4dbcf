//! What must be true when all is over.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use rexec::proto::digest::Digest;
use serde_json::Value;

use crate::Fallible;
use crate::jobs::{Answer, Job};
use crate::world::{PATIENCE, World};

/// What the journal says of one id under which something was accepted.
#[derive(Debug, Default)]
struct Told {
    accepted: usize,
    /// Last lines: `ended`, `lost`, `not_started`.
    last: Vec<(String, Option<u64>)>,
}

/// Checks everything; what is wrong, one line each.
pub(crate) fn audit(world: &World, done: &[(Job, Answer)]) -> Fallible<Vec<String>> {
    let mut wrong = Vec::new();
    wait_for_quiet(world, &mut wrong)?;
    let told = journal(world, &mut wrong)?;
    for (job, answer) in done {
        if let Err(what) = one_effect(world, job, *answer) {
            wrong.push(format!("{job:?}, {answer:?}: {what}"));
        }
        if job.is_named()
            && let Err(what) = one_verdict(world, job, *answer, told.get(&job.key))
        {
            wrong.push(format!("{job:?}, {answer:?}: {what}"));
        }
    }
    Ok(wrong)
}

/// What is under way ends by itself: stops take their time, and so does a client's grace.
fn wait_for_quiet(world: &World, wrong: &mut Vec<String>) -> Fallible<()> {
    let late = Instant::now() + PATIENCE;
    if let Some(left) = still_there(late, || world.busy()) {
        wrong.push(format!("left: {left}"));
        return Ok(());
    }
    // The server has heard of every end when it says so.
    while listed(world)?.iter().any(|run| run["state"] == "running") {
        if Instant::now() > late {
            wrong.push("runs are listed as running that are not".into());
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Which processes are there too late.
fn still_there(late: Instant, left: impl Fn() -> Vec<u32>) -> Option<String> {
    loop {
        let left = left();
        if left.is_empty() {
            return None;
        }
        if Instant::now() > late {
            return Some(left.into_iter().map(what).collect::<Vec<_>>().join("; "));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a process is, for whoever has to find out why it is still there.
fn what(pid: u32) -> String {
    let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
    let status = String::from_utf8_lossy(&read("status")).into_owned();
    let told = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim();
    format!("{pid} ({}, child of {}) {line}", told("State:"), told("PPid:"))
}

fn listed(world: &World) -> Fallible<Vec<Value>> {
    let output = world.client(&["ps", "--json", "--limit", "10000", &world.addr]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// Reads the journal, whose lines must follow each other.
fn journal(world: &World, wrong: &mut Vec<String>) -> Fallible<HashMap<String, Told>> {
    let mut all: HashMap<String, Told> = HashMap::new();
    let mut before = Value::Null;
    for line in fs::read_to_string(world.instance().join("journal/000001.jsonl"))?.lines() {
        let value: Value = serde_json::from_str(line)?;
        if value["prev"] != before {
            wrong.push(format!("journal: {} does not follow the line before", value["seq"]));
        }
        before = Digest::of(line.as_bytes()).to_string().into();
        let run = value["run"].as_str().or_else(|| value["verdict"]["run"].as_str());
        let told = all.entry(run.unwrap_or_default().to_owned()).or_default();
        match value["type"].as_str().unwrap_or_default() {
            "accepted" => told.accepted += 1,
            last @ ("ended" | "lost" | "not_started") => {
                let code = value["verdict"]["end"]["exited"]["code"].as_u64();
                told.last.push((last.to_owned(), code));
            }
            _ => {}
        }
    }
    for (run, told) in &all {
        let ends = told.last.iter().filter(|(last, _)| last != "not_started").count();
        if told.accepted != told.last.len() || ends > 1 {
            wrong.push(format!("journal: {run} was accepted {} times: {told:?}", told.accepted));
        }
    }
    Ok(all)
}

/// Whatever was answered, the command left one line at most, and exactly one if it ended.
fn one_effect(world: &World, job: &Job, answer: Answer) -> Result<(), String> {
    let text = fs::read_to_string(world.effect(&job.key)).unwrap_or_default();
    let is_right = match answer {
        Answer::Ended => text.lines().count() == 1,
        Answer::NeverStarted => text.is_empty(),
        Answer::Stopped | Answer::Unknown | Answer::Nobody => text.lines().count() <= 1,
    };
    if is_right { Ok(()) } else { Err(format!("it left {text:?}")) }
}

/// Whoever asks later is told the same, which is also what the journal has.
fn one_verdict(world: &World, job: &Job, first: Answer, told: Option<&Told>) -> Result<(), String> {
    let last = told.and_then(|told| told.last.last());
    let is_same = match (first, last) {
        (Answer::Ended, Some((last, code))) => {
            last == "ended" && *code == Some(u64::from(job.exit))
        }
        (Answer::Stopped, Some((last, _))) => last == "ended",
        (Answer::Unknown, Some((last, _))) => last == "lost",
        (Answer::NeverStarted, last) => last.is_none_or(|(last, _)| last == "not_started"),
        _ => false,
    };
    if !is_same {
        return Err(format!("the journal says {told:?}"));
    }
    // To ask once more for what never started would start it.
    if first == Answer::NeverStarted {
        return Ok(());
    }
    let again = job.again(world).map_err(|e| e.to_string())?;
    if again == first { Ok(()) } else { Err(format!("later it was {again:?}")) }
}

/// Removes every record and stops the server: then nothing may be left.
pub(crate) fn clear(world: &World) -> Fallible<Vec<String>> {
    let mut wrong = Vec::new();
    let runs = listed(world)?;
    let ids: Vec<_> = runs
        .iter()
        .filter(|run| run["durable"] == true)
        .filter_map(|run| run["run"].as_str())
        .collect();
    for some in ids.chunks(200) {
        let mut client = world.client(&["rm", &world.addr]);
        let output = client.args(some).output()?;
        if !output.status.success() {
            wrong.push(format!("rm: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    let status = world.stop()?;
    if status != 0 {
        wrong.push(format!("the server exited {status}"));
    }
    // The supervisor that was kept ready goes when it sees that its server has.
    if let Some(left) = still_there(Instant::now() + PATIENCE, || world.processes()) {
        wrong.push(format!("left by the server: {left}"));
    }
    for (name, count) in files(world)? {
        wrong.push(format!("{count} files {name} are left"));
    }
    Ok(wrong)
}

/// What is left of runs besides what makes their ids stay taken.
fn files(world: &World) -> Fallible<BTreeMap<String, usize>> {
    let mut left = BTreeMap::new();
    for folder in fs::read_dir(world.instance().join("runs"))? {
        for file in fs::read_dir(folder?.path())? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            // A log tells of a supervisor that had something to complain of.
            if !["meta.json", "outcome.json", "log"].contains(&name.as_str()) {
                *left.entry(name).or_default() += 1;
            }
        }
    }
    let dir = world.dir().display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix")?;
    if sockets.lines().any(|line| line.contains(&dir)) {
        left.insert("socket in use".into(), 1);
    }
    Ok(left)
}
