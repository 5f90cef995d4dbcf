//! Durable runs whose server, supervisor or both are killed at each commit of state.

use std::path::PathBuf;
use std::process::Child;

use rustix::process::Signal;
use tempfile::TempPath;

use super::durable::{folders_in, verb};
use super::resume::executions;
use super::support::server::{spare_supervisors, supervisor_of};
use super::support::{
    Client, Ran, Server, finish, in_parallel, is_alive, json_in, pid_in, supervisors, try_kill,
    wait_until,
};

/// Who is killed, while the one that reached the point is stopped there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Server,
    Supervisor,
    Both,
}

/// What the client of the run, and whoever asks for it again, is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The run's own end, as if nothing had happened.
    Verdict,
    /// Nothing was started; the next one with the id is.
    NeverStarted,
    /// Either of them: whether the client comes back before or after it is known that nothing was started.
    VerdictOrNeverStarted,
    /// Nobody can know.
    Lost,
}

/// When the run's supervisor was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Supervisor {
    /// For this run.
    New,
    /// Before it, to wait for one.
    Ready,
}

/// A durable run with an id, and the point at which a program stops.
pub(super) struct Held {
    pub(super) server: Server,
    command: String,
    pub(super) client: Option<Child>,
    /// The command ends when it is there.
    pub(super) gate: PathBuf,
    /// While it is there nobody else stops.
    _reached: TempPath,
}

impl Held {
    pub(super) fn at(point: &str) -> Self {
        Self::with(Supervisor::New, point)
    }

    fn with(supervisor: Supervisor, point: &str) -> Self {
        let file = pause_file();
        let server = Server::with(&[], |command| {
            command.env("REXEC_PAUSE_AT", point).env("REXEC_PAUSE_FILE", &file);
        });
        if supervisor == Supervisor::Ready {
            std::fs::write(&file, "").unwrap();
            Client::new(server.state()).args(&["--durable", &server.addr, "true"]).run().expect(0);
            wait_until("a supervisor that waits", || spare_supervisors(server.state()).len() == 1);
            wait_until("the end of the first", || supervisors(server.state()).is_empty());
            std::fs::remove_file(&file).unwrap();
        }
        let (gate, dir) = (server.dir().join("gate"), server.dir().display().to_string());
        let command = format!(
            "echo x >> {dir}/effect; echo out; echo $$ > {dir}/pid; \
             while ! test -e {dir}/gate; do sleep 0.01; done; exit 7"
        );
        if AT_THE_END.iter().any(|end| point.ends_with(end)) {
            std::fs::write(&gate, "").unwrap();
        }
        let client = named(&server, &command).spawn();
        wait_until(point, || file.exists());
        Self { server, command, client: Some(client), gate, _reached: file }
    }

    /// Kills the client that has asked for the run.
    pub(super) fn abandon(&mut self) {
        let mut client = self.client.take().unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
    }

    /// Whoever asks for the run again.
    pub(super) fn ask(&self) -> Client {
        named(&self.server, &self.command)
    }

    pub(super) fn effects(&self) -> usize {
        executions(&self.server.dir().join("effect"))
    }
}

pub(super) fn pause_file() -> TempPath {
    let file = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::remove_file(&file).unwrap();
    file
}

fn named(server: &Server, command: &str) -> Client {
    Client::new(server.state()).args(&["--id", "job", &server.addr, command])
}

/// Points that are reached when the command has ended.
const AT_THE_END: &[&str] = &["ended", "journaled", "noted", "finished", "recorded", "confirmed"];

/// Points that are reached from the claim on until the command runs.
const AT_THE_START: &[&str] =
    &["accepted", "launched", "running", "asked", "locked", "claimed", "spawned"];

