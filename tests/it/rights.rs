//! What a key may do: its line in `authorized_keys`, as the real programs honour it.

use std::sync::Arc;

use rexec::client::{Error, Target};
use rexec::identity::{Key, KeyRing};
use rexec::proto::code::Code;
use rexec::transport::HostTrust;
use rustix::process::Signal;

use super::auth::Abroad;
use super::support::{Ran, finish, has_ipv6, wait_until};

/// Says what it was asked for, where it is, and which of the variables it has that a client might have set.
const TRAP: &str = "command=\"echo trapped: \\\"$SSH_ORIGINAL_COMMAND\\\"; \
    test \\\"$SSH_ORIGINAL_COMMAND\\\" = \\\"$REXEC_ORIGINAL_COMMAND\\\" && pwd; \
    env | grep -cE '^(LD_PRELOAD|BASH_ENV|ENV|GIT_SSH_COMMAND|EVIL)=|^PATH=/evil'\" ";

impl Abroad {
    /// Runs `rexec -i KEY OPTIONS... ADDR WORDS...`.
    fn ask(&self, options: &[&str], words: &[&str]) -> Ran {
        self.trusted(None).args(options).arg(self.address()).args(words).run()
    }

    /// Runs `rexec VERB -i KEY ADDR WORDS...`.
    fn verb(&self, verb: &str, words: &[&str]) -> Ran {
        self.trusted(Some(verb)).arg(self.address()).args(words).run()
    }

    /// The library's client, which keeps its connection.
    fn library(&self) -> rexec::Client {
        let trust = HostTrust { pins: vec![self.host_key().1], ..HostTrust::default() };
        rexec::Client::new(Target {
            user: None,
            endpoint: self.server.addr.parse().unwrap(),
            trust: Arc::new(trust),
            keys: KeyRing::of([Key::load(&self.key).unwrap()]),
            connect_timeout: super::support::PATIENCE,
        })
    }
}

fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(work)
}

