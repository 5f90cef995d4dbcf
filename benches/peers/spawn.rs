//! The one way in which every program is started and timed, the local shell included.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rexec::sys::process::{self, Pid};
use rustix::process::{WaitId, WaitIdOptions, waitid};

/// Both ends of every output pipe get this size, so that the reader here is nobody's bottleneck.
const PIPE: usize = 1 << 20;

/// What one command took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// From before it was started to after it was reaped.
    pub(crate) wall: Duration,
    /// Processor time of the process and of children that it has waited for.
    pub(crate) cpu: Duration,
    /// Its largest resident set, bytes.
    pub(crate) peak: u64,
    /// Bytes of its standard output.
    pub(crate) bytes: u64,
}

/// Milliseconds from start to end.
pub(crate) fn ms(command: Command) -> io::Result<f64> {
    Ok(run(command)?.wall.as_secs_f64() * 1e3)
}

/// Runs a command to its end, reading its standard output into nothing.
pub(crate) fn run(command: Command) -> io::Result<Sample> {
    run_with(command, Stdio::null())
}

/// The same, with a standard input.
pub(crate) fn run_with(mut command: Command, stdin: Stdio) -> io::Result<Sample> {
    let (mut reader, writer) = io::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&reader, PIPE)?;
    command.stdin(stdin).stdout(writer);
    let start = Instant::now();
    let pid = process::spawn(&mut command)?;
    let name = command.get_program().to_owned();
    // Holds the writing end of the pipe.
    drop(command);
    let bytes = swallow(&mut reader)?;
    let is_success = wait(pid)?;
    let usage = process::reap(pid)?;
    let wall = start.elapsed();
    if !is_success {
        return Err(io::Error::other(format!("{} failed", name.display())));
    }
    Ok(Sample { wall, cpu: usage.user + usage.system, peak: usage.peak, bytes })
}

/// The same, started by a small process: the kernel counts the largest resident set of the starter as
/// that of what it starts, and this program has grown by what it measured before.
pub(crate) fn run_apart(command: &Command) -> io::Result<Sample> {
    let report = tempfile::NamedTempFile::new()?;
    let mut apart = Command::new(std::env::current_exe()?);
    apart.arg("--apart").arg(report.path()).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => apart.env(name, value),
            None => apart.env_remove(name),
        };
    }
    // dbclient warns each time; that something failed is told by the status.
    apart.stderr(Stdio::null());
    let sample = run(apart)?;
    let peak = fs::read_to_string(report.path())?;
    Ok(Sample { peak: peak.parse().map_err(io::Error::other)?, ..sample })
}

/// The small process of [`run_apart`]: runs the words after the first, and says in the file that this one
/// names how much memory that took.
pub(crate) fn apart(words: &[OsString]) -> io::Result<()> {
    let [report, program, rest @ ..] = words else {
        return Err(io::Error::other("a file and a program are missing"));
    };
    let pid = process::spawn(Command::new(program).args(rest))?;
    let is_success = wait(pid)?;
    let usage = process::reap(pid)?;
    fs::write(report, usage.peak.to_string())?;
    is_success
        .then_some(())
        .ok_or_else(|| io::Error::other(format!("{} failed", program.display())))
}

fn swallow(reader: &mut io::PipeReader) -> io::Result<u64> {
    let mut buffer = vec![0; PIPE];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}

/// Waits for the end, which leaves the process to be reaped; whether it exited with 0.
fn wait(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options))?;
    Ok(status.is_some_and(|status| status.exit_status() == Some(0)))
}

/// The first line that a child says; empty if it says none.
pub(crate) fn first_line(child: &mut Child) -> io::Result<String> {
    let mut line = String::new();
    child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line)).transpose()?;
    Ok(line.trim_end().to_owned())
}
