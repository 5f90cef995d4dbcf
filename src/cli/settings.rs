//! A server's settings: from its command line, else from its configuration file, else the defaults. Each
//! option's name is its key there, and the option's own definition reads the value.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches as _};
use toml::de::{DeTable, DeValue};

use super::server_args::{Args, CHECK, definition};
use crate::mistake::{Mistake, line_at};
use crate::server::policy::{Policy, TABLES};
use crate::sys::fs::{TrustedFile, home_dir};

/// Longest configuration, bytes.
const CONFIG_LIMIT: usize = 1 << 20;
/// Options that make no sense in a file.
const NOT_IN_A_FILE: [&str; 5] = ["config", "help", "version", "completions", "man"];

/// Where a setting comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// Nobody has said anything.
    Default,
    /// This line of the file.
    File(usize),
    /// The command line.
    Flag,
}

/// One setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    /// As they would be written on the command line; none: it is not set.
    pub(super) values: Vec<OsString>,
    pub(super) source: Source,
}

/// What a server is to go by.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) args: Args,
    pub(super) policy: Policy,
    /// Each of `args`, for people.
    pub(super) all: Vec<Setting>,
}

/// Why there are no settings.
#[derive(Debug)]
pub(super) enum Error {
    /// The command line.
    Usage(Box<clap::Error>),
    /// The file: one line.
    File(String),
}

impl From<clap::Error> for Error {
    fn from(error: clap::Error) -> Self {
        Self::Usage(Box::new(error))
    }
}

/// One key of a file.
#[derive(Debug)]
struct Written {
    key: String,
    line: usize,
    /// As arguments, each `--key=value`.
    words: Vec<OsString>,
}

impl Settings {
    /// From the words of a command line that is `serve`'s or `check`'s, the program's name first.
    pub(super) fn read(words: &[OsString]) -> Result<Self, Error> {
        let matches = matches_of(words)?;
        let Some(path) = matches.get_one::<PathBuf>("config").cloned() else {
            return Self::of(&matches, &[], Policy::default());
        };
        let in_file = |why: String| Error::File(why);
        let text = TrustedFile::open(&path).and_then(|file| file.read(CONFIG_LIMIT));
        let text = text.map_err(|e| in_file(e.to_string()))?;
        let (written, policy) =
            parse(&text).map_err(|e| in_file(format!("{}:{e}", path.display())))?;
        // What the command line has counts, and what may be given once must not be given by both.
        let used: Vec<Written> =
            written.into_iter().filter(|written| !is_given(&matches, &written.key)).collect();
        let verb = usize::from(words.get(1).is_some_and(|word| word == CHECK));
        let (before, after) = words.split_at((1 + verb).min(words.len()));
        let from_file = used.iter().flat_map(|written| written.words.iter());
        let words: Vec<OsString> = before.iter().chain(from_file).chain(after).cloned().collect();
        let together = matches_of(&words)
            .map_err(|e| in_file(format!("{}: {}", path.display(), first_words(&e))))?;
        Self::of(&together, &used, policy)
    }

    fn of(matches: &ArgMatches, used: &[Written], policy: Policy) -> Result<Self, Error> {
        let args = Args::from_arg_matches(matches)?;
        let line_of = |key: &str| used.iter().find(|w| w.key == key).map(|w| w.line);
        let all = keys().into_iter().map(|key| {
            let source = match line_of(&key) {
                Some(line) => Source::File(line),
                None if is_given(matches, &key) => Source::Flag,
                None => Source::Default,
            };
            let values = matches.get_raw(&id(&key)).into_iter().flatten();
            Setting { values: values.map(OsStr::to_owned).collect(), source, key }
        });
        let all = all.collect();
        Ok(Self { args, policy, all })
    }
}

/// The options of the server, or those of its verb `check`, which are the same.
fn matches_of(words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let mut matches = definition().try_get_matches_from(words)?;
    Ok(matches.remove_subcommand().map_or(matches, |(_, checked)| checked))
}

