//! What is run, and which answers are honest.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

use rexec::proto::digest::Digest;
use rustix::process::Signal;

use crate::Fallible;
use crate::random::Random;
use crate::world::{OURS, World, reap, send};

/// Statuses of the client, as `docs/errors.md` has them.
const STOPPED: i32 = 251;
const UNKNOWN: i32 = 253;
const NEVER_STARTED: i32 = 254;
const UNREACHED: i32 = 255;
/// A client that this program has killed.
const KILLED: i32 = -9;
/// So often the same question is asked before it counts as never answered.
const TRIES: usize = 20;

/// How a run is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `rexec ADDR`
    Foreground,
    /// `rexec ADDR`, with a stdin that comes back.
    Input,
    /// `rexec --durable ADDR`
    Durable,
    /// `rexec --id NAME ADDR`, again and again until there is an answer.
    Named,
    /// The same, by clients that are killed.
    Orphaned,
    /// `rexec -d --id NAME ADDR`, then `rexec attach`.
    Left,
    /// The same, then `rexec stop`.
    Stopped,
    /// `rexec --grace 1s ADDR`, by a client that is killed and does not come back.
    Abandoned,
}

/// Foreground and durable runs in about equal parts.
pub(crate) const KINDS: [Kind; 12] = [
    Kind::Foreground,
    Kind::Foreground,
    Kind::Foreground,
    Kind::Input,
    Kind::Input,
    Kind::Durable,
    Kind::Named,
    Kind::Named,
    Kind::Orphaned,
    Kind::Left,
    Kind::Stopped,
    Kind::Abandoned,
];

/// What became of a run, as its client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It ended by itself, with its own status and its whole output.
    Ended,
    /// Somebody stopped it, as was asked or because the server was shut down.
    Stopped,
    /// Nothing was started.
    NeverStarted,
    /// It cannot be known.
    Unknown,
    /// Nobody was there to be told.
    Nobody,
}

/// One run that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    /// Its name, and its id if it has one.
    pub(crate) key: String,
    pub(crate) kind: Kind,
    /// Its own exit status, below what the client says of itself.
    pub(crate) exit: u8,
    lines: u64,
    linger_ms: u64,
    /// When clients are killed.
    kill_ms: u64,
}

/// What a client printed, and how it ended.
#[derive(Debug)]
struct Told {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Job {
    pub(crate) fn new(key: String, random: &mut Random) -> Self {
        let lines = [3, 100, 5_000, 100_000];
        Self {
            key,
            kind: random.one_of(&KINDS),
            exit: u8::try_from(random.below(100)).unwrap_or_default(),
            lines: random.one_of(&lines),
            linger_ms: random.one_of(&[0, 0, 20, 300]),
            kill_ms: random.below(120),
        }
    }

    /// Asked for with an id, so that it can be asked for again.
    pub(crate) fn is_named(&self) -> bool {
        matches!(self.kind, Kind::Named | Kind::Orphaned | Kind::Left | Kind::Stopped)
    }

    fn text(&self, world: &World) -> String {
        let (key, lines, linger, exit) = (&self.key, self.lines, self.linger_ms, self.exit);
        let effect = format!("echo {key} >> {}", world.effect(key).display());
        match self.kind {
            Kind::Stopped | Kind::Abandoned => format!("{effect}; sleep 600"),
            Kind::Input => format!("{effect}; cat; echo {key} >&2; exit {exit}"),
            _ => format!(
                "{effect}; seq {lines}; sleep {}.{:03}; echo {key} >&2; exit {exit}",
                linger / 1000,
                linger % 1000
            ),
        }
    }

    /// Its standard output, whole.
    pub(crate) fn output(&self) -> Vec<u8> {
        let mut all = String::new();
        for n in 1..=self.lines {
            all.push_str(&n.to_string());
            all.push('\n');
        }
        all.into_bytes()
    }

    /// Asks for the run until there is an answer that holds.
    pub(crate) fn run(&self, world: &World) -> Fallible<Answer> {
        match self.kind {
            Kind::Foreground | Kind::Input | Kind::Durable => self.once(world),
            Kind::Abandoned => self.abandon(world),
            Kind::Named => self.until_known(|| self.ask(world, &["--id", &self.key], None)),
            Kind::Orphaned => {
                self.ask(world, &["--id", &self.key], Some(self.kill_ms))?;
                self.until_known(|| self.ask(world, &["--id", &self.key], None))
            }
            Kind::Left => match self.leave(world)? {
                Answer::Ended => self.until_known(|| self.attach(world)),
                other => Ok(other),
            },
            Kind::Stopped => match self.leave(world)? {
                Answer::Ended => self.stop(world),
                other => Ok(other),
            },
        }
    }

    /// What whoever asks later is told of a run that has a name.
    pub(crate) fn again(&self, world: &World) -> Fallible<Answer> {
        self.until_known(|| match self.kind {
            Kind::Named | Kind::Orphaned => self.ask(world, &["--id", &self.key], None),
            _ => self.attach(world),
        })
    }

