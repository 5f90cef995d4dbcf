//! Finding the processes of a run: by its process group and by the mark in their environment.
//!
//! One thread looks for all runs at once: requests that wait are answered from one pass over
//! `/proc`, so that stopping a hundred runs does not cost a hundred passes.

use std::collections::{HashMap, HashSet};
use std::fs::{DirEntry, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{PidfdFlags, geteuid, getpid, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;

use super::cgroup;
use super::mark::{MARK_VARIABLE, Mark};
use super::signal::Signal;
use crate::sys::mutex::lock;
use crate::sys::process::{
    Pid, ProcessRef, gone, group_of, has_ended, is_executing, orphans, real_uid,
};
use crate::sys::shortage::is_shortage;

/// Most bytes of a process's environment that are looked at. The kernel lets arguments and
/// environment have 6 MiB together (execve(2)), so what a program was given is seen whole.
pub const ENVIRON_LIMIT: u64 = 8 << 20;
/// Most pidfds handed out to wait for at once; who waits looks again when these have ended.
pub const WATCH_LIMIT: usize = 16;

/// How often a process within execve(2) is looked at before it is passed over.
const EXECUTING_LOOKS: u32 = 100;
/// Time between two such looks.
const EXECUTING_PAUSE: Duration = Duration::from_millis(1);

/// Time between two looks when there are no descriptors to look with.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Most listings in a pass: on a machine that starts processes all the time there is always a new
/// one, rarely of a run that is being stopped.
const LISTINGS: usize = 8;

/// How far the tree of a run could be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containment {
    /// Process group and marks. A process that left the group and emptied its environment is not
    /// seen.
    Marks,
    /// The process group alone: the system does not let environments be read.
    Group,
    /// These, and a control group, which only those leave who may write to another one.
    Cgroup,
}

impl Containment {
    /// Where nothing hides environments.
    pub(super) fn of(grouped: bool) -> Self {
        if grouped { Self::Cgroup } else { Self::Marks }
    }
}

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) mark: Mark,
    /// The process group; only while its leader is not reaped.
    pub(super) group: Option<Pid>,
    /// It may have a control group of its own.
    pub(super) grouped: bool,
    /// The run's user, if that is not this process's own: a mark counts only on processes that the user has
    /// started (real uid, credentials(7)), so that a server which may signal anybody's signals nobody else's.
    pub(super) uid: Option<u32>,
    /// Start time of the run's main process: what is older is no part of the run.
    pub(super) not_before: u64,
}

/// What to do with what is found.
#[derive(Debug, Clone, Copy)]
pub(super) enum Action {
    /// Count it.
    Count,
    /// Count it after the end of the main process: without a pass, if nothing of it is among the
    /// [`orphans`].
    CountLeft,
    /// Signal those outside the process group, whose members the caller signals in one call.
    SignalOutsiders(Signal),
}

/// What one pass found of one run. Zombies do not count.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) processes: Vec<ProcessRef>,
    /// pidfds of the first [`WATCH_LIMIT`] of them.
    pub(super) watch: Vec<OwnedFd>,
    pub(super) containment: Containment,
}

pub(super) struct Request {
    target: Target,
    action: Action,
    pub(super) answer: oneshot::Sender<io::Result<Found>>,
}

/// The thread that looks; it ends with the last clone.
#[derive(Debug, Clone)]
pub struct Scanner(Arc<Mutex<Option<Sender<Request>>>>);

impl Scanner {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Some(start()?)))))
    }

    /// Starts the thread when it is first needed, which for one run is most often never.
    #[must_use]
    pub fn on_demand() -> Self {
        Self(Arc::default())
    }

    /// One that answers as the test does: never, while what comes with it is only kept.
    #[cfg(test)]
    pub(super) fn played() -> (Self, Receiver<Request>) {
        let (requests, waiting) = mpsc::channel();
        (Self(Arc::new(Mutex::new(Some(requests)))), waiting)
    }

    /// A pass that begins after this call.
    pub(super) async fn scan(&self, target: Target, action: Action) -> io::Result<Found> {
        let (answer, found) = oneshot::channel();
        self.send(Request { target, action, answer })?;
        found.await.map_err(|_| ended())?
    }

    fn send(&self, request: Request) -> io::Result<()> {
        let mut thread = lock(&self.0);
        let requests = match thread.take() {
            Some(requests) => requests,
            None => start()?,
        };
        thread.insert(requests).send(request).map_err(|_| ended())
    }
}

