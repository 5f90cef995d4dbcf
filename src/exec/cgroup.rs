//! A control group of its own for each run (cgroup v2, cgroups(7)), below a folder that was left to this server.
//!
//! What is in such a group is the run's, whatever it has made of its process group and its environment, and the kernel
//! can hold all of it together to a limit, and end all of it at once. The name of a group is made from the run's mark, so
//! whoever knows the mark finds what is in it, also when the process that has made it is gone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::limits::Limits;
use super::mark::Mark;
use crate::sys::mutex::lock;
use crate::sys::process::Pid;

/// In front of the name of each group.
const PREFIX: &str = "rexec-";
/// Bytes of a name behind that, each two hexadecimal digits.
const LENGTH: usize = 16;
/// What statfs(2) says of cgroup v2 (`CGROUP2_SUPER_MAGIC`).
const MAGIC: u64 = 0x6367_7270;
/// How often groups that were left behind are looked for, and how old they have to be: a younger one may be about to be
/// entered.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// Most steps from a group to one below it, or back, on which groups are removed at a time: more than there can be in a
/// path, down and up again.
const REMOVING: usize = 8192;

/// Why a folder cannot have the groups of runs.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// It is something else.
    #[error("{} is not a folder of cgroup v2 (cgroups(7)); give one that is left to this server", .0.display())]
    NotCgroup(PathBuf),
    /// A limit would not be held.
    #[error(
        "{} has no controller {controller:?}, and rules of the policy limit by it: leave it to this server \
         (Delegate= of systemd.resource-control(5)), or leave --cgroup out", dir.display()
    )]
    NoController {
        /// The folder.
        dir: PathBuf,
        /// What it does not have.
        controller: &'static str,
    },
    /// The system refuses.
    #[error(
        "cannot make groups in {}: {error}; it must be this account's, with no process in it but in groups below it \
         (DelegateSubgroup= of systemd.exec(5))", dir.display()
    )]
    Io {
        /// The folder.
        dir: PathBuf,
        /// Its answer.
        error: io::Error,
    },
}

/// The folder in which runs have their groups.
#[derive(Debug)]
pub struct Groups {
    dir: Arc<Path>,
    tidied: Mutex<Instant>,
}

impl Groups {
    /// Whether runs may have groups in a folder that hold them to limits of these kinds.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn check(dir: &Path, wanted: Limits) -> Result<(), GroupsError> {
        let found = rustix::fs::statfs(dir).map(|found| u64::try_from(found.f_type));
        if !dir.is_absolute() || found != Ok(Ok(MAGIC)) {
            return Err(GroupsError::NotCgroup(dir.into()));
        }
        let there = fs::read_to_string(dir.join("cgroup.controllers"));
        let there = there.map_err(|error| GroupsError::Io { dir: dir.into(), error })?;
        match controllers(wanted).find(|one| !there.split_whitespace().any(|there| there == *one)) {
            Some(controller) => Err(GroupsError::NoController { dir: dir.into(), controller }),
            None => Ok(()),
        }
    }

    /// Has the kernel hold the groups in a folder to limits of these kinds, and removes what an earlier server has left.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn open(dir: PathBuf, wanted: Limits) -> Result<Self, GroupsError> {
        Self::check(&dir, wanted)?;
        let prepare = || {
            for controller in controllers(wanted) {
                fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"))?;
            }
            let probe = Mark::new()?;
            Group::make(&dir, probe, Limits::default()).map(drop)
        };
        prepare().map_err(|error| GroupsError::Io { dir: dir.clone(), error })?;
        let groups = Self { dir: dir.into(), tidied: Mutex::new(Instant::now()) };
        groups.remove_empty();
        Ok(groups)
    }

    /// The folder, in which another run is about to have its group.
    pub fn enter(&self) -> Arc<Path> {
        let mut tidied = lock(&self.tidied);
        if tidied.elapsed() >= TIDY_EVERY {
            *tidied = Instant::now();
            self.remove_empty();
        }
        Arc::clone(&self.dir)
    }

    /// What runs have left behind has ended since.
    fn remove_empty(&self) {
        let is_old = |entry: &fs::DirEntry| {
            let made = entry.metadata().and_then(|found| found.modified());
            let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
            age.is_some_and(|age| age >= TIDY_EVERY)
        };
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_name) && is_old(&entry) {
                remove(&entry.path());
            }
        }
    }
}

