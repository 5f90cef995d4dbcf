//! System mode: a server of root's that runs commands as the users it is told to serve. Each test makes accounts
//! of its own, so only root can run them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rexec::client::Target;
use rexec::identity::{Key, KeyRing};
use rexec::transport::HostTrust;

use super::auth::{host_key, key};
use super::support::other::Other;
use super::support::server::line_of;
use super::support::user::User;
use super::support::{Client, Ran, Server, at_a_deadline, is_alive, wait_until, whole_pid_in};

/// A server of some users, and a key of somebody's.
pub(super) struct Machine {
    pub(super) server: Server,
    pub(super) here: tempfile::TempDir,
    key: PathBuf,
    /// The line of the key.
    pub(super) line: String,
}

impl Machine {
    pub(super) fn serving(users: &[&str]) -> Self {
        Self::with(users, &[])
    }

    pub(super) fn with(users: &[&str], args: &[&str]) -> Self {
        Self::adapted(users, args, |_| ())
    }

    /// One whose server's command `adapt` may change.
    pub(super) fn adapted(users: &[&str], args: &[&str], adapt: impl FnOnce(&mut Command)) -> Self {
        let here = tempfile::tempdir().unwrap();
        let (key, line) = key(here.path(), "friend");
        let list = users.join(",");
        let server = Server::with(&[&["--users", &list], args].concat(), adapt);
        Self { server, here, key, line }
    }

    /// `rexec -i KEY --host-key FINGERPRINT`, to which a verb, a user and words are added.
    pub(super) fn client(&self, verb: &[&str], name: &str) -> Client {
        let print = host_key(&self.server).1.to_string();
        let client = Client::new(&self.here.path().join("state")).args(verb);
        let client = client.arg("-i").arg(&self.key).args(&["--host-key", &print]);
        client.arg(format!("{name}@{}", self.server.addr))
    }

    pub(super) fn run(&self, name: &str, words: &[&str]) -> Ran {
        self.client(&[], name).args(words).run()
    }

    /// A client of the library, whose connection stays open between runs.
    pub(super) fn connected(&self, name: &str) -> rexec::Client {
        let trust = HostTrust { pins: vec![host_key(&self.server).1], ..HostTrust::default() };
        rexec::Client::new(Target {
            endpoint: self.server.addr.parse().unwrap(),
            user: Some(name.into()),
            trust: Arc::new(trust),
            keys: KeyRing::of([Key::load(&self.key).unwrap()]),
            connect_timeout: super::support::PATIENCE,
        })
    }
}

/// A user who may log in with the machine's key, by the list that root keeps.
pub(super) fn listed(machine: &Machine, user: &User) {
    user.list_as_root(&machine.line);
}

#[test]
fn a_command_runs_as_its_user_with_groups_home_shell_and_the_environment_of_a_login() {
    let Some(alice) = User::with(&["-G", "users,games"]) else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let text = "id -ru; id -u; id -G; pwd; echo $HOME $USER $LOGNAME $SHELL $PATH; echo $0";
    let ran = machine.run(&alice.name, &[text]).expect(0).text();
    let groups = Command::new("id").args(["-G", &alice.name]).output().unwrap().stdout;
    let (name, home) = (&alice.name, alice.home.display());
    let expected = format!(
        "{0}\n{0}\n{1}{home}\n{home} {name} {name} /bin/sh \
         /usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games\n/bin/sh\n",
        alice.uid,
        String::from_utf8(groups).unwrap(),
    );
    assert_eq!(ran, expected);
    let words = ["--", "env"];
    let environment = machine.run(&alice.name, &words).expect(0).text();
    let unknown = environment.lines().find(|line| {
        let known = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "REXEC_RUN", "REXEC_MARK"];
        !known.iter().any(|name| line.starts_with(&format!("{name}=")))
    });
    assert_eq!(unknown, None, "nothing of root's environment");
}

