//! The prompt on a terminal, which `script` (util-linux) makes.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::Arc;

use rustix::process::Signal;

use super::support::{Server, kill, terminal::Terminal};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";

#[test]
fn the_prompt_runs_line_after_line_over_one_connection() {
    let server = Server::start(&["--verbose"]);
    let mut terminal = Terminal::open(&server);
    terminal.shows("leave with exit or Ctrl-D");
    terminal.shows("rexec> ");
    terminal.types("echo o''ne\n");
    terminal.shows("\none\r\n");
    terminal.shows("rexec> ");
    terminal.types("\n   \n");
    terminal.shows("rexec> ");
    terminal.shows("rexec> ");
    terminal.types("  echo t''wo >&2; exit 3\n");
    terminal.shows("\ntwo\r\n");
    terminal.shows("[3] rexec> ");
    terminal.types("exit\n");
    assert_eq!(terminal.ends(), 3);
    assert_eq!(server.log().matches("logged in").count(), 1, "{}", server.log());
    assert_eq!(server.journal().iter().filter(|line| line["type"] == "ended").count(), 2);
}

/// A terminal sends what its keyboard makes, which need not be UTF-8.
#[test]
fn a_line_is_passed_on_byte_by_byte() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open(&server);
    terminal.shows("rexec> ");
    terminal.types(b"printf '<\xe9>' | od -An -tx1\n");
    terminal.shows("3c e9 3e");
    terminal.shows("rexec> ");
    terminal.types("exit\n");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn exit_leaves_with_its_number() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open(&server);
    terminal.shows("rexec> ");
    terminal.types("exit 7\n");
    assert_eq!(terminal.ends(), 7);
    assert!(server.journal().iter().all(|line| line["type"] != "accepted"));
}

#[test]
fn there_is_no_prompt_without_a_server() {
    let mut server = Server::start(&[]);
    server.crash();
    let mut terminal = Terminal::open(&server);
    let before = terminal.shows("is rexec-server running there?");
    let screen = Arc::clone(&terminal.screen);
    assert_eq!(terminal.ends(), 255);
    assert!(!before.contains("rexec> ") && !screen.lock().unwrap().contains("rexec> "));
}

/// Signals are held from before the connection on: somebody has to hear them there too.
#[test]
fn ctrl_c_leaves_a_prompt_whose_server_does_not_answer() {
    let server = Server::start(&[]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut terminal = Terminal::open_at(&server, &silent.local_addr().unwrap().to_string());
    let (mut called, _) = silent.accept().unwrap();
    called.read_exact(&mut [0]).unwrap();
    terminal.types(CTRL_C);
    assert_eq!(terminal.ends(), 130);
}

#[test]
fn a_prompt_has_no_one_file_for_its_commands() {
    let server = Server::start(&[]);
    for option in ["--json", "-o /dev/null", "--verdict /dev/null", "-d", "--id x"] {
        let mut terminal = Terminal::open_at(&server, &format!("{option} {}", server.addr));
        terminal.shows("are for one command");
        assert_eq!(terminal.ends(), 2);
    }
}

#[test]
fn ctrl_c_ends_the_command_and_not_the_prompt() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open(&server);
    terminal.shows("rexec> ");
    terminal.types(CTRL_C);
    terminal.shows("rexec> ");
    terminal.types("echo sl''eeping; exec sleep 600\n");
    terminal.shows("sleeping");
    terminal.types(CTRL_C);
    terminal.shows("killed by signal 2 (SIGINT)");
    terminal.shows("rexec> ");
    terminal.types("echo aw''ake\n");
    terminal.shows("awake");
    terminal.shows("rexec> ");
    terminal.types(CTRL_D);
    assert_eq!(terminal.ends(), 0);
}

/// What the user was too impatient to hear about is not called "never started".
#[test]
fn a_third_ctrl_c_gives_the_command_up_and_the_next_one_runs() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::open(&server);
    terminal.shows("rexec> ");
    terminal.types(
        "trap 'echo n''ot' INT; trap 'echo n''ever' TERM; echo re''ady; while :; do sleep 0.01; done\n",
    );
    for answer in ["ready", "not\r\n", "never\r\n"] {
        terminal.shows(answer);
        terminal.types(CTRL_C);
    }
    terminal.shows("cannot know how run ");
    let id = terminal.shows(" ended: interrupted again");
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    terminal.shows("rexec> ");
    terminal.types("echo ag''ain\n");
    terminal.shows("again");
    terminal.types("exit\n");
    assert_eq!(terminal.ends(), 0);
}

/// The client among the descendants of the program that made its terminal.
fn client_of(pid: u32) -> Option<u32> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    if name == "rexec\n" {
        return Some(pid);
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().find_map(|child| client_of(child.parse().ok()?))
}

#[test]
fn sigterm_and_sighup_at_the_prompt_leave_it() {
    let server = Server::start(&[]);
    for signal in [Signal::TERM, Signal::HUP] {
        let mut terminal = Terminal::open(&server);
        terminal.shows("rexec> ");
        terminal.types("echo do''ne\n");
        terminal.shows("done");
        terminal.shows("rexec> ");
        kill(client_of(terminal.child.id()).unwrap(), signal);
        assert_eq!(terminal.ends(), 143);
    }
}