/// Those that limits of these kinds need.
fn controllers(wanted: Limits) -> impl Iterator<Item = &'static str> {
    let memory = wanted.memory.map(|_| "memory");
    memory.into_iter().chain(wanted.processes.map(|_| "pids"))
}

/// The group of one run; removed on drop, if nothing is left in it.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
    /// Bytes that all of it may have together.
    memory: Option<u64>,
}

impl Group {
    /// Makes it, with its limits.
    pub(super) fn make(dir: &Path, mark: Mark, limits: Limits) -> io::Result<Self> {
        let path = dir.join(name_of(mark));
        fs::create_dir(&path)?;
        let group = Self { path, memory: limits.memory };
        if let Some(bytes) = limits.memory {
            group.set("memory.max", &bytes.to_string())?;
            // Where the kernel counts what is swapped out: it is memory too.
            let _ = group.set("memory.swap.max", "0");
            // A run of which some was ended would go on with what is left of it.
            group.set("memory.oom.group", "1")?;
        }
        if let Some(most) = limits.processes {
            group.set("pids.max", &most.to_string())?;
        }
        Ok(group)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The limit of its memory, if the kernel has ended a process in it because that was passed. (A machine that is out
    /// of memory ends processes too; then the group has not come to its own limit.)
    pub(super) fn passed_memory(&self) -> Option<u64> {
        let bytes = self.memory?;
        let events = fs::read_to_string(self.path.join("memory.events")).ok()?;
        let count = |name| events.lines().find_map(|line| line.strip_prefix(name));
        let happened = |name| count(name).is_some_and(|count| count != "0");
        (happened("oom ") && happened("oom_kill ")).then_some(bytes)
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.path.join(file), value)
    }

    /// Ends all that is in it, what is being started just now too. Linux before 5.14 cannot.
    pub(super) fn kill(&self) -> io::Result<()> {
        self.set("cgroup.kill", "1")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What a run has left running keeps it; it is removed later.
        remove(&self.path);
    }
}

/// Removes a group, and before it those that its run has made below it. The kernel removes none in which there is a
/// process: the first such one ends it, for then the group itself has to stay too.
fn remove(group: &Path) {
    let mut at = group.to_owned();
    for _ in 0..REMOVING {
        let below = groups_below(&at).next();
        if let Some(below) = below {
            at = below;
        } else if fs::remove_dir(&at).is_err() || at == group || !at.pop() {
            return;
        }
    }
}

fn groups_below(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path())
}

/// Enters a group: this process, and all that it starts from now on.
pub(super) fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// The mark is a secret of the run's user, and names can be read by all.
pub(super) fn name_of(mark: Mark) -> String {
    let digest = Sha256::digest(mark.to_string());
    let digits = digest.iter().take(LENGTH).map(|byte| format!("{byte:02x}"));
    digits.fold(PREFIX.to_owned(), |name, digits| name + &digits)
}

fn is_name(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let digits = text.strip_prefix(PREFIX).unwrap_or_default();
    digits.len() == 2 * LENGTH && digits.bytes().all(is_digit)
}

/// The name of the run's group that a process is in, or in a group below it; none if it is in none.
pub(super) fn name_by_pid(pid: Pid) -> io::Result<Option<String>> {
    let text = match fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())) {
        // A kernel without groups.
        Err(e) if Errno::from_io_error(&e) == Some(Errno::NOENT) => return Ok(None),
        read => read?,
    };
    Ok(name_in(&text).map(str::to_owned))
}

