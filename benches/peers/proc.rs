//! What `/proc` says of a server.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Between two looks at a server.
const INTERVAL: Duration = Duration::from_millis(5);
/// The last processes of a server are waited for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What ps(1) calls a supervisor of rexec's.
const SUPERVISOR: &str = "rexec-supervise";

/// A process that this program did not start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server(pub(crate) u32);

impl Server {
    /// What a task costs the server and its processes in processor time.
    pub(crate) fn spends<T>(self, task: impl FnOnce() -> T) -> io::Result<(T, Duration)> {
        spends(&[self], true, task)
    }

    /// Processor time of the server, of its live descendants, and of those that were waited for.
    fn cpu(self) -> io::Result<Duration> {
        let tick = rustix::param::clock_ticks_per_second();
        let mut ticks = 0;
        for pid in self.tree()? {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Fields 14 to 17 of proc(5): utime, stime, cutime, cstime. The name before may hold anything.
            let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
            ticks += fields.skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(Duration::from_millis(ticks * 1000 / tick))
    }

    /// Waits until the server has spent no processor time for so long.
    pub(crate) fn rests(self, for_so_long: Duration) -> io::Result<()> {
        let mut before = self.cpu()?;
        loop {
            thread::sleep(for_so_long);
            let now = self.cpu()?;
            if now == before {
                return Ok(());
            }
            before = now;
        }
    }

    /// Waits until the server has no children left but the supervisor that waits for its next durable run, and spends
    /// nothing.
    pub(crate) fn settle(self) -> io::Result<()> {
        let late = Instant::now() + PATIENCE;
        while self.tree()?[1..].iter().any(|pid| !is_supervisor(*pid)) {
            if Instant::now() > late {
                let text = format!("process {} still has children after {PATIENCE:?}", self.0);
                return Err(io::Error::other(text));
            }
            thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Memory of the server and its descendants, bytes; a page that several map counts once in all
    /// (`Pss`, proc(5)).
    pub(crate) fn memory(self) -> io::Result<u64> {
        // A process that ended meanwhile has none.
        let pss = |pid| field(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0);
        Ok(self.tree()?.into_iter().map(pss).sum())
    }

    /// Memory of the process that no other one maps, bytes.
    pub(crate) fn private(self) -> io::Result<u64> {
        let path = format!("/proc/{}/smaps_rollup", self.0);
        Ok(field(&path, "Private_Clean:")? + field(&path, "Private_Dirty:")?)
    }

    /// Keeps all its threads to these processors.
    pub(crate) fn keep_to(self, processors: &CpuSet) -> io::Result<()> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.0))? {
            let thread = thread?.file_name().to_str().and_then(|name| name.parse().ok());
            let Some(thread) = thread.and_then(Pid::from_raw) else { continue };
            match sched_setaffinity(Some(thread), processors) {
                // One that has ended meanwhile.
                Err(Errno::SRCH) => {}
                done => done?,
            }
        }
        Ok(())
    }

    /// Starts the measurement of the peak anew.
    pub(crate) fn reset_peak(self) -> io::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.0), "5")
    }

    /// Largest resident set of the server itself since [`Self::reset_peak`], bytes.
    pub(crate) fn peak(self) -> io::Result<u64> {
        field(&format!("/proc/{}/status", self.0), "VmHWM:")
    }

    /// The server and its descendants.
    fn tree(self) -> io::Result<Vec<u32>> {
        let mut found = vec![self.0];
        let mut next = 0;
        while let Some(pid) = found.get(next).copied() {
            next += 1;
            let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks {
                let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
                found.extend(list.split_ascii_whitespace().filter_map(|p| p.parse::<u32>().ok()));
            }
        }
        Ok(found)
    }
}

fn is_supervisor(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == SUPERVISOR)
}

/// What a task costs servers and their processes in processor time.
///
/// A process of sshd's may end without being waited for, and its time is then in nobody's books: so
/// they are `watched`, that is read again and again, and what is missed is the last interval of such a
/// process.
pub(crate) fn spends<T>(
    servers: &[Server],
    watched: bool,
    task: impl FnOnce() -> T,
) -> io::Result<(T, Duration)> {
    let cpu = || servers.iter().map(|server| server.cpu()).sum::<io::Result<Duration>>();
    servers.iter().try_for_each(|server| server.settle())?;
    let before = cpu()?;
    let is_over = AtomicBool::new(false);
    // Looking at a hundred takes milliseconds itself.
    let pause = u32::try_from(servers.len() / 20).unwrap_or(0).max(1);
    let look = || {
        let mut most = before;
        while watched && !is_over.load(Ordering::Relaxed) {
            // A process that ends while it is looked at is seen in the next round, or was before.
            most = cpu().unwrap_or(most).max(most);
            thread::sleep(INTERVAL * pause);
        }
        most
    };
    let (done, most) = thread::scope(|scope| {
        let looking = scope.spawn(look);
        let done = task();
        is_over.store(true, Ordering::Relaxed);
        (done, looking.join())
    });
    servers.iter().try_for_each(|server| server.settle())?;
    let most = most.map_err(|_| io::Error::other("the watch on the servers failed"))?;
    Ok((done, cpu()?.max(most) - before))
}

/// A line `name  N kB` of a file, in bytes.
fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok());
    let none = || io::Error::other(format!("{path} has no {name}"));
    number.map(|kib| kib * 1024).ok_or_else(none)
}