#[test]
fn a_command_that_is_imposed_is_run_however_another_is_asked_for() {
    let abroad = Abroad::with(TRAP, &[]);
    let home = std::env::home_dir().unwrap().display().to_string();
    let evil = [
        "-e",
        "LD_PRELOAD=/evil.so",
        "-e",
        "BASH_ENV=/evil",
        "-e",
        "ENV=/evil",
        "-e",
        "EVIL=1",
        "-e",
        "GIT_SSH_COMMAND=/evil",
        "-e",
        "PATH=/evil:/usr/bin:/bin",
        "--cwd",
        "/tmp",
    ];
    let words: [(&[&str], &[&str], &str); 7] = [
        (&[], &["id"], "id"),
        (&[], &["id; id"], "id; id"),
        (&[], &["--", "id", "-u", "a b", "it's"], r#"id -u 'a b' "it's""#),
        (&["--shell"], &["id", "$HOME"], "id $HOME"),
        (&evil, &["id"], "id"),
        (&["--merge"], &["--", "/bin/sh", "-c", "id"], "/bin/sh -c id"),
        (&["--id", "named", "-e", "EVIL=1"], &["id"], "id"),
    ];
    for (options, words, original) in words {
        // grep counts none of the variables, and says so.
        let ran = abroad.ask(options, words).expect(1);
        assert_eq!(
            ran.text(),
            format!("trapped: {original}\n{home}\n0\n"),
            "{options:?} {words:?}"
        );
    }
    let named: Vec<_> = abroad.server.journal();
    let accepted = named.iter().find(|line| line["type"] == "accepted").unwrap();
    assert_eq!(accepted["asked"], "id");
    assert!(accepted["command"].as_str().unwrap().starts_with("echo trapped"), "{accepted}");
}

#[test]
fn a_script_goes_to_the_imposed_command_and_not_to_a_shell() {
    let abroad = Abroad::with("command=\"echo ${SSH_ORIGINAL_COMMAND-unset}; wc -c\" ", &[]);
    let (ran, input) = (abroad.trusted(None).arg(abroad.address()), b"touch /tmp/evil\n");
    let ran = ran.run_with(input).expect(0);
    assert_eq!(ran.text().split_whitespace().collect::<Vec<_>>(), ["unset", "16"]);
}

/// The id stands for what the client asked for, so a change of the file between two tries changes nothing.
#[test]
fn a_retry_is_the_same_request_whatever_the_file_says_now() {
    let abroad = Abroad::with("command=\"echo one\" ", &[]);
    assert_eq!(abroad.ask(&["--id", "x"], &["true"]).expect(0).text(), "one\n");
    abroad.list_with("command=\"echo two\" ");
    assert_eq!(abroad.ask(&["--id", "x"], &["true"]).expect(0).text(), "one\n");
    let conflict = abroad.ask(&["--id", "x"], &["false"]).expect(250);
    assert!(conflict.stderr.contains("they differ in: command"), "{}", conflict.stderr);
    assert_eq!(abroad.ask(&["--id", "y"], &["true"]).expect(0).text(), "two\n");
}

#[test]
fn a_restricted_key_runs_follows_and_stops_its_own_runs_and_nothing_else() {
    let abroad = Abroad::with("restrict ", &[]);
    assert_eq!(abroad.ask(&[], &["echo hi"]).expect(0).text(), "hi\n");
    abroad.ask(&["--id", "long", "-d"], &["echo on; exec sleep 1000"]).expect(0);
    wait_until("its output", || abroad.verb("logs", &["long"]).text() == "on\n");
    abroad.verb("signal", &["long", "CONT"]).expect(0);
    abroad.verb("stop", &["long"]).expect(0);
    assert_eq!(abroad.verb("wait", &["long"]).status, 251);
    for (verb, words) in [("ps", &[][..]), ("rm", &["long"])] {
        let refused = abroad.verb(verb, words).expect(254);
        assert!(refused.stderr.contains("not_permitted"), "{}", refused.stderr);
    }
    abroad.list_with("");
    assert!(abroad.verb("ps", &[]).expect(0).text().contains("long"));
    abroad.verb("rm", &["long"]).expect(0);
}

#[test]
fn a_key_is_let_in_from_where_and_until_when_its_line_says() {
    let abroad = Abroad::with("from=\"127.0.0.0/8,!127.0.0.2\" ", &[]);
    assert_eq!(abroad.ask(&[], &["echo hi"]).expect(0).text(), "hi\n");
    for (options, why) in [
        ("from=\"10.0.0.0/8\" ", "line 1 lists its key, but it may not come from 127.0.0.1"),
        ("from=\"*,!127.0.0.1\" ", "line 1 lists its key, but it may not come from 127.0.0.1"),
        ("expiry-time=\"20260101\" ", "line 1 lists its key, but it has expired"),
    ] {
        abroad.list_with(options);
        let refused = abroad.ask(&[], &["echo hi"]).expect(254);
        // The peer is told what a stranger is told.
        let told = "none of the client's keys is authorized on this server";
        assert!(refused.stderr.contains(told), "{}", refused.stderr);
        assert!(!refused.stderr.contains("expired"), "{}", refused.stderr);
        wait_until(why, || {
            abroad.ask(&[], &["true"]).expect(254);
            abroad.server.log().contains(why)
        });
    }
    abroad.list_with("expiry-time=\"29991231235959Z\" ");
    assert_eq!(abroad.ask(&[], &["echo hi"]).expect(0).text(), "hi\n");
}

/// On a socket for both families the address of an IPv4 peer begins with `::ffff:`.
#[test]
fn from_means_the_peers_own_address_on_a_socket_for_both_families() {
    if !has_ipv6() {
        return;
    }
    let mut abroad = Abroad::with("", &["--listen", "[::]:0"]);
    let announced = abroad.server.announced();
    let port = announced.rsplit(':').next().unwrap();
    for (list, by_v4, by_v6) in [
        ("127.0.0.0/8", 0, 254),
        ("::1/128", 254, 0),
        ("::/0", 254, 0),
        ("0.0.0.0/0", 0, 254),
        ("::ffff:127.0.0.0/104", 0, 254),
        ("*,!::ffff:127.0.0.1", 254, 0),
        ("*,!127.*", 254, 0),
        ("*:*", 254, 0),
    ] {
        abroad.list_with(&format!("from=\"{list}\" "));
        for (host, status) in [("127.1", by_v4), ("[::1]", by_v6)] {
            let ran = abroad.trusted(None).args(&[&format!("{host}:{port}"), "true"]).run();
            assert_eq!(ran.status, status, "{list} {host}: {}", ran.stderr);
        }
    }
}

#[test]
fn environment_before_a_key_is_honoured_where_the_server_allows_it() {
    let line = "environment=\"WHO=a friend\",environment=\"WHO=nobody\" ";
    let abroad = Abroad::with(line, &["--permit-user-environment"]);
    // What the operator has written goes over what the client sends.
    let ran = abroad.ask(&["-e", "WHO=me"], &["echo $WHO"]).expect(0);
    assert_eq!(ran.text(), "a friend\n");
    let ran = abroad.ask(&["--id", "durable"], &["echo $WHO"]).expect(0);
    assert_eq!(ran.text(), "a friend\n");
    let abroad = Abroad::with(line, &[]);
    abroad.ask(&[], &["echo $WHO"]).expect(254);
    assert!(abroad.server.log().contains("--permit-user-environment"));
}

/// A long connection does not outlive its rights.
#[test]
fn what_the_file_says_now_counts_for_the_next_request_on_an_open_connection() {
    let abroad = Abroad::with("", &[]);
    in_a_runtime(async {
        let mut client = abroad.library();
        let hi = rexec::Command::shell("echo hi");
        assert_eq!(client.output(&hi).await.unwrap().stdout, b"hi\n");
        abroad.list_with("command=\"echo imposed\" ");
        assert_eq!(client.output(&hi).await.unwrap().stdout, b"imposed\n");
        for options in ["from=\"10.0.0.1\" ", "expiry-time=\"20260101\" ", "unheard-of ", "# "] {
            abroad.list_with(options);
            let denied = client.output(&hi).await.unwrap_err();
            let code = Code::NotAuthorized;
            assert!(matches!(denied, Error::Refused { code: c, .. } if c == code), "{denied:?}");
            abroad.list_with("");
            assert_eq!(client.output(&hi).await.unwrap().stdout, b"hi\n");
        }
    });
}

#[test]
fn the_run_of_a_key_that_is_removed_goes_on_and_takes_no_orders_from_it() {
    let abroad = Abroad::with("", &[]);
    let (ready, go) = (abroad.path("ready"), abroad.path("go"));
    let text = format!(
        "trap 'echo INT >> {0}' INT; echo on > {0}; while ! test -e {1}; do sleep 0.01; done; echo end >> {0}",
        ready.display(),
        go.display()
    );
    let client = abroad.trusted(None).args(&[&abroad.address(), &text]).spawn();
    let said = || std::fs::read_to_string(&ready).unwrap_or_default();
    wait_until("the run", || said() == "on\n");
    std::fs::write(&abroad.list, "").unwrap();
    super::support::kill(client.id(), Signal::INT);
    let ran = finish(client);
    assert_eq!(ran.status, 253, "{}", ran.stderr);
    assert!(ran.stderr.contains("no longer authorized"), "{}", ran.stderr);
    std::fs::write(&go, "").unwrap();
    wait_until("the end of the run", || said() == "on\nend\n");
}

/// A shell takes its orders from its standard input.
#[test]
fn a_key_that_is_removed_gives_no_more_input_to_its_run() {
    use std::io::Write as _;
    let abroad = Abroad::with("", &[]);
    let fed = abroad.path("fed");
    let mut client =
        abroad.trusted(None).args(&[&abroad.address(), &format!("cat > {}", fed.display())]);
    client.command.stdin(std::process::Stdio::piped());
    let mut client = client.spawn();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"before\n").unwrap();
    wait_until("the first line", || std::fs::read(&fed).is_ok_and(|fed| fed == b"before\n"));
    std::fs::write(&abroad.list, "").unwrap();
    wait_until("the end of the client", || input.write_all(b"after\n").is_err());
    let ran = finish(client);
    assert_eq!(ran.status, 253, "{}", ran.stderr);
    assert!(ran.stderr.contains("no longer authorized"), "{}", ran.stderr);
}

