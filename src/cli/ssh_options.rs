//! Options of ssh(1), and a few of docker, that hands type by themselves, and what there is in their place.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::habits::suggest;

const FORWARDING: &str = "there is no forwarding";

/// What to do in the place of an option that `rexec` does not have.
fn instead(option: &str) -> Option<&'static str> {
    Some(match option {
        "-p" => "the port is a part of the address: HOST:PORT",
        "-l" | "-u" | "--user" => "the user is a part of the address: USER@HOST:PORT",
        "-4" | "-6" => "write the address itself: 127.0.0.1:PORT or [::1]:PORT",
        "-T" => "a command never has a terminal: there is none to leave out",
        "-f" => "-d leaves a run running that outlives its client",
        "-F" => "servers have names in ~/.config/rexec/config.toml",
        "-A" | "-D" | "-J" | "-L" | "-N" | "-R" | "-W" | "-X" | "-Y" => FORWARDING,
        "-a" | "-k" | "-x" => "there is no forwarding to be switched off: leave it out",
        "-M" | "-O" | "-S" => {
            "no connection is shared; rexec batch runs many commands over one to each host"
        }
        "-E" => "what rexec says is on stderr: 2>>FILE",
        "-w" | "--workdir" => "the folder is --cwd DIR",
        "-C" => "there is no compression",
        _ => return None,
    })
}

/// An option that is ssh's alone, or means another thing to it, is told so.
pub(super) fn explained(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => instead(option),
        ErrorKind::ValueValidation if option.starts_with("--timeout ") && is_no_time(&error) => {
            Some("-t is --timeout here: no command gets a terminal")
        }
        _ => None,
    };
    if let Some(tip) = tip {
        suggest(&mut error, tip);
    }
    error
}

/// Whether what stands behind `-t` is a server, or one more `t`.
fn is_no_time(error: &clap::Error) -> bool {
    matches!(error.get(ContextKind::InvalidValue), Some(ContextValue::String(value))
        if value == "t" || value.contains([':', '@']))
}

/// Whether a text is a setting of ssh_config(5), `Name=value`, as ssh's `-o` takes it.
pub(super) fn is_setting(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.len() > 1
            && name.bytes().all(|byte| byte.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_told_from_files() {
        for (text, is) in [
            ("StrictHostKeyChecking=no", true),
            ("BatchMode=yes", true),
            ("./BatchMode=yes", false),
            ("a=b", false),
            ("x.log", false),
            ("A=", false),
            ("Log-1=2", false),
        ] {
            assert_eq!(is_setting(text), is, "{text}");
        }
    }
}
