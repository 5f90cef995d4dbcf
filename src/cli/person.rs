//! Whoever sits in front of `rexec`: questions on the terminal, passphrases from it or from the program in
//! `REXEC_ASKPASS`, and lines on stderr.

use std::ffi::OsString;
use std::future::ready;
use std::io::{self, IsTerminal as _};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::complain;
use super::terminal::{Echo, PASSPHRASE_LIMIT, Terminal};
use crate::identity::{Ask, Asking, PublicKey};
use crate::sys::signals::let_in;

/// Names a program that prints a passphrase: its first argument is the question.
const ASKPASS_VAR: &str = "REXEC_ASKPASS";
/// That program may take so long.
const ASKPASS_TIMEOUT: Duration = Duration::from_secs(120);

/// What may be said and asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) quiet: bool,
    pub(super) verbose: bool,
    /// Whether an unknown host is asked about: not where many hosts are talked to at once.
    pub(super) asks_about_hosts: bool,
}

/// There is somebody to ask: what rexec says is on a terminal, and that is this process's.
fn is_there() -> bool {
    io::stderr().is_terminal() && Terminal::is_there()
}

fn askpass() -> Option<OsString> {
    std::env::var_os(ASKPASS_VAR).filter(|program| !program.is_empty())
}

impl Ask for Person {
    fn can_unlock(&self) -> bool {
        askpass().is_some() || is_there()
    }

    fn passphrase<'a>(&'a self, question: &'a str) -> Asking<'a, Option<Zeroizing<String>>> {
        Box::pin(async move {
            let asked = match askpass() {
                Some(program) => ask_program(&program, question).await,
                None => ask_terminal(question).await,
            };
            asked.unwrap_or_else(|e| {
                self.tell(&format!("no passphrase: {e}"));
                None
            })
        })
    }

    fn is_right<'a>(&'a self, host: &'a str, key: &'a PublicKey) -> Asking<'a, bool> {
        if !self.asks_about_hosts || !is_there() {
            return Box::pin(ready(false));
        }
        Box::pin(async move {
            ask_about(host, key).await.unwrap_or_else(|e| {
                self.tell(&format!("no answer: {e}"));
                false
            })
        })
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            complain("rexec", line);
        }
    }

    fn note(&self, line: &str) {
        if self.verbose {
            complain("rexec", line);
        }
    }

    fn reassure(&self, line: &str) {
        if self.verbose || (!self.quiet && self.asks_about_hosts && is_there()) {
            complain("rexec", line);
        }
    }
}

async fn ask_terminal(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    Terminal::open()?.ask(question, Echo::Off).await
}

/// As ssh(1) asks: yes, no, or the fingerprint itself, which nobody types without comparing it.
async fn ask_about(host: &str, key: &PublicKey) -> io::Result<bool> {
    let fingerprint = key.fingerprint().to_string();
    let mut terminal = Terminal::open()?;
    let mut question = format!(
        "The host key of {host} is not known: {} {fingerprint}\n\
         Go on only if the server prints the same at its start. Is it right (yes/no/fingerprint)? ",
        key.algorithm()
    );
    loop {
        let Some(answer) = terminal.ask(&question, Echo::On).await? else { return Ok(false) };
        match answer.trim() {
            "yes" => return Ok(true),
            "no" => return Ok(false),
            typed if typed == fingerprint => return Ok(true),
            _ => question = "Type yes, no or the fingerprint: ".into(),
        }
    }
}

/// The first line that a program prints; none if it fails, as one does whose window was closed.
async fn ask_program(program: &OsString, question: &str) -> io::Result<Option<Zeroizing<String>>> {
    let mut command = std::process::Command::new(program);
    command.arg(question).stdin(Stdio::null()).stdout(Stdio::piped());
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", program.display()));
    let mut child = let_in(|| command.spawn()).map_err(named)?;
    let Some(stdout) = child.stdout.take() else { return Ok(None) };
    let talk = async {
        let mut typed = Zeroizing::new(Vec::with_capacity(PASSPHRASE_LIMIT + 2));
        let mut stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
        let limit = PASSPHRASE_LIMIT as u64 + 2;
        (&mut stdout).take(limit).read_to_end(&mut typed).await?;
        io::Result::Ok(typed)
    };
    let typed = timeout(ASKPASS_TIMEOUT, talk).await;
    if !matches!(typed, Ok(Ok(_))) {
        // It may have ended by itself.
        let _ = child.kill();
    }
    // It has closed its output, or is dead: what it still does is not waited for long.
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time");
    let typed = typed.map_err(late).and_then(|read| read).map_err(named)?;
    let ended = timeout(ASKPASS_TIMEOUT, ended).await.map_err(late).map_err(named)?;
    let has_succeeded = ended.is_ok_and(|status| status.is_ok_and(|status| status.success()));
    let line = first_line(&typed).map_err(named)?;
    Ok(has_succeeded.then_some(line))
}

fn first_line(bytes: &[u8]) -> io::Result<Zeroizing<String>> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > PASSPHRASE_LIMIT {
        return Err(io::Error::other(format!("over the limit of {PASSPHRASE_LIMIT} bytes")));
    }
    let text = std::str::from_utf8(line).map_err(|_| io::Error::other("it is not UTF-8"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_passphrase() {
        for (printed, line) in [
            ("", ""),
            ("a b", "a b"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\nb\n", "a"),
            ("\u{e9}", "\u{e9}"),
        ] {
            assert_eq!(first_line(printed.as_bytes()).unwrap().as_str(), line, "{printed:?}");
        }
        let long = "x".repeat(PASSPHRASE_LIMIT);
        assert!(first_line(long.as_bytes()).is_ok());
        assert!(first_line(format!("{long}x").as_bytes()).is_err());
        assert!(first_line(b"\xff").is_err());
    }
}
