//! SIGHUP: the server becomes the program that its path names now, and nobody notices.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;

use super::support::activate::activated;
use super::support::raw::Raw;
use super::support::server::{finish, line_of, under};
use super::support::{Client, Server, is_alive, kill, wait_until};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rexec-server");

/// Asks for an upgrade and waits until the program that took over has announced its addresses.
pub(crate) fn upgrade(server: &mut Server) {
    server.signal(Signal::HUP);
    announced_again(server);
}

fn announced_again(server: &mut Server) {
    assert_eq!(server.announced(), server.addr);
    assert_eq!(server.announced(), server.unix);
}

/// A client whose run ends once the file is there, and then says so in another one.
pub(crate) fn under_way(server: &Server, name: &str) -> (Child, PathBuf) {
    let go = server.dir().join(name);
    let text = format!(
        "echo ready; while [ ! -e {0} ]; do sleep 0.01; done; seq 1 20000; echo over > {0}.over; exit 6",
        go.display()
    );
    let mut child = server.client().arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    (child, go)
}

pub(crate) fn wait_for_log(server: &Server, text: &str) {
    wait_until(text, || server.log().contains(text));
}

#[test]
fn clients_that_come_while_the_server_is_upgraded_five_times_notice_nothing() {
    let mut server = Server::start(&[]);
    let effects = server.dir().join("effects");
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (state, addresses) =
        (server.state().to_owned(), [server.addr.clone(), server.unix.clone()]);
    let pid = server.pid();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let address = &addresses[thread % 2];
            let (state, effects, over, next) = (&state, &effects, &over, &next);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let text = format!("echo {number} >> {}; seq 1 3000", effects.display());
                    let ran = Client::new(state).args(&[address, &text]).run().expect(0);
                    assert_eq!(ran.text().lines().count(), 3000);
                }
            });
        }
        for round in 1..=5 {
            let before = next.load(Ordering::Relaxed);
            wait_until("runs", || next.load(Ordering::Relaxed) >= before + 8);
            println!("upgrade {round}");
            upgrade(&mut server);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(server.pid(), pid);
    assert_eq!(server.log().matches("upgrading").count(), 5);
    let mut done: Vec<usize> =
        std::fs::read_to_string(effects).unwrap().lines().map(|n| n.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..next.into_inner()).collect::<Vec<_>>());
}

#[test]
fn what_is_under_way_ends_whole_and_what_is_new_waits_for_the_program_that_takes_over() {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let (child, go) = under_way(&server, "go");
    server.signal(Signal::HUP);
    wait_for_log(&server, "upgrading");
    let held = [&server.addr, &server.unix].map(|address| {
        let text = format!("cat {}.over", go.display());
        Client::new(server.state()).args(&[address, &text]).spawn()
    });
    std::fs::write(&go, "").unwrap();
    let ran = finish(child).expect(6);
    assert_eq!(ran.text().lines().count(), 20000);
    announced_again(&mut server);
    for client in held {
        assert_eq!(finish(client).expect(0).text(), "over\n");
    }
}

/// A list that is being written, or that was emptied to lock everybody out, is no reason to end what runs.
#[test]
fn a_list_of_keys_that_is_spoilt_before_an_upgrade_lets_nobody_in_and_does_not_end_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().canonicalize().unwrap();
    let (_, line) = super::auth::key(&here, "friend");
    let (keys, revoked) = (here.join("keys"), here.join("revoked"));
    std::fs::write(&keys, line).unwrap();
    std::fs::write(&revoked, "").unwrap();
    let lists = [&keys, &revoked].map(|path| path.to_str().unwrap());
    let options =
        ["--listen", "0.0.0.0:0", "--authorized-keys", lists[0], "--revoked-keys", lists[1]];
    let mut server = Server::start(&options);
    let everywhere = server.announced();
    for (path, text) in
        [(&keys, None), (&keys, Some("")), (&revoked, Some("no line")), (&revoked, None)]
    {
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        upgrade(&mut server);
        assert_eq!(server.announced(), everywhere);
        Client::new(server.state()).args(&[&server.unix, "true"]).run().expect(0);
    }
    assert!(server.log().contains("is let in"), "{}", server.log());
}

