//! The policy as it is written: tables of the server's configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::pattern::Pattern;
use crate::identity::Fingerprint;
use crate::runs::excerpt::EXCERPT_LIMIT;
use crate::units;

/// What a rule says of whoever comes from the server's own account on this machine.
pub(super) const LOCAL: &str = "local";

/// The highest niceness, setpriority(2).
const NICEST: u8 = 19;

/// The tables of the policy; other keys are the server's settings.
#[derive(Debug, Default, Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) identity: BTreeMap<Name, Identity>,
    #[serde(default)]
    pub(super) group: BTreeMap<Name, Group>,
    #[serde(default)]
    pub(super) rule: BTreeMap<Name, Rule>,
}

/// `[identity.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) keys: Vec<Stable>,
}

/// `[group.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) members: Vec<Spanned<String>>,
}

/// `[rule.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(rename = "for")]
    pub(super) subjects: Vec<Spanned<String>>,
    pub(super) allow: Option<Vec<Pattern>>,
    pub(super) cwd: Option<Spanned<Vec<Folder>>>,
    pub(super) env: Option<Spanned<Vec<Variable>>>,
    pub(super) deadline: Option<Time>,
    pub(super) output: Option<Bytes>,
    pub(super) journal: Option<Excerpt>,
    pub(super) runs: Option<Count>,
    pub(super) rate: Option<Count>,
    pub(super) memory: Option<Bytes>,
    pub(super) cpu: Option<Time>,
    pub(super) processes: Option<Count>,
    pub(super) nice: Option<Nice>,
    pub(super) folder: Option<Folder>,
    #[serde(default)]
    pub(super) operator: bool,
}

/// The name of an identity, a group or a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 64 || !text.chars().all(plain) {
            let line =
                format!("{text:?} is no name: up to 64 letters, digits, '-', '_' and '.' are");
            return Err(D::Error::custom(line));
        }
        if text == LOCAL {
            return Err(D::Error::custom("\"local\" is this server's own account already"));
        }
        Ok(Self(text))
    }
}

/// The stable name of somebody who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stable(pub(super) String);

impl Stable {
    /// `local`, `local:UID`, `key:SHA256:…` or `SHA256:…`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let uid = text.strip_prefix("local:").map(str::parse::<u32>);
        if text == LOCAL || matches!(uid, Some(Ok(_))) {
            return Ok(Self(text.into()));
        }
        let print = text.strip_prefix("key:").unwrap_or(text).parse::<Fingerprint>();
        let print = print.map_err(|_| {
            format!(
                "{text:?} is neither \"local\" nor a key's fingerprint; `ssh-keygen -lf FILE.pub` prints it: SHA256:..."
            )
        })?;
        Ok(Self(format!("key:{print}")))
    }
}

impl<'de> Deserialize<'de> for Stable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// A folder of the server, by its absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder(pub(super) PathBuf);

impl<'de> Deserialize<'de> for Folder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(from)?;
        if !path.is_absolute() {
            return Err(D::Error::custom(format!("{} is not an absolute path", path.display())));
        }
        Ok(Self(path))
    }
}

/// The name of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Variable(pub(super) String);

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        if name.is_empty() || name.contains(['=', '\0', '*']) {
            return Err(D::Error::custom(format!("{name:?} is not the whole name of a variable")));
        }
        Ok(Self(name))
    }
}

/// A number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub(super) u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u64::deserialize(from)? {
            0 => Err(D::Error::custom("a whole number from 1; an empty `allow` lets nothing run")),
            n => Ok(Self(n)),
        }
    }
}

/// What is added to the niceness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nice(pub(super) u8);

impl<'de> Deserialize<'de> for Nice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match u8::deserialize(from) {
            Ok(n @ 0..=NICEST) => Ok(Self(n)),
            _ => Err(D::Error::custom(format!("a whole number from 0 to {NICEST}"))),
        }
    }
}

/// A number of bytes: `65536` or `"64K"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) u64);

/// How much of a run's output is written into the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Excerpt(pub(super) u64);

impl<'de> Deserialize<'de> for Excerpt {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Bytes::deserialize(from)? {
            Bytes(n) if n <= EXCERPT_LIMIT => Ok(Self(n)),
            _ => Err(D::Error::custom(format!("at most {}K", EXCERPT_LIMIT >> 10))),
        }
    }
}

/// A time: seconds, or `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text =
            from.deserialize_any(NumberOrText("a number of bytes, such as 65536 or \"64M\""))?;
        units::bytes(&text).map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = from.deserialize_any(NumberOrText("a time, such as 30 (seconds) or \"10m\""))?;
        units::some_time(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Gives the text of a number or of a string.
struct NumberOrText(&'static str);

impl Visitor<'_> for NumberOrText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
}