fn is_given(matches: &ArgMatches, key: &str) -> bool {
    matches.value_source(&id(key)) == Some(ValueSource::CommandLine)
}

/// The name by which clap knows an option.
fn id(key: &str) -> String {
    key.replace('-', "_")
}

/// Every key that a file may have, besides the tables of the policy.
pub(super) fn keys() -> Vec<String> {
    let serving = definition();
    let names = serving.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned);
    names.filter(|name| !NOT_IN_A_FILE.contains(&name.as_str())).collect()
}

/// Reads a configuration.
fn parse(text: &str) -> Result<(Vec<Written>, Policy), Mistake> {
    let table = DeTable::parse(text).map_err(|e| Mistake::of(text, &e))?;
    let keys = keys();
    let mut written = Vec::new();
    for (key, value) in table.get_ref() {
        let (name, at) = (key.get_ref().as_ref(), key.span().start);
        if TABLES.contains(&name) {
            continue;
        }
        if !keys.iter().any(|key| key == name) {
            return Err(Mistake::at(text, at, &no_such(name, value.get_ref(), &keys)));
        }
        let wrong = |why: String| Mistake::at(text, value.span().start, &format!("{name}: {why}"));
        let words = words(name, value.get_ref()).map_err(wrong)?;
        for word in &words {
            let alone =
                definition().try_get_matches_from(["rexec-server".as_ref(), word.as_os_str()]);
            alone.map_err(|e| wrong(first_words(&e)))?;
        }
        written.push(Written { key: name.into(), line: line_at(text, at), words });
    }
    Ok((written, Policy::parse(text)?))
}

/// That there is no such key, and what may have been meant.
fn no_such(name: &str, value: &DeValue<'_>, keys: &[String]) -> String {
    let is_table = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
    let is_tables =
        matches!(value, DeValue::Array(all) if all.iter().any(|one| is_table(one.get_ref())));
    if is_table(value) || is_tables {
        let tables = TABLES.map(|table| format!("[{table}.NAME]")).join(", ");
        return format!("there is no table {name:?}; there are {tables}");
    }
    let option = name.replace('_', "-");
    match keys.contains(&option) {
        true => format!("there is no setting {name:?}; write {option}"),
        false => format!("there is no setting {name:?}; `rexec-server check` lists them all"),
    }
}

/// Whether a text is a configuration: for tests that try any.
///
/// # Errors
/// One line that begins with line and column.
pub(super) fn check_text(text: &str) -> Result<(), String> {
    parse(text).map(drop).map_err(|e| e.to_string())
}

/// The path of a file of keys, which may begin in the account's home: on a command line the shell reads that.
fn below_home(key: &str, text: &str) -> String {
    let names_keys = ["authorized-keys", "trusted-user-ca", "revoked-keys"].contains(&key);
    let home =
        || home_dir().ok()?.join(text.strip_prefix("~/")?).into_os_string().into_string().ok();
    names_keys.then(home).flatten().unwrap_or_else(|| text.to_owned())
}

/// A value of the file as arguments.
fn words(key: &str, value: &DeValue<'_>) -> Result<Vec<OsString>, String> {
    let takes_one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Ok(format!("--{key}={}", below_home(key, text)).into()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map(|n| format!("--{key}={n}").into()).map_err(|e| e.to_string())
        }
        _ => Err("a text or a whole number is needed".to_owned()),
    };
    let definition = definition();
    let argument = definition.get_arguments().find(|a| a.get_long() == Some(key));
    let action = argument.map(clap::Arg::get_action);
    match (action, value) {
        (Some(clap::ArgAction::SetTrue), DeValue::Boolean(given)) => {
            Ok(given.then(|| format!("--{key}").into()).into_iter().collect())
        }
        (Some(clap::ArgAction::SetTrue), _) => Err("true or false is needed".into()),
        (Some(clap::ArgAction::Append), DeValue::Array(values)) if values.is_empty() => {
            Err("the list is empty; leave it out, or comment it out, for the default".into())
        }
        (Some(clap::ArgAction::Append), DeValue::Array(values)) => {
            values.iter().map(|value| takes_one(value.get_ref())).collect()
        }
        (Some(clap::ArgAction::Append), _) => Err("a list is needed, such as [\"...\"]".into()),
        (_, value) => takes_one(value).map(|word| vec![word]),
    }
}