#[test]
fn a_durable_run_goes_on_through_upgrades_and_its_client_with_it() {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let (go, effect) = (server.dir().join("go"), server.dir().join("effect"));
    let text = format!(
        "echo x >> {}; echo ready; while [ ! -e {} ]; do sleep 0.01; done; seq 1 20000; exit 6",
        effect.display(),
        go.display()
    );
    let mut child = server.client().arg("--durable").arg(text).spawn();
    assert_eq!(line_of(&mut child), "ready");
    for _ in 0..3 {
        upgrade(&mut server);
    }
    std::fs::write(&go, "").unwrap();
    let ran = finish(child).expect(6);
    assert_eq!(ran.text().lines().count(), 20000, "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(effect).unwrap(), "x\n");
}

#[test]
fn durable_runs_that_are_started_while_the_server_is_upgraded_start_once() {
    let mut server = Server::start(&[]);
    let effects = server.dir().join("effects");
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (state, address) = (server.state().to_owned(), server.addr.clone());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let text = format!("echo {number} >> {}; echo {number}", effects.display());
                    let args = ["--durable", &address, &text];
                    let ran = Client::new(&state).args(&args).run().expect(0);
                    assert_eq!(ran.text(), format!("{number}\n"));
                }
            });
        }
        for _ in 0..3 {
            let before = next.load(Ordering::Relaxed);
            wait_until("runs", || next.load(Ordering::Relaxed) >= before + 4);
            upgrade(&mut server);
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut done: Vec<usize> =
        std::fs::read_to_string(effects).unwrap().lines().map(|n| n.parse().unwrap()).collect();
    done.sort_unstable();
    assert_eq!(done, (0..next.into_inner()).collect::<Vec<_>>());
}

#[test]
fn after_the_drain_timeout_what_is_under_way_is_stopped_and_the_upgrade_goes_on() {
    let mut server = Server::start(&["--drain-timeout", "100ms"]);
    let mut child = server.client().arg("echo ready; exec sleep 600").spawn();
    assert_eq!(line_of(&mut child), "ready");
    upgrade(&mut server);
    finish(child).expect(251);
    server.run(&["true"]).expect(0);
}

#[test]
fn sigterm_ends_a_server_that_is_being_upgraded_and_what_waited_was_never_started() {
    let mut server = Server::start(&["--drain-timeout", "1h"]);
    let (child, go) = under_way(&server, "go");
    server.signal(Signal::HUP);
    wait_for_log(&server, "upgrading");
    let held = server.client().arg("true").spawn();
    server.signal(Signal::TERM);
    let refused = finish(held).expect(254);
    assert!(refused.stderr.contains("shutting_down"), "{}", refused.stderr);
    std::fs::write(&go, "").unwrap();
    finish(child).expect(6);
    assert_eq!(server.wait(), 0);
}

/// Nothing is under way any more; who has not logged in is waited for.
#[test]
fn sigterm_that_comes_at_the_end_of_an_upgrade_ends_the_server() {
    let mut server = Server::start(&[]);
    let late = Raw::connect(&server);
    // Whoever comes after it is let in after it.
    drop(Raw::login(&server));
    server.signal(Signal::HUP);
    wait_for_log(&server, "upgrading");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    drop(late);
}

#[test]
fn a_cancel_takes_a_waiting_run_back() {
    let server = Server::start(&["--drain-timeout", "1h", "--verbose"]);
    let (child, go) = under_way(&server, "go");
    server.signal(Signal::HUP);
    wait_for_log(&server, "upgrading");
    let effect = server.dir().join("effect");
    let held = server.client().arg(format!("touch {}", effect.display())).spawn();
    wait_until("its login", || server.log().matches("logged in").count() == 2);
    kill(held.id(), Signal::TERM);
    let ran = finish(held).expect(254);
    assert!(ran.stderr.contains("given up before it began"), "{}", ran.stderr);
    std::fs::write(&go, "").unwrap();
    finish(child).expect(6);
    wait_until("the upgrade", || server.run(&["true"]).status == 0);
    assert!(!effect.exists());
}

#[test]
fn the_file_of_a_unix_socket_stays_the_same_and_goes_with_the_last_server() {
    let mut server = Server::start(&[]);
    let path = server.unix.strip_prefix("unix:").unwrap().to_owned();
    let inode = || Path::new(&path).symlink_metadata().unwrap().ino();
    let before = inode();
    for _ in 0..2 {
        upgrade(&mut server);
        assert_eq!(inode(), before);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    assert!(!Path::new(&path).exists());
}

#[test]
fn sockets_of_a_service_manager_are_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}/s", dir.path().display());
    let mut server = Server::with(&[], activated(&["tcp:127.0.0.1", &unix], &[]));
    for _ in 0..2 {
        upgrade(&mut server);
        for address in [&server.addr, &server.unix] {
            Client::new(server.state()).args(&[address, "true"]).run().expect(0);
        }
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), 0);
    assert!(dir.path().join("s").exists());
}