    fn once(&self, world: &World) -> Fallible<Answer> {
        let options: &[&str] = if self.kind == Kind::Durable { &["--durable"] } else { &[] };
        let told = self.ask(world, options, None)?;
        self.judge(&told)
    }

    fn abandon(&self, world: &World) -> Fallible<Answer> {
        let told = self.ask(world, &["--grace", "1s"], Some(self.kill_ms))?;
        if told.status == KILLED { Ok(Answer::Nobody) } else { self.judge(&told) }
    }

    fn leave(&self, world: &World) -> Fallible<Answer> {
        for _ in 0..TRIES {
            let told = self.ask(world, &["-d", "--id", &self.key], None)?;
            match told.status {
                0 if told.stdout == format!("{}\n", self.key).as_bytes() => {
                    return Ok(Answer::Ended);
                }
                UNREACHED | NEVER_STARTED | UNKNOWN => {}
                _ => return Err(self.wrong(&told)),
            }
        }
        // What is known of it is asked for like anything else's end.
        Ok(Answer::Ended)
    }

    fn stop(&self, world: &World) -> Fallible<Answer> {
        for _ in 0..TRIES {
            let mut client = world.client(&["stop", &world.relay.addr, &self.key]);
            let told = talk(&mut client.spawn_piped()?, Vec::new(), None)?;
            match told.status {
                0 => break,
                UNREACHED | UNKNOWN | NEVER_STARTED => {}
                _ => return Err(self.wrong(&told)),
            }
        }
        self.until_known(|| self.attach(world))
    }

    fn attach(&self, world: &World) -> Fallible<Told> {
        let mut client = world.client(&["attach", &world.relay.addr, &self.key]);
        talk(&mut client.spawn_piped()?, Vec::new(), None)
    }

    fn ask(&self, world: &World, options: &[&str], kill_ms: Option<u64>) -> Fallible<Told> {
        let (text, ours) = (self.text(world), format!("{OURS}={}", world.dir().display()));
        let mut words = options.to_vec();
        words.extend(["--env", &ours, &world.relay.addr, &text]);
        let input = if self.kind == Kind::Input { self.output() } else { Vec::new() };
        talk(&mut world.client(&words).spawn_piped()?, input, kill_ms)
    }

    /// Repeats a question that may be repeated, until the answer is one that stays.
    fn until_known(&self, ask: impl Fn() -> Fallible<Told>) -> Fallible<Answer> {
        let mut last = Answer::Unknown;
        for _ in 0..TRIES {
            let told = ask()?;
            last = self.judge(&told)?;
            if !matches!(last, Answer::NeverStarted | Answer::Unknown) || is_lost(&told) {
                return Ok(last);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(last)
    }

    fn judge(&self, told: &Told) -> Fallible<Answer> {
        match told.status {
            STOPPED => Ok(Answer::Stopped),
            UNKNOWN => Ok(Answer::Unknown),
            NEVER_STARTED | UNREACHED => Ok(Answer::NeverStarted),
            status if status == i32::from(self.exit) => {
                let whole = Digest::of(&told.stdout) == Digest::of(&self.output());
                let last = told.stderr.lines().any(|line| line == self.key);
                if whole && last { Ok(Answer::Ended) } else { Err(self.wrong(told)) }
            }
            _ => Err(self.wrong(told)),
        }
    }

    fn wrong(&self, told: &Told) -> Box<dyn std::error::Error + Send + Sync> {
        let Told { status, stdout, stderr } = told;
        let (got, want) = (stdout.len(), self.output().len());
        format!("{self:?}: exited {status} with {got} bytes of {want}: {stderr}").into()
    }
}

/// The answer that the supervisor is gone stays.
fn is_lost(told: &Told) -> bool {
    told.status == UNKNOWN && told.stderr.contains("kept the durable run was ended")
}

trait SpawnPiped {
    fn spawn_piped(&mut self) -> std::io::Result<Child>;
}

impl SpawnPiped for std::process::Command {
    fn spawn_piped(&mut self) -> std::io::Result<Child> {
        self.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

/// Gives a client its input, takes its output, and waits for it, or kills it after a while.
fn talk(client: &mut Child, input: Vec<u8>, kill_ms: Option<u64>) -> Fallible<Told> {
    let (stdin, stdout, stderr) = (client.stdin.take(), client.stdout.take(), client.stderr.take());
    std::thread::scope(|scope| {
        // A client that ends early breaks the pipe, and says why.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(&input)));
        let stdout = scope.spawn(move || read_all(stdout));
        let stderr = scope.spawn(move || read_all(stderr));
        if let Some(after) = kill_ms {
            std::thread::sleep(Duration::from_millis(after));
            send(client.id(), Signal::KILL);
        }
        let status = reap(client)?;
        let [stdout, stderr] =
            [stdout, stderr].map(|thread| thread.join().unwrap_or_else(|_| Ok(Vec::new())));
        let stderr = String::from_utf8_lossy(&stderr?).into_owned();
        Ok(Told { status, stdout: stdout?, stderr })
    })
}

fn read_all(pipe: Option<impl Read>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)).transpose()?;
    Ok(bytes)
}
