//! The other end of `scripts/instructions`.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::pieces;

/// `--names` tells the names of the pieces, `--times COUNT NAME` does one of them so often. None if
/// neither is asked for.
pub(crate) fn asked() -> Option<ExitCode> {
    let words: Vec<_> = env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--names"] => Some(tell_names()),
        ["--times", count, name] => Some(repeat(count, name)),
        _ => None,
    }
}

fn tell_names() -> ExitCode {
    let told = pieces::ALL.iter().try_for_each(|(name, _)| writeln!(io::stdout(), "{name}"));
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn repeat(count: &str, name: &str) -> ExitCode {
    let piece = pieces::ALL.iter().find(|(known, _)| *known == name);
    let Some((count, (_, prepare))) = count.parse::<u32>().ok().zip(piece) else {
        return ExitCode::FAILURE;
    };
    let mut piece = prepare();
    (0..count).for_each(|_| piece());
    ExitCode::SUCCESS
}
