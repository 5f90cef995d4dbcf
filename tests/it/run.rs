//! What a command is given, and what comes back of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use serde_json::json;

use super::support::relay::{Relay, Way};
use super::support::server::{finish, line_of, own_port};
use super::support::{Client, Ran, Server, in_parallel, json_in};

/// 255 of the command itself is told apart from 255 of a link by the verdict
/// (cockroachdb/cockroach#100875, ansible/ansible#78344).
#[test]
fn every_exit_code_comes_back_as_it_is() {
    let server = Server::start(&[]);
    in_parallel(4, 256, |code| {
        let file = server.dir().join(format!("verdict-{code}"));
        let ran = server.client().arg("--verdict").arg(&file).arg("sh").arg("-c");
        let status = i32::try_from(code).unwrap();
        let ran = ran.arg(format!("exit {code}")).run().expect(status);
        assert_eq!((ran.stdout.len(), ran.stderr.as_str()), (0, ""));
        let report = json_in(&file);
        assert_eq!(report["outcome"], "exited");
        assert_eq!(report["verdict"]["end"], json!({"exited": {"code": code}}));
    });
}

/// Dropbear's client returns 0 here.
#[test]
fn a_death_by_signal_is_128_and_the_signal_with_a_line_that_names_it() {
    let server = Server::start(&[]);
    for (signal, status, name) in [("KILL", 137, "9 (SIGKILL)"), ("SEGV", 139, "11 (SIGSEGV)")] {
        let ran = server.run(&[&format!("ulimit -c 0; kill -{signal} $$")]).expect(status);
        assert_eq!(ran.stderr, format!("rexec: the command was killed by signal {name}\n"));
    }
}

/// A client that does not look again for a lost server says 255 only of commands that had no effect,
/// wherever the link was cut (cockroachdb/cockroach#100875).
#[test]
fn it_is_never_255_when_the_effect_file_exists() {
    let mut server = Server::start(&[]);
    let relay_cut = |way, bytes| {
        let relay = Relay::to(&server.addr);
        relay.cut_after(&[(way, bytes)]);
        relay
    };
    let effect = |number: usize| server.dir().join(format!("effect-{number}"));
    let statuses = std::sync::Mutex::new(Vec::new());
    in_parallel(4, 80, |number| {
        let way = if number % 2 == 0 { Way::Up } else { Way::Down };
        let relay = relay_cut(way, number as u64 * 40);
        let client = Client::new(server.state()).args(&["--reconnect-timeout", "0s", &relay.addr]);
        let ran = client.arg(format!("echo >> {}; exit 3", effect(number).display())).run();
        statuses.lock().unwrap().push((number, ran.status));
    });
    let effects: Vec<_> = (0..80).map(effect).collect();
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait(), 0);
    let statuses = statuses.into_inner().unwrap();
    for &(number, status) in &statuses {
        let runs = std::fs::read_to_string(&effects[number]).unwrap_or_default().lines().count();
        match status {
            255 | 254 => assert_eq!(runs, 0, "cut {number}"),
            253 => assert!(runs <= 1, "cut {number}"),
            3 => assert_eq!(runs, 1, "cut {number}"),
            other => panic!("cut {number}: {other}"),
        }
    }
    for expected in [255, 253, 3] {
        assert!(statuses.iter().any(|(_, s)| *s == expected), "no cut gave {expected}");
    }
}

/// A server where none listens is another thing than a command's own 255.
#[test]
fn a_server_that_is_not_there_is_unreached() {
    let server = Server::start(&[]);
    let nobody = own_port();
    let client = Client::new(server.state()).args(&["--json", &nobody, "true"]);
    let ran = client.run().expect(255);
    let report: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!((&report["outcome"], &report["verdict"]), (&json!("unreached"), &json!(null)));
    assert!(ran.stderr.contains(&nobody), "{}", ran.stderr);
}

