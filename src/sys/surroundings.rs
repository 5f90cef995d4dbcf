//! What will kill this process, and what it has started, from outside: a login session, a user's service
//! manager, a container. Only what can be known for certain is said.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::users::account_of;

/// Folders of configuration under a root, the one that counts first in front (`logind.conf(5)`).
const CONFIGURATION: [&str; 4] = ["etc", "run", "usr/local/lib", "usr/lib"];

/// What ends everything that this process has started, supervisors of durable runs too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndsWith {
    /// The login session: logind kills what it has started (`KillUserProcesses=yes`).
    Session,
    /// The last login session of this user, whose service manager then stops.
    Logins(String),
    /// This process: it is the first one of its container.
    ThisProcess,
}

/// One line that says what to do.
impl fmt::Display for EndsWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session => f.write_str(
                "when this login session ends, logind will kill the server and all runs, durable ones too \
                 (KillUserProcesses=yes): start it with `systemd-run --user -p KillMode=process rexec-server ...` \
                 after `loginctl enable-linger`, or as a system unit",
            ),
            Self::Logins(user) => write!(
                f,
                "when {user} has logged out, systemd will kill the server and all runs, durable ones too: \
                 `loginctl enable-linger {user}` keeps them"
            ),
            Self::ThisProcess => f.write_str(
                "this server is the first process of its container, and all runs end with it, durable ones too: \
                 upgrade it with SIGHUP, which keeps the container",
            ),
        }
    }
}

impl EndsWith {
    /// What this process will end with, if that is known.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        if rustix::process::getpid() == rustix::process::Pid::INIT {
            return Some(Self::ThisProcess);
        }
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let name = |uid| account_of(uid)?.name.into_string().ok();
        Self::of(&groups, Path::new("/"), name)
    }

    /// By the control groups in `/proc/self/cgroup` (`cgroups(7)`) and the configuration under `root`.
    fn of(groups: &str, root: &Path, name: impl Fn(u32) -> Option<String>) -> Option<Self> {
        let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let place = paths.filter_map(Place::of_path).next()?;
        match place {
            Place::Session { uid } => {
                let user = name(uid)?;
                Logind::read(root).kills(&user, uid).then_some(Self::Session)
            }
            Place::Manager { uid } => {
                let user = name(uid)?;
                let linger = root.join("var/lib/systemd/linger").join(&user);
                matches!(linger.try_exists(), Ok(false)).then_some(Self::Logins(user))
            }
        }
    }
}

/// Where in logind's tree of control groups a process is.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// `/user.slice/user-1000.slice/session-3.scope`
    Session { uid: u32 },
    /// `/user.slice/user-1000.slice/user@1000.service/...`
    Manager { uid: u32 },
}

impl Place {
    fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/').skip_while(|part| *part != "user.slice").skip(1);
        let uid = between(parts.next()?, "user-", ".slice")?.parse().ok()?;
        let inside = parts.next()?;
        if between(inside, "session-", ".scope").is_some() {
            return Some(Self::Session { uid });
        }
        between(inside, "user@", ".service").map(|_| Self::Manager { uid })
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after)
}

/// What `logind.conf(5)` says of processes at the end of a session.
#[derive(Debug, Default)]
struct Logind {
    kills: bool,
    only: Vec<String>,
    /// None: not said, which excludes root.
    exclude: Option<Vec<String>>,
}

impl Logind {
    /// The main file and what is dropped in, in the order of their names; a file of the same name in a
    /// folder that counts more takes the place of the other. What cannot be read says nothing.
    fn read(root: &Path) -> Self {
        let folders = CONFIGURATION.map(|folder| root.join(folder).join("systemd"));
        let main = folders.iter().map(|folder| folder.join("logind.conf")).find(|p| p.exists());
        let mut dropped: BTreeMap<_, PathBuf> = BTreeMap::new();
        for folder in folders.iter().rev() {
            let entries = std::fs::read_dir(folder.join("logind.conf.d")).into_iter().flatten();
            let files = entries.flatten().map(|entry| (entry.file_name(), entry.path()));
            dropped.extend(files.filter(|(_, path)| path.extension().is_some_and(|e| e == "conf")));
        }
        let mut logind = Self::default();
        for path in main.into_iter().chain(dropped.into_values()) {
            logind.take(&std::fs::read_to_string(path).unwrap_or_default());
        }
        logind
    }

    /// Reads on in another file.
    fn take(&mut self, text: &str) {
        let mut in_section = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                in_section = line == "[Login]";
            }
            let Some((key, value)) = line.split_once('=').filter(|_| in_section) else { continue };
            let value = value.trim();
            match key.trim_end() {
                "KillUserProcesses" => self.kills = is_yes(value),
                "KillOnlyUsers" => add(&mut self.only, value),
                "KillExcludeUsers" => add(self.exclude.get_or_insert_default(), value),
                _ => {}
            }
        }
    }

    fn kills(&self, user: &str, uid: u32) -> bool {
        let number = uid.to_string();
        let names = |list: &[String]| list.iter().any(|name| *name == user || *name == number);
        let excluded = self.exclude.as_deref().map_or(uid == 0, names);
        self.kills && !excluded && (self.only.is_empty() || names(&self.only))
    }
}

