//! Login shells that may hold their users to something, as git-shell(1) and rbash(1) do: what sshd(8) runs goes through
//! them, so nothing is to pass by them here.

use crate::proto::header::Form;
use crate::server::policy::Command;
use crate::sys::users::User;

/// Shells that run whatever they are given.
const PLAIN: [&str; 13] = [
    "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "ksh93", "mksh", "sh", "tcsh", "yash",
    "zsh",
];

/// Whether the account's shell is to judge what its user asks for, and this would pass by it; if so, in words.
pub(in crate::server) fn passes_by(user: &User, asked: &Command<'_>) -> Option<String> {
    let shell = user.login_shell();
    if PLAIN.iter().any(|plain| shell.file_name() == Some(plain.as_ref())) {
        return None;
    }
    let what = match (asked.form, asked.cwd, asked.env.is_empty()) {
        (Form::Argv, ..) => {
            "a program and its arguments pass by it; give it the command as one text"
        }
        (_, Some(_), _) => "no folder is chosen for it",
        // BASH_ENV is read before any restriction.
        (_, _, false) => "no variables are set for it",
        _ => return None,
    };
    Some(format!("the login shell is {}, which may permit little: {what}", shell.display()))
}
