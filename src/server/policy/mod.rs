//! Policy as data: which of those who are let in may run what, and within what.
//!
//! Who is let in is decided before, by keys. A rule is for identities and groups; rules for `*` are for those
//! whom no other rule names, and whom no rule is for may do everything. Of several rules for one identity, a
//! command needs to be allowed by one of those that have an allow-list, and of each ceiling the lowest counts.

mod decide;
mod file;
mod pattern;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use toml::Spanned;

pub use decide::{Allowed, Asked, Command, Forbidden, Rights, Subject, Whose, decide};
pub use pattern::Pattern;

use crate::exec::Limits;
use crate::mistake::{Mistake, from_toml};
use crate::runs::judged::Ceilings;
use file::{File, LOCAL, Name, Stable};

/// What a rule says of whom no other rule names.
const OTHERS: &str = "*";
/// The tables that [`Policy::parse`] reads.
pub const TABLES: [&str; 3] = ["identity", "group", "rule"];

/// What is promised of the limits that the kernel holds.
const LIMITS_TOLD: &str = "memory and cpu of rules are limits of each process, and processes one of the account \
    (setrlimit(2)); cgroups are not used, so a run with all its processes has no limit of its own: see --cgroup";
/// The same, where each run has a control group.
const GROUPS_TOLD: &str = "memory and processes of rules are limits of each run with all its processes (cgroup v2), \
    and memory and cpu of each process, and processes of the account (setrlimit(2))";

/// Who may do what. The default lets everybody do everything, who is let in.
#[derive(Debug, Default)]
pub struct Policy {
    /// In the order of their names.
    rules: Vec<Rule>,
}

/// What is decided about some.
#[derive(Debug)]
pub struct Rule {
    /// Its name, which a refusal tells.
    pub name: String,
    /// The stable names of those whom it is for.
    subjects: BTreeSet<String>,
    /// It is for those whom no rule names.
    others: bool,
    /// What may be run; none: everything.
    pub allow: Option<Vec<Pattern>>,
    /// Folders that a client may name; counts with `allow`.
    pub cwd: Vec<PathBuf>,
    /// Variables that a client may set; counts with `allow`.
    pub env: Vec<String>,
    /// Most runs at one time, of each identity.
    pub runs: Option<u64>,
    /// Most starts a minute, of each identity.
    pub rate: Option<u64>,
    /// What each run may take.
    pub ceilings: Ceilings,
    /// They may see and stop the runs of others.
    pub operator: bool,
}

impl Policy {
    /// Reads the tables of a policy from the text of a configuration; its other keys are not looked at.
    ///
    /// # Errors
    /// The first mistake.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let File { identity, group, rule } = from_toml(text)?;
        let identities: Known = identity
            .into_iter()
            .map(|(Name(name), i)| (name, i.keys.into_iter().map(|Stable(key)| key).collect()))
            .collect();
        let mut groups = Known::new();
        for (Name(name), group) in group {
            let members = group.members.iter().map(|member| one(member, &identities));
            let members: Result<Vec<_>, _> = members.collect();
            let members = members.map_err(|(at, why)| Mistake::at(text, at, &why))?;
            groups.insert(name, members.concat());
        }
        let rules = rule.into_iter().map(|(Name(name), rule)| {
            Rule::new(name, rule, &identities, &groups)
                .map_err(|(at, why)| Mistake::at(text, at, &why))
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The rules for somebody, by the stable name that the journal has.
    pub fn rules_for<'a>(&'a self, identity: &'a str) -> impl Iterator<Item = &'a Rule> + Clone {
        let is_named = self.rules.iter().any(|rule| rule.names(identity));
        self.rules
            .iter()
            .filter(move |rule| if is_named { rule.names(identity) } else { rule.others })
    }

    /// By what the limits of the rules are held, if there are any: an operator may expect more.
    #[must_use]
    pub fn limits_told(&self, in_groups: bool) -> Option<&'static str> {
        let told = if in_groups { GROUPS_TOLD } else { LIMITS_TOLD };
        (!self.limits().is_none()).then_some(told)
    }

    /// Of each kind the lowest limit of any rule: which kinds there are.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let lowest = |lowest: Ceilings, rule: &Rule| lowest.lower(&rule.ceilings);
        self.rules.iter().fold(Ceilings::default(), lowest).limits
    }

