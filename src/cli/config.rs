//! `~/.config/rexec/config.toml`: names for servers, and groups of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::words::is_taken;
use crate::client::Destination;
use crate::identity::Fingerprint;
use crate::mistake::from_toml;
use crate::sys::fs::{TrustedFile, home_dir};

/// Longest configuration, bytes.
const CONFIG_LIMIT: usize = 16 << 20;

/// What the file says; nothing if there is none.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Servers by the names that people give them.
    #[serde(default)]
    pub(super) hosts: BTreeMap<Name, Alias>,
    /// Lists of hosts by the names of groups.
    #[serde(default)]
    pub(super) groups: BTreeMap<Name, Vec<String>>,
}

/// A server that has a name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Alias {
    #[serde(deserialize_with = "parsed")]
    pub(super) address: Destination,
    /// The fingerprint of the only host key that is accepted.
    #[serde(default, deserialize_with = "parsed_if_there")]
    pub(super) host_key: Option<Fingerprint>,
    /// The key to prove there; relative to the home folder if it begins with `~/`.
    #[serde(default)]
    pub(super) identity: Option<PathBuf>,
}

/// A name that is neither an address nor a word of this program's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(from)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.starts_with('-') || !text.chars().all(plain) {
            let line = format_args!("{text:?} is no name: letters, digits, '-', '_' and '.' are")
                .to_string();
            return Err(D::Error::custom(line));
        }
        if is_taken(&text) {
            return Err(D::Error::custom(format_args!("{text:?} is a command of rexec")));
        }
        Ok(Self(text))
    }
}

fn parsed<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::deserialize(from)?;
    text.parse().map_err(serde::de::Error::custom)
}

fn parsed_if_there<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    parsed(from).map(Some)
}

impl Config {
    /// Where it is.
    fn path() -> Option<PathBuf> {
        Some(home_dir().ok()?.join(".config/rexec/config.toml"))
    }

    /// Reads this account's file. It says which keys are trusted, so nobody else may be able to change it.
    pub(super) fn load() -> Result<Self, String> {
        let Some(path) = Self::path() else { return Ok(Self::default()) };
        match TrustedFile::open(&path) {
            Err(e) if e.is_missing() => Ok(Self::default()),
            Err(e) => Err(e.to_string()),
            Ok(file) => {
                let text = file.read(CONFIG_LIMIT).map_err(|e| e.to_string())?;
                from_toml(&text).map_err(|e| format!("{}:{e}", path.display()))
            }
        }
    }

    /// The server of that name.
    pub(super) fn alias(&self, name: &str) -> Option<&Alias> {
        self.hosts.get(&Name(name.to_owned()))
    }

    /// The lists of the group of that name.
    pub(super) fn group(&self, name: &str) -> Option<&[String]> {
        self.groups.get(&Name(name.to_owned())).map(Vec::as_slice)
    }
}

impl Alias {
    /// Where its key is.
    pub(super) fn identity(&self) -> Option<PathBuf> {
        let path = self.identity.as_deref()?;
        let below_home = || Some(home_dir().ok()?.join(path.strip_prefix("~").ok()?));
        Some(below_home().unwrap_or_else(|| Path::to_owned(path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_groups() {
        let print = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        let text = format!(
            "[hosts.build]\naddress = \"10.0.0.5:8080\"\nhost_key = \"{print}\"\nidentity = \"/k\"\n\
             [groups]\nweb = [\"web[1-2]:80\", \"build\"]\n"
        );
        let config: Config = from_toml(&text).unwrap();
        let build = config.alias("build").unwrap();
        assert_eq!(build.address.to_string(), "10.0.0.5:8080");
        assert_eq!(build.host_key.unwrap().to_string(), print);
        assert_eq!(build.identity(), Some("/k".into()));
        assert_eq!(config.group("web").unwrap().len(), 2);
        assert!(config.alias("web").is_none() && config.group("build").is_none());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_column() {
        for (text, line, column, part) in [
            ("[host.a]\n", 1, 2, "unknown field `host`"),
            ("[hosts.a]\naddres = \"a:1\"", 2, 1, "unknown field `addres`"),
            ("[hosts.a]\naddress = \"a\"", 2, 11, "the port is missing"),
            ("[hosts.a]\naddress = \"a:1\"\nhost_key = \"MD5:1\"", 3, 12, "fingerprint"),
            ("[hosts.ps]\naddress = \"a:1\"", 1, 8, "a command of rexec"),
            ("[hosts.\"a:1\"]\naddress = \"a:1\"", 1, 8, "is no name"),
        ] {
            let error = from_toml::<Config>(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.text.contains(part), "{text}: {error}");
        }
    }
}
