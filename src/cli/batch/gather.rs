//! What is to run where, from the command line and the files that it names. Everything that is wrong is
//! found here, before anything runs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::args::Args;
use super::mask::Secrets;
use super::report::{HostRow, Subject, VERSION};
use super::resume::{self, Earlier};
use super::steps_file;
use crate::cli::config::Config;
use crate::cli::place::Place;
use crate::client::Destination;
use crate::client::batch::plan::{Plan, StepSpec, Time};
use crate::client::batch::{Batch, Host, Options, Step, hosts};

/// Longest file of hosts or steps, bytes.
const FILE_LIMIT: u64 = 16 << 20;
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// A batch, what a report says of it, and what is not to be seen of it.
pub(super) struct Gathered {
    pub(super) batch: Batch,
    pub(super) subject: Subject,
    pub(super) secrets: Secrets,
    /// The batch that is resumed.
    pub(super) earlier: Option<Earlier>,
}

/// Reads everything.
pub(super) fn gather(args: &Args) -> Result<Gathered, String> {
    let earlier = args.resume.as_deref().map(resume::read).transpose()?;
    let (named, specs) = match &earlier {
        Some(earlier) => (named_by(&earlier.subject)?, earlier.subject.steps.clone()),
        None => (hosts_of(args)?, specs_of(args)?),
    };
    let secrets = secrets(&specs)?;
    let step = |(at, spec): (usize, &StepSpec)| {
        spec.step(&from_here).map_err(|e| format!("step {}: {e}", at + 1))
    };
    let steps = specs.iter().enumerate().map(step);
    let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
    let (names, places): (Vec<_>, Vec<_>) = named.into_iter().unzip();
    let targets = args.reach.targets(&places).map_err(|e| e.to_string())?;
    let rows = names.iter().zip(&places).map(|(name, place)| HostRow::of(name, place));
    let subject = Subject { version: VERSION, hosts: rows.collect(), steps: specs };
    let before = |name: &str| earlier.as_ref().map_or_else(Vec::new, |e| e.before(name));
    let host = |(name, target): (String, _)| Host { before: before(&name), name, target };
    let hosts: Vec<Host> = names.into_iter().zip(targets).map(host).collect();
    let options = options(args, hosts.len());
    let batch = Batch { hosts, steps, options };
    batch.check().map_err(|e| e.to_string())?;
    Ok(Gathered { batch, subject, secrets, earlier })
}

/// The hosts of an earlier batch.
fn named_by(subject: &Subject) -> Result<Named, String> {
    subject.hosts.iter().map(|row| Ok((row.name.clone(), row.place()?))).collect()
}

fn options(args: &Args, hosts: usize) -> Options {
    Options {
        at_once: args.jobs.get(),
        // A round of no host would be no round.
        serial: args.serial.map(|serial| serial.of(hosts).max(1)),
        max_failures: args.max_failures.map(|most| most.of(hosts)),
        fail_fast: args.fail_fast,
        deadline: args.deadline,
        retries: args.retries,
        reconnect_timeout: args.reach.reconnect_timeout,
    }
}

/// A text file of a size that people write; `-` is stdin.
pub(super) fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let fault = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let mut text = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().take(FILE_LIMIT + 1).read_to_end(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(fault)?;
        file.take(FILE_LIMIT + 1).read_to_end(&mut text)
    };
    read.map_err(fault)?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(format!("{} is longer than {FILE_LIMIT} bytes", path.display()));
    }
    // Editors of other systems put a byte order mark first.
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(text).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = e.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        format!("{}:{line}: this is not UTF-8", path.display())
    })
}

/// Hosts with the places that they stand for.
type Named = Vec<(String, Place)>;

/// Every host, in the order in which they were named.
fn hosts_of(args: &Args) -> Result<Named, String> {
    let lists = Lists { config: Config::load()? };
    let mut found = Found::default();
    for list in &args.host {
        lists.add(&mut found, list, "-H")?;
    }
    for path in &args.hosts {
        for (number, line) in read(path)?.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            if !line.trim().is_empty() {
                lists.add(&mut found, line, &format!("{}:{}", path.display(), number + 1))?;
            }
        }
    }
    let mut left_out = Found::default();
    for list in &args.exclude {
        lists.add(&mut left_out, list, "-x")?;
    }
    if let Some(path) = args.file.as_ref().filter(|path| is_plan(path)) {
        let (plan, place) = (plan(path, &read(path)?)?, path.display().to_string());
        // Hosts of the command line stand in place of the plan's.
        if found.named.is_empty() {
            for list in &plan.hosts {
                lists.add(&mut found, list, &format!("{place}, hosts"))?;
            }
        }
        for list in &plan.exclude {
            lists.add(&mut left_out, list, &format!("{place}, exclude"))?;
        }
    }
    without(found, &left_out)
}

