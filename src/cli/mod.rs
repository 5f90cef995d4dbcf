//! The two programs: command lines, and the one place that talks to people.

mod client_args;
mod output;
mod prompt;
mod report;
pub mod rexec;
pub mod rexec_server;
mod server_args;
mod signals;
pub mod status;
mod verdict_file;

use std::io::IsTerminal as _;

use clap_complete::Shell;

/// Most characters of a line on stderr.
const LINE_LIMIT: usize = 4096;

/// Writes one line on stderr, with the program's name in front, and without what a terminal obeys: part
/// of it may be a peer's text.
pub(crate) fn complain(program: &str, line: &str) {
    let clean: String =
        line.chars().take(LINE_LIMIT).map(|c| if is_obeyed(c) { ' ' } else { c }).collect();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
    let text = if !plain && std::io::stderr().is_terminal() {
        format!("\x1b[1m{program}:\x1b[0m {clean}\n")
    } else {
        format!("{program}: {clean}\n")
    };
    // Whoever closed stderr does not want to know.
    let _ = output::write_all(rustix::stdio::stderr(), text.as_bytes());
}

/// Control characters, and those that reorder, break or hide text.
fn is_obeyed(c: char) -> bool {
    let hidden = ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}'];
    c.is_control() || c == '\u{feff}' || hidden.iter().any(|range| range.contains(&c))
}

/// Prints what clap has to say: help and version on stdout, errors on stderr.
pub(crate) fn usage(error: &clap::Error) -> u8 {
    // A closed stdout is not worth an error here.
    let _ = error.print();
    u8::from(error.use_stderr()) * status::Status::Usage.code()
}

/// Prints completions or the manual page, if one of them was asked for.
fn print_definition(mut definition: clap::Command, shell: Option<Shell>, man: bool) -> Option<u8> {
    let mut text = Vec::new();
    if let Some(shell) = shell {
        let name = definition.get_name().to_owned();
        clap_complete::generate(shell, &mut definition, name, &mut text);
    } else if man {
        // Writing to memory cannot fail.
        let _ = clap_mangen::Man::new(definition).render(&mut text);
    } else {
        return None;
    }
    Some(match output::write_all(rustix::stdio::stdout(), &text) {
        Ok(()) => 0,
        Err(_) => status::Status::Output.code(),
    })
}
