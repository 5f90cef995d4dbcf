//! A plain prompt: line after line over one connection.

use std::io::{self, BufRead};

use tokio::sync::mpsc;

use super::complain;
use super::output::{Standard, write_all};
use super::signals::{AskedSoFar, Signals};
use super::status::{Status, of_end};
use crate::client::{Client, Command, Error, RunIo};

const PROMPT: &[u8] = b"rexec> ";
const GREETING: &str =
    "one command a line, each in a shell of its own and without stdin; leave with exit or Ctrl-D";

/// What the reading of a line brought.
enum Read {
    Line(String),
    End,
    Interrupted,
    Terminated,
}

/// Runs line after line until `exit`, Ctrl-D or the loss of the server; the last command's status.
pub(super) async fn run(mut client: Client, command: impl Fn(&str) -> Command) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => {
            complain("rexec", &format!("cannot listen to signals: {e}"));
            return Status::Unreached.code();
        }
    };
    complain("rexec", GREETING);
    let mut lines = lines();
    let mut status = 0;
    loop {
        if write_all(rustix::stdio::stdout(), PROMPT).is_err() {
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
            Read::Line(line) => match line.trim() {
                "" => {}
                "exit" => return status,
                text => status = one(&mut client, &mut signals, command(text)).await,
            },
        }
    }
}

async fn one(client: &mut Client, signals: &mut Signals, command: Command) -> u8 {
    let asked = AskedSoFar::default();
    let (order, control) = mpsc::unbounded_channel();
    let io = RunIo { stdin: None, output: Box::new(Standard), control };
    let end = tokio::select! {
        end = client.run(&command, io) => end,
        () = signals.pass_on(&order, &asked) => Err(Error::hurried()),
    };
    let answer = of_end(&end, asked.get());
    if let Some(line) = &answer.line {
        complain("rexec", line);
    }
    answer.status.code()
}

/// The lines of the terminal, read by a thread of its own: a terminal cannot be waited for otherwise.
fn lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || line.is_ok_and(|line| sender.blocking_send(line).is_err()) {
                break;
            }
        }
    });
    receiver
}
