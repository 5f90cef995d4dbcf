//! Users whose homes do not answer, as those on a file server that is gone: the process that reads their lists is
//! stopped in their place. It is killed 5 s later, so whatever is seen to happen while it is there did not wait for it;
//! what waits is never seen so, however often it is tried.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use super::support::server::{finish, line_of};
use super::support::user::User;
use super::support::{is_seen, kill, wait_until};
use super::system::{Machine, listed};

/// A server, and the file whose absence has the next process that reads a list stop.
struct Hung {
    machine: Machine,
    answers: PathBuf,
    _folder: tempfile::TempDir,
}

impl Hung {
    fn serving(users: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let answers = folder.path().join("answers");
        std::fs::write(&answers, "").unwrap();
        let machine = Machine::adapted(users, &[], |command| {
            command.env("REXEC_PAUSE_AT", "reader:reading").env("REXEC_PAUSE_FILE", &answers);
        });
        Self { machine, answers, _folder: folder }
    }

    /// The home that is read next does not answer.
    fn hang(&self) {
        wait_until("the end of an earlier one", || !self.waits());
        std::fs::remove_file(&self.answers).unwrap();
    }

    fn hangs(&self) -> bool {
        self.answers.exists()
    }

    /// Whether somebody waits for a home: a child of the server's is stopped.
    fn waits(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.machine.server.pid())).unwrap();
        let lists = tasks.map(|task| task.unwrap().path().join("children"));
        let pids = lists.flat_map(|list| {
            let list = std::fs::read_to_string(list).unwrap_or_default();
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        });
        pids.map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
            .any(|stat| stat.contains("(rexec-server) T ") || stat.contains("(exe) T "))
    }

    /// Somebody who logs in as this user while its home does not answer.
    fn waiting_as(&self, user: &User) -> Child {
        self.hang();
        // A list is good for a second at a login.
        loop {
            let mut child = self.machine.client(&[], &user.name).arg("echo in").spawn();
            wait_until("the end or the home that does not answer", || {
                self.waits() || child.try_wait().unwrap().is_some()
            });
            if self.hangs() {
                return child;
            }
        }
    }
}

#[test]
fn while_a_home_does_not_answer_output_and_orders_of_an_open_connection_go_on() {
    let Some(alice) = User::new() else { return };
    let hung = Hung::serving(&[&alice.name]);
    listed(&hung.machine, &alice);
    is_seen("all of the output and an order", || goes_on(&hung, &alice));
}

fn goes_on(hung: &Hung, user: &User) -> bool {
    let text =
        "trap 'head -c 20000000 /dev/zero; exit 7' INT; echo ready; while read line; do :; done";
    let mut client = hung.machine.client(&[], &user.name).arg(text);
    client.command.stdin(Stdio::piped());
    let mut client = client.spawn();
    let mut input = client.stdin.take().unwrap();
    assert_eq!(line_of(&mut client), "ready");
    hung.hang();
    // Who gives input is asked about anew each second.
    wait_until("the home that does not answer", || {
        input.write_all(b"line\n").unwrap();
        hung.hangs() && hung.waits()
    });
    kill(client.id(), Signal::INT);
    assert_eq!(finish(client).expect(7).stdout.len(), 20_000_000);
    hung.waits()
}

#[test]
fn an_order_is_the_first_to_find_that_a_home_does_not_answer() {
    let Some(alice) = User::new() else { return };
    let hung = Hung::serving(&[&alice.name]);
    listed(&hung.machine, &alice);
    is_seen("an order that is obeyed", || {
        // A look at the account is good for a tenth of a second.
        let text = "sleep 0.2; echo ready; exec sleep 600";
        let mut client = hung.machine.client(&[], &alice.name).arg(text).spawn();
        assert_eq!(line_of(&mut client), "ready");
        hung.hang();
        kill(client.id(), Signal::TERM);
        finish(client).expect(143);
        hung.waits()
    });
}

/// A home is looked for when somebody comes for the first time as a member of a group, too.
#[test]
fn a_home_that_does_not_answer_holds_up_its_own_user_only() {
    let (Some(alice), Some(carol)) = (User::new(), User::new()) else { return };
    let bob = User::with(&["-G", &alice.name]).unwrap();
    let hung = Hung::serving(&[&format!("@{}", alice.name), &carol.name]);
    [&alice, &bob, &carol].into_iter().for_each(|user| listed(&hung.machine, user));
    is_seen("others who are served", || {
        let waiting = hung.waiting_as(&alice);
        for user in [&bob, &carol] {
            hung.machine.run(&user.name, &["true"]).expect(0);
        }
        let others_were = hung.waits();
        // The list that root keeps says enough.
        assert_eq!(finish(waiting).expect(0).text(), "in\n");
        others_were
    });
}

#[test]
fn what_a_list_said_counts_on_for_a_while_when_the_home_does_not_answer() {
    let Some(alice) = User::new() else { return };
    let hung = Hung::serving(&[&alice.name]);
    alice.write(&alice.own_list(), &hung.machine.line);
    let unknown = hung.waiting_as(&alice);
    finish(unknown).expect(254);
    wait_until("the list to be read", || hung.machine.run(&alice.name, &["true"]).status == 0);
    let known = hung.waiting_as(&alice);
    finish(known).expect(0);
    let log = hung.machine.server.log();
    assert!(log.contains("do not answer; what they said last counts on"), "{log}");
}