/// gliderlabs/cmd#89, dokku/docket#301.
#[test]
fn every_byte_but_nul_reaches_the_program_as_it_was_given() {
    let server = Server::start(&[]);
    let all: Vec<u8> = (1..=255).collect();
    let mut words: Vec<Vec<u8>> = all.iter().map(|byte| vec![*byte]).collect();
    words.push(all);
    for text in ["", " ", "a b", "$(id)", "`id`", "'", "\"", "\\", "--", "-n", "*", "a\nb", "é"] {
        words.push(text.into());
    }
    let words: Vec<&OsStr> = words.iter().map(|word| OsStr::from_bytes(word)).collect();
    let mut client = server.client().args(&["--", "printf", "%s\\0"]);
    client.command.args(&words);
    let mut expected = Vec::new();
    for word in words {
        expected.extend_from_slice(word.as_bytes());
        expected.push(0);
    }
    assert_eq!(client.run().expect(0).stdout, expected);
}

#[test]
fn one_word_is_text_for_the_shell_and_after_two_hyphens_a_program() {
    let server = Server::start(&[]);
    assert_eq!(server.run(&["echo a  b; echo c"]).expect(0).text(), "a b\nc\n");
    assert_eq!(server.run(&["echo", "a  b; echo c"]).expect(0).text(), "a  b; echo c\n");
    assert_eq!(server.run(&["--shell", "echo", "a  b; echo c"]).expect(0).text(), "a b\nc\n");
    let ran = server.run(&["--", "echo a"]).expect(254);
    assert!(ran.stderr.contains("\"echo a\": program not found"), "{}", ran.stderr);
}

#[test]
fn a_script_on_stdin_is_one_run_of_the_shell() {
    let server = Server::start(&[]);
    let ran = server.client().run_with(b"x=1\necho $x one\n[ $x = 1 ] || exit 1\nexit 4\n");
    assert_eq!(ran.expect(4).text(), "1 one\n");
}

/// appleboy/ssh-action#42, #112, #211: what fails is seen, because the script's own rules apply.
#[test]
fn a_failed_step_of_a_script_is_the_status() {
    let server = Server::start(&[]);
    let ran = server.client().run_with(b"set -e\necho before\nfalse\necho after\n").expect(1);
    assert_eq!(ran.text(), "before\n");
}

#[test]
fn stdin_ends_while_output_goes_on() {
    let server = Server::start(&[]);
    let ran = server.client().arg("wc -c; echo after; echo too >&2").run_with(&[7; 300_000]);
    let ran = ran.expect(0);
    assert_eq!((ran.text().as_str(), ran.stderr.as_str()), ("300000\nafter\n", "too\n"));
}

#[test]
fn a_command_need_not_read_its_stdin() {
    let server = Server::start(&[]);
    let much = vec![b'x'; 2 << 20];
    assert_eq!(server.client().arg("head -c 3").run_with(&much).expect(0).text(), "xxx");
    assert_eq!(
        server.client().arg("exec <&-; echo open").run_with(&much).expect(0).text(),
        "open\n"
    );
}

#[test]
fn a_stdin_that_stays_open_does_not_hold_a_command_that_has_ended() {
    let server = Server::start(&[]);
    let mut client = server.client().arg("echo done");
    client.command.stdin(std::process::Stdio::piped());
    let mut child = client.spawn();
    let held = child.stdin.take();
    assert_eq!(finish(child).expect(0).text(), "done\n");
    drop(held);
}

#[test]
fn output_arrives_while_the_command_runs() {
    let server = Server::start(&[]);
    let mut client = server.client().arg("echo first; read line; echo got $line");
    client.command.stdin(std::process::Stdio::piped());
    let mut child = client.spawn();
    assert_eq!(line_of(&mut child), "first");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"second\n").unwrap();
    assert_eq!(line_of(&mut child), "got second");
    finish(child).expect(0);
}

#[test]
fn both_streams_are_separate_and_exact_to_the_byte() {
    let server = Server::start(&[]);
    let ran = server.run(&[r"printf 'a\0\377\r\nend'; printf '\377\0err' >&2"]).expect(0);
    assert_eq!(ran.stdout, b"a\0\xff\r\nend");
    assert_eq!(ran.stderr, String::from_utf8_lossy(b"\xff\0err"));
}

