use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use std::path::PathBuf;

use super::*;
use crate::exec::End;
use crate::exec::testing::{argv, run, shell, spawn as start, spec, within};
use crate::sys::process::forks;

fn refused(spec: &Spec) -> NotStarted {
    match spawn(spec, &BaseEnv::of_this_process(), "the-run", Mark::new().unwrap()) {
        Err(SpawnError::NotStarted(why)) => {
            assert_eq!(why.to_string().lines().count(), 1, "{why}");
            why
        }
        other => panic!("{other:?}"),
    }
}

fn file(dir: &TempDir, name: &str, content: &[u8], mode: u32) -> String {
    let path = dir.path().join(name);
    // Written by another process: one that forks meanwhile would inherit the open file, and
    // execve(2) answers ETXTBSY.
    let staged = dir.path().join("staged");
    fs::write(&staged, content).unwrap();
    assert!(Command::new("/bin/cp").arg(&staged).arg(&path).status().unwrap().success());
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_missing_program_is_named() {
    for name in ["no-such-program", "/no/such/program", "./no-such-program"] {
        let why = refused(&argv(&[name]));
        assert!(matches!(&why, NotStarted::ProgramNotFound(n) if n == name), "{why:?}");
    }
    let shell = Program::Shell { shell: "/no/such/shell".into(), text: "true".into() };
    assert!(
        matches!(refused(&spec(shell)), NotStarted::ProgramNotFound(n) if n == "/no/such/shell")
    );
    assert!(matches!(refused(&argv(&[""])), NotStarted::ProgramNotFound(_)));
    assert!(matches!(refused(&argv(&[])), NotStarted::EmptyCommand));
}

#[tokio::test]
async fn what_may_not_be_executed_is_not_missing() {
    let dir = TempDir::new().unwrap();
    let plain = file(&dir, "plain", b"#!/bin/sh\n", 0o644);
    for path in [plain.as_str(), "/tmp"] {
        let why = refused(&argv(&[path]));
        assert!(matches!(&why, NotStarted::ProgramNotExecutable(p) if p.to_str() == Some(path)));
    }
}

#[tokio::test]
async fn a_missing_interpreter_is_the_culprit() {
    let dir = TempDir::new().unwrap();
    let script = file(&dir, "script", b"#! /no/such/interpreter -x\n", 0o755);
    match refused(&argv(&[&script])) {
        NotStarted::InterpreterMissing { program, interpreter } => {
            assert_eq!(program.to_str(), Some(script.as_str()));
            assert_eq!(interpreter, Some("/no/such/interpreter".into()));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_file_that_is_no_program() {
    let dir = TempDir::new().unwrap();
    let text = file(&dir, "text", b"echo no first line\n", 0o755);
    assert!(
        matches!(refused(&argv(&[&text])), NotStarted::BadFormat(p) if p.to_str() == Some(&text))
    );
}

#[tokio::test]
async fn a_working_directory_is_told_from_a_program() {
    let dir = TempDir::new().unwrap();
    let with = |cwd: PathBuf| Spec { cwd: Some(cwd), ..shell("true") };
    assert!(matches!(refused(&with(dir.path().join("no"))), NotStarted::CwdMissing(_)));
    assert!(matches!(refused(&with("".into())), NotStarted::CwdMissing(_)));
    let plain = file(&dir, "plain", b"", 0o755);
    assert!(matches!(refused(&with(plain.into())), NotStarted::CwdNotADirectory(_)));
    assert!(matches!(refused(&with("/\0".into())), NotStarted::NulByte));
    let closed = dir.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o600)).unwrap();
    // Root may enter any directory, and there is no other account to try here.
    if !rustix::process::geteuid().is_root() {
        assert!(matches!(refused(&with(closed)), NotStarted::CwdPermission(_)));
    }
}

#[tokio::test]
async fn lengths_one_past_the_limit() {
    let text = format!(": {}", "x".repeat(TEXT_LIMIT - 2));
    assert_eq!(run(&shell(&text)).await.end, End::Exited { code: 0 });
    let why = refused(&shell(&format!("{text}x")));
    assert!(matches!(why, NotStarted::TextTooLong(len) if len == TEXT_LIMIT + 1));
    let word = "x".repeat(TEXT_LIMIT + 1);
    assert!(matches!(refused(&argv(&["true", &word])), NotStarted::ArgumentsTooLong));
    assert!(matches!(refused(&argv(&["true", "\0"])), NotStarted::NulByte));
}

#[test]
fn what_the_system_lacks_is_said() {
    let why = |errno| {
        NotStarted::from_exec(io::Error::from_raw_os_error(errno), std::path::Path::new("/x"))
    };
    assert!(matches!(why(libc::EAGAIN), NotStarted::OutOfProcesses));
    assert!(matches!(why(libc::ENOMEM), NotStarted::OutOfMemory));
    assert!(matches!(why(libc::EMFILE), NotStarted::OutOfDescriptors));
    assert!(matches!(why(libc::EACCES), NotStarted::ProgramNotExecutable(_)));
    assert!(matches!(why(libc::EIO), NotStarted::Other(e) if e.raw_os_error() == Some(libc::EIO)));
}

#[tokio::test]
async fn a_name_is_searched_as_execvp_does() {
    let dir = TempDir::new().unwrap();
    for sub in ["first", "second", "cwd"] {
        fs::create_dir(dir.path().join(sub)).unwrap();
    }
    file(&dir, "first/tool", b"#!/bin/sh\n", 0o644);
    let tool = file(&dir, "second/tool", b"#!/bin/sh\necho second $0\n", 0o755);
    file(&dir, "cwd/here", b"#!/bin/sh\necho here\n", 0o755);
    let path = |text: String| vec![("PATH".into(), text.into())];
    let root = dir.path().display();
    let mut tool_run = argv(&["tool"]);
    tool_run.env = path(format!("{root}/first:{root}/second"));
    assert_eq!(run(&tool_run).await.text(), format!("second {tool}\n"));
    tool_run.env = path(format!("{root}/first:{root}/none"));
    assert!(
        matches!(refused(&tool_run), NotStarted::ProgramNotExecutable(p) if p.ends_with("first/tool"))
    );
    for (name, path_text) in [("here", ":/none"), ("./here", "/none")] {
        let mut here = argv(&[name]);
        here.cwd = Some(dir.path().join("cwd"));
        here.env = path(path_text.into());
        assert_eq!(run(&here).await.text(), "here\n");
    }
}

#[tokio::test]
async fn argv_0_is_the_name_that_was_asked_for() {
    let dir = TempDir::new().unwrap();
    symlink("/bin/sh", dir.path().join("my-shell")).unwrap();
    let mut asked = argv(&["my-shell", "-c", "tr '\\0' ' ' < /proc/$$/cmdline"]);
    asked.env = vec![("PATH".into(), format!("{}:/usr/bin:/bin", dir.path().display()).into())];
    assert!(run(&asked).await.text().starts_with("my-shell -c "));
}

#[tokio::test]
async fn every_byte_but_nul_arrives_in_argv_and_environment() {
    let all: Vec<u8> = (1..=255).collect();
    let mut words = vec!["printf".into(), "%s".into(), OsString::from_vec(all.clone())];
    let outcome = run(&spec(Program::Argv { words: words.clone() })).await;
    assert_eq!(outcome.out, all);
    words.truncate(1);
    let mut show = shell("printf %s \"$ALL\"");
    show.env = vec![("ALL".into(), OsString::from_vec(all.clone()))];
    assert_eq!(run(&show).await.out, all);
}

#[tokio::test]
async fn the_environment_is_clean() {
    let mut env = argv(&["env", "-0"]);
    env.env = vec![("MINE".into(), "1".into())];
    let outcome = run(&env).await;
    let mut names: Vec<_> = outcome
        .text()
        .split_terminator('\0')
        .map(|entry| entry.split_once('=').unwrap().0)
        .filter(|&name| name != "LANG")
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["HOME", "LOGNAME", "MINE", "PATH", "REXEC_MARK", "REXEC_RUN", "SHELL", "USER"]
    );
    assert!(outcome.text().contains("REXEC_RUN=the-run\0"));
    assert!(outcome.text().contains(&format!("REXEC_MARK={}\0", outcome.child.mark())));
}

fn is_inheritable(fd: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.is_some_and(|f| i32::from_str_radix(f.trim(), 8).unwrap() & libc::O_CLOEXEC == 0)
}

#[tokio::test]
async fn three_descriptors_and_no_signal_blocked_or_sigpipe_ignored() {
    let fds = run(&argv(&["ls", "/proc/self/fd"])).await;
    // `ls` has opened 3 itself. What this test program was given, `prepare` has not marked.
    let ours = |fd: &str| fd.parse::<u32>().unwrap() <= 3 || is_inheritable(fd);
    assert!(fds.text().split_whitespace().all(ours), "{}", fds.text());
    let status = run(&argv(&["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"])).await;
    let (blocked, ignored) = status.text().split_once("SigIgn:").unwrap();
    let blocked = blocked.strip_prefix("SigBlk:").unwrap();
    assert_eq!(u64::from_str_radix(blocked.trim(), 16), Ok(0));
    let pipe_bit = 1 << (libc::SIGPIPE - 1);
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & pipe_bit, 0);
}

