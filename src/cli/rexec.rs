//! The client's program.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::pin::{Pin, pin};

use tokio::sync::mpsc;

use super::client_args::{Args, definition, sections, with_verbs};
use super::input::StandardInput;
use super::output::{Kept, Standard, ToFile, Unfinished, is_stdout, print_all};
use super::prompt;
use super::report::Report;
use super::report_file::Unwritten;
use super::signals::{AskedSoFar, Signals};
use super::status::{Answer, Asked, Status, of_end};
use super::words::{BATCH, HELP, Habits, is_verb, meant};
use super::{HEAP_KEPT, complain, print_definition, report_file};
use crate::client::{Client, Command, Error, Input, Output, RunIo};
use crate::proto::code::Code;
use crate::proto::digest::Algorithm;
use crate::proto::verdict::Verdict;
use crate::sys::heap;

const HABITS: Habits = Habits {
    options: "options of rexec stand before the command",
    joined: "--shell gives several words to the server's shell, as ssh does",
};

/// Runs `rexec` with these arguments, the program's name first; the exit status.
#[must_use]
pub fn main(args: &[OsString]) -> u8 {
    if let Some(verb) = args.get(1).and_then(|word| word.to_str())
        && is_verb(verb)
    {
        return super::verbs::main(args);
    }
    if args.get(1).is_some_and(|word| word == BATCH) {
        return super::batch::main(args);
    }
    if args.get(1).is_some_and(|word| word == HELP) {
        let words = args.iter().take(1).chain(args.get(2)).cloned();
        return main(&words.chain(["--help".into()]).collect::<Vec<_>>());
    }
    let args = match Args::read(args) {
        Ok(args) => args,
        Err(e) => return super::usage("rexec", &e),
    };
    let definition = || if args.completions.is_some() { with_verbs() } else { definition() };
    if let Some(status) = print_definition(definition, sections, args.completions, args.man) {
        return status;
    }
    heap::keep(HEAP_KEPT);
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(e) => {
            complain("rexec", &format!("cannot start: {e}"));
            return Status::Unreached.code();
        }
    };
    // Moved into the runtime it would be copied, and touch as much of the stack twice.
    let status = runtime.block_on(pin!(run(args)));
    // A read of stdin, or a look-up of a name, may still block a thread: nobody waits for it. The process ends,
    // and what the runtime holds with it.
    std::mem::forget(runtime);
    status
}

/// Says that a bug has ended the program; the exit status.
#[must_use]
pub fn broken() -> u8 {
    complain("rexec", "a bug in rexec has ended it: it cannot know whether or how a command ran");
    Status::Unknown.code()
}

async fn run(mut args: Args) -> u8 {
    if let Err(line) = check_verdict(&args) {
        // There is no place to write it to.
        args.verdict = None;
        return not_sent(&args, Status::Usage, line);
    }
    let args = &args;
    let Some(place) = &args.addr else { return Status::Usage.code() };
    let client = match args.reach.client(place) {
        Ok(client) => client,
        Err(e) => return not_sent(args, Status::Unreached, e.to_string()),
    };
    let command = match command(args) {
        Ok(command) => command,
        Err(line) => return not_sent(args, Status::Usage, line),
    };
    if args.command.is_empty() && io::stdin().is_terminal() {
        return boxed(|| prompt(args, client)).await;
    }
    if args.detach {
        return boxed(|| start(args, client, command)).await;
    }
    one(args, client, command).await
}

/// A future in a box, made in a frame of its own: neither the future nor the frame of a short command has room for
/// what others need.
#[inline(never)]
fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

/// Starts a run and leaves it.
async fn start(args: &Args, mut client: Client, command: Command) -> u8 {
    // Without a command the script on stdin is the command.
    let stdin = if args.command.is_empty() { input(args) } else { None };
    match client.start(&command, stdin).await {
        Ok(run) => match print_all(format!("{run}\n").as_bytes()) {
            Ok(()) => 0,
            Err(e) => {
                let line = format!("run {run} is started; cannot write its id: {e}");
                let unwritten = Unwritten::on_stdout(line, &e);
                say(args, &unwritten.line);
                unwritten.status.code()
            }
        },
        Err(error) => {
            let answer = of_end(&Err(error), Asked::Nothing);
            finish(args, &answer, None, None)
        }
    }
}

