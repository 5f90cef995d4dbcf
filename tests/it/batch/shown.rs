//! How output is shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{FileType, Mode};

use super::super::support::fleet::Fleet;
use super::super::support::wait_until;

#[test]
fn grouped_output_shows_each_host_whole() {
    let fleet = Fleet::start(3);
    let text = "echo a; echo e >&2; seq 5000; echo z";
    let args = ["--output", "grouped", "-j", "3", "-s", text, "-s", "exit 3"];
    let ran = fleet.batch(&[]).args(&args).run().expect(3);
    let numbers: String = (1..=5000).map(|n| format!("{n}\n")).collect();
    let text = ran.text();
    for addr in fleet.addrs() {
        let block = text.split(&format!("== {addr} ==\n")).nth(1).unwrap();
        let block = block.split("== ").next().unwrap().replace("err: e\n", "");
        let expected =
            format!("a\n{numbers}z\n-- step {:?} ok\n-- step \"exit 3\" failed: exit 3\n", args[5]);
        assert!(block == expected, "{block}");
    }
}

#[test]
fn ci_systems_are_told_what_belongs_together() {
    let fleet = Fleet::start(1);
    let addr = &fleet.addrs()[0];
    let args = ["--output", "grouped", "echo '::add-mask::x'; printf '\\033[31m'"];
    let ran = fleet.batch(&[]).args(&args).env("GITHUB_ACTIONS", "true").run().expect(0);
    assert_eq!(ran.text(), format!("::group::{addr}\n: :add-mask::x\n^[[31m\n::endgroup::\n"));
    let ran = fleet.batch(&[]).args(&args).env("GITLAB_CI", "true").run().expect(0);
    let text = ran.text();
    assert!(
        text.starts_with("\x1b[0Ksection_start:") && text.contains(&format!("\r\x1b[0K{addr}\n"))
    );
    assert!(text.contains("^[[31m\n\x1b[0Ksection_end:"), "{text:?}");
}

#[test]
fn hosts_that_wrote_the_same_are_folded() {
    let fleet = Fleet::start(3);
    let dir = fleet.first().dir();
    let script = format!("mkdir {}/other 2>/dev/null && echo other || echo same", dir.display());
    let ran = fleet.batch(&[]).args(&["-j", "1", "--output", "fold", &script]).run().expect(0);
    let addrs = fleet.addrs();
    let same = rexec::client::batch::hosts::fold(&addrs[1..]);
    let expected = format!("== {} ==\nother\n== {same} (2 hosts) ==\nsame\n", addrs[0]);
    assert_eq!(ran.text(), expected);
}

#[test]
fn logs_keep_each_stream_masked_or_byte_for_byte() {
    let fleet = Fleet::start(2);
    let dir = fleet.first().dir().join("logs");
    let script = "printf 'a %s\\r\\000b' \"$TOKEN\"; echo err >&2";
    for (more, out) in [(&[][..], "a ***\r\0b"), (&["--log-raw"], "a s3cret-value\r\0b")] {
        let args = ["--log-dir", dir.to_str().unwrap(), "--output", "none", "-e", "TOKEN"];
        let batch = fleet.batch(&[]).args(&args).args(more).args(&["-s", "true", "-s", script]);
        let ran = batch.env("TOKEN", "s3cret-value").run().expect(0);
        assert_eq!(ran.text(), "");
        for addr in fleet.addrs() {
            let read = |name: &str| fs::read_to_string(dir.join(&addr).join(name)).unwrap();
            assert_eq!((read("2.stdout").as_str(), read("2.stderr").as_str()), (out, "err\n"));
        }
    }
}

/// As in a folder that others can write to.
#[test]
fn a_log_is_written_to_nothing_that_was_in_its_place() {
    let fleet = Fleet::start(1);
    let dir = fleet.first().dir().join("logs");
    let (host, other) = (dir.join(&fleet.addrs()[0]), fleet.first().dir().join("other"));
    fs::create_dir_all(&host).unwrap();
    fs::write(&other, "another's").unwrap();
    std::os::unix::fs::symlink(&other, host.join("1.stdout")).unwrap();
    let pipe = host.join("1.stderr");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    fs::hard_link(&other, host.join("2.stdout")).unwrap();
    let args = ["--log-dir", dir.to_str().unwrap(), "-s", "echo out; echo err >&2", "-s", "id"];
    fleet.batch(&[]).args(&args).run().expect(0);
    assert_eq!(fs::read_to_string(&other).unwrap(), "another's");
    for (name, text) in [("1.stdout", "out\n"), ("1.stderr", "err\n")] {
        let found = host.join(name).symlink_metadata().unwrap();
        assert!(found.is_file() && found.permissions().mode() & 0o777 == 0o600, "{found:?}");
        assert_eq!(fs::read_to_string(host.join(name)).unwrap(), text);
    }
}

