//! System mode: the files of keys that users and root keep.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use rexec::client::Error;
use rexec::proto::code::Code;

use super::auth::key;
use super::support::server::finish;
use super::support::user::User;
use super::support::{PATIENCE, Ran, wait_until};
use super::system::Machine;

#[test]
fn the_users_own_list_counts_and_is_read_with_the_users_rights() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    alice.write(&alice.own_list(), &machine.line);
    machine.run(&alice.name, &["true"]).expect(0);
    // What root alone may read is no list of the user's, and nothing is said of what is in it.
    let secret = machine.here.path().join("secret");
    std::fs::write(&secret, &machine.line).unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::remove_file(alice.own_list()).unwrap();
    symlink(&secret, alice.own_list()).unwrap();
    wait_until("the link to be looked at", || machine.run(&alice.name, &["true"]).status == 254);
    let log = machine.server.log();
    assert!(log.contains("no key of ~") && log.contains("ermission denied"), "{log}");
}

#[test]
fn a_list_that_others_can_change_or_that_is_no_file_lets_nobody_in() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    alice.write(&alice.own_list(), &machine.line);
    alice.own(&alice.own_list(), 0o666);
    machine.run(&alice.name, &["true"]).expect(254);
    let log = machine.server.log();
    assert!(log.contains("no key of ~"), "{log}");
    std::fs::remove_file(alice.own_list()).unwrap();
    let made = Command::new("mkfifo").arg(alice.own_list()).status().unwrap();
    assert!(made.success());
    alice.own(&alice.own_list(), 0o600);
    machine.run(&alice.name, &["true"]).expect(254);
}

#[test]
fn keys_of_sshd_count_only_if_that_is_said_and_what_is_passed_by_is_told() {
    let Some(alice) = User::new() else { return };
    let plain = Machine::serving(&[&alice.name]);
    let file = alice.home.join(".ssh/authorized_keys");
    alice.write(&file, &plain.line);
    plain.run(&alice.name, &["true"]).expect(254);
    assert!(plain.server.log().contains("PAM is not consulted"), "{}", plain.server.log());
    let machine = Machine::with(&[&alice.name], &["--use-ssh-keys"]);
    alice.write(&file, &machine.line);
    machine.run(&alice.name, &["true"]).expect(0);
    let log = machine.server.log();
    for passed_by in ["AllowUsers", "Match", "PermitRootLogin", "UsePAM"] {
        assert!(log.contains(passed_by), "{passed_by}: {log}");
    }
}

#[tokio::test]
async fn a_key_that_is_taken_out_of_the_users_list_ends_what_an_open_connection_may_do() {
    let Some(alice) = User::new() else { return };
    let machine = Machine::serving(&[&alice.name]);
    alice.write(&alice.own_list(), &machine.line);
    let mut client = machine.connected(&alice.name);
    let command = rexec::Command::shell("id -un");
    let output = client.output(&command).await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), alice.name);
    std::fs::remove_file(alice.own_list()).unwrap();
    // A list is good for a tenth of a second: what comes within it may still be let in.
    let began = std::time::Instant::now();
    let refused = loop {
        assert!(began.elapsed() < PATIENCE, "it is still let in");
        match client.output(&command).await {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::Refused { code: Code::NotAuthorized, .. }), "{refused}");
}

/// What a user's shell takes its orders from ends with the user's right; gives the server back.
fn input_ends_when(loses: impl FnOnce(&User)) -> Option<Machine> {
    use std::io::Write as _;
    let alice = User::new()?;
    let machine = Machine::serving(&[&alice.name]);
    alice.write(&alice.own_list(), &machine.line);
    let mut client = machine.client(&[], &alice.name).arg("cat > fed");
    client.command.stdin(std::process::Stdio::piped());
    let mut client = client.spawn();
    let mut input = client.stdin.take().unwrap();
    input.write_all(b"before\n").unwrap();
    let fed = alice.home.join("fed");
    wait_until("the first line", || std::fs::read(&fed).is_ok_and(|fed| fed == b"before\n"));
    loses(&alice);
    wait_until("the end of the client", || input.write_all(b"after\n").is_err());
    let ran = finish(client);
    assert_eq!(ran.status, 253, "{}", ran.stderr);
    assert!(ran.stderr.contains("no longer authorized"), "{}", ran.stderr);
    Some(machine)
}

#[test]
fn a_key_that_is_taken_out_of_the_users_list_gives_no_more_input_to_its_run() {
    input_ends_when(|alice| std::fs::remove_file(alice.own_list()).unwrap());
}

#[test]
fn an_account_that_is_locked_gives_no_more_input_to_its_run() {
    let Some(machine) = input_ends_when(|alice| alice.change(&["-L"])) else { return };
    assert!(machine.server.log().contains("not let in any more: the account is locked"));
}

#[test]
fn check_tells_what_the_users_own_lists_say_and_who_cannot_log_in() {
    let (Some(alice), Some(bob), Some(locked)) = (User::new(), User::new(), User::new()) else {
        return;
    };
    locked.change(&["-L"]);
    let here = tempfile::tempdir().unwrap();
    let line = key(here.path(), "friend").1;
    alice.write(&alice.own_list(), &format!("restrict {line}"));
    alice.write(&alice.home.join(".ssh/authorized_keys"), &format!("unheard-of {line}"));
    // What only root may read is not told.
    let secret = here.path().join("secret");
    std::fs::write(&secret, "secret\n").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    bob.write(&bob.own_list(), "");
    std::fs::remove_file(bob.own_list()).unwrap();
    symlink(&secret, bob.own_list()).unwrap();
    let check = |users: &[&User], more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        let names: Vec<_> = users.iter().map(|user| &*user.name).collect();
        command.args(["check", "--users", &names.join(",")]).args(more);
        Ran::of(command.output().unwrap())
    };
    let told = check(&[&alice], &[]).expect(0).text();
    let own = format!(
        "# --authorized-keys ~{}/.config/rexec/authorized_keys\n#   line 1: friend, ",
        alice.name
    );
    assert!(told.contains(&own) && told.contains("runs commands, and follows"), "{told}");
    assert!(told.contains("PAM is not consulted"), "{told}");
    let told = check(&[&alice, &bob, &locked], &["--use-ssh-keys"]).expect(1).text();
    for part in [
        "/.ssh/authorized_keys\n#   line 1: REFUSED: the option \"unheard-of\" is not known",
        &format!("~{}/.config/rexec/authorized_keys\n#   REFUSED, all of it: ", bob.name),
        &format!("REFUSED, all of it: nobody is let in as {}: the account is locked", locked.name),
    ] {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
    assert!(!told.contains("secret\""), "{told}");
    let told = check(&[&alice], &["--json"]).expect(0).text();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let lists: Vec<_> =
        told["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
    assert_eq!(lists.len(), 2, "{lists:?}");
}