fn check_verdict(args: &Args) -> Result<(), String> {
    let Some(path) = &args.verdict else { return Ok(()) };
    if args.output.as_ref().is_some_and(|output| report_file::are_one(output, path)) {
        return Err("--output and --verdict name the same file; nothing was run".into());
    }
    report_file::check(path)
        .map_err(|e| format!("cannot write --verdict {}: {e}; nothing was run", path.display()))
}

/// Asks for commands once there is a server that takes them.
async fn prompt(args: &Args, mut client: Client) -> u8 {
    let for_one = args.json || args.output.is_some() || args.verdict.is_some();
    if for_one || args.detach || args.id.is_some() {
        let line = "--json, --output, --verdict, --detach and --id are for one command: give it, or a \
                    script on stdin";
        return not_sent(args, Status::Usage, line.into());
    }
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return not_sent(args, Status::Unreached, deaf(&e)),
    };
    let connected = tokio::select! {
        connected = client.connect() => connected,
        interrupted = signals.at_prompt() => {
            return if interrupted { Status::Interrupted } else { Status::Terminated }.code();
        }
    };
    if let Err(error) = connected {
        let answer = of_end(&Err(error), Asked::Nothing);
        return finish(args, &answer, None, None);
    }
    prompt::run(client, signals, |text| with_options(args, Command::shell(text))).await
}

fn deaf(error: &io::Error) -> String {
    format!("cannot listen to signals: {error}")
}

/// What went wrong here before a server was asked.
fn not_sent(args: &Args, status: Status, line: String) -> u8 {
    let answer = Answer { status, line: Some(line), code: None };
    finish(args, &answer, None, args.json.then(Kept::default))
}

/// The command that the words stand for.
fn command(args: &Args) -> Result<Command, String> {
    let command = match args.command.as_slice() {
        [] => Command::script(),
        words if args.shell => Command::shell(words.join(OsStr::new(" "))),
        [text] if !args.exact => Command::shell(text),
        words => Command::argv(words),
    };
    if args.command.is_empty() && args.no_stdin {
        return Err("there is no command, and -n leaves no script to read: give one of them".into());
    }
    if args.command.is_empty() && args.shell {
        return Err("there is no COMMAND whose words --shell could join".into());
    }
    for setting in &args.env {
        let name = setting.as_bytes();
        if !name.is_empty() && !name.contains(&b'=') && std::env::var_os(setting).is_none() {
            return Err(format!(
                "--env {}: no such variable here; write NAME=VALUE",
                setting.display()
            ));
        }
    }
    Ok(with_options(args, command))
}

fn with_options(args: &Args, mut command: Command) -> Command {
    command = command.merge(args.merge).wait_eof(args.wait_eof).hash(args.hash);
    command = command.durable(args.durable || args.id.is_some());
    if let Some(id) = &args.id {
        command = command.id(id);
    }
    if let Some(cwd) = &args.cwd {
        command = command.cwd(cwd);
    }
    if let Some(timeout) = args.timeout {
        command = command.deadline(timeout);
    }
    if let Some(grace) = args.grace {
        command = command.grace(grace);
    }
    for setting in &args.env {
        let (name, value) = split_setting(setting);
        command = command.env(name, value);
    }
    command
}

/// `NAME=VALUE`, or `NAME` with the value that it has here.
fn split_setting(setting: &OsStr) -> (OsString, OsString) {
    let bytes = setting.as_bytes();
    match bytes.iter().position(|b| *b == b'=') {
        Some(at) => {
            (OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec()))
        }
        None => (setting.to_owned(), std::env::var_os(setting).unwrap_or_default()),
    }
}

