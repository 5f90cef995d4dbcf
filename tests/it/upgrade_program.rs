//! Which program takes over when a server is upgraded, and what happens if none can.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::support::server::finish;
use super::support::{Client, PATIENCE, Server, program};
use super::upgrade::{PROGRAM, under_way, upgrade, wait_for_log};

/// A server whose program is a copy, which a test may replace.
fn from_copy(args: &[&str]) -> (Server, tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("rexec-server");
    program::copied(Path::new(PROGRAM), &copy);
    let server = Server::with(args, |command| {
        let mut other = Command::new(&copy);
        other.args(command.get_args());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        *command = other;
    });
    (server, dir, copy)
}

#[test]
fn the_program_that_was_put_in_its_place_takes_over() {
    let (mut server, dir, copy) = from_copy(&[]);
    let next = dir.path().join("next");
    program::copied(Path::new(PROGRAM), &next);
    let inode = next.metadata().unwrap().ino();
    let exe = format!("/proc/{}/exe", server.pid());
    assert_ne!(std::fs::metadata(&exe).unwrap().ino(), inode);
    std::fs::rename(&next, &copy).unwrap();
    for _ in 0..2 {
        upgrade(&mut server);
        assert_eq!(std::fs::metadata(&exe).unwrap().ino(), inode);
    }
    assert_eq!(std::fs::read_link(&exe).unwrap(), copy.canonicalize().unwrap());
    server.run(&["true"]).expect(0);
}

#[test]
fn a_program_that_is_missing_broken_or_does_not_know_the_arguments_does_not_take_over() {
    let (server, _dir, copy) = from_copy(&["--verbose"]);
    let (child, go) = under_way(&server, "go");
    let bad = [
        ("", "does not start: No such file"),
        ("no program", "does not start: Exec format"),
        ("#!/bin/sh\necho 'what is --verbose?' >&2; exit 2\n", "what is --verbose?"),
        ("#!/bin/sh\nkill -9 $$\n", "it says nothing"),
    ];
    for (text, complaint) in bad {
        std::fs::remove_file(&copy).unwrap();
        if !text.is_empty() {
            program::made(&copy, text);
        }
        server.signal(Signal::HUP);
        wait_for_log(&server, complaint);
        server.run(&["true"]).expect(0);
        if text.is_empty() {
            std::fs::write(&copy, "").unwrap();
        }
    }
    assert!(!server.log().contains("upgrading"), "{}", server.log());
    std::fs::write(&go, "").unwrap();
    finish(child).expect(6);
}

#[test]
fn a_program_that_goes_missing_at_the_last_moment_leaves_the_server_as_it_was() {
    let (mut server, _dir, copy) = from_copy(&["--drain-timeout", "1h"]);
    let (child, go) = under_way(&server, "go");
    server.signal(Signal::HUP);
    wait_for_log(&server, "upgrading");
    let kept = copy.with_extension("kept");
    std::fs::rename(&copy, &kept).unwrap();
    let held = server.client().arg("echo held").spawn();
    std::fs::write(&go, "").unwrap();
    finish(child).expect(6);
    assert_eq!(finish(held).expect(0).text(), "held\n");
    wait_for_log(&server, "no upgrade, going on: cannot become");
    for address in [&server.addr, &server.unix] {
        Client::new(server.state()).args(&[address, "true"]).run().expect(0);
    }
    std::fs::rename(&kept, &copy).unwrap();
    upgrade(&mut server);
    server.run(&["true"]).expect(0);
}

/// sd_notify(3), and `Type=notify-reload` of systemd.service(5).
#[test]
fn systemd_is_told_of_an_upgrade_and_of_one_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut message = [0; 256];
        let count = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..count]).into_owned()
    };
    let (copy, server);
    {
        let own = dir.path().join("rexec-server");
        program::copied(Path::new(PROGRAM), &own);
        server = Server::with(&[], |command| {
            let mut other = Command::new(&own);
            other.args(command.get_args()).env("NOTIFY_SOCKET", &path);
            other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            *command = other;
        });
        copy = own;
    }
    assert_eq!(next(), "READY=1\n");
    for missing in [false, true] {
        if missing {
            std::fs::remove_file(&copy).unwrap();
        }
        server.signal(Signal::HUP);
        let reloading = next();
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().trim_end();
        assert!(usec.parse::<u64>().unwrap() > 0, "{reloading}");
        assert_eq!(next(), "READY=1\n");
    }
}
