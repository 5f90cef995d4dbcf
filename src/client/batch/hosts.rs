//! Lists of hosts as people write them: `web[01-20]:8080,db:8080`, and back again.

use std::collections::BTreeMap;

/// Most hosts that one list may stand for.
pub const HOSTS_LIMIT: usize = 65_536;

/// Why a list cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {why}")]
pub struct PatternError {
    /// Where in the text, in characters from 1.
    pub column: usize,
    /// What is wrong there.
    pub why: PatternFault,
}

/// What is wrong with a list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternFault {
    /// Nothing between two commas.
    #[error("there is no host between the commas")]
    Empty,
    /// A bracket that is not closed, or not opened.
    #[error("a bracket is missing; a range is written web[01-20]:8080")]
    Bracket,
    /// Something else than numbers between brackets.
    #[error("{0:?} is not a range; write [01-20] or [1,3,5-9]")]
    Range(String),
    /// Too many hosts.
    #[error("more than {HOSTS_LIMIT} hosts")]
    TooMany,
}

/// The names that a list stands for, in its order, each with its column in the text.
///
/// # Errors
/// The first thing in it that cannot be read.
pub fn expand(text: &str) -> Result<Vec<(usize, String)>, PatternError> {
    let mut names = Vec::new();
    for (at, pattern) in split(text)? {
        let column = column(text, at);
        let fault = |why| PatternError { column, why };
        let more = expand_one(pattern, HOSTS_LIMIT - names.len()).map_err(fault)?;
        names.extend(more.into_iter().map(|name| (column, name)));
    }
    Ok(names)
}

fn column(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}

/// The patterns between commas that stand in no brackets, with their places.
fn split(text: &str) -> Result<Vec<(usize, &str)>, PatternError> {
    let (mut parts, mut start, mut open) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices().chain([(text.len(), ',')]) {
        let fault = |at, why| PatternError { column: column(text, at), why };
        match (c, open) {
            ('[', None) => open = Some(at),
            (']', Some(_)) => open = None,
            ('[', Some(at)) => return Err(fault(at, PatternFault::Bracket)),
            (']', None) => return Err(fault(at, PatternFault::Bracket)),
            (',', Some(from)) if at == text.len() => {
                return Err(fault(from, PatternFault::Bracket));
            }
            (',', None) => {
                let part = text[start..at].trim();
                let blanks = text[start..at].len() - text[start..at].trim_start().len();
                if part.is_empty() {
                    return Err(fault(start, PatternFault::Empty));
                }
                parts.push((start + blanks, part));
                start = at + 1;
            }
            _ => {}
        }
    }
    Ok(parts)
}

/// One pattern: text and ranges in turn. An IPv6 address in brackets is text.
fn expand_one(pattern: &str, room: usize) -> Result<Vec<String>, PatternFault> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some((text, range, after)) = next_range(rest) {
        let numbers =
            if range.contains(':') { vec![format!("[{range}]")] } else { numbers(range, room)? };
        if names.len().saturating_mul(numbers.len()) > room {
            return Err(PatternFault::TooMany);
        }
        let each = |name: &String| {
            numbers.iter().map(|number| [name, text, number].concat()).collect::<Vec<_>>()
        };
        names = names.iter().flat_map(each).collect();
        rest = after;
    }
    if names.len() > room {
        return Err(PatternFault::TooMany);
    }
    for name in &mut names {
        name.push_str(rest);
    }
    Ok(names)
}

fn next_range(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (range, after) = rest.split_once(']')?;
    Some((before, range, after))
}

/// `01-20` or `1,3,5-9`; numbers keep the width that the first of a range has.
fn numbers(range: &str, room: usize) -> Result<Vec<String>, PatternFault> {
    let fault = || PatternFault::Range(range.to_owned());
    let mut all = Vec::new();
    for part in range.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(first).ok_or_else(fault)?, number(last).ok_or_else(fault)?);
        if from > to || (first.starts_with('0') && first.len() > last.len()) {
            return Err(fault());
        }
        if to - from >= (room - all.len().min(room)) as u64 {
            return Err(PatternFault::TooMany);
        }
        let width = if first.starts_with('0') { first.len() } else { 0 };
        all.extend((from..=to).map(|n| format!("{n:0width$}")));
    }
    Ok(all)
}

/// A number of digits alone, short enough for any clock or counter.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A name in pieces: text, and in odd places digits.
fn pieces(name: &str) -> Vec<&str> {
    let (mut all, mut start, mut in_digits) = (Vec::new(), 0, false);
    for (at, c) in name.char_indices() {
        if c.is_ascii_digit() != in_digits {
            all.push(&name[start..at]);
            (start, in_digits) = (at, !in_digits);
        }
    }
    all.push(&name[start..]);
    all
}

/// Names in short, `web[01-18,20]:8080,db:8080`: what [`expand`] makes of it are the same names.
#[must_use]
pub fn fold<S: AsRef<str>>(names: &[S]) -> String {
    let mut alike: BTreeMap<Vec<&str>, Vec<Vec<&str>>> = BTreeMap::new();
    for name in names.iter().map(AsRef::as_ref) {
        // An IPv6 address has brackets of its own.
        let pieces = if name.contains('[') { vec![name] } else { pieces(name) };
        let text = pieces.iter().step_by(2).copied().collect();
        alike.entry(text).or_default().push(pieces);
    }
    alike.into_values().flat_map(fold_alike).collect::<Vec<_>>().join(",")
}