/// One command from start to end.
async fn one(args: &Args, mut client: Client, command: Command) -> u8 {
    let asked = AskedSoFar::default();
    let kept = args.json.then(Kept::default);
    let (order, control) = mpsc::unbounded_channel();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return not_sent(args, Status::Unreached, deaf(&e)),
    };
    let (output, unfinished) = match output(args, kept.as_ref()) {
        Ok(output) => output,
        Err(line) => return not_sent(args, Status::Usage, line),
    };
    let io = RunIo { stdin: input(args), output, control };
    let end = tokio::select! {
        end = client.run(&command, io) => end,
        () = signals.pass_on(&order, &asked, args.durable || args.id.is_some()) => Err(Error::hurried(client.last_run().unwrap_or_default())),
    };
    if let Some(unfinished) = unfinished {
        unfinished.remove();
    }
    if args.reach.verbose
        && let Some(welcome) = client.welcome()
    {
        say(args, &format!("{} let us in as {}", welcome.server, welcome.identity));
    }
    let answer = with_hint(args, of_end(&end, asked.get()));
    let verdict = match &end {
        Ok(verdict) => Some(verdict),
        Err(Error::Output { verdict, .. }) => verdict.as_deref(),
        Err(_) => None,
    };
    let status = finish(args, &answer, verdict, kept);
    // The process ends, and the connection with it.
    std::mem::forget(client);
    status
}

/// Words that are no program may have been meant for something else.
fn with_hint(args: &Args, mut answer: Answer) -> Answer {
    let is_missing = answer.code == Some(Code::ProgramNotFound);
    if let Some(line) = answer.line.as_mut().filter(|_| is_missing)
        && let Some(meant) = meant(args.exact, &args.command, &HABITS)
    {
        line.push_str("; ");
        line.push_str(meant);
    }
    answer
}

/// Tells people and machines how it ended.
fn finish(args: &Args, answer: &Answer, verdict: Option<&Verdict>, kept: Option<Kept>) -> u8 {
    if let Some(line) = &answer.line {
        say(args, line);
    }
    if args.reach.verbose
        && let Some(verdict) = verdict
    {
        say(args, &summary(verdict));
    }
    let saved = args.verdict.as_ref().map_or(Ok(()), |path| {
        let line = Report::new(answer, verdict, None).line().map_err(io::Error::from);
        line.and_then(|line| report_file::write(path, line.as_bytes()))
            .map_err(|e| Unwritten::report("--verdict", path, &e))
    });
    let printed =
        kept.map_or(Ok(()), |kept| Report::new(answer, verdict, Some(kept.take())).print());
    let mut status = answer.status;
    for unwritten in [saved, printed].into_iter().filter_map(Result::err) {
        say(args, &unwritten.line);
        status = report_file::worse(status, unwritten.status);
    }
    status.code()
}

/// A line of the client's own.
fn say(args: &Args, line: &str) {
    args.reach.say(line);
}

fn summary(verdict: &Verdict) -> String {
    let bytes = |end: &Option<crate::proto::verdict::StreamEnd>| end.map_or(0, |e| e.size);
    // Of output that was altered they are what the server says.
    let out = bytes(&verdict.stdout).saturating_add(bytes(&verdict.both));
    let mut line = format!(
        "run {} took {} ms, wrote {out} bytes to stdout and {} to stderr, checked by {}",
        verdict.run,
        verdict.elapsed_ms,
        bytes(&verdict.stderr),
        verdict.hash.as_deref().unwrap_or(Algorithm::Sha256.name())
    );
    if verdict.left_running > 0 {
        line.push_str(&format!("; {} of its processes are left running", verdict.left_running));
    }
    line
}

/// Where the output goes, and what to remove if it does not all get there.
fn output(
    args: &Args,
    kept: Option<&Kept>,
) -> Result<(Box<dyn Output>, Option<Unfinished>), String> {
    match (kept, &args.output) {
        (Some(kept), _) => Ok((Box::new(kept.clone()), None)),
        (None, None) => Ok((Box::new(Standard), None)),
        (None, Some(path)) if is_stdout(path) => Ok((Box::new(Standard), None)),
        (None, Some(path)) => {
            let file = ToFile::create(path)
                .map_err(|e| format!("cannot write {}: {}; nothing was run", path.display(), e))?;
            let unfinished = file.unfinished();
            Ok((Box::new(file), unfinished))
        }
    }
}

/// This process's stdin; none where the command would read nothing from it either.
fn input(args: &Args) -> Option<Input> {
    (!args.no_stdin && !is_null()).then(|| Box::new(StandardInput::new()) as Input)
}

fn is_null() -> bool {
    let stdin = rustix::fs::fstat(rustix::stdio::stdin());
    let null = rustix::fs::stat("/dev/null");
    matches!((stdin, null), (Ok(a), Ok(b)) if a.st_rdev == b.st_rdev && a.st_mode == b.st_mode && a.st_ino == b.st_ino)
}
