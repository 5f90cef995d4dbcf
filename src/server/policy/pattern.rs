//! One command of an allow-list: a program and its arguments, word by word.

use std::fmt;

use regex::{Regex, RegexBuilder};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Most bytes that the compiled form of one parameter may take.
const REGEX_LIMIT: usize = 256 * 1024;
/// Most words of a pattern.
const WORDS_LIMIT: usize = 1024;

/// A command that is allowed: as many words, each of which fits.
#[derive(Debug, Clone)]
pub struct Pattern(Vec<Word>);

/// One word of a [`Pattern`].
#[derive(Debug, Clone)]
enum Word {
    /// This very word.
    Is(String),
    /// `{name:regex}`: the whole word matches, from its first byte to its last.
    Fits { text: String, regex: Regex },
}

impl Pattern {
    /// From the words of the configuration.
    ///
    /// # Errors
    /// One line: which word is wrong, and how.
    pub fn new(words: &[String]) -> Result<Self, String> {
        if words.len() > WORDS_LIMIT {
            return Err(format!("a command has at most {WORDS_LIMIT} words"));
        }
        match words.first() {
            None => Err("a command has at least one word: its program".into()),
            Some(program) if program.is_empty() => Err("the program has no name".into()),
            Some(_) => words.iter().map(|w| Word::new(w)).collect::<Result<_, _>>().map(Self),
        }
    }

    /// Whether a command is this one. Words that are not UTF-8 fit nowhere.
    #[must_use]
    pub fn fits(&self, words: &[&[u8]]) -> bool {
        let fits = |(word, given): (&Word, &&[u8])| {
            std::str::from_utf8(given).is_ok_and(|given| word.fits(given))
        };
        self.0.len() == words.len() && self.0.iter().zip(words).all(fits)
    }
}

impl Word {
    fn new(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err(format!("{text:?}: no word has a NUL byte"));
        }
        let Some(inside) = text.strip_prefix('{') else { return Ok(Self::Is(text.into())) };
        let parts = inside.strip_suffix('}').and_then(|inside| inside.split_once(':'));
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
        };
        match parts {
            Some((name, regex)) if is_name(name) => {
                let regex = anchored(regex).map_err(|e| format!("{text:?}: {e}"))?;
                Ok(Self::Fits { text: text.into(), regex })
            }
            _ => Err(format!(
                "{text:?}: a word that begins with {{ is a parameter, {{NAME:REGEX}}; for the character itself \
                 write {{name:\\{{...}}"
            )),
        }
    }

    fn fits(&self, word: &str) -> bool {
        match self {
            Self::Is(text) => text == word,
            Self::Fits { regex, .. } => regex.is_match(word),
        }
    }
}

/// Compiled alone first: what is no expression by itself, such as `a)|(b`, must not become one by the
/// group that holds the whole word.
fn anchored(regex: &str) -> Result<Regex, String> {
    let build = |text: &str| {
        let built = RegexBuilder::new(text).size_limit(REGEX_LIMIT).build();
        built.map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => "the expression is too large".to_owned(),
            e => {
                let text = e.to_string();
                let line = text.lines().last().unwrap_or_default().trim();
                line.strip_prefix("error: ").unwrap_or(line).to_owned()
            }
        })
    };
    build(regex)?;
    build(&format!(r"\A(?:{regex})\z"))
}

/// As it stands in the configuration.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(Word::text).collect();
        write!(f, "{texts:?}")
    }
}

impl Word {
    fn text(&self) -> &str {
        match self {
            Self::Is(text) | Self::Fits { text, .. } => text,
        }
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(&from.deserialize_seq(Words)?).map_err(serde::de::Error::custom)
    }
}

/// A command is often written as the text that a shell would read.
struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the words of a command, such as [\"git\", \"pull\"]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Vec<String>, A::Error> {
        std::iter::from_fn(|| words.next_element().transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(words: &[&str]) -> Result<Pattern, String> {
        Pattern::new(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
    }

    #[track_caller]
    fn fits(words: &[&str], given: &[&str]) -> bool {
        pattern(words).unwrap().fits(&given.iter().map(|w| w.as_bytes()).collect::<Vec<_>>())
    }

    #[test]
    fn a_parameter_is_one_whole_word() {
        let restart = ["systemctl", "restart", "{service:[a-z-]+}"];
        assert!(fits(&restart, &["systemctl", "restart", "web-1".trim_end_matches("-1")]));
        for service in ["", "web;id", "web id", "web\n", "\nweb", "WEB", "web\0", "wéb", "web1"] {
            assert!(!fits(&restart, &["systemctl", "restart", service]), "{service:?}");
        }
        assert!(!fits(&restart, &["systemctl", "restart"]));
        assert!(!fits(&restart, &["systemctl", "restart", "web", "db"]));
        assert!(!fits(&restart, &["/bin/systemctl", "restart", "web"]));
    }

    #[test]
    fn no_expression_gets_out_of_its_word() {
        assert!(!fits(&["{x:a|b}"], &["ab"]) && fits(&["{x:a|b}"], &["b"]));
        assert!(!fits(&["{x:(?m)^a$}"], &["a\nb"]));
        assert!(!fits(&["{x:.*}"], &["a\nb"]) && fits(&["{x:(?s).*}"], &["a\nb"]));
        for bad in
            ["{x:a)|(?:.*}", "{x:(?x)a #}", "{x:[}", "{x:(a{1000}){1000}}", "{x}", "{:a}", "{x:a"]
        {
            assert!(pattern(&[bad]).is_err(), "{bad}");
        }
        assert!(fits(&["{x:\\{a}"], &["{a"]) && fits(&["{x:[0-9]{2}}"], &["12"]));
    }

    #[test]
    fn what_is_no_text_fits_nowhere() {
        assert!(!pattern(&["{x:(?s-u:.)*}"]).is_ok_and(|p| p.fits(&[b"\xff"])));
        assert!(!pattern(&["{x:(?s).*}"]).unwrap().fits(&[b"\xff"]));
        assert!(pattern(&[]).is_err() && pattern(&[""]).is_err() && pattern(&["a\0"]).is_err());
        let words = vec!["a".to_owned(); WORDS_LIMIT + 1];
        assert!(Pattern::new(&words[1..]).is_ok() && Pattern::new(&words).is_err());
    }
}
