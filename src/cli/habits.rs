//! Options and verbs of docker and kubectl that hands type by themselves, and what there is in their place.

use std::ffi::OsString;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

const TAIL: &str = "rexec logs ADDR RUN | tail -n N";

/// What to do in the place of an option that a verb does not have.
fn instead(verb: &str, option: &str) -> Option<&'static str> {
    Some(match (verb, option) {
        ("logs", "-f" | "--follow") => "rexec attach shows a run and follows it to its end",
        ("logs", "-n" | "--tail") => TAIL,
        ("attach", "-n" | "--tail" | "--since") => "--from end shows only what is still to come",
        ("ps", "-a") => "runs that have ended are listed too; --all: those of everybody",
        ("wait", "-t" | "--timeout") => "timeout(1) ends rexec wait, and leaves the run alone",
        ("stop", "-s" | "--signal") => "rexec signal ADDR RUN SIGNAL",
        ("rm", "-f" | "--force") => "a run that goes on is stopped first, by rexec stop",
        _ => return None,
    })
}

/// Of an option that is not there, or a run in the place of the server, what was meant is told.
pub(super) fn explained(mut error: clap::Error, args: &[OsString]) -> clap::Error {
    let verb = args.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let Some(ContextValue::String(culprit)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => instead(verb, culprit),
        ErrorKind::ValueValidation if culprit == "<ADDR>" && is_of_a_run(verb, &error) => {
            Some("the server stands before the run: rexec VERB ADDR RUN")
        }
        _ => None,
    };
    if let Some(tip) = tip {
        suggest(&mut error, tip);
    }
    error
}

/// Whether what stands in the place of the server may be the run.
fn is_of_a_run(verb: &str, error: &clap::Error) -> bool {
    let value = error.get(ContextKind::InvalidValue);
    !matches!(verb, "ps" | "host-key")
        && matches!(value, Some(ContextValue::String(value)) if !value.contains(':'))
}

/// Puts one tip in the place of clap's own.
pub(super) fn suggest(error: &mut clap::Error, tip: &'static str) {
    let tips = vec![StyledStr::from(tip)];
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
}

/// The verb for what others call so.
pub(super) fn verb_for(word: &str) -> Option<&'static str> {
    Some(match word {
        "ls" | "list" | "status" | "inspect" => "ps",
        "kill" => "signal",
        "cancel" => "stop",
        "delete" | "remove" => "rm",
        "follow" | "tail" => "attach",
        _ => return None,
    })
}

/// Whether a word is a verb of others for what is none here.
pub(super) fn is_needless(word: &str) -> bool {
    matches!(word, "exec" | "run" | "ssh")
}
