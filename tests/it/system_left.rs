//! System mode: what the login that has started the server has is not handed on to its users.

use std::path::Path;
use std::process::Command;

use super::support::server::under;
use super::support::user::User;
use super::system::{Machine, listed};

/// Leads a session with a terminal of its own, which it keeps open, and becomes what it is given.
const WITH_TERMINAL: &str = "
import fcntl, os, pty, sys, termios
ends = pty.openpty()
os.setsid()
fcntl.ioctl(ends[1], termios.TIOCSCTTY, 0)
for end in ends: os.set_inheritable(end, True)
os.execv(sys.argv[1], sys.argv[1:])
";

/// `add` puts a key into a keyring, `find` tells whether there is one in the session's.
const KEYS: &str = "
import ctypes, os, platform, sys
libc = ctypes.CDLL(None)
KEYCTL = {'x86_64': 250, 'aarch64': 219}[platform.machine()]
JOIN, SEARCH, SESSION, USER = 1, 10, -3, -4
def join():
    return libc.syscall(KEYCTL, JOIN, None) >= 0
def add(ring, name):
    assert libc.syscall(KEYCTL - 2, b'user', name, b'secret', 6, ring) >= 0
def find(name):
    print(libc.syscall(KEYCTL, SEARCH, SESSION, b'user', name, 0) >= 0)
";

fn python(text: &str) -> [String; 3] {
    ["python3", "-c", &format!("{KEYS}{text}")].map(str::to_owned)
}

/// Whether the system has keys for programs.
fn has_keys() -> bool {
    let [python, option, text] = python("sys.exit(not join())");
    let there = Path::new("/proc/keys").exists()
        && Command::new(python).args([option, text]).status().unwrap().success();
    if !there {
        println!("left out: there are no keys here (keyctl(2))");
    }
    there
}

/// One that is started by hand where it leads the session, as in a container, keeps its terminal: who has that too
/// could type into it.
#[test]
fn a_users_command_does_not_get_at_the_servers_terminal() {
    let Some(alice) = User::new() else { return };
    let prefix = ["python3", "-c", WITH_TERMINAL];
    let machine = Machine::adapted(&[&alice.name], &[], under(&prefix));
    listed(&machine, &alice);
    assert!(machine.server.log().contains("keeps its terminal"), "{}", machine.server.log());
    let ran = machine.run(&alice.name, &["exec 3< /dev/tty && echo there"]);
    assert_eq!((ran.text().as_str(), ran.status != 0), ("", true), "{}", ran.stderr);
}

#[test]
fn keys_of_the_servers_session_and_of_other_users_are_not_handed_on() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    if !has_keys() {
        return;
    }
    let [python3, option, text] =
        python("join(); add(SESSION, b'of-root'); os.execv(sys.argv[1], sys.argv[1:])");
    let prefix = [&*python3, &*option, &*text];
    let machine = Machine::adapted(&[&alice.name, &bob.name], &[], under(&prefix));
    listed(&machine, &alice);
    listed(&machine, &bob);
    let run = |user: &User, text: &str| {
        let words = python(text);
        let words = [&["--"][..], &words.each_ref().map(String::as_str)].concat();
        machine.run(&user.name, &words).expect(0).text()
    };
    // The next account may have this one's number, and with it what is kept.
    let kept = format!("b'{}'", alice.name);
    let text = format!(
        "add(SESSION, b'of-alice'); add(USER, {kept}); find(b'of-root'); find(b'of-alice')"
    );
    assert_eq!(run(&alice, &text), "False\nTrue\n");
    assert_eq!(run(&bob, &format!("find(b'of-alice'); find({kept})")), "False\nFalse\n");
    let again = run(&alice, &format!("find({kept})"));
    assert_eq!(again, "True\n", "what a user keeps for other logins");
}