/// Pipes that root has made could not be opened by their names.
#[test]
fn the_users_own_streams_can_be_opened_by_their_names() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let text = "cat /dev/stdin > /dev/stdout; echo problem > /dev/stderr";
    let ran = machine.client(&[], &alice.name).arg(text).run_with(b"fine").expect(0);
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("fine", "problem\n"));
}

#[test]
fn the_journal_says_as_whom_a_command_was_run() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    machine.run(&alice.name, &["true"]).expect(0);
    let journal = machine.server.journal();
    let identity = journal.iter().find_map(|line| line["identity"].as_str()).unwrap();
    assert!(identity.starts_with(&format!("{}@key:SHA256:", alice.name)), "{identity}");
}

#[test]
fn there_is_no_way_back_to_root() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let status =
        machine.run(&alice.name, &["cat /proc/self/status; ls -l /proc/self/fd"]).expect(0);
    let field = |name: &str| {
        let line = status.text().lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.unwrap().split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid:"), vec![alice.uid.to_string(); 4]);
    assert_eq!(field("Gid:"), vec![alice.uid.to_string(); 4]);
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    for words in [&["--", "setpriv", "--reuid=0", "true"][..], &["--", "cat", "/etc/shadow"]] {
        assert_ne!(machine.run(&alice.name, words).status, 0, "{words:?}");
    }
}

/// What a client is told, without its own prefix.
fn told(ran: Ran) -> String {
    assert_eq!(ran.status, 254, "{}", ran.stderr);
    ran.stderr
}

#[test]
fn unknown_users_refused_accounts_and_unknown_keys_are_told_the_same() {
    let Some(alice) = User::new() else { return };
    let users: Vec<User> = (0..4).filter_map(|_| User::new()).collect();
    let [locked, expired, nologin, unserved] = &users[..] else { panic!("four users") };
    let served = [&alice, locked, expired, nologin].map(|user| &*user.name);
    let machine = Machine::serving(&[&served[..], &["no-such-user"]].concat());
    users.iter().for_each(|user| listed(&machine, user));
    for user in [locked, expired, nologin] {
        machine.run(&user.name, &["true"]).expect(0);
    }
    locked.change(&["-L"]);
    expired.change(&["-e", "2020-01-01"]);
    nologin.change(&["-s", "/usr/sbin/nologin"]);
    // The account was looked at a moment ago.
    for user in [locked, expired, nologin] {
        wait_until("the refusal", || machine.run(&user.name, &["true"]).status != 0);
    }
    let unknown_key = told(machine.run(&alice.name, &["true"]));
    assert!(unknown_key.contains("not_authorized"), "{unknown_key}");
    let (unserved, locked) = (&*unserved.name, &*locked.name);
    for name in
        ["no-such-user", "never-named", "root", unserved, locked, &expired.name, &nologin.name]
    {
        assert_eq!(told(machine.run(name, &["true"])), unknown_key, "{name}");
    }
}

#[test]
fn the_operator_is_told_which_accounts_cannot_be_used_and_why() {
    let Some(alice) = User::with(&["-p", "!"]) else { return };
    let machine = Machine::serving(&[&alice.name, "no-such-user"]);
    let log = machine.server.log();
    assert!(log.contains(&format!("nobody is let in as {}: the account is locked", alice.name)));
    assert!(log.contains("nobody is let in as no-such-user: there is no such account"), "{log}");
}

#[test]
fn root_is_a_user_only_if_it_is_named() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    told(machine.run("root", &["id -u"]));
}

#[test]
fn without_a_user_nobody_is_let_in_not_even_root_on_the_unix_socket() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    for address in [&machine.server.addr, &machine.server.unix] {
        let ran = Client::new(machine.server.state()).args(&[address, "id"]).run().expect(254);
        assert!(ran.stderr.contains("USER@HOST:PORT"), "{}", ran.stderr);
    }
    // The local identity of root's state folder is no key of alice's.
    let identity = machine.server.state().join("identity");
    let machine = Machine { key: identity, ..machine };
    told(machine.run(&alice.name, &["id"]));
}

