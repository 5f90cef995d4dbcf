//! The decision: a pure function of who asks, what for, and what they have under way.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::{Policy, Rule};
use crate::identity::KeyOptions;
use crate::proto::code::Code;
use crate::proto::header::Form;
use crate::runs::judged::{Ceilings, How, Judged, split};
use crate::runs::shares::{MINUTE, Usage};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The stable name, as the journal has it.
    pub identity: &'a str,
    /// What the line of the key says.
    pub rights: Rights,
}

/// What the line by which somebody was let in says of what they may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights {
    /// `command=`: something else is run, whatever is asked for.
    pub forced: bool,
    /// `restrict`.
    pub restricted: bool,
}

impl Rights {
    /// Those of a key with these options.
    #[must_use]
    pub fn of(options: &KeyOptions) -> Self {
        Self { forced: options.command.is_some(), restricted: options.is_restricted() }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Asked<'a> {
    /// To start this.
    Run(Command<'a>),
    /// To see the record of a run.
    Attach(Whose),
    /// To signal a run.
    Signal(Whose),
    /// To stop a run.
    Stop(Whose),
    /// A list of runs.
    List(Whose),
    /// To delete the record of a run.
    Remove(Whose),
    /// To give an own run up, or to go on with it, to leave it alone, or to be silent for a while.
    Keep,
}

/// Whose runs are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those of the one who asks.
    Own,
    /// Those of others too.
    All,
}

/// What is to be started, as the client put it. Debug shows no words: they may hold secrets.
#[derive(Clone)]
pub struct Command<'a> {
    /// How it is given.
    pub form: Form,
    /// The words, or the one text.
    pub words: Vec<&'a [u8]>,
    /// Where.
    pub cwd: Option<&'a Path>,
    /// The names of the variables that are to be set.
    pub env: Vec<&'a [u8]>,
}

impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({:?}, {} words)", self.form, self.words.len())
    }
}

/// What may be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// What is run, and within what.
    pub judged: Judged,
    /// The part of a minute that the start takes.
    pub part: Duration,
}

/// Why it may not be done. It names one rule, which is for the one who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forbidden {
    /// The kind.
    pub code: Code,
    /// One line for people.
    pub text: String,
}

impl Forbidden {
    /// The answer to one who would not be let in any more.
    #[must_use]
    pub fn no_longer_in() -> Self {
        Self { code: Code::NotAuthorized, text: "this key is no longer authorized".into() }
    }

    fn new(rule: &str, what: impl fmt::Display) -> Self {
        Self { code: Code::NotPermitted, text: format!("{rule} {what}") }
    }

    fn over(rule: &Rule, what: impl fmt::Display) -> Self {
        Self { code: Code::OverLimit, text: format!("{} {what}", named(rule)) }
    }
}

fn named(rule: &Rule) -> String {
    format!("rule {:?}", rule.name)
}

/// Decides.
///
/// # Errors
/// [`Forbidden`].
pub fn decide(
    policy: &Policy,
    subject: Subject<'_>,
    asked: &Asked<'_>,
    usage: Usage,
) -> Result<Allowed, Forbidden> {
    let rules: Vec<&Rule> = policy.rules_for(subject.identity).collect();
    let restricted = restricted_by(&rules, subject.rights);
    match (asked, restricted) {
        (Asked::Run(command), _) => run(&rules, subject.rights, command, usage),
        (Asked::List(Whose::Own) | Asked::Remove(Whose::Own), Some(by)) => Err(Forbidden::new(
            &by,
            "lets nothing be done but to run, and to follow and stop one's own runs",
        )),
        (Asked::Remove(Whose::All), _) => {
            Err(Forbidden::new("the policy", "lets nobody delete the records of others"))
        }
        (
            Asked::Attach(Whose::All)
            | Asked::Signal(Whose::All)
            | Asked::Stop(Whose::All)
            | Asked::List(Whose::All),
            restricted,
        ) => match restricted {
            None if rules.iter().any(|rule| rule.operator) => Ok(Allowed::default()),
            _ => Err(Forbidden::new(
                "the policy",
                "lets only operators see and stop the runs of others",
            )),
        },
        (
            Asked::Attach(Whose::Own)
            | Asked::Signal(Whose::Own)
            | Asked::Stop(Whose::Own)
            | Asked::List(Whose::Own)
            | Asked::Remove(Whose::Own)
            | Asked::Keep,
            _,
        ) => Ok(Allowed::default()),
    }
}