fn without(Found { named: mut found, known }: Found, left_out: &Found) -> Result<Named, String> {
    let is_unknown = |(_, place): &&(String, Place)| !known.contains(&place.destination());
    if let Some((name, _)) = left_out.named.iter().find(is_unknown) {
        return Err(format!("{name} is to be left out, and is no host of this batch"));
    }
    found.retain(|(_, place)| !left_out.known.contains(&place.destination()));
    if found.is_empty() {
        return Err("there is no host to run on; name some with -H or --hosts".into());
    }
    Ok(found)
}

/// The hosts of some lists.
#[derive(Default)]
struct Found {
    named: Named,
    /// Their addresses.
    known: HashSet<Destination>,
}

/// Reads lists of hosts.
struct Lists {
    config: Config,
}

impl Lists {
    /// Adds the hosts of a list; `place` says where it stands.
    fn add(&self, found: &mut Found, list: &str, place: &str) -> Result<(), String> {
        self.add_within(found, list, place, &mut Vec::new())
    }

    /// The same, within the groups `within`.
    fn add_within<'a>(
        &'a self,
        found: &mut Found,
        list: &'a str,
        place: &str,
        within: &mut Vec<String>,
    ) -> Result<(), String> {
        let all = hosts::expand(list).map_err(|e| format!("{place}, {e}"))?;
        for (column, name) in all {
            let fault = |why: String| format!("{place}, column {column}: {why}");
            if let Some(group) = name.strip_prefix('@') {
                let lists = self
                    .config
                    .group(group)
                    .ok_or_else(|| fault(format!("there is no group {group:?} in config.toml")))?;
                if within.iter().any(|outer| outer == group) {
                    return Err(fault(format!("the group {group:?} has itself as a member")));
                }
                within.push(group.to_owned());
                for list in lists {
                    self.add_within(found, list, &format!("group {group:?}"), within)?;
                }
                within.pop();
                continue;
            }
            let at = Place::parse(&name, &self.config).map_err(fault)?;
            if !found.known.insert(at.destination()) {
                return Err(fault(format!("{name} is listed twice")));
            }
            if found.known.len() > hosts::HOSTS_LIMIT {
                return Err(fault(format!("more than {} hosts", hosts::HOSTS_LIMIT)));
            }
            // A connect string is no name: it says more than where.
            let name = if name.contains("://") { at.endpoint.to_string() } else { name };
            found.named.push((name, at));
        }
        Ok(())
    }
}

/// The steps, as a report holds them.
fn specs_of(args: &Args) -> Result<Vec<StepSpec>, String> {
    let mut specs = match (&args.file, args.command.as_slice()) {
        (Some(path), _) => from_file(path)?,
        (None, []) => args.step.iter().map(StepSpec::shell).collect(),
        (None, [text]) if !args.exact => vec![StepSpec::shell(text)],
        (None, words) => vec![StepSpec::argv(words.to_vec())],
    };
    if specs.is_empty() {
        return Err("there is nothing to run; give a command, -s or --file".into());
    }
    for spec in &mut specs {
        with_options(args, spec);
    }
    Ok(specs)
}

fn from_file(path: &Path) -> Result<Vec<StepSpec>, String> {
    let text = read(path)?;
    if is_plan(path) {
        return Ok(plan(path, &text)?.steps);
    }
    steps_file::read(path, &text)
}

fn is_plan(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

fn plan(path: &Path, text: &str) -> Result<Plan, String> {
    Plan::parse(text, &from_here).map_err(|e| format!("{}:{e}", path.display()))
}

/// What the command line says of all steps, where a step does not say it itself.
fn with_options(args: &Args, spec: &mut StepSpec) {
    spec.cwd = spec.cwd.take().or_else(|| args.cwd.clone());
    spec.timeout = spec.timeout.or(args.timeout.map(Time));
    spec.merge |= args.merge;
    for setting in &args.env {
        match setting.split_once('=') {
            Some((name, value)) => {
                spec.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
            None if spec.secrets.contains(setting) => {}
            None => spec.secrets.push(setting.clone()),
        }
    }
}

/// A variable of this process.
fn from_here(name: &str) -> Option<OsString> {
    // A name with these could not be one, and the system's look-up need not say so kindly.
    let is_name = !name.is_empty() && !name.contains(['=', '\0']);
    is_name.then(|| std::env::var_os(name)).flatten()
}

/// From this length up, a secret in a command's text is told from chance.
const TELLING: usize = 8;

/// The values of all secrets. One that stands in a command would be seen by everybody on its host, and
/// in the server's journal.
fn secrets(specs: &[StepSpec]) -> Result<Secrets, String> {
    let mut values = Vec::new();
    for name in specs.iter().flat_map(|spec| &spec.secrets) {
        let value = from_here(name).ok_or_else(|| {
            format!(
                "the secret {name} is not set here; set it, or write NAME=VALUE for what is none"
            )
        })?;
        let text = value.to_string_lossy();
        let mut words =
            specs.iter().flat_map(|spec| spec.command.iter().chain(spec.argv.iter().flatten()));
        if text.len() >= TELLING && words.any(|word| word.contains(text.as_ref())) {
            return Err(format!("the value of {name} stands in a command; write ${name} there"));
        }
        values.push(value.as_bytes().to_vec());
    }
    Ok(Secrets::new(values))
}