#[test]
fn a_server_of_one_account_refuses_a_user() {
    let server = Server::start(&[]);
    let address = format!("alice@{}", server.addr);
    let identity = server.state().join("identity");
    let client = Client::new(server.state()).arg("-i").arg(identity).arg("--accept-new");
    let ran = client.args(&[&address, "id"]).run().expect(254);
    assert!(ran.stderr.contains("leave the user out"), "{}", ran.stderr);
}

/// The same key may be let in as both: the runs of one are nobody's to the other.
#[test]
fn one_user_neither_sees_nor_touches_the_runs_of_another() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    let machine = Machine::serving(&[&alice.name, &bob.name]);
    listed(&machine, &alice);
    listed(&machine, &bob);
    let mut run =
        machine.client(&["-v"], &alice.name).arg("echo $REXEC_RUN; exec sleep 600").spawn();
    let id = line_of(&mut run);
    let list = |name: &str| machine.client(&["ps", "--json"], name).run().expect(0).text();
    assert!(list(&alice.name).contains(&id) && !list(&bob.name).contains(&id));
    let stop = |id: &str| machine.client(&["stop"], &bob.name).arg(id).run().expect(254).stderr;
    let unknown = id.replace(|c: char| c.is_ascii_hexdigit(), "0");
    assert_eq!(stop(&id).replace(&id, ""), stop(&unknown).replace(&unknown, ""));
    machine.client(&["stop"], &alice.name).arg(&id).run().expect(0);
    run.wait().unwrap();
}

#[test]
fn whole_trees_of_another_uid_are_stopped() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let text = "setsid sleep 611 & echo $! > pid; wait";
    let pid = at_a_deadline(|ms| {
        machine.run(&alice.name, &["--timeout", &format!("{ms}ms"), text]).expect(124);
        whole_pid_in(&alice.home.join("pid"))
    });
    wait_until("the end of what left the session", || !is_alive(pid));
}

/// A server that looks for things as root would tell what is where only root can look.
#[test]
fn folders_and_programs_are_looked_for_with_the_users_rights() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let hidden = machine.here.path().canonicalize().unwrap();
    std::fs::set_permissions(&hidden, PermissionsExt::from_mode(0o700)).unwrap();
    let (there, missing) = (hidden.join("friend"), hidden.join("missing"));
    let as_told = |path: &Path, ran: Ran| told(ran).replace(path.to_str().unwrap(), "");
    for path in [&hidden, &missing] {
        let ran = machine.run(&alice.name, &["--cwd", path.to_str().unwrap(), "true"]);
        assert!(told(ran).contains("cwd_permission"), "{}", path.display());
    }
    let program =
        |path: &PathBuf| as_told(path, machine.run(&alice.name, &["--", path.to_str().unwrap()]));
    assert_eq!(program(&there), program(&missing));
    let ran = machine.run(&alice.name, &["--", "no-such-program"]);
    assert!(told(ran).contains("program_not_found"));
}

/// The state folder of a user has a host key of its own, which is not that of root's server.
#[test]
fn on_this_machine_too_a_server_of_users_is_believed_by_known_hosts() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    let address = format!("{}@{}", alice.name, machine.server.addr);
    let run = |options: &[&str]| {
        let client = Client::new(&machine.here.path().join("state"));
        client.arg("-i").arg(&machine.key).args(options).args(&[&address, "id -un"]).run()
    };
    let told = run(&[]).expect(255).stderr;
    assert!(told.contains("known_hosts"), "{told}");
    run(&["--accept-new"]).expect(0);
    assert_eq!(run(&[]).expect(0).text().trim(), alice.name);
}