fn start() -> io::Result<Sender<Request>> {
    let (requests, waiting) = mpsc::channel();
    thread::Builder::new().name("scanner".into()).spawn(move || serve(&waiting))?;
    Ok(requests)
}

fn ended() -> io::Error {
    io::Error::other("the scanner has ended")
}

fn serve(waiting: &Receiver<Request>) {
    let mut environ = Environ::default();
    while let Ok(first) = waiting.recv() {
        let requests: Vec<_> = std::iter::once(first).chain(waiting.try_iter()).collect();
        let requests = answer_nothing_left(requests, &mut environ);
        if !requests.is_empty() {
            answer_all(requests, &mut environ);
        }
    }
}

/// Answers those whose runs have left nothing, and gives back the others.
fn answer_nothing_left(requests: Vec<Request>, environ: &mut Environ) -> Vec<Request> {
    let asks = |request: &Request| matches!(request.action, Action::CountLeft);
    if !requests.iter().any(asks) {
        return requests;
    }
    // Executing, not to be seen, or not to be listed: the pass decides.
    let Ok(left) = whose_orphans(environ) else { return requests };
    let has_left = |target: &Target| {
        let cgroup = target.grouped.then(|| cgroup::name_of(target.mark));
        left.iter().any(|(group, mark, name)| {
            *group == target.group
                || *mark == Some(target.mark)
                || cgroup.is_some() && *name == cgroup
        })
    };
    let (done, rest): (Vec<_>, Vec<_>) =
        requests.into_iter().partition(|request| asks(request) && !has_left(&request.target));
    for request in done {
        let containment = Containment::of(request.target.grouped);
        let nothing = Found { processes: Vec::new(), watch: Vec::new(), containment };
        // Who has stopped waiting does not need it.
        let _ = request.answer.send(Ok(nothing));
    }
    rest
}

/// Process group, mark, and the name of a run's control group.
type Signs = (Option<Pid>, Option<Mark>, Option<String>);

