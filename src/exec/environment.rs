//! The environment that a run gets: the account's, what the client sends over it, and what rexec sets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::mark::{MARK_VARIABLE, Mark};
use super::not_started::NotStarted;
use super::program::find;
use crate::sys::users::{DEFAULT_SHELL, User, account};

/// The variable that holds the run's id.
pub const RUN_VARIABLE: &str = "REXEC_RUN";
/// PATH if the server has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// PATH of users who are not root, as login(1) has it (`ENV_PATH` of login.defs(5)).
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// The whole environment of a run.
pub(super) type Env<'a> = BTreeMap<&'a OsStr, Cow<'a, OsStr>>;

/// The environment that every run starts from.
#[derive(Clone)]
pub struct BaseEnv(BTreeMap<OsString, OsString>);

impl fmt::Debug for BaseEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl BaseEnv {
    /// PATH, HOME and LANG as this process has them, which its operator chose, and USER, LOGNAME
    /// and SHELL of the account, which are facts; each from the other place where one says nothing.
    #[must_use]
    pub fn of_this_process() -> Self {
        let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let account = account();
        let account = account.as_ref();
        let user = account.map(|a| a.name.clone()).or_else(|| own("USER"));
        let home = own("HOME").or_else(|| account.map(|a| a.home.clone().into()));
        let shell = account
            .map(|a| OsString::from(a.shell.clone()))
            .filter(|shell| !shell.is_empty())
            .or_else(|| own("SHELL"))
            .unwrap_or_else(|| DEFAULT_SHELL.into());
        let values = [
            ("PATH", Some(own("PATH").unwrap_or_else(|| DEFAULT_PATH.into()))),
            ("HOME", home),
            ("USER", user.clone()),
            ("LOGNAME", user),
            ("SHELL", Some(shell)),
            ("LANG", own("LANG")),
        ];
        Self(values.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect())
    }

    /// What a login of this user begins with, and LANG as this process has it.
    #[must_use]
    pub fn of_user(user: &User) -> Self {
        let path = if user.uid == 0 { DEFAULT_PATH } else { USER_PATH };
        let name = OsString::from(&user.name);
        let values = [
            ("PATH", Some(path.into())),
            ("HOME", Some(user.home.clone().into())),
            ("USER", Some(name.clone())),
            ("LOGNAME", Some(name)),
            ("SHELL", Some(user.login_shell().into())),
            ("LANG", std::env::var_os("LANG").filter(|value| !value.is_empty())),
        ];
        Self(values.into_iter().filter_map(|(name, value)| Some((name.into(), value?))).collect())
    }

    /// Where a run that sets no PATH of its own looks for programs.
    pub(super) fn path(&self) -> &OsStr {
        self.0.get(OsStr::new("PATH")).map_or(OsStr::new(""), OsString::as_os_str)
    }

    /// The account's home, where runs start unless they are told otherwise; none if it is no absolute path.
    pub(super) fn home(&self) -> Option<&Path> {
        self.0.get(OsStr::new("HOME")).map(Path::new).filter(|home| home.is_absolute())
    }

    /// The file that `name` stands for, as a run that sets no PATH of its own finds it.
    ///
    /// # Errors
    /// There is no such program, or it may not be executed.
    pub fn program(&self, name: &Path) -> Result<PathBuf, NotStarted> {
        let here = std::env::current_dir().unwrap_or_else(|_| "/".into());
        find(name.as_os_str(), self.path(), &here)
    }

    /// The whole environment of a run.
    ///
    /// # Errors
    /// `BadEnvironment` names the variable that cannot be, or that clients may not set.
    pub(super) fn with<'a>(
        &'a self,
        client: &'a [(OsString, OsString)],
        run: &'a str,
        mark: Mark,
    ) -> Result<Env<'a>, NotStarted> {
        let borrowed = |(name, value): (&'a OsString, &'a OsString)| {
            (name.as_os_str(), Cow::Borrowed(value.as_os_str()))
        };
        let mut env: Env<'a> = self.0.iter().map(borrowed).collect();
        for (name, value) in client {
            if !may_be_set(name, value) {
                return Err(NotStarted::BadEnvironment(name.clone()));
            }
            env.extend([borrowed((name, value))]);
        }
        env.insert(RUN_VARIABLE.as_ref(), Cow::Borrowed(run.as_ref()));
        env.insert(MARK_VARIABLE.as_ref(), Cow::Owned(mark.to_string().into()));
        Ok(env)
    }
}

fn may_be_set(name: &OsStr, value: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !bytes.is_empty()
        && !bytes.contains(&b'=')
        && !bytes.contains(&0)
        && !value.as_bytes().contains(&0)
        && name != RUN_VARIABLE
        && name != MARK_VARIABLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_has_what_programs_rely_on() {
        let base = BaseEnv::of_this_process();
        for name in ["PATH", "USER", "LOGNAME", "HOME", "SHELL"] {
            assert!(base.0.get(OsStr::new(name)).is_some_and(|v| !v.is_empty()), "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused_and_named() {
        let base = BaseEnv::of_this_process();
        let mark = Mark::new().unwrap();
        for name in ["", "A=B", "=", "A\0", RUN_VARIABLE, MARK_VARIABLE] {
            let sent = [(name.into(), "x".into())];
            let refused = base.with(&sent, "id", mark);
            assert!(matches!(refused, Err(NotStarted::BadEnvironment(n)) if n == name));
        }
        let sent = [("A".into(), "x\0".into())];
        let refused = base.with(&sent, "id", mark);
        assert!(matches!(refused, Err(NotStarted::BadEnvironment(n)) if n == "A"));
    }

    #[test]
    fn the_last_of_a_name_counts() {
        let base = BaseEnv::of_this_process();
        let sent = [("PATH".into(), "/a".into()), ("PATH".into(), "/b".into())];
        let env = base.with(&sent, "id", Mark::new().unwrap()).unwrap();
        assert_eq!(env[OsStr::new("PATH")], OsStr::new("/b"));
        assert_eq!(env[OsStr::new(RUN_VARIABLE)], OsStr::new("id"));
    }
}