#[tokio::test]
async fn the_run_leads_a_group_of_its_own() {
    let outcome = run(&shell("echo $$; ps -o pgid= -p $$ || cut -d' ' -f5 /proc/$$/stat")).await;
    let ids: Vec<i32> = outcome.text().split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert_eq!(ids[0], ids[1]);
    assert_eq!(ids[0], outcome.child.process().pid.as_raw_nonzero().get());
}

#[tokio::test]
async fn no_spawn_forks() {
    let before = forks::on_this_thread();
    let mut control = Command::new("true").env("PATH", "/usr/bin:/bin").spawn().unwrap();
    control.wait().unwrap();
    assert_eq!(forks::on_this_thread(), before + 1, "std forks upon a bare name and a PATH");
    let mut all = shell("true");
    all.cwd = Some("/".into());
    all.stdin = true;
    all.env = vec![("PATH".into(), "/usr/bin:/bin".into())];
    for spec in [all, argv(&["true"])] {
        within(start(&spec).child.exited()).await.unwrap();
    }
    assert_eq!(forks::on_this_thread(), before + 1);
}

#[tokio::test]
async fn a_script_is_read_from_stdin() {
    let mut spawned = start(&spec(Program::Script { shell: "/bin/sh".into() }));
    let mut stdin = spawned.stdin.take().unwrap();
    stdin.write_all(b"echo one; echo two >&2; exit 7\n").await.unwrap();
    drop(stdin);
    let outcome = within(crate::exec::testing::follow(spawned, false)).await;
    assert_eq!((outcome.out, outcome.err), (b"one\n".to_vec(), b"two\n".to_vec()));
    assert_eq!(outcome.end, End::Exited { code: 7 });
}

#[tokio::test]
async fn a_text_is_never_an_option() {
    for text in ["-x; exit 7", "+x; exit 7", "--; exit 7"] {
        assert_eq!(run(&shell(text)).await.end, End::Exited { code: 7 }, "{text}");
    }
}

#[tokio::test]
async fn stdin_is_empty_unless_wanted() {
    assert_eq!(run(&argv(&["cat"])).await.end, End::Exited { code: 0 });
}

#[tokio::test]
async fn merged_streams_keep_their_order() {
    let mut merged = shell("for i in 1 2 3 4 5 6 7 8; do echo o$i; echo e$i >&2; done");
    merged.merge = true;
    let outcome = run(&merged).await;
    assert_eq!(outcome.text(), (1..=8).map(|i| format!("o{i}\ne{i}\n")).collect::<String>());
    assert_eq!(outcome.ends.len(), 1);
}
