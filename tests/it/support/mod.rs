//! What the tests stand on: servers on free ports in folders of their own, clients, a relay that can
//! cut, and waiting for what is to become true.

pub(crate) mod activate;
pub(crate) mod agent;
pub(crate) mod cutter;
pub(crate) mod fake;
pub(crate) mod fleet;
pub(crate) mod mounts;
pub(crate) mod other;
pub(crate) mod program;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod served;
pub(crate) mod server;
#[allow(dead_code, reason = "the unit tests use the rest")]
pub(crate) mod soft_key;
pub(crate) mod terminal;
pub(crate) mod user;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use server::{Client, Ran, Server, finish, supervisors};

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `check` holds; fails the test, naming `what`, if it does not within [`PATIENCE`].
pub(crate) fn wait_until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, Some("Z" | "X"))
}

/// A field in kilobytes from `/proc/PID/status` (proc(5)), such as `VmRSS` or `VmHWM`; 0 once the process
/// is gone.
pub(crate) fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// The number in a file that a command writes with `echo $$ > FILE`, if it is whole.
pub(crate) fn whole_pid_in(path: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.strip_suffix('\n')?.trim().parse().ok()
}

/// The same, once it is whole.
pub(crate) fn pid_in(path: &Path) -> u32 {
    let mut pid = None;
    wait_until(&format!("a pid in {}", path.display()), || {
        pid = whole_pid_in(path);
        pid.is_some()
    });
    pid.unwrap()
}

/// Tries longer and longer deadlines, in milliseconds, until `run` has a result: what is to happen before one takes
/// its time on a busy machine.
pub(crate) fn at_a_deadline<T>(run: impl FnMut(u64) -> Option<T>) -> T {
    [500, 2_000, 8_000, 32_000].into_iter().find_map(run).expect("no deadline was long enough")
}

/// That something is done before something else, which comes by itself in a few seconds, can be hidden by a busy machine;
/// but where it is not so, no try shows it.
#[track_caller]
pub(crate) fn is_seen(what: &str, tried: impl FnMut() -> bool) {
    const TRIES: usize = 20;
    assert!(std::iter::repeat_with(tried).take(TRIES).any(|seen| seen), "never seen: {what}");
}

/// Whether this machine has an address of IPv6.
pub(crate) fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("left out: there is no IPv6 here");
    }
    has
}

/// Lets this process and what it starts have as many descriptors as a server wants, if it may: a login often has 1,024.
pub(crate) fn allow_descriptors() {
    const WANTED: u64 = 16_384;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(WANTED, |most| most.min(WANTED));
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    }
}

/// The lines of a file that a program is still writing: of the last one there may be only a part, since whoever
/// reads it sees each page of the file as it comes.
pub(crate) fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text[..text.rfind('\n').map_or(0, |end| end + 1)].lines()
}

/// Sends a signal to a process that the test knows by its id.
pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    assert!(try_kill(pid, signal), "{pid} is gone");
}

/// The same; false if the process is no more.
pub(crate) fn try_kill(pid: u32, signal: rustix::process::Signal) -> bool {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) => false,
        sent => {
            sent.unwrap();
            true
        }
    }
}

/// Does a job for each number below `count`, a few at a time.
pub(crate) fn in_parallel(threads: usize, count: usize, job: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                numbers.take_while(|number| *number < count).for_each(&job);
            });
        }
    });
}

/// The JSON in a file.
#[track_caller]
pub(crate) fn json_in(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Numbers that differ from run to run; `REXEC_TEST_SEED` brings those of a failed run back.
pub(crate) struct Random(u64);

impl Random {
    /// Prints its seed, which a failed test shows.
    pub(crate) fn new() -> Self {
        let clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |t| t.as_nanos() as u64);
        let seed = std::env::var("REXEC_TEST_SEED").ok().and_then(|s| s.parse().ok());
        let seed = seed.unwrap_or_else(clock) | 1;
        println!("REXEC_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number below `limit` (xorshift64*; Vigna, 2016).
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit
    }
}