/// What holds somebody to running, if anything does: the name of the rule, or of the option.
fn restricted_by(rules: &[&Rule], rights: Rights) -> Option<String> {
    let rule = rules.iter().find(|rule| rule.allow.is_some()).map(|rule| named(rule));
    let forced = rights.forced.then(|| "the key's option command=".to_owned());
    rule.or(forced).or_else(|| rights.restricted.then(|| "the key's option restrict".to_owned()))
}

fn run(
    rules: &[&Rule],
    rights: Rights,
    command: &Command<'_>,
    usage: Usage,
) -> Result<Allowed, Forbidden> {
    let how = how(rules, rights, command)?;
    let mut part = Duration::ZERO;
    for rule in rules {
        if let Some(most) = rule.runs.filter(|most| usage.running >= *most) {
            return Err(Forbidden::over(rule, format!("allows {most} runs at one time")));
        }
        let Some(rate) = rule.rate else { continue };
        let own = MINUTE / u32::try_from(rate).unwrap_or(u32::MAX);
        let wait = (usage.ahead + own).saturating_sub(MINUTE);
        if !wait.is_zero() {
            let seconds = wait.as_secs_f64().ceil();
            let text = format!("allows {rate} runs a minute; the next one in {seconds} s");
            return Err(Forbidden::over(rule, text));
        }
        part = part.max(own);
    }
    let ceilings =
        rules.iter().fold(Ceilings::default(), |lowest, rule| lowest.lower(&rule.ceilings));
    Ok(Allowed { judged: Judged { how, ceilings, user: None, cgroup: None }, part })
}

fn how(rules: &[&Rule], rights: Rights, command: &Command<'_>) -> Result<How, Forbidden> {
    let lists = || rules.iter().copied().filter(|rule| rule.allow.is_some());
    let Some(first) = lists().next() else {
        // What a client chooses with a command that is not run is not there either.
        return Ok(if rights.forced { How::Forced } else { How::AsAsked });
    };
    if rights.forced {
        let text = "and a key's option command= are not for the same key";
        return Err(Forbidden::new(&named(first), text));
    }
    let words = argv(command).map_err(|why| Forbidden::new(&named(first), why))?;
    let words: Vec<&[u8]> = words.iter().map(|word| &**word).collect();
    let fits = |rule: &&Rule| rule.allow.iter().flatten().any(|pattern| pattern.fits(&words));
    let mut refusal = Forbidden::new(&named(first), "does not allow this command");
    // Of several rules that allow it, the first that allows its surroundings too.
    let fitting: Vec<&Rule> = lists().filter(fits).collect();
    for rule in fitting.into_iter().rev() {
        match chosen(&named(rule), command, (&rule.cwd, &rule.env)) {
            Ok(()) => return Ok(How::Argv),
            Err(e) => refusal = e,
        }
    }
    Err(refusal)
}

/// Whether a client may choose the folder and the variables that it names.
fn chosen(
    by: &str,
    command: &Command<'_>,
    (cwd, env): (&[std::path::PathBuf], &[String]),
) -> Result<(), Forbidden> {
    // Compared as it is written: `/srv/..` is another folder.
    let is_listed = |given: &Path| cwd.iter().any(|cwd| cwd.as_os_str() == given.as_os_str());
    if command.cwd.is_some_and(|given| !is_listed(given)) {
        return Err(Forbidden::new(by, "does not let the client choose this folder (--cwd)"));
    }
    let unlisted = |name: &&&[u8]| !env.iter().any(|listed| listed.as_bytes() == **name);
    match command.env.iter().find(unlisted) {
        None => Ok(()),
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            Err(Forbidden::new(by, format!("does not let the client set {name:?} (--env)")))
        }
    }
}

/// The words that are run under an allow-list.
fn argv<'a>(command: &Command<'a>) -> Result<Vec<std::borrow::Cow<'a, [u8]>>, &'static str> {
    match (command.form, &*command.words) {
        (Form::Argv, words) => Ok(words.iter().map(|word| (*word).into()).collect()),
        (Form::Shell, [text]) => {
            let words = split(text).ok_or("allows commands only, and this text is none")?;
            Ok(words.into_iter().map(|word| word.into_bytes().into()).collect())
        }
        (Form::Shell | Form::Script, _) => Err("allows no script"),
    }
}

#[cfg(test)]
mod tests;
