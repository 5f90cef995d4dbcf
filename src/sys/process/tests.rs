use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use rustix::process::{WaitId, WaitIdOptions};

use super::orphans::CHILDREN_PIECE;
use super::*;

/// Set in a copy of this test program that runs one test alone.
const ALONE: &str = "REXEC_TEST_ALONE";

/// Runs the named test in a process of its own, because it changes what belongs to a process.
/// True in that process.
pub(crate) fn alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

fn status_field(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn runs_inherit_nothing_bad() {
    if !alone("sys::process::tests::runs_inherit_nothing_bad") {
        return;
    }
    let null = fs::File::open("/dev/null").unwrap();
    // Above what `ls` opens for itself.
    let fd = rustix::io::fcntl_dupfd_cloexec(null, 100).unwrap().into_raw_fd();
    // SAFETY: signals are ignored and blocked, a flag is cleared; no memory of ours is involved
    // but a set that is filled before use.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        libc::sigfillset(set.as_mut_ptr());
        // A server that was upgraded holds these; what it starts is another test's matter.
        for held in [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2] {
            libc::sigdelset(set.as_mut_ptr(), held);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
        libc::fcntl(fd, libc::F_SETFD, 0);
    }
    let child = |program: &str, arg: &str| {
        let output = Command::new(program).arg(arg).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let fds = |text: &str| text.lines().any(|line| line == fd.to_string());
    let before = fs::read_to_string("/proc/self/status").unwrap();
    assert_ne!(status_field(&before, "SigIgn:"), 0);

    let inherited = prepare().unwrap();
    assert!(inherited.open_files.is_none_or(|limit| limit > 0));
    let status = child("/bin/cat", "/proc/self/status").unwrap();
    // glibc's posix_spawn ignores its two internal signals, 32 and 33, in every child.
    let internal = 0b11 << 31;
    assert_eq!(status_field(&status, "SigIgn:") & !internal, 0);
    assert_eq!(status_field(&status, "SigBlk:"), 0);
    assert!(!fds(&child("/bin/ls", "/proc/self/fd").unwrap()));
    let own = fs::read_to_string("/proc/thread-self/status").unwrap();
    assert_eq!(status_field(&own, "SigIgn:") & !internal, 1 << (libc::SIGPIPE - 1));
    assert_eq!(status_field(&own, "SigBlk:"), 0);

    // SAFETY: as above.
    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
    assert!(fds(&child("/bin/ls", "/proc/self/fd").unwrap()));
    close_on_exec_each().unwrap();
    assert!(!fds(&child("/bin/ls", "/proc/self/fd").unwrap()));
}

#[test]
fn a_stdin_that_is_null_and_can_be_read_is_known_as_such() {
    if !alone("sys::process::tests::a_stdin_that_is_null_and_can_be_read_is_known_as_such") {
        return;
    }
    let open =
        |path, write: bool| fs::File::options().read(!write).write(write).open(path).unwrap();
    assert!(!stdin_is_null(), "nobody has looked");
    for (file, is_null) in [
        (open("/dev/null", false), true),
        (open("/dev/zero", false), false),
        (open("/dev/null", true), false),
        (open("/proc/self/exe", false), false),
    ] {
        rustix::stdio::dup2_stdin(&file).unwrap();
        prepare().unwrap();
        assert_eq!(stdin_is_null(), is_null, "{file:?}");
    }
}

#[test]
fn strangers_are_reaped_and_known_children_are_not() {
    if !alone("sys::process::tests::strangers_are_reaped_and_known_children_are_not") {
        return;
    }
    prepare().unwrap();
    let known = spawn(&mut Command::new("/bin/true")).unwrap();
    let pidfd = rustix::process::pidfd_open(known, PidfdFlags::empty()).unwrap();
    wait_for_end(&pidfd);
    assert!(orphans().unwrap().is_empty());
    // The shell ends at once, and its child is handed to us.
    let shell = spawn(Command::new("/bin/sh").args(["-c", "sleep 1000 & exit 0"])).unwrap();
    let end =
        rustix::process::waitid(WaitId::Pid(shell), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    assert!(end.unwrap().is_some());
    let adopted = orphans().unwrap();
    assert_eq!(adopted.len(), 1);
    assert_eq!(reap_strangers().unwrap(), 0, "it still runs");
    let pidfd = rustix::process::pidfd_open(adopted[0], PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    wait_for_end(&pidfd);
    assert_eq!(reap_strangers().unwrap(), 1, "behind two known zombies");
    assert!(orphans().unwrap().is_empty());
    for pid in [known, shell] {
        reap(pid).unwrap();
        assert_eq!(reap(pid).unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
    let disowned = spawn(&mut Command::new("/bin/true")).unwrap();
    let pidfd = rustix::process::pidfd_open(disowned, PidfdFlags::empty()).unwrap();
    wait_for_end(&pidfd);
    disown(disowned);
    assert_eq!(reap_strangers().unwrap(), 1);
}

#[test]
fn an_orphan_is_found_behind_more_children_than_one_read_shows() {
    if !alone("sys::process::tests::an_orphan_is_found_behind_more_children_than_one_read_shows") {
        return;
    }
    prepare().unwrap();
    assert!(orphans().unwrap().is_empty());
    // A pid and a blank are 2 bytes at least.
    for _ in 0..CHILDREN_PIECE / 2 {
        spawn(&mut Command::new("/bin/true")).unwrap();
    }
    assert!(orphans().unwrap().is_empty(), "all are known");
    let shell = spawn(Command::new("/bin/sh").args(["-c", "sleep 1000 & exit 0"])).unwrap();
    wait_for_end(&rustix::process::pidfd_open(shell, PidfdFlags::empty()).unwrap());
    let adopted = orphans().unwrap();
    assert_eq!(adopted.len(), 1);
    let pidfd = rustix::process::pidfd_open(adopted[0], PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL).unwrap();
    wait_for_end(&pidfd);
    assert_eq!(reap_strangers().unwrap(), 1);
    assert!(orphans().unwrap().is_empty());
}

fn wait_for_end(pidfd: &OwnedFd) {
    let mut fds = [rustix::event::PollFd::new(pidfd, PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    assert!(has_ended(pidfd).unwrap());
}

#[test]
fn a_name_cannot_fool_the_start_time() {
    let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20";
    for name in ["(sh)", "(a b)", "(x) S 1 2 3)", "(\u{e9}))"] {
        assert_eq!(parse_start_time(format!("77 {name} {fields}").as_bytes()), Some(4711));
    }
    for bad in ["", "77 (sh", "77 (sh)", "77 (sh) S 1 2", "77 (sh) \u{e9}"] {
        assert_eq!(parse_start_time(bad.as_bytes()), None);
    }
}

#[test]
fn a_recycled_pid_is_another_process() {
    let me = ProcessRef::of(rustix::process::getpid()).unwrap();
    assert!(me.open().unwrap().is_some_and(|pidfd| !has_ended(&pidfd).unwrap()));
    let earlier = ProcessRef { start_time: me.start_time - 1, ..me };
    assert!(earlier.open().unwrap().is_none());
}

#[test]
fn a_group_is_found_and_a_kernel_thread_has_none() {
    // Not this process: its group may be of another pid namespace, for which the kernel says 0.
    let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
    assert_eq!(group_of(Pid::from_child(&child)), Some(Pid::from_child(&child)));
    child.kill().unwrap();
    child.wait().unwrap();
    // pid_max is at most 2^22, proc(5).
    assert_eq!(group_of(Pid::from_raw(1 << 23).unwrap()), None);
}

#[test]
fn the_leader_of_a_session_is_told_also_while_it_ends() {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", "echo; read -r _"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut leader = command.spawn().unwrap();
    leader.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = Pid::from_child(&leader);
    assert!(leads_session(pid) && !leads_session(Pid::from_raw(1 << 23).unwrap()));
    drop(leader.stdin.take());
    // From the zombie to the pid that is no more, the kernel says the session, 0 and ESRCH.
    std::thread::scope(|scope| {
        scope.spawn(|| while leads_session(pid) {});
        leader.wait().unwrap();
    });
}

#[test]
fn this_boot_and_namespace_have_names() {
    assert_eq!(boot_id().unwrap().len(), 36);
    assert_ne!(pid_namespace().unwrap(), 0);
    assert!(machine_id().is_none_or(|id| !id.is_empty()));
}

#[test]
fn the_start_of_a_child_is_known_without_proc() {
    // In hundredths of a second some of these children are started before a tick, and one after it.
    for _ in 0..20 {
        let since = boottime();
        let mut child = Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let told = ProcessRef::of_child(pid, since).unwrap();
        assert_eq!(told, ProcessRef::of(pid).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(ticks(Duration::from_millis(1239)), 123);
}