fn name_in(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').find(|part| is_name(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark::new().unwrap()
    }

    /// A folder takes what a group takes; what the kernel makes of it is another matter.
    #[test]
    fn the_limits_of_a_run_are_those_of_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let none = Group::make(dir.path(), mark(), Limits::default()).unwrap();
        assert_eq!(fs::read_dir(none.path()).unwrap().count(), 0);
        let limits = Limits { memory: Some(1 << 20), processes: Some(7), ..Limits::default() };
        let group = Group::make(dir.path(), mark(), limits).unwrap();
        let read = |file: &str| fs::read_to_string(group.path().join(file)).unwrap();
        assert_eq!(
            ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max"].map(read),
            ["1048576", "0", "1", "7"].map(str::to_owned)
        );
        enter(group.path()).unwrap();
        group.kill().unwrap();
        assert_eq!((read("cgroup.procs"), read("cgroup.kill")), ("0".into(), "1".into()));
    }

    #[test]
    fn memory_was_passed_if_the_group_came_to_its_limit_and_something_was_ended_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { memory: Some(1 << 20), ..Limits::default() };
        let limited = Group::make(dir.path(), mark(), limits).unwrap();
        let free = Group::make(dir.path(), mark(), Limits::default()).unwrap();
        assert_eq!(limited.passed_memory(), None, "there is no such file");
        for (oom, oom_kill, passed) in
            [(0, 0, None), (1, 0, None), (0, 2, None), (1, 12, Some(1 << 20))]
        {
            let text = format!(
                "low 0\nhigh 0\nmax 31\noom {oom}\noom_kill {oom_kill}\noom_group_kill 1\n"
            );
            for group in [&limited, &free] {
                fs::write(group.path().join("memory.events"), &text).unwrap();
            }
            assert_eq!((limited.passed_memory(), free.passed_memory()), (passed, None), "{text}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_runs_mark_and_tells_nobody_the_mark() {
        let mark = mark();
        let name = name_of(mark);
        assert!(is_name(&name) && !name.contains(&mark.to_string()), "{name}");
        for text in [
            format!("0::/{name}\n"),
            format!("4:memory:/x\n0::/system.slice/a.service/{name}/below\n"),
            format!("0::/../{name}"),
        ] {
            assert_eq!(name_in(&text), Some(&*name), "{text}");
        }
        for text in [
            "",
            "0::/\n",
            &format!("4:memory:/{name}\n"),
            &format!("0::/{name}0\n"),
            &format!("0::/x{name}\n"),
            "0::/rexec-\n",
        ] {
            assert_eq!(name_in(text), None, "{text}");
        }
    }

    #[test]
    fn a_folder_that_is_none_of_cgroups_is_refused() {
        for dir in ["/tmp", "relative", "/no/such/folder"] {
            let refused = Groups::check(Path::new(dir), Limits::default());
            assert!(matches!(refused, Err(GroupsError::NotCgroup(_))), "{dir}");
        }
    }

    #[test]
    fn a_group_is_removed_with_what_its_run_has_made_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let group = Group::make(dir.path(), mark(), Limits::default()).unwrap();
        let path = group.path().to_owned();
        for below in ["a/b/c", "a/d", "e"] {
            fs::create_dir_all(path.join(below)).unwrap();
        }
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        std::os::unix::fs::symlink(&other, path.join("link")).unwrap();
        drop(group);
        assert!(other.exists() && path.join("link").exists(), "a link is no group");
        assert!(!path.join("a").exists() && !path.join("e").exists());
        fs::remove_file(path.join("link")).unwrap();
        remove(&path);
        assert!(!path.exists());
    }

    /// One whose processes make groups without end holds nobody up for long.
    #[test]
    fn of_very_many_groups_some_are_removed_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join(name_of(mark()));
        for n in 0..=REMOVING / 2 {
            fs::create_dir_all(group.join(n.to_string())).unwrap();
        }
        remove(&group);
        assert_eq!(groups_below(&group).count(), 1);
        remove(&group);
        assert!(!group.exists());
    }

    #[test]
    fn old_groups_are_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let [old, young] = [(); 2].map(|()| dir.path().join(name_of(mark())));
        let other = dir.path().join("other");
        for path in [&old, &young, &other] {
            fs::create_dir(path).unwrap();
        }
        let long_ago = fs::FileTimes::new().set_modified(SystemTime::now() - 2 * TIDY_EVERY);
        for path in [&old, &other] {
            fs::File::open(path).unwrap().set_times(long_ago).unwrap();
        }
        let tidied = Mutex::new(Instant::now());
        Groups { dir: dir.path().into(), tidied }.remove_empty();
        assert_eq!([&old, &young, &other].map(|path| path.exists()), [false, true, true]);
    }
}
