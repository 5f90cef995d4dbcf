//! Options as text: names, each with a value in double quotes or none, separated by commas.

use super::OptionError;
use crate::identity::line::quote;

/// Goes through the options. In quotes, `\"` is a quote character and every other backslash is itself.
pub(super) struct Words<'a>(pub(super) Option<&'a str>);

impl<'a> Iterator for Words<'a> {
    type Item = Result<(&'a str, Option<String>), OptionError>;

    fn next(&mut self) -> Option<Self::Item> {
        let text = self.0.take()?;
        Some(self.option(text))
    }
}

impl<'a> Words<'a> {
    fn option(&mut self, text: &'a str) -> Result<(&'a str, Option<String>), OptionError> {
        let name = &text[..text.find([',', '=', '"']).unwrap_or(text.len())];
        if name.is_empty() {
            return Err(OptionError::Missing);
        }
        let (value, rest) = match text[name.len()..].strip_prefix('=') {
            None => (None, &text[name.len()..]),
            Some(value) => {
                let read = unquoted(value).ok_or_else(|| OptionError::Value(quote(name)))?;
                (Some(read.0), read.1)
            }
        };
        match rest.strip_prefix(',') {
            Some(more) => self.0 = Some(more),
            None if rest.is_empty() => {}
            None => return Err(OptionError::Surplus(quote(name), quote(rest))),
        }
        Ok((name, value))
    }
}

/// The value that starts with a quote, and what follows it. None if it does not, or does not end.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let at = rest.find('"')?;
        match rest[..at].strip_suffix('\\') {
            Some(before) => {
                value.push_str(before);
                value.push('"');
            }
            None => {
                value.push_str(&rest[..at]);
                return Some((value, &rest[at + 1..]));
            }
        }
        rest = &rest[at + 1..];
    }
}

/// Splits at the first blank outside quotes; none if a quote stays open.
pub(in crate::identity) fn split(line: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut before) = (false, b' ');
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            b'"' if before != b'\\' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Some(line.split_at(at)),
            _ => {}
        }
        before = byte;
    }
    (!quoted).then_some((line, ""))
}
