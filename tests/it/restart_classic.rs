//! SIGTERM to a server whose sockets outlive it, beside which it serves the tutorial's clients on one of its own.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::classic::asking;
use super::support::activate::Sockets;
use super::support::other::{Other, UID};
use super::support::server::{Ran, finish, own_port};
use super::support::{Client, is_alive, kill, pid_in, wait_until};

/// A server that is not root's, which does not serve them.
struct Others<'a> {
    other: &'a Other,
    sockets: Sockets,
    state: &'a Path,
    classic: String,
}

impl Others<'_> {
    /// The next server, once it serves.
    fn server(&self) -> Child {
        let classic = format!("json={}", self.classic);
        let args = ["--verbose", "--drain-timeout", "1h", "--classic", &classic];
        let program = self.other.path("rexec-server");
        let mut command = self.sockets.handed_to(UID, &program, &args);
        let log = self.other.path("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        command.env("REXEC_STATE_DIR", self.state).stdout(Stdio::piped()).stderr(log);
        let mut server = command.spawn().unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let line = format!("listening json on {}", self.classic);
        assert!(lines.map_while(Result::ok).any(|said| said == line), "{}", self.log());
        server
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.other.path("log")).unwrap()
    }

    fn client(&self, text: &str) -> Child {
        let address = &self.sockets.addresses()[0];
        let mut client = Client::new(self.state).args(&[address, text]);
        self.other.become_it(&mut client.command);
        client.spawn()
    }

    /// A client of the tutorial's.
    fn tutorial(&self, text: &str) -> Command {
        asking(&self.classic, Some(UID), &[text])
    }
}

/// They do not come back by themselves, so that nobody waits for them; the next server has their address.
#[test]
fn the_tutorials_clients_are_let_go_at_once_and_served_by_the_next_server() {
    let Some(other) = Other::new() else { return };
    let (state, work) = (other.folder("state"), other.folder("work"));
    let sockets = Sockets::new();
    let all = Others { other: &other, sockets, state: &state, classic: own_port() };
    let mut server = all.server();
    let (go, pid) = (work.join("go"), work.join("pid"));
    let wait = format!("while [ ! -e {} ]; do sleep 0.01; done; exit 6", go.display());
    let run = all.client(&wait);
    let text = format!("echo $$ > {}; exec sleep 600", pid.display());
    let cut_off = all.tutorial(&text).stdout(Stdio::piped()).spawn().unwrap();
    let command = pid_in(&pid);
    wait_until("its login", || all.log().contains("logged in"));
    kill(server.id(), Signal::TERM);
    wait_until("the shutdown", || all.log().contains("shutting down: new runs wait"));
    assert_ne!(finish(cut_off).status, 0);
    wait_until("the end of its command", || !is_alive(command));
    let effect = work.join("effect");
    let touch = format!("touch {}", effect.display());
    let mut late = all.tutorial(&touch).spawn().unwrap();
    wait_until("its end, since nobody listens there", || late.try_wait().unwrap().is_some());
    assert!(!late.wait().unwrap().success());
    let held = all.client("echo held");
    wait_until("the login of what waits", || all.log().matches("logged in").count() == 2);
    assert!(server.try_wait().unwrap().is_none() && !effect.exists());
    std::fs::write(go, "").unwrap();
    finish(run).expect(6);
    assert!(server.wait().unwrap().success(), "{}", all.log());
    let mut server = all.server();
    assert_eq!(finish(held).expect(0).text(), "held\n");
    let served = Ran::of(all.tutorial("echo one").output().unwrap());
    assert_eq!(served.expect(0).text(), "one\n");
    kill(server.id(), Signal::TERM);
    assert!(server.wait().unwrap().success(), "{}", all.log());
}
