//! A batch as a file: hosts and steps in TOML, read with the line and the column of whatever is wrong.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Spanned;

use super::{OnError, RetryOn, Step};
use crate::client::Command;
use crate::mistake::{Mistake, from_toml};
use crate::units::{some_time, spelt};

/// Hosts and steps, as a plan has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Lists of hosts, as [`super::hosts::expand`] reads them.
    pub hosts: Vec<String>,
    /// Lists of hosts that are left out.
    pub exclude: Vec<String>,
    /// What to run.
    pub steps: Vec<StepSpec>,
}

/// A step as people and reports write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec<Secret = String> {
    /// What it is called; without it, as its command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Text for the server's shell; either this or `argv`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A program and its arguments, without a shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// Variables of its environment.
    #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of variables that get the value that they have here; the values are not to be seen.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Secret>,
    /// Its working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// It is stopped after so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Time>,
    /// What becomes of the next steps if it does not end well.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnError,
    /// How often it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// What is tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_on: RetryOn,
    /// Whether both streams go through one pipe.
    #[serde(default, skip_serializing_if = "is_default")]
    pub merge: bool,
    /// Whether the run outlives its server.
    #[serde(default, skip_serializing_if = "is_default")]
    pub durable: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The file as TOML has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    steps: Vec<Spanned<StepSpec<Spanned<String>>>>,
}

/// A length of time in text: `30s`, `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&spelt(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = String::deserialize(from)?;
        some_time(&text).map(Self).map_err(D::Error::custom)
    }
}

/// Looks a secret up by its name.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Plan {
    /// Reads a plan. Every secret that it names must be there.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str, lookup: Lookup<'_>) -> Result<Self, Mistake> {
        let fault = |at, why: String| Mistake::at(text, at, &why);
        let file: File = from_toml(text)?;
        if file.steps.is_empty() {
            return Err(fault(0, "a plan needs at least one [[steps]]".into()));
        }
        let mut steps = Vec::new();
        for step in file.steps {
            let at = step.span().start;
            let spec = step.into_inner();
            if let Some(secret) = spec.secrets.iter().find(|name| lookup(name.as_ref()).is_none()) {
                let name = secret.as_ref();
                let why = format!("the secret {name} is not set in the environment of rexec");
                return Err(fault(secret.span().start, why));
            }
            let spec = spec.plain();
            spec.step(lookup).map_err(|why| fault(at, why))?;
            steps.push(spec);
        }
        Ok(Self { hosts: file.hosts, exclude: file.exclude, steps })
    }
}

impl StepSpec<Spanned<String>> {
    fn plain(self) -> StepSpec {
        StepSpec {
            name: self.name,
            command: self.command,
            argv: self.argv,
            env: self.env,
            secrets: self.secrets.into_iter().map(Spanned::into_inner).collect(),
            cwd: self.cwd,
            timeout: self.timeout,
            on_error: self.on_error,
            retries: self.retries,
            retry_on: self.retry_on,
            merge: self.merge,
            durable: self.durable,
        }
    }
}

impl StepSpec {
    /// Text for the server's shell.
    #[must_use]
    pub fn shell(text: impl Into<String>) -> Self {
        Self { command: Some(text.into()), ..Self::default() }
    }

    /// A program and its arguments.
    #[must_use]
    pub fn argv(words: Vec<String>) -> Self {
        Self { argv: Some(words), ..Self::default() }
    }