/// What clap complains about, in one line and without its advice.
fn first_words(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let line = lines.collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The path of the file that a command line names, if it does.
pub(super) fn names_a_file(words: &[OsString]) -> bool {
    matches_of(words).is_ok_and(|m| m.get_one::<PathBuf>("config").is_some())
}

/// For people: where a setting comes from.
pub(super) fn origin(source: Source, file: Option<&Path>) -> String {
    match (source, file) {
        (Source::Default, _) => "default".into(),
        (Source::Flag, _) => "command line".into(),
        (Source::File(line), Some(path)) => format!("{}:{line}", path.display()),
        (Source::File(line), None) => format!("line {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, words: &[&str]) -> Result<Settings, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("server.toml");
        std::fs::write(&path, file).unwrap();
        let before = ["rexec-server".into(), "--config".into(), path.clone().into_os_string()];
        let words: Vec<OsString> =
            before.into_iter().chain(words.iter().map(OsString::from)).collect();
        Settings::read(&words).map_err(|e| match e {
            Error::Usage(e) => e.to_string(),
            Error::File(line) => {
                line.strip_prefix(&format!("{}:", path.display())).unwrap_or(&line).to_owned()
            }
        })
    }

    fn setting<'a>(settings: &'a Settings, key: &str) -> (Vec<&'a str>, Source) {
        let setting = settings.all.iter().find(|s| s.key == key).unwrap();
        (setting.values.iter().map(|v| v.to_str().unwrap()).collect(), setting.source)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_defaults() {
        let file = "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nmax-runs = 7\nidle-timeout = \"1h\"\nverbose = true\n";
        let settings = read(file, &["--max-runs", "9"]).unwrap();
        assert_eq!((settings.args.listen.len(), settings.args.verbose), (2, true));
        assert_eq!(settings.args.idle_timeout.as_secs(), 3600);
        assert_eq!(setting(&settings, "max-runs"), (vec!["9"], Source::Flag));
        assert_eq!(setting(&settings, "idle-timeout"), (vec!["1h"], Source::File(3)));
        assert_eq!(setting(&settings, "max-connections"), (vec!["4096"], Source::Default));
        assert_eq!(setting(&settings, "name"), (vec![], Source::Default));
        let settings = read(file, &["--listen", "127.0.0.1:3"]).unwrap();
        assert_eq!(setting(&settings, "listen"), (vec!["127.0.0.1:3"], Source::Flag));
    }

    #[test]
    fn files_of_keys_may_be_below_the_home() {
        let settings = read("authorized-keys = [\"~/a\", \"/b~/c\"]\nname = \"~/d\"", &[]).unwrap();
        let below = home_dir().unwrap().join("a");
        let paths = vec![below.to_str().unwrap(), "/b~/c"];
        assert_eq!(setting(&settings, "authorized-keys"), (paths, Source::File(1)));
        assert_eq!(setting(&settings, "name").0, ["~/d"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_column() {
        for (file, place, part) in [
            ("max-run = 1", "1:1", "no setting \"max-run\""),
            ("max_runs = 1", "1:1", "write max-runs"),
            ("[rules.a]\nfor = []", "1:2", "[rule.NAME]"),
            ("\n  max-runs = 0", "2:14", "a whole number from 1"),
            ("listen = \"a:1\"", "1:10", "a list is needed"),
            ("listen = []", "1:10", "the list is empty"),
            ("listen = [\"a\"]", "1:10", "port"),
            ("verbose = 1", "1:11", "true or false"),
            ("max-runs = [1]", "1:12", "a text or a whole number"),
            ("log-format = \"xml\"", "1:14", "text, json"),
            ("config = \"x\"", "1:1", "no setting"),
            ("[[rules]]\nfor = [\"*\"]", "1:3", "there are [identity.NAME]"),
            ("max-runs = ", "1:12", ""),
            ("[rule.a]\nfor = [\"x\"]", "2:8", "[identity.x]"),
            ("[rule.a]\nfor = [\"@x\"]", "2:8", "[group.x]"),
            ("[rule.a]\nfor = [\"*\"]\nalow = []", "3:1", "alow"),
            ("[rule.a]\nallow = []", "1:1", "for"),
            ("[rule.a]\nfor = []\nallow = [[\"{x:[}\"]]", "3:9", "unclosed"),
            ("[rule.a]\nfor = []\nallow = [\"ls -l\"]", "3:10", "the words of a command"),
            ("[rule.a]\nfor = \"*\"", "2:7", "expected a list, such as"),
            ("[rule.a]\nfor = []\nnice = 20", "3:8", "0 to 19"),
            ("[rule.a]\nfor = []\nruns = 0", "3:8", "from 1"),
            ("[rule.a]\nfor = []\noutput = \"1T\"", "3:10", "count of bytes"),
            ("[rule.a]\nfor = []\ncwd = [\"/srv\"]", "3:7", "go with `allow`"),
            ("[rule.a]\nfor = []\nallow = []\ncwd = [\"srv\"]", "4:7", "absolute"),
            ("[rule.\"a b\"]\nfor = []", "1:7", "is no name"),
            ("[identity.a]\nkeys = [\"MD5:1\"]", "2:8", "fingerprint"),
            ("[identity.local]\nkeys = []", "1:11", "already"),
        ] {
            let error = read(file, &[]).unwrap_err();
            assert!(
                error.starts_with(&format!("{place}: ")) && error.contains(part),
                "{file}: {error}"
            );
        }
    }

    #[test]
    fn every_option_has_its_key() {
        let keys = keys();
        for key in ["listen", "authorized-keys", "max-runs", "keep-bytes", "log-format", "verbose"]
        {
            assert!(keys.iter().any(|k| k == key), "{key}");
        }
        let definition = definition();
        let is = |key: &str, action: fn(&clap::ArgAction) -> bool| {
            definition.get_arguments().any(|a| a.get_long() == Some(key) && action(a.get_action()))
        };
        let value = |key: &str| match key {
            "listen" => "[\"127.0.0.1:0\"]",
            "classic" => "[\"raw=127.0.0.1:0\"]",
            "no-penalty" => "[\"none\"]",
            "users" => "[\"alice\", \"bob\"]",
            "log-format" => "\"json\"",
            "journal-commands" => "\"hash\"",
            "journal-sync" => "\"never\"",
            "journal-copy" => "\"syslog\"",
            _ if is(key, |action| matches!(action, clap::ArgAction::SetTrue)) => "false",
            _ if is(key, |action| matches!(action, clap::ArgAction::Append)) => "[\"/k\"]",
            _ => "5",
        };
        let file: String = keys.iter().map(|key| format!("{key} = {}\n", value(key))).collect();
        let settings = read(&file, &[]).unwrap();
        let from_file = |s: &&Setting| matches!(s.source, Source::File(_));
        assert_eq!(settings.all.iter().filter(from_file).count(), keys.len());
    }

    #[test]
    fn a_file_that_others_can_write_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("server.toml");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let words = ["rexec-server".into(), "--config".into(), path.into_os_string()];
        let Err(Error::File(why)) = Settings::read(&words) else { panic!("it was believed") };
        assert!(why.contains("can be written by others"), "{why}");
    }
}