/// Those of what this process has adopted.
fn whose_orphans(environ: &mut Environ) -> io::Result<Vec<Signs>> {
    let mut found = Vec::new();
    for pid in orphans()? {
        let group = group_of(pid);
        match environ.look(pid).and_then(|mark| Ok((mark, cgroup::name_by_pid(pid)?))) {
            Ok((mark, name)) => found.push((group, mark, name)),
            Err(e) if gone(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

/// One pass for all that wait.
fn answer_all(requests: Vec<Request>, environ: &mut Environ) {
    let mut pass = Pass::new(&requests, environ);
    let outcome = pass.run();
    let others = pass.containment();
    let found = pass.found;
    for (request, (processes, watch)) in requests.into_iter().zip(found) {
        // Whether leftovers had a group is not known.
        let in_group = request.target.grouped && request.target.group.is_some();
        let containment = if in_group { Containment::Cgroup } else { others };
        let result = match &outcome {
            Ok(()) => Ok(Found { processes, watch, containment }),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        };
        // Who has stopped waiting does not need it.
        let _ = request.answer.send(result);
    }
}

/// The state of one pass.
struct Pass<'a> {
    requests: &'a [Request],
    by_mark: HashMap<Mark, Vec<usize>>,
    by_group: HashMap<Pid, Vec<usize>>,
    /// By the name of the control group; empty if no run has one.
    by_name: HashMap<String, Vec<usize>>,
    environ: &'a mut Environ,
    found: Vec<(Vec<ProcessRef>, Vec<OwnedFd>)>,
    /// Some of the runs are of other users.
    knows_users: bool,
    /// An environment of another process could be read.
    read: bool,
    /// That of another process of this account could not.
    refused: bool,
}

impl<'a> Pass<'a> {
    fn new(requests: &'a [Request], environ: &'a mut Environ) -> Self {
        let mut by_mark = HashMap::<_, Vec<_>>::new();
        let mut by_group = HashMap::<_, Vec<_>>::new();
        let mut by_name = HashMap::<_, Vec<_>>::new();
        for (index, request) in requests.iter().enumerate() {
            by_mark.entry(request.target.mark).or_default().push(index);
            if let Some(group) = request.target.group {
                by_group.entry(group).or_default().push(index);
            }
            if request.target.grouped {
                by_name.entry(cgroup::name_of(request.target.mark)).or_default().push(index);
            }
        }
        let found = requests.iter().map(|_| Default::default()).collect();
        let knows_users = requests.iter().any(|request| request.target.uid.is_some());
        let (read, refused) = (false, false);
        Self { requests, by_mark, by_group, by_name, environ, found, knows_users, read, refused }
    }

    fn containment(&self) -> Containment {
        if self.refused && !self.read { Containment::Group } else { Containment::Marks }
    }

    /// Visits all processes, then those that have come meanwhile, until a listing shows none that
    /// was not visited. So "nothing found" holds for a tree in motion too: a process that is alive
    /// and was never listed was started during the last listing, by an ancestor that had been
    /// visited before and was alive, and was therefore found.
    fn run(&mut self) -> io::Result<()> {
        let mut visited = HashSet::from([getpid()]);
        for _ in 0..LISTINGS {
            let known = visited.len();
            for pid in self.at_last(|_| list())? {
                if visited.insert(pid) {
                    self.at_last(|pass| pass.visit(pid))?;
                }
            }
            if visited.len() == known {
                break;
            }
        }
        Ok(())
    }

    /// Looks again and again while there are no descriptors to look with, as long as somebody waits: what was passed
    /// over would count as gone.
    fn at_last<T>(&mut self, mut look: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            match look(self) {
                Err(e) if is_shortage(&e) && self.is_awaited() => thread::sleep(SHORTAGE_PAUSE),
                looked => return looked,
            }
        }
    }

    fn is_awaited(&self) -> bool {
        self.requests.iter().any(|request| !request.answer.is_closed())
    }

    fn visit(&mut self, pid: Pid) -> io::Result<()> {
        // Without a group it is a kernel thread, or was not started from here.
        let Some(group) = group_of(pid) else { return Ok(()) };
        let members = self.members_of(pid)?;
        if self.runs_of(pid, group, &members)?.is_empty() { Ok(()) } else { self.take(pid) }
    }

    /// The requests whose run this process seems to belong to, which is in the control groups of `members`.
    fn runs_of(&mut self, pid: Pid, group: Pid, members: &[usize]) -> io::Result<Vec<usize>> {
        let mut runs = self.by_group.get(&group).cloned().unwrap_or_default();
        runs.extend(members);
        match self.environ.look_patiently(pid) {
            Ok(mark) => {
                self.read = true;
                runs.extend(mark.and_then(|mark| self.by_mark.get(&mark)).into_iter().flatten());
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                self.refused |= owner(pid).is_some_and(|uid| uid == geteuid().as_raw());
            }
            Err(e) if is_shortage(&e) => return Err(e),
            // It has ended meanwhile.
            Err(_) => {}
        }
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }

    /// The requests in whose control group this process is.
    fn members_of(&self, pid: Pid) -> io::Result<Vec<usize>> {
        if self.by_name.is_empty() {
            return Ok(Vec::new());
        }
        let name = match cgroup::name_by_pid(pid) {
            Err(e) if is_shortage(&e) => return Err(e),
            read => read.ok().flatten(),
        };
        Ok(name.and_then(|name| self.by_name.get(&name)).cloned().unwrap_or_default())
    }

    /// Looks again through a pidfd, and acts. A pid that still runs after everything was read was
    /// the same process all the time.
    fn take(&mut self, pid: Pid) -> io::Result<()> {
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            // EINVAL: not a process but a thread, which /proc does not list.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(()),
            opened => opened?,
        };
        let Some(group) = group_of(pid) else { return Ok(()) };
        let members = self.members_of(pid)?;
        let runs = self.runs_of(pid, group, &members)?;
        let process = match ProcessRef::of(pid) {
            Err(e) if gone(&e) => return Ok(()),
            read => read?,
        };
        if has_ended(&pidfd)? {
            return Ok(());
        }
        let inside = |target: &Target| target.group == Some(group);
        let uid = if self.knows_users { real_uid(pid)? } else { None };
        for index in runs {
            let request = &self.requests[index];
            let target = &request.target;
            let is_old = process.start_time < target.not_before;
            let is_in = inside(target) || members.contains(&index);
            let is_anothers = target.uid.is_some() && target.uid != uid && !is_in;
            if is_old || is_anothers {
                continue;
            }
            let (processes, watch) = &mut self.found[index];
            // Before anything is done that a second look would do again.
            let watched = (watch.len() < WATCH_LIMIT).then(|| pidfd.try_clone()).transpose()?;
            if let Action::SignalOutsiders(signal) = request.action
                && !inside(target)
            {
                // Not permitted, or ended: it is counted again by whoever looks next.
                let _ = pidfd_send_signal(&pidfd, signal.raw());
            }
            processes.push(process);
            watch.extend(watched);
        }
        Ok(())
    }
}

fn list() -> io::Result<Vec<Pid>> {
    let pid = |entry: io::Result<DirEntry>| match entry {
        Ok(entry) => Some(Ok(Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?)),
        Err(e) => Some(Err(e)),
    };
    std::fs::read_dir("/proc")?.filter_map(pid).collect()
}

fn owner(pid: Pid) -> Option<u32> {
    std::fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid())
}

