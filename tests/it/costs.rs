//! What runs cost beside themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::durable::{gate, leave, verb};
use super::support::server::spare_supervisors;
use super::support::{Client, Server, finish, pid_in, supervisors, wait_until};

/// Every file below a folder.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { [path].into() }).collect()
}

/// The files that a process holds open.
fn open_files(pid: u32) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    // Pipes and sockets have no path.
    let paths = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    paths.filter(|path| path.is_absolute() && !path.starts_with("/dev")).collect()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    // A thread may have ended by now.
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().map(|p| p.parse().unwrap()).collect::<Vec<_>>())
        .collect()
}

#[test]
fn a_foreground_run_costs_no_file_and_no_process_but_its_own() {
    let server = Server::start(&[]);
    server.run(&["true"]).expect(0);
    let before = (files(server.state()), open_files(server.pid()));
    let (gate, wait) = gate(&server, "gate");
    let pid = server.dir().join("pid");
    let client = server.client().arg(format!("echo $$ > {}; {wait}", pid.display())).spawn();
    let shell = pid_in(&pid);
    assert_eq!(children(server.pid()), [shell]);
    assert_eq!((files(server.state()), open_files(server.pid())), before);
    fs::write(gate, "").unwrap();
    finish(client).expect(0);
    assert_eq!(files(server.state()), before.0);
}

/// A thread that starts a run waits until it executes its program (vfork(2)).
#[test]
fn the_thread_that_serves_does_not_wait_for_the_start_of_a_run_beside_others() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let processors = std::thread::available_parallelism().unwrap().get();
    let start = |run: usize| {
        let pid = server.dir().join(format!("pid{run}"));
        let command = format!("echo $$ > {}; {wait}", pid.display());
        (server.client().arg(command).spawn(), pid_in(&pid))
    };
    let runs: Vec<_> = (0..=processors).map(start).collect();
    let (_, last) = runs[processors];
    let served = fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap();
    assert!(!served.split_whitespace().any(|pid| pid == last.to_string()), "{served}");
    assert!(children(server.pid()).contains(&last));
    fs::write(gate, "").unwrap();
    runs.into_iter().for_each(|(client, _)| drop(finish(client).expect(0)));
}

/// How often each thread of a process has gone to sleep, which it does after each time it was woken.
fn sleeps(pid: u32) -> BTreeMap<PathBuf, String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
    let count = |task: &Path| {
        let status = fs::read_to_string(task.join("status")).ok()?;
        Some(status.lines().find(|line| line.starts_with("voluntary_"))?.to_owned())
    };
    tasks.filter_map(|task| Some((task.clone(), count(&task)?))).collect()
}

/// But for what it does every 30 s: looking for records that are too old.
#[test]
fn a_server_that_has_nothing_to_do_sleeps_and_so_does_the_supervisor_that_waits() {
    let server = Server::start(&[]);
    // Somebody is left behind, and ends.
    server.run(&["sleep 1 & exit 0"]).expect(0);
    server.run(&["--durable", "true"]).expect(0);
    let waiting = || spare_supervisors(server.state()).first().copied();
    wait_until("a supervisor that waits", || waiting().is_some());
    let programs = [server.pid(), waiting().unwrap()];
    wait_until("three seconds without a single wake-up", || {
        let before = programs.map(sleeps);
        std::thread::sleep(Duration::from_secs(3));
        before == programs.map(sleeps)
    });
    assert_eq!(children(server.pid()), [programs[1]], "who was left behind is not reaped");
}

/// Pages of the program's file that it shares with the server are not its own (proc(5), smaps_rollup).
#[test]
fn a_supervisor_that_waits_has_one_thread_and_less_than_3_mib_of_its_own() {
    let server = Server::start(&[]);
    let id = leave(&server, "echo ready; sleep 600");
    wait_until("its output", || verb(&server, "logs", &[&id]).stdout == b"ready\n");
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    let rollup = fs::read_to_string(format!("/proc/{supervisor}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 =
        lines.map(|l| l.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert!((1..3 * 1024).contains(&kib), "{kib} KiB");
    assert_eq!(fs::read_dir(format!("/proc/{supervisor}/task")).unwrap().count(), 1);
    verb(&server, "stop", &[&id]).expect(0);
}

/// Each of them has a processor's whole time to itself, if there are as many, and stays as long as the record may grow.
#[test]
fn large_output_of_a_durable_run_is_hashed_by_a_thread_and_written_by_another() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let id = leave(&server, &format!("head -c 4194304 /dev/zero; {wait}"));
    let [supervisor] = supervisors(server.state())[..] else { panic!("no supervisor") };
    let names = || {
        let tasks = fs::read_dir(format!("/proc/{supervisor}/task")).unwrap();
        let name = |task: PathBuf| fs::read_to_string(task.join("comm")).unwrap_or_default();
        tasks.map(|task| name(task.unwrap().path())).collect::<Vec<_>>()
    };
    for thread in ["record-hash\n", "record-write\n"] {
        wait_until(thread, || names().iter().filter(|name| *name == thread).count() == 1);
    }
    fs::write(gate, "").unwrap();
    assert!(verb(&server, "attach", &[&id]).expect(0).stdout == [0; 4 << 20]);
}

/// Everybody waits for the first flight: what the client reads is read while the server answers.
#[test]
fn a_client_writes_its_first_flight_before_it_reads_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().canonicalize().unwrap().join("state");
    fs::DirBuilder::new().mode(0o700).create(&state).unwrap();
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(state.join("host_key"))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let client = Client::new(&state).args(&[&address, "true"]).spawn();
    let mut record_type = [0];
    listener.accept().unwrap().0.read_exact(&mut record_type).unwrap();
    assert_eq!(record_type, [22], "a handshake (RFC 8446, 5.1)");
    let ran = finish(client).expect(255);
    assert!(ran.stderr.contains("host_key is not a whole OpenSSH private key"), "{}", ran.stderr);
}

/// Each library is found, mapped and bound at every start.
#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn the_programs_load_no_library_but_the_c_library() {
    let server = Server::start(&[]);
    let (gate, wait) = gate(&server, "gate");
    let pid = server.dir().join("pid");
    let client = server.client().arg(format!("echo $$ > {}; {wait}", pid.display())).spawn();
    pid_in(&pid);
    for process in [server.pid(), client.id()] {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
        let files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let names = files.filter_map(|file| Path::new(file).file_name()?.to_str());
        let libraries: BTreeSet<_> = names.filter(|name| name.contains(".so")).collect();
        let other =
            libraries.iter().find(|name| !name.starts_with("libc.") && !name.starts_with("ld-"));
        assert!(other.is_none() && !libraries.is_empty(), "{libraries:?}");
    }
    fs::write(gate, "").unwrap();
    finish(client).expect(0);
}
