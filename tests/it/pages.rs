//! What the pages tell to type is typed, line by line, on two machines that are two folders here: each is the home
//! of whoever types there.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use super::support::terminal::Terminal;
use super::support::{Ran, kill, user::User};

/// The lines of a page's first shell block after a heading, those for the server and those for here.
fn typed(page: &str, heading: &str) -> [Vec<String>; 2] {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let block = text.split_once(heading).unwrap().1.split("```sh\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let (server, here) = block.split_once("# here\n").unwrap();
    let lines = |part: &str| {
        let lines = part.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    [lines(server), lines(here)]
}

/// A machine: a home folder, and perhaps a server.
struct Machine {
    home: tempfile::TempDir,
    server: Option<(Child, String)>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { home: tempfile::tempdir().unwrap(), server: None };
        fs::create_dir(machine.path(".ssh")).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn shell(&self, line: &str) -> Command {
        let programs = Path::new(env!("CARGO_BIN_EXE_rexec")).parent().unwrap();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-ec", line]).current_dir(&self.home).env_clear().stdin(Stdio::null());
        shell.env("PATH", path).env("HOME", self.home.path());
        shell
    }

    fn types(&self, line: &str) -> Ran {
        let ran = Ran::of(self.shell(line).output().unwrap());
        assert_eq!(ran.status, 0, "{line}: {}", ran.stderr);
        ran
    }

    /// Types each line; what is printed by those that end. A server is left alone once it listens.
    fn types_all(&mut self, lines: &[String]) -> Vec<String> {
        let mut printed = Vec::new();
        for line in lines {
            if line.starts_with("rexec-server --listen ") {
                assert!(self.server.is_none(), "one server");
                self.serve(line);
            } else {
                printed.push(self.types(line).text());
            }
        }
        printed
    }

    /// Only loopback is listened on here, at a port that is free.
    fn serve(&mut self, line: &str) {
        assert!(line.contains("0.0.0.0:8080"), "{line}");
        let line = format!("exec {}", line.replace("0.0.0.0:8080", "127.0.0.1:0"));
        let mut shell = self.shell(&line);
        shell.stdout(Stdio::piped()).stderr(fs::File::create(self.path("log")).unwrap());
        let mut child = shell.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let Some(address) = said.trim().strip_prefix("listening on ") else {
            panic!("{line}: {said}{}", fs::read_to_string(self.path("log")).unwrap())
        };
        // To a client this is another machine: no name of loopback, but where it leads.
        let address = address.replace("127.0.0.1", "127.1");
        self.server = Some((child, address));
    }

    fn address(&self) -> &str {
        &self.server.as_ref().unwrap().1
    }

    fn key(&self, name: &str) {
        self.types(&format!("ssh-keygen -q -t ed25519 -N '' -f {name}"));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some((server, _)) = &mut self.server {
            kill(server.id(), Signal::TERM);
            server.wait().unwrap();
        }
    }
}

#[test]
fn two_machines_are_connected_by_the_lines_of_the_readme() {
    let [there, here] = typed("README.md", "\n## Connect two machines in a minute\n");
    let (mut build, laptop) = (Machine::new(), Machine::new());
    laptop.key(".ssh/id_ed25519");
    fs::copy(laptop.path(".ssh/id_ed25519.pub"), build.path("id_ed25519.pub")).unwrap();
    let printed = build.types_all(&there).concat();
    let print = printed.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap();
    let [line] = &here[..] else { panic!("{here:?}") };
    let line = line.replace("build:8080", build.address());
    let programs = Path::new(env!("CARGO_BIN_EXE_rexec")).parent().unwrap();
    let environment = format!("unset REXEC_STATE_DIR; PATH={}:$PATH; ", programs.display());
    let mut terminal = Terminal::shell(laptop.home.path(), &(environment + &line));
    terminal.shows(&format!("ssh-ed25519 {print}"));
    terminal.shows("(yes/no/fingerprint)? ");
    terminal.types(format!("{print}\n"));
    let name = Ran::of(Command::new("hostname").output().unwrap()).text();
    terminal.shows(name.trim());
    assert_eq!(terminal.ends(), 0);
    // And from now on in scripts.
    assert_eq!(laptop.types(&line).text(), name);
}

#[test]
fn users_are_served_by_the_lines_of_the_page() {
    let (Some(alice), Some(deploy)) = (User::new(), User::new()) else { return };
    let named = |line: String| line.replace("alice", &alice.name).replace("deploy", &deploy.name);
    let [there, here] = typed("docs/users.md", "# Several users\n")
        .map(|lines| lines.into_iter().map(named).collect::<Vec<_>>());
    let (mut build, laptop) = (Machine::new(), Machine::new());
    for (key, name) in [(".ssh/id_ed25519", &*alice.name), ("ci", "ci")] {
        laptop.key(key);
        let public = laptop.path(&format!("{key}.pub"));
        fs::copy(public, build.path(&format!("{name}.pub"))).unwrap();
    }
    build.types_all(&there);
    let known = format!("rexec --accept-new {}@{} true", alice.name, build.address());
    laptop.types(&known);
    let [one, batch] = &here[..] else { panic!("{here:?}") };
    let ran = laptop.types(&one.replace("build:8080", build.address()));
    assert_eq!(ran.text().trim(), alice.name);
    let ran = laptop.types(&batch.replace("web[01-20]:8080", build.address()));
    assert!(ran.text().contains(&deploy.name), "{}", ran.text());
}
