//! Whether one may log in to an account, as sshd(8) without PAM decides it.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access};

use crate::sys::users::{self, Shadow, User};

/// While it is there only root may log in, nologin(5).
const NOLOGIN_FILE: &str = "/etc/nologin";
/// Shells that let nobody in, nologin(8) and false(1).
const NO_SHELLS: [&str; 2] = ["nologin", "false"];
const DAY_S: u64 = 24 * 3600;

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// There is no such account.
    #[error("there is no such account")]
    Unknown,
    /// The databases do not answer.
    #[error("the account cannot be looked up: {0}")]
    Database(String),
    /// Its password field begins with `!`.
    #[error(
        "the account is locked; `usermod -p '*' USER` makes it one without a password, which keys can use"
    )]
    Locked,
    /// Its day is past.
    #[error("the account has expired")]
    Expired,
    /// Its shell lets nobody in.
    #[error("its shell is {}, which lets nobody in", .0.display())]
    NoShell(PathBuf),
    /// Its shell cannot be run.
    #[error("its shell, {}, cannot be run", .0.display())]
    BadShell(PathBuf),
    /// Only members of certain groups are served, or users by name.
    #[error("this user is not served (--users)")]
    NotServed,
    /// The machine lets nobody but root in.
    #[error("{NOLOGIN_FILE} is there")]
    Closed,
}

/// The account of this name, if one may log in to it now.
pub(super) fn account(name: &str) -> Result<User, NoLogin> {
    let database = |e: std::io::Error| NoLogin::Database(e.to_string());
    let user = users::user(name).map_err(database)?.ok_or(NoLogin::Unknown)?;
    let shadow = users::shadow(name).map_err(database)?.unwrap_or_default();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    may_log_in(&user, shadow, since.as_secs() / DAY_S, Path::new(NOLOGIN_FILE).exists())?;
    let shell = user.login_shell();
    if !shell.is_file() || access(shell, Access::EXEC_OK).is_err() {
        return Err(NoLogin::BadShell(shell.to_owned()));
    }
    Ok(user)
}

/// This account, if it is a member of one of the groups: by its entry in passwd(5) or by theirs in group(5). Root is
/// no member of any: it is served only by its name.
pub(super) fn member(user: User, groups: &[String]) -> Result<User, NoLogin> {
    for name in groups.iter().filter(|_| user.uid != 0) {
        let gid = users::group(name).map_err(|e| NoLogin::Database(e.to_string()))?;
        if gid.is_some_and(|gid| user.groups.contains(&gid)) {
            return Ok(user);
        }
    }
    Err(NoLogin::NotServed)
}

fn may_log_in(user: &User, shadow: Shadow, today: u64, is_closed: bool) -> Result<(), NoLogin> {
    let shell = user.login_shell();
    let lets_nobody_in = |name: &std::ffi::OsStr| NO_SHELLS.iter().any(|shell| name == *shell);
    if shadow.is_locked {
        return Err(NoLogin::Locked);
    }
    // As sshd has it: on that day itself it still is none.
    if shadow.expires.is_some_and(|day| day < today) {
        return Err(NoLogin::Expired);
    }
    if shell.file_name().is_some_and(lets_nobody_in) {
        return Err(NoLogin::NoShell(shell.to_owned()));
    }
    if is_closed && user.uid != 0 { Err(NoLogin::Closed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, shell: &str) -> User {
        let (name, home) = ("alice".into(), "/home/alice".into());
        User { name, uid, gid: uid, groups: vec![uid], home, shell: shell.into() }
    }

    #[test]
    fn root_is_no_member_of_a_group_and_no_group_has_no_member() {
        let root = users::user("root").unwrap().unwrap();
        let of_root = User { uid: 1, ..root.clone() };
        let groups = ["no-such-group".to_owned(), "root".to_owned()];
        assert_eq!(member(root, &groups), Err(NoLogin::NotServed));
        assert_eq!(member(of_root.clone(), &groups[..1]), Err(NoLogin::NotServed));
        assert_eq!(member(of_root.clone(), &groups), Ok(of_root));
    }

    #[test]
    fn who_may_log_in() {
        let open = Shadow::default();
        let locked = Shadow { is_locked: true, ..open };
        let until = |day| Shadow { expires: Some(day), ..open };
        for (uid, shell, shadow, is_closed, expected) in [
            (1000, "/bin/sh", open, false, Ok(())),
            (1000, "", open, false, Ok(())),
            (1000, "/bin/sh", until(100), false, Ok(())),
            (1000, "/bin/sh", until(99), false, Err(NoLogin::Expired)),
            (1000, "/bin/sh", until(0), false, Err(NoLogin::Expired)),
            (1000, "/bin/sh", locked, false, Err(NoLogin::Locked)),
            (0, "/bin/sh", locked, false, Err(NoLogin::Locked)),
            (1000, "/sbin/nologin", open, false, Err(NoLogin::NoShell("/sbin/nologin".into()))),
            (1000, "/bin/false", open, false, Err(NoLogin::NoShell("/bin/false".into()))),
            (1000, "/bin/sh", open, true, Err(NoLogin::Closed)),
            (0, "/bin/sh", open, true, Ok(())),
        ] {
            assert_eq!(may_log_in(&user(uid, shell), shadow, 100, is_closed), expected, "{shell}");
        }
    }
}
