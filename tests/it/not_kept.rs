//! A file system that takes what is written, and says when the file is closed that it has no room for it, as those of the
//! network do: no output that went there is called whole.

use rustix::io::Errno;

use super::durable::{leave, verb};
use super::support::served::Served;
use super::support::server::under;
use super::support::{Client, Ran, Server, wait_until};

/// Runs the client with its stdout in a file of that file system.
fn redirected(disk: &Served, path: &str, mut client: Client) -> Ran {
    under(&["sh", "-c", "path=$1; shift; exec \"$@\" > $path", "sh", path])(&mut client.command);
    disk.show(&mut client.command);
    client.run()
}

#[test]
fn output_that_a_file_system_has_taken_and_does_not_keep_is_no_success() {
    let server = Server::start(&[]);
    let folder = server.dir().join("disk");
    let Some(disk) = Served::folder(&folder) else { return };
    let path = folder.join("file");
    let path = path.to_str().unwrap();
    let id = leave(&server, "echo text; sleep 600");
    wait_until("its output", || verb(&server, "logs", &[&id]).text() == "text\n");
    let mut saved = server.client().args(&["-o", path, "echo text"]);
    disk.show(&mut saved.command);
    let batch = Client::new(server.state()).args(&["batch", "-H", &server.addr, "echo text"]);
    let clients = [
        server.client().arg("echo text"),
        server.client().args(&["--json", "echo text"]),
        Client::new(server.state()).args(&["logs", &server.addr, &id]),
        Client::new(server.state()).args(&["ps", &server.addr]),
        batch,
    ];
    disk.set_close(Err(Errno::DQUOT));
    let ran = saved.run().expect(252);
    assert!(ran.stderr.contains(path) && ran.stderr.contains("quota"), "{}", ran.stderr);
    assert_eq!(disk.file("file"), None);
    for client in clients {
        let ran = redirected(&disk, path, client).expect(252);
        assert!(
            ran.stderr.contains("cannot write") && ran.stderr.contains("quota"),
            "{}",
            ran.stderr
        );
    }
    disk.set_close(Ok(()));
    redirected(&disk, path, server.client().arg("echo kept")).expect(0);
    assert_eq!(disk.file("file").unwrap(), "kept\n");
    let mut saved = server.client().args(&["-o", path, "echo saved"]);
    disk.show(&mut saved.command);
    saved.run().expect(0);
    assert_eq!(disk.file("file").unwrap(), "saved\n");
    verb(&server, "stop", &[&id]).expect(0);
}