/// Files as StrictModes of sshd_config(5) has them.
#[test]
fn files_that_others_could_change_let_nobody_in() {
    use std::os::unix::fs::PermissionsExt as _;
    let abroad = Abroad::with("", &[]);
    let mode = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&abroad.list, mode).unwrap();
    };
    for (bits, status) in [(0o666, 254), (0o620, 254), (0o644, 0), (0o602, 254), (0o600, 0)] {
        mode(bits);
        abroad.ask(&[], &["true"]).expect(status);
    }
    assert!(abroad.server.log().contains("can be written by others (mode 0666)"));
    // Whoever may write to the folder may put another file in its place.
    let folder = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(abroad.list.parent().unwrap(), mode).unwrap();
    };
    for (bits, status) in [(0o777, 254), (0o770, 254), (0o1777, 0), (0o755, 0)] {
        folder(bits);
        abroad.ask(&[], &["true"]).expect(status);
    }
    // A link of one's own is followed, to a file that is judged like any other.
    let real = abroad.path("real");
    std::fs::rename(&abroad.list, &real).unwrap();
    abroad.ask(&[], &["true"]).expect(254);
    std::os::unix::fs::symlink(&real, &abroad.list).unwrap();
    abroad.ask(&[], &["true"]).expect(0);
    // One of another's is not, wherever it leads: who owns it may have it lead elsewhere.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&abroad.list, Some(65534), Some(65534)).unwrap();
        abroad.ask(&[], &["true"]).expect(254);
        assert!(abroad.server.log().contains("belongs to uid 65534"), "{}", abroad.server.log());
        std::os::unix::fs::lchown(&abroad.list, Some(0), Some(0)).unwrap();
        abroad.ask(&[], &["true"]).expect(0);
    }
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o666)).unwrap();
    abroad.ask(&[], &["true"]).expect(254);
    std::fs::remove_file(&real).unwrap();
    abroad.ask(&[], &["true"]).expect(254);
}

