//! What is wrong with a file that people write, and where.

use serde::de::DeserializeOwned;

/// A mistake in a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {text}")]
pub struct Mistake {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// One line for people.
    pub text: String,
}

impl Mistake {
    /// At a byte of the file's text; at its end for what is past it.
    #[must_use]
    pub fn at(file: &str, byte: usize, text: &str) -> Self {
        let before = file.get(..byte).unwrap_or(file);
        let line = before.rsplit('\n').next().unwrap_or_default();
        let text = text.lines().collect::<Vec<_>>().join("; ");
        Self { line: line_at(file, byte), column: line.chars().count() + 1, text }
    }

    /// What the parser says, which takes text without quotes for a number that is wrong.
    #[must_use]
    pub fn of(file: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        match unquoted(file, at) {
            Some(at) => Self::at(file, at, UNQUOTED),
            None => Self::at(file, at, &error.message().replace(SEQUENCE, LIST)),
        }
    }
}

/// The line, from 1, of a byte of a text; the last one for what is past its end.
#[must_use]
pub fn line_at(text: &str, byte: usize) -> usize {
    text.get(..byte).unwrap_or(text).matches('\n').count() + 1
}

/// What the parser calls a list, and what those call it who write one.
const SEQUENCE: &str = "expected a sequence";
const LIST: &str = "expected a list, such as [\"...\"]";

const UNQUOTED: &str = "text stands in quotes, such as \"127.0.0.1:8080\"";

/// Where, in the line around `at`, a key has a value that is nothing without quotes.
fn unquoted(file: &str, at: usize) -> Option<usize> {
    let start = file.get(..at)?.rfind('\n').map_or(0, |end| end + 1);
    let line = file[start..].lines().next()?;
    let (_, value) = line.split_once('=')?;
    let value = value.trim_start_matches([' ', '\t', '[']);
    let word = value.split([',', ']', '#', ' ', '\t']).next().filter(|word| !word.is_empty())?;
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    let is_text = !is_number && !word.starts_with(['"', '\'', '{']);
    let is_nothing = toml::from_str::<toml::Table>(&format!("x = {word}")).is_err();
    (is_text && is_nothing).then(|| start + line.len() - value.len())
}

/// Reads TOML.
///
/// # Errors
/// The first mistake.
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|e| Mistake::of(text, &e))
}
