//! A plain prompt: line after line over one connection.

use std::ffi::OsStr;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt as _;

use tokio::sync::mpsc;

use super::complain;
use super::output::{Standard, write_all};
use super::signals::{AskedSoFar, Signals};
use super::status::{Status, of_end};
use crate::client::{Client, Command, Error, RunIo};

const GREETING: &str =
    "one command a line, each in a shell of its own and without stdin; leave with exit or Ctrl-D";

/// What the reading of a line brought.
enum Read {
    Line(Vec<u8>),
    End,
    Interrupted,
    Terminated,
}

/// Runs line after line until `exit` or Ctrl-D; the status that `exit` names, or the last command's.
pub(super) async fn run(
    mut client: Client,
    mut signals: Signals,
    command: impl Fn(&OsStr) -> Command,
) -> u8 {
    complain("rexec", GREETING);
    let mut lines = lines();
    let mut status = 0;
    loop {
        if write_all(rustix::stdio::stdout(), prompt(status).as_bytes()).is_err() {
            return Status::Closed.code();
        }
        let read = tokio::select! {
            line = lines.recv() => line.map_or(Read::End, Read::Line),
            go_on = signals.at_prompt() => if go_on { Read::Interrupted } else { Read::Terminated },
            () = client.keep_alive() => Read::Interrupted,
        };
        match read {
            Read::End => {
                let _ = write_all(rustix::stdio::stdout(), b"\n");
                return status;
            }
            Read::Terminated => return Status::Terminated.code(),
            Read::Interrupted => drop(write_all(rustix::stdio::stdout(), b"\n")),
            Read::Line(line) => match (line.trim_ascii(), exit(&line)) {
                (b"", _) => {}
                (_, Some(named)) => return named.unwrap_or(status),
                (text, None) => {
                    let command = command(OsStr::from_bytes(text));
                    status = one(&mut client, &mut signals, command).await;
                }
            },
        }
    }
}

/// Shows how the last command ended, unless it ended well.
fn prompt(status: u8) -> String {
    if status == 0 { "rexec> ".into() } else { format!("[{status}] rexec> ") }
}

/// Whether the line is `exit` or `exit N`, and N, of which a status has the lowest 8 bits. Everything
/// else is the server's shell's.
fn exit(line: &[u8]) -> Option<Option<u8>> {
    let mut words = std::str::from_utf8(line).ok()?.split_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some("exit"), None, None) => Some(None),
        (Some("exit"), Some(number), None) => {
            number.parse::<u32>().ok().map(|n| Some((n & 0xff) as u8))
        }
        _ => None,
    }
}

async fn one(client: &mut Client, signals: &mut Signals, command: Command) -> u8 {
    let asked = AskedSoFar::default();
    let (order, control) = mpsc::unbounded_channel();
    let io = RunIo { stdin: None, output: Box::new(Standard), control };
    let end = tokio::select! {
        end = client.run(&command, io) => end,
        () = signals.pass_on(&order, &asked, false) => Err(Error::hurried(client.last_run().unwrap_or_default())),
    };
    let answer = of_end(&end, asked.get());
    if let Some(line) = &answer.line {
        complain("rexec", line);
    }
    answer.status.code()
}

/// The lines of the terminal, read by a thread of its own: a terminal cannot be waited for otherwise.
fn lines() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_takes_a_number_as_the_shell_does() {
        for (line, means) in [
            ("exit", Some(None)),
            ("exit 7", Some(Some(7))),
            ("exit  0", Some(Some(0))),
            ("exit 257", Some(Some(1))),
            ("exit x", None),
            ("exit -1", None),
            ("exit 1 2", None),
            ("exit 7; true", None),
            ("exits", None),
            ("", None),
        ] {
            assert_eq!(exit(line.as_bytes()), means, "{line}");
        }
    }
}