/// moby/moby#31706: two pipes have no common order, one has.
#[test]
fn merged_streams_come_in_the_order_in_which_they_were_written() {
    let server = Server::start(&[]);
    let text = "i=0; while [ $i -lt 500 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done";
    let expected: String = (0..500).map(|i| format!("out {i}\nerr {i}\n")).collect();
    for _ in 0..5 {
        let ran = server.run(&["--merge", text]).expect(0);
        assert_eq!((ran.text(), ran.stderr.as_str()), (expected.clone(), ""));
    }
}

/// As with ssh.
#[test]
fn a_command_runs_in_the_accounts_home() {
    let homes = tempfile::tempdir().unwrap();
    let home = homes.path().canonicalize().unwrap().join("home");
    std::fs::create_dir_all(home.join("sub")).unwrap();
    std::fs::create_dir(home.join("~")).unwrap();
    let server = Server::with(&[], |command| {
        command.env("HOME", &home);
    });
    let at = |args: &[&str]| server.run(&[args, &["pwd -P"]].concat()).expect(0).text();
    let inside = |name: &str| format!("{}\n", home.join(name).display());
    assert_eq!(at(&[]), format!("{}\n", home.display()));
    assert_eq!(at(&["-e", "HOME=/usr"]), format!("{}\n", home.display()));
    assert_eq!(at(&["--cwd", "sub"]), inside("sub"));
    assert_eq!(at(&["--cwd", "~"]), inside("~"), "a folder of this name: no shell reads it");
    std::fs::remove_dir_all(&home).unwrap();
    assert_eq!(at(&[]), "/\n");
}

#[test]
fn a_command_runs_where_it_is_told_to() {
    let server = Server::start(&[]);
    let folder = server.dir().join("a folder\nof two lines");
    std::fs::create_dir(&folder).unwrap();
    let ran = server.client().arg("--cwd").arg(&folder).args(&["--", "pwd"]).run().expect(0);
    assert_eq!(ran.text(), format!("{}\n", folder.display()));
}

/// Without `-n` the first command reads what was meant for the loop, as with ssh.
#[test]
fn in_a_while_read_loop_n_leaves_the_lines_to_the_loop() {
    let server = Server::start(&[]);
    let looped = |options: &str| {
        let text = format!(
            "printf 'a\\nb\\nc\\n' | while read x; do \"$REXEC\" {options} \"$ADDR\" \"echo run $x; cat\"; done"
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &text]).env("REXEC", env!("CARGO_BIN_EXE_rexec"));
        shell.env("ADDR", &server.addr).env("REXEC_STATE_DIR", server.state());
        Ran::of(shell.output().unwrap()).expect(0).text()
    };
    assert_eq!(looped("-n"), "run a\nrun b\nrun c\n");
    assert_eq!(looped(""), "run a\nb\nc\n");
}

/// What runs `ssh HOST COMMAND` can run `rexec NAME COMMAND`.
#[test]
fn git_goes_through_it_as_through_ssh() {
    let server = Server::start(&[]);
    let folder = server.state().join(".config/rexec");
    std::fs::create_dir_all(&folder).unwrap();
    let named = format!("[hosts.build]\naddress = \"{}\"\n", server.addr);
    std::fs::write(folder.join("config.toml"), named).unwrap();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-C"]).arg(server.dir()).args(args);
        git.env("GIT_SSH_COMMAND", env!("CARGO_BIN_EXE_rexec")).env("HOME", server.state());
        let ran =
            git.env("REXEC_STATE_DIR", server.state()).env("GIT_CONFIG_NOSYSTEM", "1").output();
        Ran::of(ran.unwrap()).expect(0).text()
    };
    git(&["init", "--quiet", "--bare", "app.git"]);
    let url = format!("build:{}", server.dir().join("app.git").display());
    git(&["clone", "--quiet", &url, "here"]);
    git(&["-C", "here", "commit", "--quiet", "--allow-empty", "-m", "sent"]);
    git(&["-C", "here", "push", "--quiet", "origin", "HEAD:refs/heads/sent"]);
    assert!(git(&["ls-remote", &url]).ends_with("\trefs/heads/sent\n"));
}
