//! Output that is saved: `-o`, and what becomes of the file that was there.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};

use rustix::fs::{FileType, Mode};

use super::support::relay::{Relay, Way};
use super::support::server::finish;
use super::support::{Client, Server, wait_until};

#[test]
fn output_is_saved_under_its_name_when_it_is_whole() {
    let server = Server::start(&[]);
    let folder = server.dir().join("saved");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    std::fs::write(&file, "the old one").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let go = server.dir().join("go");
    let text = format!(
        "seq 1 50000; echo ready >&2; while [ ! -e {} ]; do sleep 0.01; done; exit 3",
        go.display()
    );
    let child = server.client().arg("-o").arg(&file).arg(text).spawn();
    let temporary = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        names.filter(|path| *path != file).collect::<Vec<_>>()
    };
    let size = || temporary().first().map_or(0, |path| path.metadata().unwrap().len());
    wait_until("the output under another name", || size() == 288_894);
    assert_eq!(std::fs::read(&file).unwrap(), b"the old one");
    std::fs::write(go, "").unwrap();
    let ran = finish(child).expect(3);
    assert_eq!((ran.stdout.len(), ran.stderr.as_str()), (0, "ready\n"));
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 50_000);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(temporary().len(), 0);
}

#[test]
fn what_is_not_whole_leaves_the_old_file_and_nothing_beside_it() {
    let server = Server::start(&[]);
    let folder = server.dir().join("saved");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("file");
    std::fs::write(&file, "the old one").unwrap();
    let relay = Relay::to(&server.addr);
    relay.cut_after(&[(Way::Down, 100_000)]);
    let client = Client::new(server.state()).args(&["--reconnect-timeout", "0s", "-o"]);
    client.arg(&file).args(&[&relay.addr, "seq 1 200000"]).run().expect(253);
    let client = server.client().arg("-o").arg(&file);
    client.args(&["--", "no-such-program"]).run().expect(254);
    assert_eq!(std::fs::read(&file).unwrap(), b"the old one");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
}

