//! The client's command line.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as _, CommandFactory as _, Parser};
use clap_complete::Shell;

use super::habits::{is_needless, suggest};
use super::man::Section;
use super::place::Place;
use super::reach::Reach;
use super::status::TABLE;
use super::{ssh_options, words};
use crate::proto::digest::Algorithm;
use crate::units::{duration, some_time};

/// Run a command on another machine and get the truth about it.
#[derive(Debug, Default, Parser)]
#[command(name = "rexec", version, max_term_width = 100, after_help = after_help())]
pub(super) struct Args {
    /// The server: host:port, [::1]:8080, localhost:8080, unix:/path/to/socket, a name of
    /// ~/.config/rexec/config.toml, or rexec://host:port?host-key=SHA256:...; with USER@ in front if it
    /// serves several users
    #[arg(value_name = "ADDR", required_unless_present_any = ["completions", "man"])]
    pub(super) addr: Option<Place>,

    /// One word: text for the server's shell. Several words, or any words after --: a program and its
    /// arguments, exactly, without a shell. None: a script on stdin, or a prompt on a terminal
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub(super) command: Vec<OsString>,

    /// Join several words with blanks and give them to the server's shell, as ssh does
    #[arg(long)]
    pub(super) shell: bool,

    /// Run in this folder of the server; by default, and where it is relative, in its account's home
    #[arg(long, value_name = "DIR")]
    pub(super) cwd: Option<PathBuf>,

    /// Set a variable for the command; without a value, to the one it has here (for secrets: no value
    /// on the command line)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub(super) env: Vec<OsString>,

    /// Stop the command and everything it started after so long, such as 30s or 1h 30m
    #[arg(short, long, value_name = "TIME", value_parser = some_time)]
    pub(super) timeout: Option<Duration>,

    /// Give the command no stdin, and leave this one's unread: needed inside `while read` loops
    #[arg(short = 'n', long, overrides_with = "no_stdin")]
    pub(super) no_stdin: bool,

    /// Put stdout and stderr through one pipe, so that their order is exact; both arrive on stdout
    #[arg(long)]
    pub(super) merge: bool,

    /// Wait until nobody holds the output open any more, as ssh does, not just for the command's end
    #[arg(long)]
    pub(super) wait_eof: bool,

    /// Check the streams by this digest, if the server knows it and the run is not durable; else by SHA-256
    #[arg(long, value_name = "NAME", value_parser = digests(), default_value = "sha256")]
    pub(super) hash: Algorithm,

    /// Save stdout to FILE, which appears only when it is whole and its digest matches
    #[arg(short, long, value_name = "FILE", value_parser = output_file())]
    pub(super) output: Option<PathBuf>,

    /// Print one JSON object: how it ended, stdout and stderr (base64 where they are not UTF-8)
    #[arg(long, conflicts_with = "output")]
    pub(super) json: bool,

    /// Write how it ended to FILE, as JSON, whatever happens
    #[arg(long, value_name = "FILE")]
    pub(super) verdict: Option<PathBuf>,

    #[command(flatten)]
    pub(super) reach: Reach,

    /// The run waits so long for this client should it vanish, then it is stopped
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) grace: Option<Duration>,

    /// Let the run outlive the server, with its whole output kept there: a server that is killed or upgraded
    /// does not end it. SIGHUP leaves it running
    #[arg(long)]
    pub(super) durable: bool,

    /// Start a durable run without stdin (but a script's), print its id, and leave it running
    #[arg(short, long, conflicts_with_all = ["output", "json", "verdict", "grace"])]
    pub(super) detach: bool,

    /// The run's id: the same request under the same id runs once, whoever asks again sees the same
    /// output and end. Implies --durable
    #[arg(long, value_name = "NAME")]
    pub(super) id: Option<String>,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub(super) completions: Option<Shell>,

    /// Print the manual page and exit
    #[arg(long, exclusive = true)]
    pub(super) man: bool,

    /// Whether `--` stood right before the command.
    #[arg(skip)]
    pub(super) exact: bool,
}

impl Args {
    /// Reads a command line; prints help and errors itself, as clap does.
    pub(super) fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        match Self::plain(args) {
            Some(plain) => Ok(plain),
            None => Self::parse(args),
        }
    }

    /// `rexec ADDR [COMMAND]`, without an option before the command; none if it is anything else, or the
    /// address is none. Making the definition of all options takes a short command's client longer than to
    /// log in.
    fn plain(args: &[OsString]) -> Option<Self> {
        let (addr, command) = args.get(1..)?.split_first()?;
        let is_option = |word: &OsString| word.as_bytes().starts_with(b"-");
        if is_option(addr) || command.first().is_some_and(is_option) {
            return None;
        }
        let addr = addr.to_str()?.parse().ok()?;
        Some(Self { addr: Some(addr), command: command.to_vec(), ..Self::default() })
    }

    fn parse(args: &[OsString]) -> Result<Self, clap::Error> {
        let mut read =
            Self::try_parse_from(args).map_err(|e| with_verb(ssh_options::explained(e), args))?;
        let before = args.len().checked_sub(read.command.len() + 1);
        read.exact =
            !read.command.is_empty() && before.is_some_and(|at| at > 0 && args[at] == "--");
        Ok(read)
    }
}

fn digests() -> impl TypedValueParser<Value = Algorithm> {
    let names = Algorithm::ALL.iter().map(|algorithm| algorithm.name());
    PossibleValuesParser::new(names).map(|name| Algorithm::from_name(&name).unwrap_or_default())
}

