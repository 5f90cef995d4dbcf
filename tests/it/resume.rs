//! Lost links and lost servers, through the real programs: one execution, the whole output or an honest
//! failure, and never a hang.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rexec::proto::digest::Digest;
use rustix::process::Signal;
use serde_json::json;

use super::killed::paused_at;
use super::support::fake::{self, Fake};
use super::support::raw::Raw;
use super::support::relay::{Relay, Way};
use super::support::server::{finish, line_of};
use super::support::{Client, Random, Server, in_parallel, is_alive, kill, pid_in, wait_until};

pub(super) fn executions(effect: &Path) -> usize {
    std::fs::read_to_string(effect).map_or(0, |text| text.lines().count())
}

/// brevdev/brev-cli#457: reconnecting ran it twice. A link that dies before TLS is there is no reason to give up either.
#[test]
fn a_link_cut_anywhere_is_resumed_by_the_real_programs() {
    const EACH_WAY: u64 = 60;
    let server = Server::start(&[]);
    let stdin: Vec<u8> = (0..150_000u32).flat_map(u32::to_le_bytes).collect();
    let run = |n: usize, way: Way, at: u64| {
        let relay = Relay::to(&server.addr);
        relay.cut_after(&[(way, at)]);
        let effect = server.dir().join(format!("effect{n}"));
        let text = format!("echo x >> {}; cat; echo e >&2; exit 7", effect.display());
        let ran = Client::new(server.state()).args(&[&relay.addr, &text]).run_with(&stdin);
        let what = format!("cut {way:?} after {at}");
        assert_eq!(ran.status, 7, "{what}: {}", ran.stderr);
        assert!(ran.stdout == stdin && ran.stderr == "e\n", "{what}: {}", ran.stderr);
        assert_eq!((executions(&effect), relay.connections()), (1, 2), "{what}");
    };
    // TLS's own bytes, the login and the request come first; then the streams.
    let mut random = Random::new();
    let cuts: Vec<_> = [Way::Up, Way::Down]
        .into_iter()
        .flat_map(|way| (0..EACH_WAY).map(move |n| (way, n)))
        .map(|(way, n)| match n % 2 {
            0 => (way, n * 61),
            _ => (way, random.below(stdin.len() as u64)),
        })
        .collect();
    in_parallel(8, cuts.len(), |n| {
        let (way, at) = cuts[n];
        run(n, way, at);
    });
}

#[test]
fn megabytes_of_stdin_arrive_exactly_over_a_link_that_is_cut_again_and_again() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let mut random = Random::new();
    let stdin: Vec<u8> = (0..600_000).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
    relay.cut_after(&(1..=12).map(|n| (Way::Up, n * 50_000)).collect::<Vec<_>>());
    let client = Client::new(server.state()).args(&[&relay.addr, "exec sha256sum"]);
    let ran = client.run_with(&stdin).expect(0);
    assert_eq!(ran.text(), format!("{}  -\n", Digest::of(&stdin)));
    assert_eq!(relay.connections(), 13);
}

/// actions/runner#793, actions/runner-images#3245: a long silent command outlives its link.
#[test]
fn a_silent_command_outlives_its_link() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let (pid, gate) = (server.dir().join("pid"), server.dir().join("gate"));
    let text = format!(
        "echo $$ > {}; while [ ! -e {} ]; do sleep 0.05; done; echo done",
        pid.display(),
        gate.display()
    );
    let child = Client::new(server.state()).args(&["-v", &relay.addr, &text]).spawn();
    pid_in(&pid);
    for connections in 2..=4 {
        relay.cut();
        wait_until("the reconnection", || relay.connections() >= connections);
    }
    std::fs::write(gate, "").unwrap();
    let ran = finish(child).expect(0);
    assert_eq!(ran.text(), "done\n");
    let told = ran.stderr.lines().filter(|line| line.starts_with("rexec: reconnecting: ")).count();
    assert!(told >= 3, "{}", ran.stderr);
}

#[test]
fn a_server_that_is_shutting_down_still_lets_a_lost_client_come_back() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let (pid, gate) = (server.dir().join("pid"), server.dir().join("gate"));
    let text = format!(
        "echo $$ > {}; while [ ! -e {} ]; do sleep 0.05; done; echo done; exit 3",
        pid.display(),
        gate.display()
    );
    let child = Client::new(server.state()).args(&[&relay.addr, &text]).spawn();
    pid_in(&pid);
    server.signal(Signal::TERM);
    wait_until("the shutdown", || server.log().contains("shutting down"));
    relay.cut();
    wait_until("the reconnection", || relay.connections() == 2);
    std::fs::write(gate, "").unwrap();
    assert_eq!(finish(child).expect(3).text(), "done\n");
}

