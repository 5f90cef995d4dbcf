//! Commands that cannot be started: 254, a code and the culprit.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::json;

use super::support::program;
use super::support::raw::Raw;
use super::support::server::{Ran, Server, under};

/// The code and the line of a command that must not start.
#[track_caller]
fn refused(server: &Server, args: &[&str]) -> (String, String) {
    let Ran { stdout, stderr, .. } = server.client().arg("--json").args(args).run().expect(254);
    let report: serde_json::Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!((&report["outcome"], &report["verdict"]), (&json!("not_started"), &json!(null)));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (report["code"].as_str().unwrap().to_owned(), stderr)
}

/// A file that nobody may execute.
fn plain(server: &Server, bytes: &[u8]) -> PathBuf {
    let path = server.dir().join("plain");
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    path
}

#[track_caller]
fn assert_culprit(server: &Server, args: &[&str], code: &str, culprit: &str) {
    let (named, line) = refused(server, args);
    assert_eq!(named, code, "{line}");
    assert!(line.contains(culprit), "{culprit} is not in: {line}");
}

#[test]
fn the_program_is_named_when_it_is_at_fault() {
    let server = Server::start(&[]);
    let plain = plain(&server, b"#!/bin/sh\n");
    let [orphan, noise] = ["orphan", "noise"].map(|name| server.dir().join(name));
    program::made(&orphan, b"#!/no/such/interpreter\n");
    program::made(&noise, b"\x7fELF no more than that");
    let text = |path: &PathBuf| path.display().to_string();
    let (plain, orphan, noise) = (text(&plain), text(&orphan), text(&noise));
    assert_culprit(&server, &["--", "no-such-program"], "program_not_found", "no-such-program");
    assert_culprit(&server, &["--", "/no/such"], "program_not_found", "/no/such");
    assert_culprit(&server, &["--", &plain], "program_not_executable", "plain");
    assert_culprit(&server, &["--", "/"], "program_not_executable", "\"/\"");
    assert_culprit(&server, &["--", &orphan], "interpreter_missing", "/no/such/interpreter");
    assert_culprit(&server, &["--", &noise], "bad_format", "noise");
    let path = ["--env", "PATH=/no/where", "--", "true"];
    assert_culprit(&server, &path, "program_not_found", "\"true\"");
}

/// Whoever knows ssh expects a shell; whoever knows curl writes options anywhere.
#[test]
fn words_that_are_no_program_are_told_what_they_stand_for() {
    let server = Server::start(&[]);
    let line = |args: &[&str]| refused(&server, args).1;
    for words in [&["cd", "/srv"][..], &["A=1", "env"]] {
        assert!(
            line(words).contains("--shell gives several words to the server's shell"),
            "{words:?}"
        );
    }
    let late = line(&["echo hi", "--timeout", "3s"]);
    assert!(late.contains("options of rexec stand before the command"), "{late}");
    let quoted = line(&["--", "echo hi"]);
    assert!(quoted.contains("without -- one word is text for the server's shell"), "{quoted}");
    for words in [&["--", "cd", "/srv"][..], &["/no/such", "-x"], &["--", "no-such"]] {
        assert!(!line(words).contains("shell"), "{words:?}");
    }
}

#[test]
fn the_folder_is_named_when_it_is_at_fault() {
    let server = Server::start(&[]);
    let plain = plain(&server, b"").display().to_string();
    assert_culprit(&server, &["--cwd", "/no/such", "true"], "cwd_missing", "/no/such");
    assert_culprit(&server, &["--cwd", &plain, "true"], "cwd_not_a_directory", "plain");
    assert_culprit(&server, &["--cwd", "/no/such", "--", "no-program"], "cwd_missing", "/no/such");
}

/// Root passes every permission bit unless the capability for that is taken from it.
#[test]
fn a_missing_permission_is_told_from_a_missing_file() {
    let server =
        Server::with(&[], under(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"]));
    let closed = server.dir().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::write(closed.join("program"), "").unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    let closed = closed.display().to_string();
    assert_culprit(&server, &["--cwd", &closed, "true"], "cwd_permission", "closed");
    let program = format!("{closed}/program");
    assert_culprit(&server, &["--", &program], "program_not_executable", "closed/program");
}

/// Linux takes a quarter of the stack's limit for arguments and environment, and at least 128 KiB.
#[test]
fn arguments_that_are_too_long_together_are_e2big() {
    let server = Server::with(&[], under(&["sh", "-c", "ulimit -s 512; exec \"$@\"", "sh"]));
    let long = "x".repeat(100_000);
    server.run(&["--", "true", &long]).expect(0);
    assert_culprit(&server, &["--", "true", &long, &long], "arguments_too_long", "on stdin");
}

#[test]
fn a_text_of_128_kib_is_one_byte_too_long() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    let text = |length: usize| format!(": {}", "x".repeat(length - 2));
    raw.run("fits", &text(131_071), json!({}));
    assert_eq!(raw.until("verdict").last().unwrap().0["end"], json!({"exited": {"code": 0}}));
    raw.run("long", &text(131_072), json!({}));
    let (refusal, _) = raw.expect("not_started");
    assert_eq!(refusal["code"], "text_too_long");
    assert!(refusal["text"].as_str().unwrap().contains("over the limit of 131071"), "{refusal}");
    let advice = rexec::proto::code::Code::TextTooLong.advice();
    assert!(advice.starts_with("pass it on stdin"), "{advice}");
}

/// What was refused has used nothing up: not the connection, and not the id.
#[test]
fn a_command_that_did_not_start_may_be_sent_again_corrected() {
    let server = Server::start(&[]);
    let mut raw = Raw::login(&server);
    raw.run("again", "true", json!({"cwd": true, "must": []}));
    raw.expect("refused");
    raw.send(&json!({"type": "run", "id": "again", "form": "argv", "words": 1}), b"/no/such\0");
    raw.expect("not_started");
    raw.run("again", "exit 6", json!({}));
    assert_eq!(raw.until("verdict").last().unwrap().0["end"], json!({"exited": {"code": 6}}));
}
