//! What to run, and the environment that it gets.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::limits::Limits;
use super::not_started::NotStarted;
use super::program::find;
use crate::sys::users::{DEFAULT_SHELL, User, account};

/// Longest text that can be passed as one word, without its NUL: `MAX_ARG_STRLEN` of execve(2), 32
/// pages. Kernels with larger pages take more; the limit here is the same on all machines.
pub const TEXT_LIMIT: usize = 131_071;
/// The variable that holds the run's id.
pub const RUN_VARIABLE: &str = "REXEC_RUN";
/// The variable that holds the run's [`Mark`].
pub const MARK_VARIABLE: &str = "REXEC_MARK";
/// PATH if the server has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// PATH of users who are not root, as login(1) has it (`ENV_PATH` of login.defs(5)).
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// What to execute.
#[derive(Clone, PartialEq, Eq)]
pub enum Program {
    /// `shell -c text`.
    Shell {
        /// Absolute path of the shell.
        shell: PathBuf,
        /// What the shell reads; at most [`TEXT_LIMIT`] bytes.
        text: OsString,
    },
    /// The shell reads its commands from stdin, which is a pipe whatever [`Spec::stdin`] says.
    Script {
        /// Absolute path of the shell.
        shell: PathBuf,
    },
    /// A program and its arguments, exactly, with no shell between.
    Argv {
        /// The first is looked up in the run's own PATH.
        words: Vec<OsString>,
    },
}

/// One run. Debug shows neither the command nor values of variables: both may hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Spec {
    /// What to execute.
    pub program: Program,
    /// What the client sent; goes over the base, the last of a name counts.
    pub env: Vec<(OsString, OsString)>,
    /// Where to execute it, from the account's home if it is relative; there if none.
    pub cwd: Option<PathBuf>,
    /// One pipe for stdout and stderr, so that their order is exact.
    pub merge: bool,
    /// stdin is a pipe; `/dev/null` otherwise.
    pub stdin: bool,
    /// The run's output ends when nobody holds its pipes, as ssh has it.
    pub wait_eof: bool,
    /// The program is looked up in the server's PATH, whatever the run's own is.
    pub own_path: bool,
    /// What the kernel is to hold it to.
    pub limits: Limits,
    /// Where it has a control group of its own; none: it is in this process's.
    pub cgroup: Option<Arc<Path>>,
    /// As whom; none: as this process. Only root can be another, and a login shell of the user's is the
    /// caller's to choose.
    pub user: Option<Arc<User>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell { shell, text } => {
                write!(f, "Shell({}, {} bytes)", shell.display(), text.len())
            }
            Self::Script { shell } => write!(f, "Script({})", shell.display()),
            Self::Argv { words } => write!(f, "Argv({} words)", words.len()),
        }
    }
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spec")
            .field("program", &self.program)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .field("merge", &self.merge)
            .field("stdin", &self.stdin)
            .field("wait_eof", &self.wait_eof)
            .field("own_path", &self.own_path)
            .field("limits", &self.limits)
            .field("user", &self.user.as_ref().map(|user| &user.name))
            .finish()
    }
}

/// 128 random bits in the environment of a run and of all that it starts: by them a process is
/// found again that has left the process group and the session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark([u8; Self::LEN]);

impl Mark {
    /// Bytes of a mark.
    pub const LEN: usize = 16;

    /// A new one.
    ///
    /// # Errors
    /// The system's random source does not answer.
    pub fn new() -> std::io::Result<Self> {
        let mut bits = [0; Self::LEN];
        getrandom::fill(&mut bits)?;
        Ok(Self(bits))
    }

    /// Reads what [`fmt::Display`] writes: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let digit = |b: u8| match b {
            b'0'..=b'9' => Some(b - b'0'),
            b'a'..=b'f' => Some(b - b'a' + 10),
            _ => None,
        };
        let mut bits = [0; Self::LEN];
        if text.len() != bits.len() * 2 {
            return None;
        }
        for (bit, pair) in bits.iter_mut().zip(text.chunks_exact(2)) {
            *bit = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bits))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mark({self})")
    }
}

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
    fn a_mark_reads_back() {
        let mark = Mark::new().unwrap();
        assert_eq!(Mark::from_hex(mark.to_string().as_bytes()), Some(mark));
        assert_ne!(Mark::new().unwrap(), mark);
    }

    #[test]
    fn a_mark_is_strict() {
        let good = "00112233445566778899aabbccddeeff";
        assert!(Mark::from_hex(good.as_bytes()).is_some());
        assert_eq!(Mark::from_hex(good.to_uppercase().as_bytes()), None);
        assert_eq!(Mark::from_hex(format!("{good}0").as_bytes()), None);
        assert_eq!(Mark::from_hex(&good.as_bytes()[1..]), None);
    }

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

    #[test]
    fn debug_shows_no_secret() {
        let spec = Spec {
            program: Program::Shell { shell: "/bin/sh".into(), text: "hunter2".into() },
            env: vec![("TOKEN".into(), "hunter2".into())],
            cwd: None,
            merge: false,
            stdin: false,
            wait_eof: false,
            own_path: false,
            limits: Limits::default(),
            cgroup: None,
            user: None,
        };
        assert!(!format!("{spec:?}").contains("hunter2"));
        assert!(format!("{spec:?}").contains("TOKEN"));
    }
}