const CASES: &[(&str, Killed, End)] = &[
    ("accepted", Killed::Server, End::Verdict),
    ("launched", Killed::Server, End::VerdictOrNeverStarted),
    ("launched", Killed::Both, End::VerdictOrNeverStarted),
    ("running", Killed::Server, End::Verdict),
    ("running", Killed::Both, End::Lost),
    ("journaled", Killed::Server, End::Verdict),
    ("journaled", Killed::Both, End::Verdict),
    ("noted", Killed::Server, End::Verdict),
    ("supervisor:born", Killed::Server, End::VerdictOrNeverStarted),
    ("supervisor:born", Killed::Supervisor, End::NeverStarted),
    ("supervisor:born", Killed::Both, End::VerdictOrNeverStarted),
    ("supervisor:asked", Killed::Server, End::VerdictOrNeverStarted),
    ("supervisor:asked", Killed::Supervisor, End::NeverStarted),
    ("supervisor:asked", Killed::Both, End::VerdictOrNeverStarted),
    // The request follows when the claim is on the disk.
    ("supervisor:locked", Killed::Server, End::VerdictOrNeverStarted),
    ("supervisor:locked", Killed::Supervisor, End::NeverStarted),
    ("supervisor:locked", Killed::Both, End::VerdictOrNeverStarted),
    ("supervisor:claimed", Killed::Server, End::Verdict),
    ("supervisor:claimed", Killed::Supervisor, End::Lost),
    ("supervisor:claimed", Killed::Both, End::Lost),
    ("supervisor:accepted", Killed::Server, End::Verdict),
    ("supervisor:accepted", Killed::Supervisor, End::Lost),
    ("supervisor:accepted", Killed::Both, End::Lost),
    ("supervisor:spawned", Killed::Server, End::Verdict),
    ("supervisor:spawned", Killed::Supervisor, End::Lost),
    ("supervisor:spawned", Killed::Both, End::Lost),
    ("supervisor:running", Killed::Server, End::Verdict),
    ("supervisor:running", Killed::Supervisor, End::Lost),
    ("supervisor:running", Killed::Both, End::Lost),
    ("supervisor:written", Killed::Server, End::Verdict),
    ("supervisor:written", Killed::Supervisor, End::Lost),
    ("supervisor:written", Killed::Both, End::Lost),
    ("supervisor:ended", Killed::Server, End::Verdict),
    ("supervisor:ended", Killed::Supervisor, End::Lost),
    ("supervisor:ended", Killed::Both, End::Lost),
    ("supervisor:journaled", Killed::Server, End::Verdict),
    ("supervisor:journaled", Killed::Supervisor, End::Lost),
    ("supervisor:journaled", Killed::Both, End::Lost),
    ("supervisor:finished", Killed::Server, End::Verdict),
    ("supervisor:finished", Killed::Supervisor, End::Verdict),
    ("supervisor:finished", Killed::Both, End::Verdict),
    ("supervisor:recorded", Killed::Server, End::Verdict),
    ("supervisor:recorded", Killed::Supervisor, End::Verdict),
    ("supervisor:recorded", Killed::Both, End::Verdict),
    ("supervisor:confirmed", Killed::Server, End::Verdict),
    ("supervisor:confirmed", Killed::Supervisor, End::Verdict),
    ("supervisor:confirmed", Killed::Both, End::Verdict),
];

/// brevdev/brev-cli#457: what was cut ran twice.
#[test]
fn whoever_is_killed_at_whatever_commit_of_state_the_run_has_one_effect_at_most_and_one_answer() {
    in_parallel(6, CASES.len(), |n| check(CASES[n], Supervisor::New));
}

#[test]
fn a_run_whose_supervisor_was_ready_before_it_is_started_once_at_most_too() {
    let is_of_the_start = |point: &str| AT_THE_START.iter().any(|start| point.ends_with(start));
    let cases: Vec<_> = CASES.iter().filter(|(point, ..)| is_of_the_start(point)).collect();
    in_parallel(6, cases.len(), |n| check(*cases[n], Supervisor::Ready));
}

/// Nobody was there to remove it.
#[test]
fn a_socket_that_a_dead_supervisor_has_left_is_none_for_the_next_server() {
    let mut held = Held::at("supervisor:running");
    held.abandon();
    let supervisor = supervisor_of(held.server.state());
    held.server.crash();
    try_kill(supervisor, Signal::KILL);
    wait_until("its end", || !is_alive(supervisor));
    let folder = folders_in(&held.server.state().join("instances/test/runs")).remove(0);
    let socket = folder.join("socket");
    assert!(socket.exists());
    held.server.restart();
    let ran = held.ask().run().expect(253);
    assert!(ran.stderr.contains("kept the durable run was ended"), "{}", ran.stderr);
    verb(&held.server, "wait", &["job"]).expect(253);
    wait_until("the end of the socket", || !socket.exists());
    assert!(held.effects() <= 1);
}

/// Its line is written, what sums it up is not: the next server finds both in the journal and the record.
#[test]
fn a_verdict_whose_server_was_killed_behind_its_line_in_the_journal_names_that_line() {
    for killed in [Killed::Server, Killed::Both] {
        let mut held = Held::at("journaled");
        let supervisors = supervisors(held.server.state());
        held.abandon();
        held.server.crash();
        if killed == Killed::Both {
            // One that its server has left may have ended by itself.
            for supervisor in supervisors {
                try_kill(supervisor, Signal::KILL);
            }
        }
        held.server.restart();
        let file = held.server.dir().join("verdict");
        let asked = ["--id", "job", "--verdict", file.to_str().unwrap(), &held.server.addr];
        Client::new(held.server.state()).args(&asked).arg(&held.command).run().expect(7);
        let anchor = &json_in(&file)["verdict"]["journal"];
        let (seq, hash) = (&anchor["seq"], anchor["hash"].as_str().unwrap());
        let lines = held.server.journal();
        let ended: Vec<_> = lines.iter().filter(|line| line["type"] == "ended").collect();
        assert_eq!((ended.len(), &ended[0]["seq"]), (1, seq), "{killed:?}");
        let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        verify.args(["journal", "verify", "--name", "test", "--anchor", &format!("{seq}:{hash}")]);
        verify.env("REXEC_STATE_DIR", held.server.state());
        assert!(verify.output().unwrap().status.success(), "{killed:?}");
    }
}