#[test]
fn the_policy_holds_for_users_too() {
    let Some(alice) = User::new() else { return };
    let here = tempfile::tempdir().unwrap();
    let (key, line) = key(here.path(), "friend");
    let print = rexec::identity::PublicKey::from_base64(line.split(' ').nth(1).unwrap()).unwrap();
    let config = here.path().join("config.toml");
    let rule = format!(
        "users = [{:?}]\n[rule.r]\nfor = [\"{}\"]\nallow = [[\"id\", \"-un\"]]\nmemory = \"2G\"\n",
        alice.name,
        print.fingerprint()
    );
    std::fs::write(&config, rule).unwrap();
    let server = Server::start(&["--config", config.to_str().unwrap()]);
    let machine = Machine { server, here, key, line };
    listed(&machine, &alice);
    assert_eq!(machine.run(&alice.name, &["id -un"]).expect(0).text().trim(), alice.name);
    assert!(told(machine.run(&alice.name, &["id"])).contains("rule \"r\""));
}

#[test]
fn a_batch_goes_to_users() {
    let (Some(alice), Some(bob)) = (User::new(), User::new()) else { return };
    let machine = Machine::serving(&[&alice.name, &bob.name]);
    listed(&machine, &alice);
    listed(&machine, &bob);
    let addr = &machine.server.addr;
    let hosts = format!("{}@{addr},{}@{addr}", alice.name, bob.name);
    let print = host_key(&machine.server).1.to_string();
    let client = Client::new(&machine.here.path().join("state")).args(&["batch", "-i"]);
    let client = client.arg(&machine.key).args(&["--host-key", &print, "-H", &hosts, "id -un"]);
    let text = client.run().expect(0).text();
    assert!(text.contains(&alice.name) && text.contains(&bob.name), "{text}");
}

#[test]
fn only_root_can_serve_users_and_keys_of_nobody_in_particular_are_refused() {
    let Some(other) = Other::new() else { return };
    let server = env!("CARGO_BIN_EXE_rexec-server");
    let state = tempfile::tempdir().unwrap();
    let serve = |args: &[&str]| {
        let mut command = Command::new(server);
        command.args(["--listen", "127.0.0.1:0"]).args(args).env("REXEC_STATE_DIR", state.path());
        Ran::of(command.output().unwrap())
    };
    for (args, status, part) in [
        (&["--use-ssh-keys"][..], 1, "--users"),
        (&["--users", "../alice"], 2, "name of a user"),
        (&["--users", "root", "--authorized-keys", "/dev/null"], 1, "/etc/rexec/authorized_keys"),
    ] {
        let ran = serve(args).expect(status);
        assert!(ran.stderr.contains(part), "{args:?}: {}", ran.stderr);
    }
    let mut command = Command::new(server);
    command.args(["--listen", "127.0.0.1:0", "--users", "root"]);
    command.env("REXEC_STATE_DIR", other.folder("state"));
    other.become_it(&mut command);
    let ran = Ran::of(command.output().unwrap()).expect(1);
    assert!(ran.stderr.contains("only root"), "{}", ran.stderr);
}

/// As with sshd, whose commands all go through the login shell.
#[test]
fn a_login_shell_that_permits_little_is_not_passed_by() {
    let Some(alice) = User::with(&["-s", "/bin/rbash"]) else { return };
    let machine = Machine::serving(&[&alice.name]);
    listed(&machine, &alice);
    assert_eq!(machine.run(&alice.name, &["id -un"]).expect(0).text().trim(), alice.name);
    let ran = machine.run(&alice.name, &["/bin/echo out"]);
    assert!(ran.status != 0 && ran.stderr.contains("restricted"), "{}", ran.stderr);
    for words in [
        &["--", "/bin/echo", "out"][..],
        &["--env", "BASH_ENV=$(/bin/echo out >&2)", "id -un"],
        &["--env", "PATH=/nowhere", "id -un"],
        &["--cwd", "/", "id -un"],
    ] {
        let told = told(machine.run(&alice.name, words));
        assert!(told.contains("the login shell is /bin/rbash"), "{words:?}: {told}");
        assert!(!told.contains("out\n"), "{told}");
    }
    // A command that the key's line imposes is given to the shell as well.
    alice.list_as_root(&format!("command=\"/bin/echo out\" {}", machine.line));
    wait_until("the line to count", || machine.run(&alice.name, &["id -un"]).status != 0);
}
