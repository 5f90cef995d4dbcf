//! The environment of a command, and the secrets in it.

use std::path::Path;

use super::support::kill;
use super::support::server::{Server, finish, line_of};

#[test]
fn variables_are_set_by_value_or_taken_from_here() {
    let server = Server::start(&[]);
    let client = server.client().env("HERE", "of here").args(&["--env", "HERE", "--env", "A=b=c"]);
    let ran =
        client.args(&["--env", "EMPTY=", "echo \"$HERE, $A, ${EMPTY-unset}\""]).run().expect(0);
    assert_eq!(ran.text(), "of here, b=c, \n");
}

#[test]
fn a_variable_that_is_not_here_is_wrong_usage() {
    let server = Server::start(&[]);
    let ran = server.run(&["--env", "NOT_HERE_AT_ALL", "true"]).expect(2);
    assert!(ran.stderr.contains("--env NOT_HERE_AT_ALL: no such variable here"), "{}", ran.stderr);
}

/// env(1) takes every name that holds no `=`, and so does a process's environment.
#[test]
fn a_name_is_anything_but_nothing() {
    let server = Server::start(&[]);
    let ran = server.run(&["-e", "BAD NAME=1", "-e", "2=3", "--", "env"]).expect(0).text();
    assert!(ran.lines().any(|l| l == "BAD NAME=1") && ran.lines().any(|l| l == "2=3"), "{ran}");
    for none in ["=x", ""] {
        let ran = server.run(&["-e", none, "true"]).expect(2);
        assert!(ran.stderr.contains("cannot be the name"), "{}", ran.stderr);
    }
}

#[test]
fn the_rest_of_the_clients_and_the_servers_environment_stays_where_it_is() {
    let server = Server::with(&[], |command| {
        command.env("OF_SERVER", "x");
    });
    let ran = server.client().env("OF_CLIENT", "y").args(&["--", "env"]).run().expect(0);
    let text = ran.text();
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| *name != "LANG");
    names.sort_unstable();
    let expected = ["HOME", "LOGNAME", "PATH", "REXEC_MARK", "REXEC_RUN", "SHELL", "USER"];
    assert_eq!(names, expected);
}

#[test]
fn the_servers_own_variables_cannot_be_set() {
    let server = Server::start(&[]);
    for name in ["REXEC_RUN", "REXEC_MARK"] {
        let ran = server.run(&["--env", &format!("{name}=x"), "true"]).expect(254);
        assert!(ran.stderr.contains("bad_environment"), "{}", ran.stderr);
    }
}

/// Looked for where others can look: every command line of the machine, the server's log at its
/// most talkative, the client's own lines, the journal and everything else in the state folder.
#[test]
fn a_secret_is_in_no_command_line_and_no_log_and_no_file() {
    const SECRET: &str = "hunter2-6f1ba0d1c9";
    let server = Server::start(&["--verbose"]);
    let client = server.client().env("TOKEN", SECRET).args(&["-v", "--env", "TOKEN"]);
    let mut child = client.arg("[ ${#TOKEN} = 18 ] && echo has it; sleep 600").spawn();
    assert_eq!(line_of(&mut child), "has it");
    for process in std::fs::read_dir("/proc").unwrap().map(Result::unwrap) {
        // A process may be gone by now.
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!holds(&words, SECRET), "{}", process.path().display());
    }
    kill(child.id(), rustix::process::Signal::TERM);
    let ran = finish(child).expect(143);
    assert!(!ran.stderr.contains(SECRET), "{}", ran.stderr);
    assert!(!server.log().contains(SECRET) && server.log().contains("run"), "{}", server.log());
    assert!(server.journal().iter().any(|line| line["type"] == "ended"));
    let mut files = 0;
    search(server.state(), SECRET, &mut files);
    assert!(files >= 3, "only {files} files: the keys and the journal were to be searched");
}

fn search(folder: &Path, secret: &str, files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            search(&entry.path(), secret, files);
        } else if entry.file_type().unwrap().is_file() {
            *files += 1;
            let bytes = std::fs::read(entry.path()).unwrap();
            assert!(!holds(&bytes, secret), "{}", entry.path().display());
        }
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
