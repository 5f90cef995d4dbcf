//! Where a server listens: an address that it cannot have, or that nobody could get in by, is named in one line.

use std::net::TcpListener;
use std::path::Path;

use super::state::{checked, ended, fails, server};
use super::support::server::own_port;
use super::support::{Server, raw::Raw};

#[test]
fn an_address_that_cannot_be_listened_on_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let file_address = format!("unix:{}", file.display());
    let long = format!("unix:{}/{}", dir.path().display(), "x".repeat(200));
    let cases: [(&str, &[&str]); 5] = [
        (&taken, &["is in use", &taken]),
        ("192.0.2.1:0", &["192.0.2.1"]),
        (&file_address, &["is not a socket of ours", "remove it or choose another path"]),
        ("unix:/nonexistent/folder/socket", &["/nonexistent/folder/socket"]),
        ("no.such.host.invalid:1", &["no.such.host.invalid"]),
    ];
    for (address, texts) in cases {
        // An address of other machines needs a key first.
        let list = dir.path().join("authorized_keys");
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJZcUKuqYvDLPWEDpwZMAJQHNMNiAyxoTCUj6LLkwlgs";
        std::fs::write(&list, key).unwrap();
        let list = list.to_str().unwrap();
        let args = ["--name", "n", "--authorized-keys", list, "--listen", address];
        fails(server(&state, &args), texts);
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    for address in ["127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999", "unix:", &long] {
        let ran = ended(server(&state, &["--listen", address]));
        assert!([1, 2].contains(&ran.status), "{address}: {} {}", ran.status, ran.stderr);
        assert!(ran.stderr.contains(address), "{address}: {}", ran.stderr);
    }
}

#[test]
fn a_server_that_others_can_reach_does_not_start_without_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let what_to_do = ["no key is authorized", "--authorized-keys FILE", "listen on 127.0.0.1"];
    for address in ["0.0.0.0:0", "[::]:0"] {
        fails(server(&state, &["--listen", address]), &what_to_do);
        let told = checked(&["--listen", address]);
        what_to_do.iter().for_each(|part| assert!(told.contains(part), "{told}"));
        let empty = dir.path().join("empty");
        std::fs::write(&empty, "# nobody\n").unwrap();
        let empty = empty.to_str().unwrap();
        let args = ["--listen", address, "--authorized-keys", empty];
        let ran = fails(server(&state, &args), &[empty, "lets no key in", "listen on 127.0.0.1"]);
        assert!(!ran.stderr.contains("give --authorized-keys"), "{}", ran.stderr);
        let told = checked(&args);
        assert!(told.contains(empty) && told.contains("lets no key in"), "{told}");
    }
}

#[test]
fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
    let mut first = Server::start(&[]);
    let args = ["--name", "second", "--listen", &first.unix.clone()];
    fails(server(first.state(), &args), &["is in use"]);
    first.crash();
    assert!(Path::new(first.unix.strip_prefix("unix:").unwrap()).exists());
    first.restart();
    Raw::login(&first);
}

/// Whoever can read a folder can lock it.
#[test]
fn a_folder_that_another_program_keeps_locked_keeps_no_server_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let folder = std::fs::File::open(dir.path()).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let server = Server::at(&dir.path().join("state"), &own_port(), &[], |_| ());
    Raw::login(&server);
}