#[test]
fn every_file_counts_and_the_first_line_that_lets_a_key_in() {
    let here = tempfile::tempdir().unwrap();
    let second = here.path().join("more_keys");
    std::fs::write(&second, "").unwrap();
    let abroad = Abroad::with("", &["--authorized-keys", second.to_str().unwrap()]);
    let line = std::fs::read_to_string(abroad.key.with_extension("pub")).unwrap();
    std::fs::write(&second, format!("command=\"echo second\" {line}")).unwrap();
    let hi = || abroad.ask(&[], &["echo hi"]).expect(0).text();
    assert_eq!(hi(), "hi\n");
    abroad.list_with("expiry-time=\"20260101\" ");
    assert_eq!(hi(), "second\n");
    std::fs::remove_file(&abroad.list).unwrap();
    assert_eq!(hi(), "second\n");
}

#[test]
fn check_prints_every_line_of_every_file_and_what_it_means() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().canonicalize().unwrap();
    let (_, line) = super::auth::key(&path, "friend");
    let file = |name: &str, text: String| {
        std::fs::write(path.join(name), text).unwrap();
        path.join(name).to_str().unwrap().to_owned()
    };
    let good = file("good", format!("# friends\ncommand=\"echo \\\"hi\\\"\",no-pty {line}{line}"));
    let revoked = file("revoked", "serial: 5-9\n".into());
    let check = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        Ran::of(command.arg("check").args(args).output().unwrap())
    };
    let listed = ["--authorized-keys", &good, "--revoked-keys", &revoked];
    let told = check(&listed).expect(0).text();
    for part in [
        &format!("\n# --authorized-keys {good}\n#   line 2: friend, ssh-ed25519 SHA256:"),
        ": runs only: echo \"hi\"; no terminal\n#   line 3: friend, ssh-ed25519 SHA256:",
        ": everything, from everywhere\n",
        &format!("\n# --revoked-keys {revoked}\n#   line 1: not let in any more: serial: 5-9\n"),
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    let bad = file("bad", format!("{line}bad-option {line}"));
    let told = check(&[&listed[..], &["--authorized-keys", &bad]].concat()).expect(1).text();
    assert!(told.contains("#   line 2: REFUSED: the option \"bad-option\" is not known"), "{told}");
    assert!(told.contains("line 2: friend, ssh-ed25519"), "{told}");
    check(&["--authorized-keys", "/nowhere/to/be/found"]).expect(1);
    let told = check(&["--json", "--authorized-keys", &bad]).expect(1).text();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let lines = &told["files"][0]["lines"];
    assert_eq!(
        (&lines[0]["type"], &lines[0]["comment"]),
        (&"ssh-ed25519".into(), &"friend".into())
    );
    assert!(lines[1]["refused"].as_str().unwrap().contains("bad-option"), "{told}");
    assert_eq!(told["settings"]["authorized-keys"][0], bad);
}