/// A server on any port takes the first name that nobody has; one that is upgraded has its name already.
#[test]
fn a_server_on_any_port_keeps_its_name_and_its_ids() {
    let nameless = |command: &mut Command| {
        let mut other = Command::new(PROGRAM);
        other.args(command.get_args().skip(2));
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = other;
    };
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut first = Server::at(&state, "127.0.0.1:0", &[], nameless);
    let socket = state.with_extension("sock");
    let moved = state.with_extension("first.sock");
    std::fs::rename(&socket, &moved).unwrap();
    let mut second = Server::at(&state, "127.0.0.1:0", &[], nameless);
    first.signal(Signal::TERM);
    assert_eq!(first.wait(), 0);
    let journal = state.join("instances/127.0.0.1:0~2/journal/000001.jsonl");
    let lines = || std::fs::read_to_string(&journal).unwrap().lines().count();
    second.run(&["true"]).expect(0);
    let before = lines();
    upgrade(&mut second);
    assert_eq!(lines(), before + 1);
    second.run(&["true"]).expect(0);
    assert_eq!(lines(), before + 5);
}

#[test]
fn upgrades_that_follow_each_other_at_once_lose_nothing() {
    let server = Server::start(&[]);
    for _ in 0..200 {
        server.signal(Signal::HUP);
        std::thread::yield_now();
    }
    for _ in 0..3 {
        server.run(&["true"]).expect(0);
    }
    assert!(is_alive(server.pid()));
}

/// A shell may let signals in again by itself; a program does not.
#[test]
fn runs_have_no_signal_blocked_before_and_after_an_upgrade() {
    let mut server = Server::start(&[]);
    for _ in 0..2 {
        for durable in [&[][..], &["--durable"]] {
            let mut client = Client::new(server.state()).args(durable).arg(&server.addr);
            client = client.args(&["--", "grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]);
            let text = client.run().expect(0).text();
            let sets: Vec<&str> =
                text.lines().filter_map(|l| l.split_whitespace().nth(1)).collect();
            assert_eq!(sets[0], "0000000000000000", "{text}");
            // glibc's posix_spawn ignores its two internal signals, 32 and 33, in every child.
            let ignored = u64::from_str_radix(sets[1], 16).unwrap() & !(0b11 << 31);
            assert_eq!(ignored, 0, "{text}");
        }
        upgrade(&mut server);
    }
}

/// While a child is started its thread lets signals in.
#[test]
fn no_signal_is_lost_among_many_starts() {
    let mut server = Server::start(&[]);
    let runs = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while server.run(&["--reconnect-timeout", "1s", "--", "true"]).status == 0 {
                    runs.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_until("runs", || runs.load(Ordering::Relaxed) > 20);
        server.signal(Signal::TERM);
    });
    assert_eq!(server.wait(), 0);
}

#[test]
fn after_nohup_it_ignores_sighup() {
    let server = Server::with(&[], under(&["nohup"]));
    server.signal(Signal::HUP);
    wait_for_log(&server, "SIGHUP is ignored");
    server.run(&["true"]).expect(0);
    assert!(!server.log().contains("upgrading"));
}

/// As it was before SIGHUP had a meaning: a server in the foreground does not outlive its terminal.
#[test]
fn a_server_whose_terminal_is_closed_ends() {
    let server = Server::with(&[], |command| {
        let words: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let text = format!("exec {} 2>\"$LOG\"", words.join(" "));
        let mut script = Command::new("script");
        script.args(["-q", "-c", &text, "/dev/null"]).env("SHELL", "/bin/sh");
        let state = command.get_envs().find(|(name, _)| *name == "REXEC_STATE_DIR").unwrap().1;
        let log = Path::new(state.unwrap()).with_extension("log");
        script.env("REXEC_STATE_DIR", state.unwrap()).env("LOG", log);
        *command = script;
    });
    let children = format!("/proc/{0}/task/{0}/children", server.pid());
    let inner: u32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    server.run(&["true"]).expect(0);
    server.signal(Signal::KILL);
    wait_until("the end of the server", || !is_alive(inner));
    wait_for_log(&server, "the terminal of this server was closed");
}