    /// The step that it stands for, with the values of its secrets.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn step(&self, lookup: Lookup<'_>) -> Result<Step, String> {
        let mut command = match (&self.command, &self.argv) {
            (Some(text), None) if text.trim().is_empty() => {
                return Err("the command is empty".into());
            }
            (Some(text), None) => Command::shell(text),
            (None, Some(words)) if words.is_empty() => return Err("argv is empty".into()),
            (None, Some(words)) => Command::argv(words),
            (Some(_), Some(_)) => return Err("a step has a command or an argv, not both".into()),
            (None, None) => return Err("a step needs a command or an argv".into()),
        };
        command = command.merge(self.merge).durable(self.durable);
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        for name in &self.secrets {
            let value = lookup(name).ok_or_else(|| format!("the secret {name} is not set here"))?;
            command = command.env(name, value);
        }
        if let Some(cwd) = &self.cwd {
            command = command.cwd(cwd);
        }
        if let Some(Time(timeout)) = self.timeout {
            command = command.deadline(timeout);
        }
        command.request(false, false).map_err(|e| e.to_string())?;
        Ok(Step {
            name: self.to_string(),
            command,
            on_error: self.on_error,
            retries: self.retries,
            retry_on: self.retry_on,
        })
    }

    /// What is run, as text for a shell.
    #[must_use]
    pub fn command_line(&self) -> String {
        let quoted = |word: &String| {
            shlex::try_quote(word).map_or_else(|_| word.clone(), std::borrow::Cow::into_owned)
        };
        match (&self.command, &self.argv) {
            (Some(text), _) => text.trim().to_owned(),
            (None, words) => words.iter().flatten().map(quoted).collect::<Vec<_>>().join(" "),
        }
    }
}

/// Its name, or its command.
impl fmt::Display for StepSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &self.command, &self.argv) {
            (Some(text), ..) | (None, Some(text), _) => f.write_str(text.trim()),
            (None, None, words) => f.write_str(&words.as_deref().unwrap_or_default().join(" ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Plan, Mistake> {
        Plan::parse(text, &|name| (name == "TOKEN").then(|| "hunter2".into()))
    }

    #[test]
    fn a_plan_says_everything_that_a_step_can_be() {
        let plan = parse(
            "hosts = [\"web[1-2]:80\"]\nexclude = [\"web2:80\"]\n[[steps]]\nname = \"build\"\n\
             command = \"make\"\nenv = { CI = \"1\" }\nsecrets = [\"TOKEN\"]\ncwd = \"/srv\"\n\
             timeout = \"1h 30m\"\non_error = \"continue\"\nretries = 3\nretry_on = \"failure\"\n\
             merge = true\ndurable = true\n[[steps]]\nargv = [\"ls\", \"-l\"]\n",
        )
        .unwrap();
        assert_eq!((plan.hosts.len(), plan.exclude.len(), plan.steps.len()), (1, 1, 2));
        let first = &plan.steps[0];
        assert_eq!(first.timeout, Some(Time(Duration::from_secs(5400))));
        assert_eq!((first.on_error, first.retry_on), (OnError::Continue, RetryOn::Failure));
        assert_eq!(plan.steps[1].to_string(), "ls -l");
        let json = serde_json::to_string(&plan.steps).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        assert_eq!(serde_json::from_str::<Vec<StepSpec>>(&json).unwrap(), plan.steps);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_column() {
        for (text, line, column, part) in [
            ("[[steps]]\ncomand = \"x\"", 2, 1, "unknown field `comand`"),
            ("host = []\n[[steps]]\ncommand = \"x\"", 1, 1, "unknown field `host`"),
            ("[[steps]]\ncommand = \"x", 2, 13, "string"),
            ("[[steps]]\ncommand = \"x\"\n  timeout = \"soon\"", 3, 13, "30s"),
            ("[[steps]]\ncommand = \"x\"\ntimeout = \"0s\"", 3, 11, "1ms"),
            ("[[steps]]\ncommand = \"x\"\non_error = \"go\"", 3, 12, "continue"),
            ("[[steps]]\ncommand = \"x\"\nretries = -1", 3, 11, "invalid value"),
            (
                "[[steps]]\ncommand = \"x\"\nsecrets = [\"TOKEN\", \"OTHER\"]",
                3,
                21,
                "OTHER is not set",
            ),
            ("\n[[steps]]\nname = \"x\"", 2, 1, "needs a command"),
            ("[[steps]]\ncommand = \"x\"\nargv = [\"x\"]", 1, 1, "not both"),
            ("[[steps]]\ncommand = \" \"", 1, 1, "empty"),
            ("[[steps]]\nargv = []", 1, 1, "empty"),
            ("[[steps]]\ncommand = \"x\"\nenv = { \"A=B\" = \"\" }", 1, 1, "A=B"),
            ("steps = []", 1, 1, "at least one"),
            ("hosts = [\"a:1\"]", 1, 1, "at least one"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text}: {error}");
            assert!(error.text.contains(part), "{text}: {error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }
}