/// Of the file without `.pub` in the place of the one with it, each line would be a line of the log.
#[test]
fn of_a_private_key_in_the_place_of_the_public_one_nothing_is_quoted() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().canonicalize().unwrap();
    let (key, _) = super::auth::key(&path, "friend");
    let secret = std::fs::read_to_string(&key).unwrap();
    let secret: Vec<_> = secret.lines().filter(|line| !line.starts_with('-')).collect();
    let state = path.join("state");
    for option in ["--authorized-keys", "--trusted-user-ca", "--revoked-keys"] {
        for verb in [&["check"][..], &["--listen", "0.0.0.0:0"]] {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
            command.args(verb).arg(option).arg(&key).env("REXEC_STATE_DIR", &state);
            let ran = Ran::of(command.output().unwrap()).expect(1);
            let told = format!("{}{}", String::from_utf8_lossy(&ran.stdout), ran.stderr);
            assert!(told.contains("never private ones"), "{option}: {told}");
            for line in &secret {
                let start = line.get(..12).unwrap_or(line);
                assert!(!told.contains(start), "{option}: {told}");
            }
        }
    }
}

/// The last line of a private key is as short as its length has it.
#[test]
fn a_line_that_is_one_word_is_not_quoted() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().canonicalize().unwrap().join("list");
    for option in ["--authorized-keys", "--trusted-user-ca", "--revoked-keys"] {
        for (line, is_quoted) in [("B0byBtb3ZlIA", false), ("nonsense here", true)] {
            std::fs::write(&path, format!("{line}\n")).unwrap();
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
            let ran = Ran::of(command.arg("check").arg(option).arg(&path).output().unwrap());
            let told = ran.expect(1).text();
            let word = line.split(' ').next().unwrap();
            assert_eq!(told.contains(word), is_quoted, "{option}: {told}");
        }
    }
}

/// The last second of the last year, where it is later than in UTC.
#[test]
fn an_end_in_the_last_year_is_told_in_each_time_zone() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().canonicalize().unwrap();
    let (_, line) = super::auth::key(&path, "friend");
    let list = path.join("list");
    std::fs::write(&list, format!("expiry-time=\"99991231235959\" {line}")).unwrap();
    for (zone, end) in [("UTC0", "23:59:59"), ("XXX8", "23:59:59"), ("XXX-8", "15:59:59")] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["check", "--authorized-keys"]).arg(&list).env("TZ", zone);
        let told = Ran::of(command.output().unwrap()).expect(0).text();
        assert!(told.contains(&format!(": until 9999-12-31T{end}Z")), "{zone}: {told}");
    }
}

#[test]
fn a_server_does_not_start_with_a_revocation_list_that_it_does_not_understand() {
    let here = tempfile::tempdir().unwrap();
    let path = here.path().canonicalize().unwrap().join("revoked");
    for (text, says) in [
        (Some("serial: 1\nnonsense\n"), "--revoked-keys"),
        (Some("SSHKRL\n\0\0\0\0\u{1}"), "binary list of ssh-keygen -k"),
        (None, "cannot read --revoked-keys"),
    ] {
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["--listen", "127.0.0.1:0", "--revoked-keys"]).arg(&path);
        let ran =
            Ran::of(command.env("REXEC_STATE_DIR", here.path().join("state")).output().unwrap());
        assert!(ran.status == 1 && ran.stderr.contains(says), "{}", ran.stderr);
    }
}
