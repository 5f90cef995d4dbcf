//! Output in the journal, where a rule of the policy asks for it.

use serde_json::{Value, json};

use super::policy::Configured;
use super::support::{Server, server::supervisors, wait_until};

fn configured(rule: &str) -> Configured {
    Configured::start(&format!("[rule.noted]\nfor = [\"local\"]\n{rule}\n"))
}

/// The last line of a run's end.
fn ended(server: &Server) -> Value {
    let lines = server.journal();
    lines.into_iter().rfind(|line| line["type"] == "ended").unwrap()
}

#[test]
fn the_beginning_of_the_output_is_in_the_journal_where_the_policy_says_so() {
    let configured = configured("journal = 8");
    let server = &configured.server;
    for durable in [&[][..], &["--durable"]] {
        for (command, expected) in [
            (&["true"][..], json!({})),
            (&["printf 12345678"], json!({"stdout": "12345678"})),
            (&["printf 123456789"], json!({"stdout": "12345678", "cut": true})),
            (&["printf 'a\\377b' >&2"], json!({"stderr": "a\u{fffd}b"})),
            (&["--merge", "printf x; printf y >&2"], json!({"both": "xy"})),
            (&["head -c 3000000 /dev/zero"], json!({"stdout": "\0".repeat(8), "cut": true})),
        ] {
            server.run(&[durable, command].concat()).expect(0);
            wait_until("the end of the supervisor", || supervisors(server.state()).is_empty());
            assert_eq!(ended(server)["output"], expected, "{durable:?} {command:?}");
        }
    }
    // Of many pieces the first are looked at.
    let command = "i=0; while [ $i -lt 3 ]; do printf $i; i=$((i+1)); sleep 0.02; done";
    server.run(&["--durable", command]).expect(0);
    assert_eq!(ended(server)["output"], json!({"stdout": "012"}));
    let verify = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"))
        .args(["journal", "verify"])
        .env("REXEC_STATE_DIR", server.state())
        .output();
    assert!(verify.unwrap().status.success());
}

#[test]
fn without_such_a_rule_no_output_is_in_the_journal() {
    let configured = configured("output = \"1M\"");
    for durable in [&[][..], &["--durable"]] {
        configured.server.run(&[durable, &["echo hunter2"]].concat()).expect(0);
        assert_eq!(ended(&configured.server).get("output"), None);
    }
}

#[test]
fn more_than_a_line_of_the_journal_holds_is_refused() {
    for (asked, status) in [("\"64K\"", 0), ("65537", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().canonicalize().unwrap().join("server.toml");
        let rule = format!("[rule.noted]\nfor = [\"local\"]\njournal = {asked}\n");
        std::fs::write(&file, rule).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["check", "--config"]).arg(&file);
        let ran = super::support::Ran::of(command.output().unwrap()).expect(status);
        let told = ran.text() + &ran.stderr;
        let part = if status == 0 { "journal = 65536" } else { "at most 64K" };
        assert!(told.contains(part), "{told}");
    }
}