#[test]
fn a_link_is_followed_and_a_device_stays_one() {
    let server = Server::start(&[]);
    let (file, link) = (server.dir().join("file"), server.dir().join("link"));
    std::fs::write(&file, "old").unwrap();
    symlink(&file, &link).unwrap();
    server.client().arg("-o").arg(&link).arg("printf new").run().expect(0);
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert!(link.symlink_metadata().unwrap().is_symlink());
    server.run(&["-o", "/dev/null", "seq 1 100000"]).expect(0);
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_file_that_cannot_be_made_is_named_before_anything_is_run() {
    let server = Server::start(&[]);
    let effect = server.dir().join("effect");
    let text = format!("echo > {}", effect.display());
    for place in ["/no/such/folder/file", "/"] {
        let ran = server.run(&["-o", place, &text]).expect(2);
        assert!(ran.stderr.contains(place), "{}", ran.stderr);
    }
    assert!(!effect.exists());
}

#[test]
fn links_are_followed_and_what_was_given_is_written_to() {
    let server = Server::start(&[]);
    let (file, link) = (server.dir().join("file"), server.dir().join("link"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    server.run(&["--verdict", link.to_str().unwrap(), "true"]).expect(0);
    assert!(link.is_symlink());
    assert!(std::fs::read_to_string(&file).unwrap().contains("\"status\":0"));
    for name in ["-", "/dev/stdout"] {
        let ran = server.run(&["-o", name, "--verdict", name, "echo out"]).expect(0);
        assert!(ran.text().starts_with("out\n{"), "{}", ran.text());
    }
}

#[test]
fn what_a_deadline_stopped_does_not_replace_a_file() {
    let server = Server::start(&[]);
    let file = server.dir().join("file");
    std::fs::write(&file, "good").unwrap();
    let name = file.to_str().unwrap();
    server.run(&["-o", name, "-t", "500ms", "echo half; sleep 60"]).expect(124);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "good");
}

#[test]
fn what_is_to_be_saved_is_not_replaced_by_how_it_ended() {
    let server = Server::start(&[]);
    let file = server.dir().join("file");
    let (path, again) = (file.to_str().unwrap(), server.dir().join("./file"));
    let effect = server.dir().join("effect");
    let command = format!("touch {}", effect.display());
    for other in [path, again.to_str().unwrap()] {
        let ran = server.run(&["-o", path, "--verdict", other, &command]).expect(2);
        assert!(ran.stderr.contains("the same file"), "{}", ran.stderr);
    }
    std::os::unix::fs::symlink(&file, server.dir().join("link")).unwrap();
    std::fs::write(&file, "old").unwrap();
    let link = server.dir().join("link");
    server.run(&["-o", path, "--verdict", link.to_str().unwrap(), &command]).expect(2);
    assert!(!effect.exists() && std::fs::read(&file).unwrap() == b"old");
    server.run(&["-o", "/dev/null", "--verdict", "/dev/null", "true"]).expect(0);
    let batch = |more: &[&str]| {
        Client::new(server.state())
            .args(&["batch", "-H", &server.addr])
            .args(more)
            .arg(&command)
            .run()
    };
    for (one, other) in [("--report", "--junit"), ("--junit", "--html"), ("--report", "--html")] {
        let ran = batch(&[one, path, other, path]).expect(2);
        assert!(ran.stderr.contains("the same file"), "{}", ran.stderr);
    }
    assert!(!effect.exists());
}

/// As the kernel does it with `fs.protected_symlinks` (proc_sys_fs(5)), in a folder such as /tmp.
#[test]
fn what_is_saved_where_all_can_write_goes_through_no_link_of_anothers_and_into_nothing_of_theirs() {
    let server = Server::start(&[]);
    let folder = server.dir().join("all");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let (own, link) = (server.dir().join("own"), folder.join("link"));
    std::fs::write(&own, "own").unwrap();
    std::os::unix::fs::symlink(&own, &link).unwrap();
    let path = link.to_str().unwrap();
    let save = |option: &str| server.run(&[option, path, "echo text"]);
    save("-o").expect(0);
    assert_eq!(std::fs::read(&own).unwrap(), b"text\n", "a link of one's own is followed");
    if std::os::unix::fs::lchown(&link, Some(65_534), None).is_err() {
        return println!("left out: only root can give a link to another");
    }
    let refused = || {
        for option in ["-o", "--verdict"] {
            let ran = save(option).expect(2);
            assert!(ran.stderr.contains("is another account's"), "{}", ran.stderr);
        }
        let batch = Client::new(server.state()).args(&["batch", "-H", &server.addr]);
        batch.args(&["--junit", path, "true"]).run().expect(2);
    };
    refused();
    assert_eq!(std::fs::read(&own).unwrap(), b"text\n");
    // Nor into what another can read.
    let replaced_by = |kind| {
        std::fs::remove_file(&link).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &link, kind, Mode::from_raw_mode(0o666), 0).unwrap();
        std::os::unix::fs::lchown(&link, Some(65_534), None).unwrap();
    };
    for kind in [FileType::Fifo, FileType::RegularFile] {
        replaced_by(kind);
        refused();
    }
    std::os::unix::fs::chown(&folder, Some(65_534), None).unwrap();
    save("-o").expect(0);
}

/// With the group of its maker instead, a file that its group may read would be another group's to read.
#[test]
fn a_file_that_is_replaced_keeps_its_owner_its_group_and_its_mode() {
    let server = Server::start(&[]);
    let file = server.dir().join("file");
    for (option, mode) in [("-o", 0o640), ("--verdict", 0o664)] {
        std::fs::write(&file, "old").unwrap();
        if std::os::unix::fs::chown(&file, Some(65_534), Some(65_533)).is_err() {
            return println!("left out: only root can give a file to another");
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        server.run(&[option, file.to_str().unwrap(), "echo new"]).expect(0);
        let found = file.metadata().unwrap();
        assert_ne!(std::fs::read(&file).unwrap(), b"old");
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65_534, 65_533, mode));
    }
}