#[test]
fn within_its_grace_a_run_waits_and_keeps_its_output() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("one", "echo a; read x; echo b", json!({"stdin": true}));
    assert_eq!(raw.until("output").pop().unwrap().1, b"a\n");
    drop(raw);
    let mut raw = Raw::login(&server);
    raw.run("one", "echo a; read x; echo b", json!({"stdin": true, "was_started": true}));
    raw.expect("started");
    assert_eq!(raw.expect("output").1, b"a\n", "what was not confirmed is sent again");
    let hash = Digest::of(b"");
    raw.send(&json!({"type": "stdin_end", "offset": 0, "hash": hash}), b"");
    assert_eq!(raw.expect("output").1, b"b\n");
    assert_eq!(raw.expect("verdict").0["stopped"], json!(null));
}

/// A command that leaves its trace and its pid, and then never ends.
pub(super) fn endless(server: &Server) -> String {
    let dir = server.dir().display();
    format!("echo x >> {dir}/effect; echo $$ > {dir}/pid; exec sleep 1000")
}

pub(super) fn journal_has(server: &Server, kind: &str) -> bool {
    server.journal().iter().any(|line| line["type"] == kind)
}

#[test]
fn a_server_that_is_gone_for_good_is_given_up_in_time() {
    let mut server = Server::start(&[]);
    let text = endless(&server);
    let child = server.client().args(&["--reconnect-timeout", "500ms", &text]).spawn();
    let pid = pid_in(&server.dir().join("pid"));
    server.crash();
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("did not come back"), "{}", ran.stderr);
    kill(pid, Signal::KILL);
}

#[test]
fn a_link_that_stays_dead_is_given_up_in_time_and_the_run_with_it() {
    let server = Server::start(&[]);
    let relay = Relay::to(&server.addr);
    let text = endless(&server);
    let client = Client::new(server.state());
    let child = client
        .args(&["--grace", "100ms", "--reconnect-timeout", "500ms", &relay.addr, &text])
        .spawn();
    let pid = pid_in(&server.dir().join("pid"));
    relay.close(true);
    relay.cut();
    finish(child).expect(253);
    wait_until("the end of the run", || !is_alive(pid) && journal_has(&server, "ended"));
}

#[test]
fn another_server_that_has_taken_the_address_is_not_asked_to_run_it() {
    let mut server = Server::start(&[]);
    let text = endless(&server);
    let child = server.client().args(&["--reconnect-timeout", "1s", &text]).spawn();
    let pid = pid_in(&server.dir().join("pid"));
    server.crash();
    let dir = tempfile::tempdir().unwrap();
    let other = Server::at(&dir.path().join("state"), &server.addr, &[], |_| ());
    finish(child).expect(253);
    assert!(other.journal().iter().all(|line| line["type"] == "opened"), "it was let in");
    assert_eq!(executions(&server.dir().join("effect")), 1);
    kill(pid, Signal::KILL);
}

/// One account's servers share the host key: another one on the same port passes for the first.
#[test]
fn another_server_of_the_same_account_does_not_start_what_was_started_elsewhere() {
    let mut server = Server::start(&[]);
    // Its memory begins before the run.
    let (state, socket) = (server.state().to_owned(), server.dir().join("other.sock"));
    let start_other = |addr: &str| {
        Server::at(&state, addr, &[], |command| {
            *command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
            command.args(["--name", "other", "--listen", addr, "--listen"]);
            command.arg(format!("unix:{}", socket.display())).env("REXEC_STATE_DIR", &state);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        })
    };
    drop(start_other("127.0.0.1:0"));
    let text = endless(&server);
    let mut child = server.client().arg(format!("echo; {text}")).spawn();
    // The other server cannot know of the run, so the client has to.
    line_of(&mut child);
    let pid = pid_in(&server.dir().join("pid"));
    let addr = server.addr.clone();
    server.crash();
    let other = start_other(&addr);
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("memory"), "{}", ran.stderr);
    assert_eq!(executions(&server.dir().join("effect")), 1);
    drop(other);
    kill(pid, Signal::KILL);
}

#[test]
fn a_client_whose_run_was_taken_over_says_so() {
    let server = Server::start(&[]);
    let text = endless(&server);
    let child = server.client().arg(&text).spawn();
    pid_in(&server.dir().join("pid"));
    wait_until("the running line", || journal_has(&server, "running"));
    let lines = server.journal();
    let running = lines.iter().find(|line| line["type"] == "running").unwrap();
    let mut raw = Raw::login(&server);
    raw.run(running["run"].as_str().unwrap(), &text, json!({}));
    assert_eq!(raw.expect("started").0["attached"], true);
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("taken"), "{}", ran.stderr);
    raw.send(&json!({"type": "cancel"}), b"");
    raw.until("verdict");
}