    /// Every rule, in the order of their names.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Stable names by the name that the policy gives them together.
type Known = BTreeMap<String, Vec<String>>;

/// The stable names of one identity: by the name that it has in the policy, or by its own.
fn one(text: &Spanned<String>, identities: &Known) -> Result<Vec<String>, (usize, String)> {
    let name = text.as_ref();
    match (identities.get(name), Stable::parse(name)) {
        (Some(keys), _) => Ok(keys.clone()),
        (None, Ok(Stable(key))) => Ok(vec![key]),
        (None, Err(_)) => Err((
            text.span().start,
            format!("there is no [identity.{name}]; give a key's fingerprint or define it"),
        )),
    }
}

impl Rule {
    fn new(
        name: String,
        rule: file::Rule,
        identities: &Known,
        groups: &Known,
    ) -> Result<Self, (usize, String)> {
        let (mut subjects, mut others) = (BTreeSet::new(), false);
        for subject in &rule.subjects {
            match subject.as_ref().strip_prefix('@') {
                _ if subject.as_ref() == OTHERS => others = true,
                Some(group) => {
                    let members = groups.get(group).ok_or_else(|| {
                        (subject.span().start, format!("there is no [group.{group}]"))
                    })?;
                    subjects.extend(members.iter().cloned());
                }
                None => subjects.extend(one(subject, identities)?),
            }
        }
        let spans = [rule.cwd.as_ref().map(Spanned::span), rule.env.as_ref().map(Spanned::span)];
        if let (None, Some(span)) = (&rule.allow, spans.into_iter().flatten().next()) {
            let text =
                "`cwd` and `env` go with `allow`: without an allow-list a client may choose any";
            return Err((span.start, text.into()));
        }
        let ceilings = rule.ceilings();
        let cwd = rule.cwd.map(Spanned::into_inner).unwrap_or_default();
        let env = rule.env.map(Spanned::into_inner).unwrap_or_default();
        Ok(Self {
            name,
            subjects,
            others,
            allow: rule.allow,
            cwd: cwd.into_iter().map(|file::Folder(path)| path).collect(),
            env: env.into_iter().map(|file::Variable(name)| name).collect(),
            runs: rule.runs.map(|file::Count(n)| n),
            rate: rule.rate.map(|file::Count(n)| n),
            ceilings,
            operator: rule.operator,
        })
    }

    /// Whether it is for somebody by name.
    fn names(&self, identity: &str) -> bool {
        let is_local = identity.strip_prefix(LOCAL).is_some_and(|rest| rest.starts_with(':'));
        self.subjects.contains(identity) || is_local && self.subjects.contains(LOCAL)
    }

    /// For whom it is, for people.
    #[must_use]
    pub fn subjects(&self) -> Vec<&str> {
        let others = self.others.then_some(OTHERS);
        self.subjects.iter().map(String::as_str).chain(others).collect()
    }
}

impl file::Rule {
    fn ceilings(&self) -> Ceilings {
        Ceilings {
            deadline: self.deadline.map(|file::Time(time)| time),
            output: self.output.map(|file::Bytes(n)| n),
            excerpt: self.journal.map(|file::Excerpt(n)| n),
            folder: self.folder.clone().map(|file::Folder(path)| path),
            limits: Limits {
                memory: self.memory.map(|file::Bytes(n)| n),
                // The kernel counts whole seconds, and 0 is none at all.
                cpu: self.cpu.map(|file::Time(time)| time.as_secs().max(1)),
                processes: self.processes.map(|file::Count(n)| n),
                nice: self.nice.map(|file::Nice(n)| n),
            },
        }
    }
}

#[cfg(test)]
mod tests;