/// Names that differ in their numbers alone: the number with the most values becomes a range.
fn fold_alike(names: Vec<Vec<&str>>) -> Vec<String> {
    let length = names.first().map_or(0, Vec::len);
    let values = |at: &usize| {
        let mut all: Vec<_> = names.iter().map(|name| name[*at]).collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    };
    let varying = (1..length).step_by(2).max_by_key(|at| (values(at), std::cmp::Reverse(*at)));
    let Some(varying) = varying.filter(|at| values(at) > 1) else {
        let mut all: Vec<String> = names.into_iter().map(|name| name.concat()).collect();
        all.dedup();
        return all;
    };
    let mut groups: BTreeMap<(Vec<&str>, usize), Vec<&str>> = BTreeMap::new();
    let padded = names.iter().any(|name| name[varying].starts_with('0') && name[varying] != "0");
    for name in &names {
        let width = if padded { name[varying].len() } else { 0 };
        let mut others = name.clone();
        let number = std::mem::take(&mut others[varying]);
        groups.entry((others, width)).or_default().push(number);
    }
    let range = |((mut others, _), numbers): ((Vec<&str>, usize), Vec<&str>)| {
        let range = ranges(numbers);
        others[varying] = &range;
        others.concat()
    };
    groups.into_iter().map(range).collect()
}

/// Numbers as `[1-3,5]`, or one as it is.
fn ranges(mut numbers: Vec<&str>) -> String {
    let value = |n: &str| n.parse::<u128>().unwrap_or(u128::MAX);
    numbers.sort_by_key(|n| (value(n), n.len()));
    numbers.dedup();
    let mut runs: Vec<(&str, &str)> = Vec::new();
    for number in &numbers {
        match runs.last_mut() {
            Some((_, last)) if value(last).checked_add(1) == Some(value(number)) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    if let [one] = numbers.as_slice() {
        return (*one).to_owned();
    }
    let write = |(first, last): &(&str, &str)| {
        if first == last { (*first).to_owned() } else { format!("{first}-{last}") }
    };
    format!("[{}]", runs.iter().map(write).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        expand(text).unwrap().into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn lists_and_ranges() {
        assert_eq!(names("a:1, b:2"), ["a:1", "b:2"]);
        assert_eq!(names("web[08-11]:80"), ["web08:80", "web09:80", "web10:80", "web11:80"]);
        assert_eq!(names("n[1,3,5-6]x[0-1]:1").len(), 8);
        assert_eq!(
            names("[::1]:8080,10.0.0.[1-2]:80"),
            ["[::1]:8080", "10.0.0.1:80", "10.0.0.2:80"]
        );
        assert_eq!(names("127.0.0.1:[9001-9003]")[2], "127.0.0.1:9003");
    }

    #[test]
    fn what_is_no_list_is_named_with_its_column() {
        for (text, column, part) in [
            ("", 1, "no host"),
            ("a:1,,b:2", 5, "no host"),
            ("a:1,", 5, "no host"),
            ("a:1,web[1-:80", 8, "bracket"),
            ("web1]:80", 5, "bracket"),
            ("web[[1]]:80", 4, "bracket"),
            ("a:1, web[1-x]:80", 6, "1-x"),
            ("web[5-1]:80", 1, "5-1"),
            ("web[]:80", 1, "not a range"),
            ("web[001-9]:80", 1, "not a range"),
            ("web[99999999999999999999]:1", 1, "not a range"),
        ] {
            let error = expand(text).unwrap_err();
            assert_eq!(error.column, column, "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn no_list_is_longer_than_the_limit() {
        let at = format!("h[1-{HOSTS_LIMIT}]:1");
        assert_eq!(names(&at).len(), HOSTS_LIMIT);
        let past = ["h[0-65536]:1".into(), format!("x:1,{at}"), format!("{at},x:1")];
        let product = "h[1-60000][1-60000]:1".into();
        for text in past.into_iter().chain([product, "h[1-999999999999999999]:1".into()]) {
            assert_eq!(expand(&text).unwrap_err().why, PatternFault::TooMany, "{text}");
        }
    }

    #[test]
    fn folding_is_undone_by_expanding() {
        for (text, folded) in [
            ("web[01-18,20]:8080", "web[01-18,20]:8080"),
            ("b:1,a:1", "a:1,b:1"),
            ("h[8-11]:1,h8:2", "h[8-11]:1,h8:2"),
            ("127.0.0.1:[9001-9003]", "127.0.0.1:[9001-9003]"),
            ("n[09-10]:1,n9:1", "n9:1,n[09-10]:1"),
            ("a:80", "a:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let mut names = names(text);
            assert_eq!(fold(&names), folded);
            let mut again = self::names(&fold(&names));
            names.sort();
            again.sort();
            assert_eq!(names, again);
        }
    }
}
