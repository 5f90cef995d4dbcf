//! `rexec-server check`: whether a server would start with these settings, and what they are.

mod files;

use std::fmt::Write as _;
use std::time::SystemTime;

use super::output::write_all;
use super::server_args::definition;
use super::settings::{Settings, origin};
use super::{SERVER, complain, unprinted};
use crate::exec::Groups;
use crate::identity::{CheckedFile, Role, check_files};
use crate::server::policy::Rule;
use crate::server::{StartError, foresee};
use crate::sys::fs::euid;
use crate::units;

/// Exit status: a file of keys, or a line of one, is refused, or a server would not start.
pub(super) const REFUSED: u8 = 1;

/// What is to be said of the files of keys, and of all that no setting shows.
struct Findings {
    files: Vec<CheckedFile>,
    notes: Vec<String>,
    /// Why no server would start.
    refused: Option<String>,
}

/// Prints what a server would go by; the exit status.
pub(super) fn main(settings: &Settings, json: bool) -> u8 {
    if let Err(line) = would_start(settings) {
        complain(SERVER, &line);
        return REFUSED;
    }
    let found = Findings::of(settings);
    let text = match json {
        true => format!("{}\n", files::json(settings, &found)),
        false => told(settings) + &files::told(&found.files) + &found.told(),
    };
    match write_all(rustix::stdio::stdout(), text.as_bytes()) {
        Ok(()) if found.is_well() => 0,
        Ok(()) => REFUSED,
        Err(e) => unprinted(SERVER, &e),
    }
}

/// What ends the start of any server with these settings, also of one that takes over.
fn would_start(settings: &Settings) -> Result<(), String> {
    let args = &settings.args;
    args.access.system()?;
    args.named_twice().map_or(Ok(()), Err)?;
    if let Some(dir) = &args.cgroup {
        let checked = Groups::check(dir, settings.policy.limits());
        checked.map_err(|e| StartError::from(e).to_string())?;
    }
    foresee(&args.shell, &args.classic, &settings.policy).map(drop).map_err(|e| e.to_string())
}

/// Others could reach it and nobody would be let in. One that takes over starts all the same.
fn nobody_let_in(settings: &Settings, files: &[CheckedFile]) -> Option<StartError> {
    let args = &settings.args;
    if matches!(args.access.system(), Ok(Some(_))) {
        return None;
    }
    let files: Vec<_> = files.iter().filter(|file| file.role != Role::Revoked).collect();
    let lines = files.iter().filter_map(|file| file.lines.as_ref().ok()).flatten();
    let keys = lines.filter(|line| line.says.is_ok()).count();
    let paths = files.iter().map(|file| file.path.clone()).collect();
    StartError::nobody_let_in(&args.listen, paths, keys)
}

impl Findings {
    fn of(settings: &Settings) -> Self {
        let (access, now) = (&settings.args.access, SystemTime::now());
        let mut files = check_files(&access.all_files(), now);
        let refused = nobody_let_in(settings, &files).map(|e| e.to_string());
        let mut notes = Vec::new();
        // Without users there is nothing of that to be wrong.
        if let Ok(Some(system)) = access.system() {
            notes.extend(system.notes());
            if euid() == 0 {
                let permits = access.files().permits;
                files.extend(system.check_own(&access.known_users(), permits, now));
            } else {
                notes.push("the users' own lists are not told: only root can read them".to_owned());
            }
        }
        notes
            .extend(settings.policy.limits_told(settings.args.cgroup.is_some()).map(str::to_owned));
        Self { files, notes, refused }
    }

    fn is_well(&self) -> bool {
        self.refused.is_none() && self.files.iter().all(CheckedFile::is_whole)
    }

    /// What is no file's, as comments.
    fn told(&self) -> String {
        let notes = self.notes.iter().map(|note| format!("\n# {note}\n"));
        let refused = self.refused.iter().map(|why| format!("\n# REFUSED: {why}\n"));
        notes.chain(refused).collect()
    }
}

fn told(settings: &Settings) -> String {
    let file = settings.args.config.as_deref();
    let mut text = String::new();
    for setting in &settings.all {
        let values: Vec<String> =
            setting.values.iter().map(|v| value(&v.to_string_lossy())).collect();
        let line = match &*values {
            [] => format!("# {} is not set", setting.key),
            [one] if !is_list(&setting.key) => format!("{} = {one}", setting.key),
            many => format!("{} = [{}]", setting.key, many.join(", ")),
        };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{line:<48} # {}", origin(setting.source, file));
    }
    for rule in settings.policy.rules() {
        text.push_str(&rule_told(rule));
    }
    text
}

fn is_list(key: &str) -> bool {
    let definition = definition();
    let argument = definition.get_arguments().find(|a| a.get_long() == Some(key));
    argument.is_some_and(|a| matches!(a.get_action(), clap::ArgAction::Append))
}

/// A value as TOML has it.
fn value(text: &str) -> String {
    let is_plain = text.parse::<i64>().is_ok() || text == "true" || text == "false";
    // A string of JSON is one of TOML.
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn rule_told(rule: &Rule) -> String {
    let mut text = format!("\n[rule.{}]\n", rule.name);
    let mut line = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "{key} = {value}");
        }
    };
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let paths = rule.cwd.iter().map(|path| quoted(&path.to_string_lossy())).collect::<Vec<_>>();
    let ceilings = &rule.ceilings;
    line("for", Some(list(rule.subjects().into_iter().map(quoted).collect())));
    line(
        "allow",
        rule.allow.as_ref().map(|all| list(all.iter().map(ToString::to_string).collect())),
    );
    line("cwd", rule.allow.as_ref().map(|_| list(paths)));
    line(
        "env",
        rule.allow.as_ref().map(|_| list(rule.env.iter().map(|name| quoted(name)).collect())),
    );
    line("deadline", ceilings.deadline.map(|time| quoted(&units::spelt(time))));
    line("output", ceilings.output.map(|n| n.to_string()));
    line("journal", ceilings.excerpt.map(|n| n.to_string()));
    line("runs", rule.runs.map(|n| n.to_string()));
    line("rate", rule.rate.map(|n| n.to_string()));
    line("memory", ceilings.limits.memory.map(|n| n.to_string()));
    line("cpu", ceilings.limits.cpu.map(|n| n.to_string()));
    line("processes", ceilings.limits.processes.map(|n| n.to_string()));
    line("nice", ceilings.limits.nice.map(|n| n.to_string()));
    line("folder", ceilings.folder.as_ref().map(|path| quoted(&path.to_string_lossy())));
    line("operator", rule.operator.then(|| "true".to_owned()));
    text
}
