//! The words that `rexec` takes for itself: no address, and no name of a server, is one of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::habits::verb_for;

/// What is done with durable runs, and with a server's host key.
pub(super) const VERBS: [&str; 8] =
    ["ps", "attach", "logs", "wait", "signal", "stop", "rm", "host-key"];
/// Many hosts.
pub(super) const BATCH: &str = "batch";
/// What `help VERB` asks for is what `VERB --help` does.
pub(super) const HELP: &str = "help";

/// From here on a mistyped word is like another: clap's own limit.
const LIKE: f64 = 0.7;

/// Whether it is one of [`VERBS`]. Their definitions are not made for that: it takes longer than all else before a
/// run's connection.
pub(super) fn is_verb(word: &str) -> bool {
    VERBS.contains(&word)
}

/// Whether it is any of these words.
pub(super) fn is_taken(word: &str) -> bool {
    all().any(|taken| taken == word)
}

/// The one that is meant by this word elsewhere, or most like it, as clap measures it.
pub(super) fn like(word: &str) -> Option<&'static str> {
    if let Some(verb) = verb_for(word) {
        return Some(verb);
    }
    let near = |taken| (strsim::jaro(word, taken), taken);
    let best = all().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > LIKE).map(|(_, taken)| taken)
}

/// What a program that takes commands says of words.
pub(super) struct Habits {
    /// Where its options stand.
    pub(super) options: &'static str,
    /// How several words are given to a shell.
    pub(super) joined: &'static str,
}

/// What the words of a command may have been meant for, if the first is no program.
pub(super) fn meant<W: AsRef<OsStr>>(
    is_exact: bool,
    words: &[W],
    habits: &Habits,
) -> Option<&'static str> {
    let holds = |word: &W, byte| word.as_ref().as_bytes().contains(&byte);
    match words {
        [text] if is_exact && holds(text, b' ') => {
            Some("without -- one word is text for the server's shell")
        }
        [_, ..] if is_exact => None,
        [program, more, ..]
            if holds(program, b' ') && more.as_ref().as_bytes().starts_with(b"-") =>
        {
            Some(habits.options)
        }
        [program, _, ..] if !holds(program, b'/') => Some(habits.joined),
        _ => None,
    }
}

fn all() -> impl Iterator<Item = &'static str> {
    VERBS.into_iter().chain([BATCH, HELP])
}