/// A list goes on from line to line; an empty value begins anew.
fn add(list: &mut Vec<String>, value: &str) {
    if value.is_empty() {
        list.clear();
    }
    list.extend(value.split_whitespace().map(str::to_owned));
}

/// `systemd.syntax(7)`.
fn is_yes(value: &str) -> bool {
    ["1", "yes", "y", "true", "t", "on"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "0::/user.slice/user-1000.slice/session-3.scope\n";
    const MANAGER: &str = "12:pids:/\n1:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.slice/rexec.service\n0::/\n";

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn of(groups: &str, files: &[(&str, &str)]) -> Option<EndsWith> {
        let name = |uid| if uid == 0 { Some("root".into()) } else { Some(format!("u{uid}")) };
        EndsWith::of(groups, root(files).path(), name)
    }

    #[test]
    fn a_session_ends_what_it_started_only_where_logind_is_told_so() {
        let conf = "etc/systemd/logind.conf";
        let yes = "[Login]\nKillUserProcesses=yes\n";
        assert_eq!(of(SESSION, &[(conf, yes)]), Some(EndsWith::Session));
        assert_eq!(of(SESSION, &[]), None);
        for text in [
            "[Login]\n#KillUserProcesses=yes\n",
            "[Other]\nKillUserProcesses=yes\n",
            "[Login]\nKillUserProcesses=yes\nKillUserProcesses=no\n",
            "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=a u1000\n",
            "[Login]\nKillUserProcesses=yes\nKillOnlyUsers=a b\n",
        ] {
            assert_eq!(of(SESSION, &[(conf, text)]), None, "{text}");
        }
        for text in [
            "[Login]\n KillUserProcesses = on \n",
            "[Login]\nKillUserProcesses=1\nKillOnlyUsers=a\nKillOnlyUsers=1000\n",
            "[Login]\nKillUserProcesses=1\nKillExcludeUsers=u1000\nKillExcludeUsers=\n",
        ] {
            assert_eq!(of(SESSION, &[(conf, text)]), Some(EndsWith::Session), "{text}");
        }
        let roots = SESSION.replace("1000", "0");
        assert_eq!(of(&roots, &[(conf, yes)]), None);
        assert_eq!(
            of(&roots, &[(conf, &format!("{yes}KillExcludeUsers=\n"))]),
            Some(EndsWith::Session)
        );
    }

    #[test]
    fn what_is_dropped_in_counts_and_etc_counts_most() {
        let (yes, no) = ("[Login]\nKillUserProcesses=yes\n", "[Login]\nKillUserProcesses=no\n");
        let main = ("etc/systemd/logind.conf", no);
        let dropped = |folder: &'static str, text| (folder, text);
        let (a, b) =
            ("usr/lib/systemd/logind.conf.d/50-x.conf", "etc/systemd/logind.conf.d/50-x.conf");
        let last = "run/systemd/logind.conf.d/60-y.conf";
        assert_eq!(of(SESSION, &[main, dropped(a, yes)]), Some(EndsWith::Session));
        assert_eq!(of(SESSION, &[main, dropped(a, yes), dropped(b, no)]), None);
        assert_eq!(
            of(SESSION, &[main, dropped(b, no), dropped(last, yes)]),
            Some(EndsWith::Session)
        );
        assert_eq!(of(SESSION, &[main, ("etc/systemd/logind.conf.d/50-x.txt", yes)]), None);
    }

    #[test]
    fn a_users_services_end_with_the_last_login_unless_the_user_lingers() {
        assert_eq!(of(MANAGER, &[]), Some(EndsWith::Logins("u1000".into())));
        assert_eq!(of(MANAGER, &[("var/lib/systemd/linger/u1000", "")]), None);
    }

    #[test]
    fn nothing_is_said_of_other_places() {
        let yes = [("etc/systemd/logind.conf", "[Login]\nKillUserProcesses=yes\n")];
        for groups in [
            "",
            "0::/\n",
            "0::/system.slice/rexec-server.service\n",
            "0::/user.slice/user-1000.slice\n",
            "0::/user.slice/user-x.slice/session-1.scope\n",
            "0::/user.slice/user-1000.slice/other.scope\n",
            "4:memory:/docker/abc\n0::/docker/abc\n",
        ] {
            assert_eq!(of(groups, &yes), None, "{groups}");
        }
    }

    #[test]
    fn each_line_says_what_to_do() {
        for (what, todo) in [
            (EndsWith::Session, "systemd-run --user -p KillMode=process rexec-server"),
            (EndsWith::Logins("me".into()), "loginctl enable-linger me"),
            (EndsWith::ThisProcess, "SIGHUP"),
        ] {
            let line = what.to_string();
            assert!(line.contains(todo) && line.lines().count() == 1, "{line}");
        }
    }
}