#[test]
fn what_could_not_be_started_is_written_down_once_although_its_server_was_killed_meanwhile() {
    let file = pause_file();
    let mut server = Server::with(&[], |command| {
        command.env("REXEC_PAUSE_AT", "unborn").env("REXEC_PAUSE_FILE", &file);
    });
    let asked = ["--id", "job", &server.addr, "--", "/no/such/program"];
    let client = Client::new(server.state()).args(&asked).spawn();
    wait_until("the point", || file.exists());
    server.restart();
    finish(client).expect(254);
    wait_until("its line", || server.journal().iter().any(|line| line["type"] == "not_started"));
    server.restart();
    let lines = server.journal();
    let count = |kind| lines.iter().filter(|line| line["type"] == kind).count();
    // The client comes back to the second server and asks once more.
    assert!(count("not_started") <= count("accepted"), "{lines:?}");
    assert_eq!(folders_in(&server.state().join("instances/test/runs")), Vec::<PathBuf>::new());
}

fn check((point, killed, end): (&str, Killed, End), supervisor: Supervisor) {
    let what = format!("{point}, {killed:?} killed, supervisor {supervisor:?}");
    let mut held = Held::with(supervisor, point);
    let state = held.server.state();
    // One that has stopped may not have its run yet.
    let supervisor = match point.starts_with("supervisor:") {
        true => Some(supervisor_of(state)),
        false => supervisors(state).first().copied(),
    };
    if killed != Killed::Supervisor {
        // First, or it would still say what became of its supervisor.
        held.server.crash();
    }
    if killed != Killed::Server {
        // One that has seen its server go may have gone by itself.
        let killed_too = try_kill(supervisor.unwrap(), Signal::KILL);
        assert!(killed_too || killed == Killed::Both, "{what}");
    }
    if killed != Killed::Supervisor {
        held.server.restart();
    }
    if let (Killed::Server, Some(supervisor)) = (killed, supervisor) {
        // One that was not stopped may have ended by itself.
        try_kill(supervisor, Signal::CONT);
    }
    if end != End::Lost {
        std::fs::write(&held.gate, "").unwrap();
    }
    let ran = finish(held.client.take().unwrap());
    let again = held.ask().run();
    judge(&held, end, [&ran, &again], &what);
    nothing_is_left(&held, &what);
}

fn judge(held: &Held, end: End, [ran, again]: [&Ran; 2], what: &str) {
    let statuses = (ran.status, again.status);
    let all = format!("{what}: {statuses:?}\n{}\n{}", ran.stderr, again.stderr);
    match end {
        End::VerdictOrNeverStarted if statuses.0 == 254 => {
            // It was given up; nothing that was on its way can start it.
            assert_eq!((statuses, held.effects()), ((254, 254), 0), "{all}");
        }
        End::Verdict | End::VerdictOrNeverStarted => {
            assert_eq!((statuses, held.effects()), ((7, 7), 1), "{all}");
            assert_eq!((ran.text(), again.text()), ("out\n".into(), "out\n".into()), "{all}");
            let attached = verb(&held.server, "attach", &["job"]);
            assert_eq!((attached.status, attached.text()), (7, "out\n".into()), "{all}");
        }
        End::NeverStarted => {
            assert_eq!((statuses, held.effects()), ((254, 7), 1), "{all}");
            assert_eq!((ran.text(), again.text()), (String::new(), "out\n".into()), "{all}");
        }
        End::Lost => {
            assert_eq!(statuses, (253, 253), "{all}");
            assert!(held.effects() <= 1, "{all}");
            assert!(["", "out\n"].contains(&&*again.text()), "{all}");
        }
    }
    let lines = held.server.journal();
    let is_last = |l: &&serde_json::Value| {
        (l["type"] == "ended" && l["verdict"]["run"] == "job")
            || (l["type"] == "lost" && l["run"] == "job")
    };
    assert!(lines.iter().filter(is_last).count() <= 1, "{all}");
}

fn nothing_is_left(held: &Held, what: &str) {
    wait_until(&format!("no supervisor, {what}"), || supervisors(held.server.state()).is_empty());
    let pid = held.server.dir().join("pid");
    if pid.exists() {
        let pid = pid_in(&pid);
        wait_until(&format!("no process, {what}"), || !is_alive(pid));
    }
    for run in folders_in(&held.server.state().join("instances/test/runs")) {
        let left = run.join("socket");
        assert!(!left.exists(), "a socket is left, {what}");
    }
}