/// Reads environments; keeps its buffer.
#[derive(Default)]
struct Environ(Vec<u8>);

impl Environ {
    /// The mark that a process was given; none if it belongs to no run. The first counts, as for
    /// getenv(3). Marks on processes of another account are not believed, unless this is root: then
    /// the run is root's, and only it could hand on the mark, as `su` and `setpriv` do.
    ///
    /// `WouldBlock` says that the process is executing something just now: look again.
    fn look(&mut self, pid: Pid) -> io::Result<Option<Mark>> {
        if self.read(pid)? == Some(0) {
            if is_executing(pid)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // It may have been, a moment ago.
            self.read(pid)?;
        }
        Ok(mark_in(&self.0))
    }

    /// As [`Self::look`], but waits for a process that is executing something. One that takes
    /// long (its file is on a dead network disk) counts as unmarked.
    fn look_patiently(&mut self, pid: Pid) -> io::Result<Option<Mark>> {
        for _ in 0..EXECUTING_LOOKS {
            match self.look(pid) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(EXECUTING_PAUSE),
                looked => return looked,
            }
        }
        Ok(None)
    }

    /// How many bytes it has; none if it is another account's.
    fn read(&mut self, pid: Pid) -> io::Result<Option<usize>> {
        self.0.clear();
        let file = File::open(format!("/proc/{pid}/environ"))?;
        let euid = geteuid();
        if !euid.is_root() && file.metadata()?.uid() != euid.as_raw() {
            return Ok(None);
        }
        file.take(ENVIRON_LIMIT).read_to_end(&mut self.0).map(Some)
    }
}

fn mark_in(environ: &[u8]) -> Option<Mark> {
    let value = |entry| <[u8]>::strip_prefix(entry, MARK_VARIABLE.as_bytes())?.strip_prefix(b"=");
    environ.split(|&b| b == 0).find_map(value).and_then(Mark::from_hex)
}

#[cfg(test)]
mod tests;