/// Whoever types ssh's `-o` does not see the output any more, and finds it in a file of a strange name.
fn output_file() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| match path.to_str() {
        Some(text) if ssh_options::is_setting(text) => {
            Err(format!("-o is --output here; for a file of this name write ./{text}"))
        }
        _ => Ok(path),
    })
}

/// A first word that is no server may be a verb that was mistyped.
fn with_verb(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let word = args.get(1).and_then(|word| word.to_str()).filter(|word| !word.starts_with('-'));
    if matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::UnknownArgument) {
        if word.is_some_and(is_needless) {
            suggest(&mut error, "a command needs no verb: rexec ADDR COMMAND");
        } else if let Some(verb) = word.and_then(words::like) {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::String(verb.into()));
        }
    }
    error
}

/// The definition, for the manual page, which has every option of `rexec batch` too, and of the other verbs those
/// that are theirs alone.
pub(super) fn definition() -> clap::Command {
    let shared = Reach::augment_args(clap::Command::new("rexec"));
    let is_shared = |arg: &clap::Arg| shared.get_arguments().any(|a| a.get_id() == arg.get_id());
    let hidden = |arg: clap::Arg| if is_shared(&arg) { arg.hide(true) } else { arg };
    let verbs = super::verbs::definitions().into_iter().map(|verb| verb.mut_args(hidden));
    Args::command().subcommands(verbs).subcommand(super::batch::definition())
}

/// The definition with the verbs, for completions. Without the address and the command, which no shell can
/// complete: zsh would take a verb for the address.
pub(super) fn with_verbs() -> clap::Command {
    let all = Args::command();
    let options = all.get_arguments().filter(|arg| !arg.is_positional()).cloned();
    let verbs = super::verbs::definitions().into_iter().chain([super::batch::definition()]);
    let bare = clap::Command::new("rexec").version(env!("CARGO_PKG_VERSION"));
    bare.disable_help_subcommand(true).args(options).subcommands(verbs)
}

const SEE_ALSO: &str = "rexec-server(1), ssh(1)";
const EXAMPLES: &str =
    "  rexec 127.0.0.1:8080 \"ls -l | head\"           text for the server's shell
  rexec build:8080 -- touch \"a file; not two\"   a program and its arguments, exactly
  rexec build:8080 < deploy.sh                  a script
  rexec build:8080                              a prompt
  rexec -d build:8080 ./deploy.sh               leave it running; prints the run's id
  rexec attach build:8080 5f1c2a9e              see a durable run, from its start
  rexec batch -H web[01-20]:8080 uptime         on many machines";
const COMMANDS: &str =
    "  rexec batch -H LIST ...    run commands on many machines, with one verdict for each
  rexec ps ADDR              list your runs
  rexec attach ADDR RUN      show a durable run from its start, follow it, and exit as it does
  rexec logs ADDR RUN        show what there is of it
  rexec wait ADDR RUN...     wait for its end, and exit as it does
  rexec signal ADDR RUN SIG  send it a signal
  rexec stop ADDR RUN        stop it and everything that it started
  rexec rm ADDR RUN...       delete its record
  rexec host-key ADDR        print the host key that a server shows

RUN is a run's id or a unique part of it. `rexec VERB --help` says more.
";
const SHARED: &str =
    "--quiet, --verbose, --identity, --known-hosts, --host-key, --accept-new, --connect-timeout and
--reconnect-timeout go for all of them.
";

fn statuses() -> String {
    TABLE.iter().map(|(status, meaning, _)| format!("  {status:<9} {meaning}\n")).collect()
}

fn after_help() -> String {
    format!("Commands:\n{COMMANDS}\nExit status:\n{}\nExamples:\n{EXAMPLES}", statuses())
}

/// What the manual page has besides the options.
pub(super) fn sections() -> Vec<Section> {
    vec![
        ("ALL COMMANDS", format!("{COMMANDS}\n{SHARED}")),
        ("EXIT STATUS", statuses()),
        ("EXAMPLES", EXAMPLES.into()),
        ("SEE ALSO", SEE_ALSO.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> Vec<OsString> {
        ["rexec"].iter().chain(words).map(OsString::from).collect()
    }

    #[test]
    fn a_plain_line_says_the_same_without_the_definition() {
        let lines: [&[&str]; 9] = [
            &["h:80"],
            &["me@h:80", ""],
            &["127.0.0.1:8080", "ls -l"],
            &["[::1]:8080", "ls", "-l", "--json"],
            &["unix:/run/s", "echo", "--", "-n"],
            &["h:80", "a", "--"],
            &["h:80", "a", "--help", "-V"],
            &["rexec://h:80", "ps", "h:80"],
            &["h:80", "a", "-n", "--", "--timeout", "soon"],
        ];
        for words in lines {
            let plain = Args::plain(&line(words)).unwrap();
            let parsed = Args::parse(&line(words)).unwrap();
            assert_eq!(format!("{plain:?}"), format!("{parsed:?}"), "{words:?}");
        }
    }

    #[test]
    fn any_other_line_is_left_to_the_definition() {
        let lines: [&[&str]; 8] = [
            &[],
            &[""],
            &["no port"],
            &["-n", "h:80", "ls"],
            &["h:80", "-n", "ls"],
            &["h:80", "--", "ls"],
            &["h:80", "-"],
            &["--help"],
        ];
        for words in lines {
            assert!(Args::plain(&line(words)).is_none(), "{words:?}");
        }
    }
}
