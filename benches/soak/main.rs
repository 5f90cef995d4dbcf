//! Thousands of runs while the network, the server and its supervisors fail. Run by `scripts/soak`.
//!
//! The seed brings back what is asked for and what goes wrong, not how the machine interleaves them.

mod audit;
mod chaos;
mod jobs;
mod random;
mod relay;
mod world;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;

use chaos::Harms;
use jobs::{Answer, Job};
use random::Random;
use world::World;

/// Whatever goes wrong here is a failure of the soak.
type Fallible<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// See `scripts/soak --help`.
#[derive(Debug, Parser)]
struct Args {
    /// Brings a soak back; by default another one each time.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// For so long runs are asked for.
    #[arg(long, value_name = "M", default_value_t = 3.0, value_parser = minutes)]
    minutes: f64,
    /// So many clients at a time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clients: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= 24.0 * 60.0 => Ok(minutes),
        _ => Err("more than 0 and at most a day".into()),
    }
}

/// What all clients have been told.
#[derive(Debug, Default)]
struct Found {
    done: Vec<(Job, Answer)>,
    wrong: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| {
        std::time::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs() % 1_000_000)
    });
    let mut out = io::stdout();
    let wrong = match World::new() {
        Ok(world) => {
            let wrong = soak(&world, &args, seed).unwrap_or_else(|e| vec![e.to_string()]);
            if !wrong.is_empty() {
                // Nobody is left to tell when stdout is closed.
                let _ = writeln!(out, "the server's log:\n{}", world.log());
            }
            wrong
        }
        Err(e) => vec![e.to_string()],
    };
    for what in &wrong {
        let _ = writeln!(out, "WRONG: {what}");
    }
    let _ = writeln!(out, "{} wrong; again: scripts/soak --seed {seed}", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn soak(world: &World, args: &Args, seed: u64) -> Fallible<Vec<String>> {
    let begin = Instant::now();
    let until = begin + Duration::from_secs_f64(args.minutes * 60.0);
    let (over, found) = (AtomicBool::new(false), Mutex::new(Found::default()));
    let harms = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| chaos::harm(world, &mut Random::new(seed, 0), &over));
        let clients: Vec<_> = (1..=args.clients)
            .map(|client| {
                let random = Random::new(seed, client);
                let found = &found;
                scope.spawn(move || ask(world, (client, random), until, found))
            })
            .collect();
        for client in clients {
            // A panic there is a bug of the soak, and shows as runs that are missing.
            let _ = client.join();
        }
        over.store(true, Ordering::Relaxed);
        chaos.join().unwrap_or_else(|_| Err("the harm ended early".into()))
    })?;
    let Found { done, mut wrong } = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let asked = begin.elapsed();
    wrong.extend(audit::audit(world, &done)?);
    wrong.extend(audit::clear(world)?);
    report(&done, &harms, (asked, begin.elapsed()))?;
    Ok(wrong)
}

/// One client after another.
fn ask(world: &World, (client, mut random): (u64, Random), until: Instant, found: &Mutex<Found>) {
    for number in 0.. {
        if Instant::now() >= until {
            return;
        }
        let job = Job::new(format!("soak-{client}-{number}"), &mut random);
        let answer = job.run(world);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(answer) => found.done.push((job, answer)),
            Err(e) => found.wrong.push(e.to_string()),
        }
    }
}

fn report(
    done: &[(Job, Answer)],
    harms: &Harms,
    (asked, all): (Duration, Duration),
) -> io::Result<()> {
    let mut out = io::stdout();
    let mut counts: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for (job, answer) in done {
        let row = counts.entry(format!("{:?}", job.kind)).or_default();
        *row.entry(format!("{answer:?}")).or_default() += 1;
    }
    let (count, asked, all) = (done.len(), asked.as_secs(), all.as_secs());
    writeln!(out, "{count} runs in {asked} s, {all} s with all checks")?;
    for (kind, answers) in counts {
        let answers: Vec<_> = answers.iter().map(|(answer, n)| format!("{answer} {n}")).collect();
        writeln!(out, "  {kind:<11} {}", answers.join(", "))?;
    }
    let harms: Vec<_> = harms.iter().map(|(harm, count)| format!("{count} {harm}")).collect();
    writeln!(out, "{}", harms.join(", "))
}
