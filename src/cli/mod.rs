//! The two programs: command lines, and the one place that talks to people.

mod access_args;
mod batch;
mod calls;
mod check;
mod clean;
mod client_args;
mod config;
mod gc;
mod habits;
mod host_key;
mod input;
mod journal;
mod journal_args;
mod log;
mod man;
mod output;
mod past;
mod person;
mod place;
mod prompt;
mod reach;
mod report;
mod report_file;
pub mod rexec;
pub mod rexec_server;
mod server_args;
mod server_status;
mod settings;
mod signals;
mod ssh_options;
pub mod status;
mod terminal;
mod trouble;
mod upgrade;
mod verbs;
mod visible;
mod words;

use std::io::IsTerminal as _;

use clap_complete::Shell;
use clean::{in_ci, is_obeyed, without_commands};
use report_file::Unwritten;
use rustix::process::{Resource, getrlimit};
use status::Status;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::sys::signals::outlive_file_limit;

/// The name of the server's program, in front of what it says.
const SERVER: &str = "rexec-server";
/// Most characters of a line on stderr.
const LINE_LIMIT: usize = 4096;

/// Writes one line on stderr, with the program's name in front, and without what a terminal or a CI system obeys:
/// part of it may be a peer's text. In systemd's journal it is an error.
pub(crate) fn complain(program: &str, line: &str) {
    let clean: String =
        line.chars().take(LINE_LIMIT).map(|c| if is_obeyed(c) { ' ' } else { c }).collect();
    let clean = if in_ci() { without_commands(&clean) } else { clean.as_str().into() };
    let text = if !is_plain() && std::io::stderr().is_terminal() {
        format!("\x1b[1m{program}:\x1b[0m {clean}\n")
    } else {
        let priority = if log::is_journal() { log::priority(tracing::Level::ERROR) } else { "" };
        format!("{priority}{program}: {clean}\n")
    };
    // Whoever closed stderr does not want to know.
    let _ = output::write_all(rustix::stdio::stderr(), text.as_bytes());
}

/// Whether no colours are wanted (no-color.org), or the terminal may know none.
pub(crate) fn is_plain() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty()) || is_dumb()
}

/// Whether the terminal shows what it gets and obeys nothing, as far as `TERM` tells.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Fewest descriptors that a client has use for.
const DESCRIPTORS: u64 = 16;

/// What a program's heap keeps for what comes next, bytes: the largest window of output.
const HEAP_KEPT: i32 = 8 << 20;

/// Prints what clap has to say: help and version on stdout, errors on stderr.
pub(crate) fn usage(program: &str, error: &clap::Error) -> u8 {
    if error.use_stderr() {
        // Whoever closed stderr does not want to know.
        let _ = error.print();
        return status::Status::Usage.code();
    }
    let text = error.render();
    let plain = is_plain() || !std::io::stdout().is_terminal();
    print(program, &if plain { text.to_string() } else { text.ansi().to_string() })
}

/// Whether this process may have so many descriptors.
fn enough_descriptors(least: u64) -> Result<(), String> {
    match getrlimit(Resource::Nofile).current {
        Some(most) if most < least => {
            Err(format!("`ulimit -n` is {most}, and {least} descriptors are needed"))
        }
        _ => Ok(()),
    }
}

/// What a client runs in. Not `build`, which has the scheduler of many threads linked too, and loads what
/// that needs at each start: the library of floating-point functions.
fn runtime() -> std::io::Result<LocalRuntime> {
    // Tokio panics without the few that it needs itself.
    enough_descriptors(DESCRIPTORS).map_err(std::io::Error::other)?;
    // What cannot be written is told, and a file that is not whole is not left behind.
    outlive_file_limit()?;
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}

/// Prints completions or the manual page, if one of them was asked for. The definition is not made
/// otherwise: it takes a short command's client more time than its command line does.
fn print_definition(
    definition: impl FnOnce() -> clap::Command,
    sections: fn() -> Vec<man::Section>,
    shell: Option<Shell>,
    man: bool,
) -> Option<u8> {
    if shell.is_none() && !man {
        return None;
    }
    let mut definition = definition();
    let name = definition.get_name().to_owned();
    let text = if let Some(shell) = shell {
        completions(shell, &mut definition, &name)
    } else {
        man::page(definition, &sections())
    };
    Some(print(&name, &text))
}

/// What a shell reads to complete the program's lines.
fn completions(shell: Shell, definition: &mut clap::Command, name: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, definition, name, &mut text);
    let text = String::from_utf8_lossy(&text);
    match shell {
        // It sets a variable to the one and compares it with the other, of a name that has a hyphen.
        Shell::Bash => text.replace(&name.replace('-', "__subcmd__"), &name.replace('-', "__")),
        // Behind a verb its own options are meant, also where the program has some of the same name.
        Shell::Zsh => text.replacen("_options[@]}\" :", "_options[@]}\" -A '-*' :", 1),
        _ => text.into_owned(),
    }
}

/// Prints what was asked for; the exit status.
fn print(program: &str, text: &str) -> u8 {
    match output::print_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(e) => unprinted(program, &e),
    }
}

/// Says that standard output does not take what was asked for; the exit status.
fn unprinted(program: &str, error: &std::io::Error) -> u8 {
    let line = format!("cannot write to standard output: {error}");
    let Unwritten { line, status } = Unwritten::on_stdout(line, error);
    if status != Status::Closed {
        complain(program, &line);
    }
    status.code()
}
