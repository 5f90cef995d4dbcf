//! System mode for the members of groups (`--users @GROUP`).

use rexec::client::Error;
use rexec::proto::code::Code;

use super::auth::key;
use super::support::{PATIENCE, Ran, user::User, wait_until};
use super::system::{Machine, listed};

fn is_refused(ran: &Ran) -> bool {
    ran.status == 254 && ran.stderr.contains("not_authorized")
}

#[tokio::test]
async fn members_of_a_group_are_served_as_long_as_they_are_members() {
    // The group of alice's own, to which bob is added.
    let Some(alice) = User::new() else { return };
    let (bob, carol) = (User::with(&["-G", &alice.name]).unwrap(), User::new().unwrap());
    let machine = Machine::serving(&[&format!("@{}", alice.name)]);
    [&alice, &bob, &carol].into_iter().for_each(|user| listed(&machine, user));
    for user in [&alice, &bob] {
        assert_eq!(machine.run(&user.name, &["id -un"]).expect(0).text().trim(), user.name);
    }
    assert!(is_refused(&machine.run(&carol.name, &["true"])));
    for nobody in ["root", "no-such-user"] {
        assert!(is_refused(&machine.run(nobody, &["true"])), "{nobody}");
    }
    let mut open = machine.connected(&bob.name);
    let command = rexec::Command::shell("true");
    open.output(&command).await.unwrap();
    bob.change(&["-G", ""]);
    // An account is good for a tenth of a second: what comes within it may still be let in.
    let began = std::time::Instant::now();
    let refused = loop {
        assert!(began.elapsed() < PATIENCE, "it is still let in");
        match open.output(&command).await {
            Ok(_) => {}
            Err(e) => break e,
        }
    };
    assert!(matches!(refused, Error::Refused { code: Code::NotAuthorized, .. }), "{refused}");
    wait_until("bob to be refused", || is_refused(&machine.run(&bob.name, &["true"])));
    carol.change(&["-G", &alice.name]);
    wait_until("carol to be let in", || machine.run(&carol.name, &["true"]).status == 0);
    assert!(machine.server.log().contains("this user is not served"));
}

#[test]
fn check_tells_of_the_lists_that_members_of_a_group_keep_themselves() {
    let Some(alice) = User::new() else { return };
    let bob = User::with(&["-G", &alice.name]).unwrap();
    let (carol, locked) = (User::new().unwrap(), User::with(&["-G", &alice.name]).unwrap());
    let here = tempfile::tempdir().unwrap();
    let line = key(here.path(), "friend").1;
    for user in [&bob, &carol, &locked] {
        user.write(&user.own_list(), &format!("restrict {line}\nno key\n"));
    }
    locked.change(&["-L"]);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
    command.args(["check", "--listen", "127.0.0.1:0", "--users"]).arg(format!("@{}", alice.name));
    let told = Ran::of(command.output().unwrap()).expect(1).text();
    let list =
        format!("# --authorized-keys ~{}/.config/rexec/authorized_keys\n#   line 1: ", bob.name);
    let (_, own) = told.split_once(&list).unwrap_or_else(|| panic!("{told}"));
    assert!(own.contains("line 3: REFUSED: \"no\" is not a type of key"), "{told}");
    for user in [&alice, &carol, &locked] {
        assert!(!told.contains(&format!("~{}/", user.name)), "{told}");
    }
}

#[test]
fn root_is_served_by_its_name_and_by_no_group() {
    let Some(alice) = User::with(&["-G", "root"]) else { return };
    let machine = Machine::serving(&["@root", "@no-such-group"]);
    listed(&machine, &alice);
    assert_eq!(machine.run(&alice.name, &["id -un"]).expect(0).text().trim(), alice.name);
    assert!(is_refused(&machine.run("root", &["true"])));
    let log = machine.server.log();
    assert!(log.contains("nobody is let in by @no-such-group: there is no such group"), "{log}");
    assert!(log.contains("system mode, for @root, @no-such-group"), "{log}");
}

#[test]
fn a_group_without_a_name_is_none() {
    for users in ["@", "@@a", "@a/b", "alice,@"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rexec-server"));
        command.args(["check", "--users", users]);
        let ran = Ran::of(command.output().unwrap()).expect(2);
        assert!(ran.stderr.contains("nor @ and that of a group"), "{users}: {}", ran.stderr);
    }
}