/// The first connection dies without an answer; its request arrives late and takes the run from the second.
#[test]
fn a_run_taken_over_by_its_own_late_request_is_taken_back() {
    let turn = AtomicUsize::new(0);
    let fake = Fake::start(move |raw| {
        let id = fake::welcome(raw);
        match turn.fetch_add(1, Ordering::SeqCst) {
            0 => {}
            1 => {
                raw.send(&fake::started(&id), b"");
                raw.send(&json!({"type": "error", "code": "taken_over", "text": "t"}), b"");
            }
            _ => {
                raw.send(&fake::started(&id), b"");
                raw.send(&fake::verdict(&id, 1, b""), b"");
                raw.next();
            }
        }
    });
    fake.run().expect(0);
    assert_eq!(fake.connections(), 3);
}

/// A server that stands still after the request: nobody knows whether it was started, so cancelling it
/// waits for an answer, but not for the 45 s that a silent connection lives.
#[test]
fn a_client_can_be_stopped_while_the_server_stands_still() {
    let (server, child) = paused_at("accepted", endless);
    let asked = Instant::now();
    kill(child.id(), Signal::TERM);
    finish(child).expect(253);
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    server.signal(Signal::CONT);
}

/// The cancel crosses the end of the run, whose output nobody here has read: that is no exit status 0.
#[test]
fn a_cancel_that_crosses_the_end_of_a_run_does_not_make_short_output_a_success() {
    let server = Server::start(&[]);
    let mut child = server.client().arg("head -c 200000 /dev/zero").spawn();
    wait_until("the end of the run", || journal_has(&server, "ended"));
    // Nobody reads the client's stdout: a pipe holds less than that.
    kill(child.id(), Signal::TERM);
    wait_until("the end of the client", || child.try_wait().unwrap().is_some());
    let ran = finish(child);
    assert!(ran.stdout.len() < 200_000 && ran.status == 143, "{}: {}", ran.status, ran.stderr);
}

fn new_key(path: &Path) -> String {
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
    std::fs::read_to_string(path.with_extension("pub")).unwrap()
}

/// Under another identity the same request would be another run.
#[test]
fn a_run_is_not_asked_for_again_under_another_of_the_clients_keys() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, keys] = ["first", "second", "keys"].map(|name| dir.path().join(name));
    std::fs::write(&keys, new_key(&first)).unwrap();
    let other = new_key(&second);
    let server = Server::start(&["--authorized-keys", keys.to_str().unwrap()]);
    let relay = Relay::to(&server.addr);
    let text = endless(&server);
    let child = Client::new(server.state())
        .args(&["-i", first.to_str().unwrap(), "-i", second.to_str().unwrap(), &relay.addr, &text])
        .spawn();
    pid_in(&server.dir().join("pid"));
    std::fs::write(&keys, other).unwrap();
    relay.cut();
    let ran = finish(child).expect(253);
    assert!(ran.stderr.contains("authorized"), "{}", ran.stderr);
    assert_eq!(executions(&server.dir().join("effect")), 1);
    let identities: Vec<_> = server
        .journal()
        .iter()
        .filter_map(|line| line["identity"].as_str().map(str::to_owned))
        .collect();
    assert!(identities.windows(2).all(|two| two[0] == two[1]), "{identities:?}");
}

/// What is given up is an outage, not a link that dies often: each of these connections brings a piece.
#[test]
fn a_link_that_brings_something_each_time_it_is_up_is_not_given_up() {
    const PIECES: u64 = 12;
    let fake = Fake::start(|raw| {
        raw.expect("hello");
        raw.send(&json!({"type": "welcome", "server": "fake", "identity": "local:0"}), b"");
        let (run, _) = raw.next().unwrap();
        let (id, after) = (run["id"].as_str().unwrap(), run["after"].as_u64().unwrap());
        assert_eq!(run["was_started"].as_bool().unwrap_or(false), after > 0);
        raw.send(&fake::started(id), b"");
        let whole: Vec<u8> = (0..PIECES).map(|n| b'a' + u8::try_from(n).unwrap()).collect();
        let at = usize::try_from(after).unwrap();
        if after < PIECES {
            let header = fake::output("stdout", after + 1, after, &whole[..=at]);
            raw.send(&header, &whole[at..=at]);
        } else {
            raw.send(&fake::verdict(id, PIECES + 1, &whole), b"");
            raw.next();
        }
    });
    // The pauses before the reconnections add up to more than the 300 ms for which it would wait.
    assert_eq!(fake.run().expect(0).text(), "abcdefghijkl");
    assert_eq!(fake.connections() as u64, PIECES + 1);
}