#[test]
fn json_on_a_terminal_is_obeyed_by_none() {
    let fleet = Fleet::start(1);
    let mut client = fleet.plain().args(&["--json", "-H", &fleet.addrs()[0]]);
    client = client.arg("printf 'a\\302\\2332Jb\\342\\200\\256c\\330\\234d'");
    let line = std::iter::once(client.command.get_program()).chain(client.command.get_args());
    let line: Vec<_> = line.map(|word| format!("{:?}", word.to_str().unwrap())).collect();
    let line = line.join(" ").replace("\\\\", "\\");
    let mut script = std::process::Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .envs(client.command.get_envs().filter_map(|(n, v)| Some((n, v?))));
    let out = script.env("SHELL", "/bin/sh").stdin(std::process::Stdio::null()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(text.contains("a\\u009b2Jb\\u202ec\\u061cd"), "{text:?}");
}

#[test]
fn lines_are_never_torn_however_many_hosts_write_at_once() {
    let fleet = Fleet::start(4);
    let script = "i=0; while [ $i -lt 300 ]; do printf 'begin-'; printf 'middle-'; echo end; i=$((i+1)); done";
    let ran = fleet.batch(&[]).args(&["-s", script]).run().expect(0);
    let mut lines: Vec<_> = ran.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 1200);
    lines.sort();
    lines.dedup();
    let mut expected: Vec<_> =
        fleet.addrs().iter().map(|addr| format!("{addr} out: begin-middle-end")).collect();
    expected.sort();
    assert_eq!(lines, expected);
}

/// The terminal is one that `script` (util-linux) makes.
#[test]
fn a_terminal_has_a_live_table_and_failures_stay_visible() {
    let fleet = Fleet::start(2);
    let addrs = fleet.addrs();
    let nobody = super::nobody();
    let rexec = env!("CARGO_BIN_EXE_rexec");
    let line = format!(
        "stty cols 100 rows 30; exec {rexec} batch -H {},{nobody} -j 1 --retries 0 \
         'printf \"\\033[2Jlast\\n\"; while [ ! -e {}/go ]; do sleep 0.02; done'",
        addrs.join(","),
        fleet.first().dir().display()
    );
    let out = fleet.first().dir().join("terminal");
    let mut client = fleet.plain();
    let state = fleet.first().state();
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("REXEC_STATE_DIR", state).env("HOME", state);
    script.env("TERM", "xterm").env("SHELL", "/bin/sh").env_remove("CI").env_remove("NO_COLOR");
    script.stdin(std::process::Stdio::null()).stdout(fs::File::create(&out).unwrap());
    // The same environment as every batch of the tests.
    for (name, _) in client.command.get_envs().filter(|(_, value)| value.is_none()) {
        script.env_remove(name);
    }
    client.command = script;
    let mut child = client.command.spawn().unwrap();
    // What is being written may end within a character.
    let seen = || String::from_utf8_lossy(&fs::read(&out).unwrap_or_default()).into_owned();
    let row = format!("running   {}  printf \"\\033[2Jlast\\n\"; ...: ^[[2Jlast", addrs[0]);
    wait_until("the first host's last line", || seen().contains(&row));
    let counts = "3 hosts: 0 ok, 0 failed, 1 under way, 2 waiting";
    wait_until("how many there are", || seen().contains(counts));
    fs::write(fleet.first().dir().join("go"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(254));
    let all = seen();
    assert!(all.contains(&format!("rexec:\x1b[0m {nobody}: unreachable: ")), "{all}");
    assert!(all.contains(&format!("failed    {nobody}  unreachable: cannot reach")), "{all}");
    assert!(all.contains("2 ok, 1 failed, 0 under way, 0 waiting"), "{all}");
    assert!(!all.contains("\x1b[2J"), "a command's escape reaches no terminal");
    assert!(all.contains("2 of 3 hosts ended well, 1 did not"), "{all}");
}
