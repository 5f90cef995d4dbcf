//! What a standard input is: whatever it is, it is read to its end, and pipes that are found full are made larger.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use super::support::server::under;
use super::support::{Server, finish, pid_in, wait_until};

/// A pipe's size from the start, and of one that was found full (pipe(7)).
const SIZES: [usize; 2] = [65_536, 1 << 20];

/// What a client's standard input is, and what its command's is: sizes of both pipes.
fn sizes_after(input: &[u8]) -> [usize; 2] {
    let server = Server::start(&[]);
    let dir = server.dir().display().to_string();
    let (length, is_large) = (input.len(), input.len() > SIZES[0]);
    // A pipe is found full when some of it, and not all, was read.
    let taken = if is_large { 8192 } else { 5 };
    let text = format!(
        "dd bs={taken} count=1 of=/dev/null 2>&1; echo $$ > {dir}/pid; while ! test -e {dir}/gate; do sleep 0.01; done; exec wc -c"
    );
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let ours = reader.try_clone().unwrap();
    let child = server.client().arg(text).stdin(reader).spawn();
    let (mut writer, input) = (File::from(writer), input.to_owned());
    let wrote = std::thread::spawn(move || writer.write_all(&input));
    let pid = pid_in(&server.dir().join("pid"));
    // Nobody may write to it any more.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let theirs = File::options().read(true).custom_flags(flags).open(format!("/proc/{pid}/fd/0"));
    let theirs = theirs.unwrap();
    wait_until("what is sent is in the command's pipe", || {
        let arrived = rustix::io::ioctl_fionread(&theirs).unwrap() > 0;
        arrived && (!is_large || fcntl_getpipe_size(&theirs).unwrap() > SIZES[0])
    });
    let sizes = [fcntl_getpipe_size(&ours).unwrap(), fcntl_getpipe_size(&theirs).unwrap()];
    std::fs::write(server.dir().join("gate"), "").unwrap();
    let text = finish(child).expect(0).text();
    assert_eq!(text.lines().last(), Some(&*(length - taken).to_string()));
    wrote.join().unwrap().unwrap();
    sizes
}

#[test]
fn the_pipes_of_an_input_that_fills_them_grow_on_both_sides() {
    assert_eq!(sizes_after(&vec![b'x'; 8 << 20]), [SIZES[1]; 2]);
}

#[test]
fn the_pipes_of_a_small_input_stay_as_they_are() {
    assert_eq!(sizes_after(b"a few words"), [SIZES[0]; 2]);
}

/// A client that may not open its own pipe a second time reads it as it is.
fn unprivileged(client: &mut Command) {
    under(&["setpriv", "--bounding-set=-dac_override,-dac_read_search"])(client);
}

#[test]
fn every_kind_of_stdin_is_read_to_its_end() {
    let server = Server::start(&[]);
    let words = b"a few words\n";
    let (open, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&write, words).unwrap();
    drop(write);
    let (closed, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&write, words).unwrap();
    rustix::fs::fchmod(&closed, Mode::empty()).unwrap();
    drop(write);
    let (socket, mut other) = UnixStream::pair().unwrap();
    other.write_all(words).unwrap();
    drop(other);
    let path = server.dir().join("words");
    std::fs::write(&path, words).unwrap();
    let kinds = [open, closed, socket.into(), File::open(path).unwrap().into()];
    for (at, stdin) in kinds.into_iter().enumerate() {
        let mut client = server.client().arg("cat");
        unprivileged(&mut client.command);
        assert_eq!(client.stdin(stdin).run().expect(0).stdout, words, "kind {at}");
    }
}

#[test]
fn who_shares_stdin_with_the_client_still_waits_in_a_read() {
    let server = Server::start(&[]);
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let ours = reader.try_clone().unwrap();
    let mut child = server.client().arg("cat").stdin(reader).spawn();
    let mut writer = File::from(writer);
    writer.write_all(b"first\n").unwrap();
    let mut line = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert!(!rustix::fs::fcntl_getfl(&ours).unwrap().contains(OFlags::NONBLOCK));
    writer.write_all(b"second\n").unwrap();
    drop(writer);
    assert_eq!(finish(child).expect(0).text(), "second\n");
}

/// One that is opened after its last writer has left tells poll(2) of no end.
#[test]
fn a_named_pipe_whose_writer_has_left_has_an_end() {
    let server = Server::start(&[]);
    let path = server.dir().join("named");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    for input in [&b"abc"[..], b""] {
        let mut writer = File::options().read(true).write(true).open(&path).unwrap();
        let reader = File::open(&path).unwrap();
        writer.write_all(input).unwrap();
        drop(writer);
        let ran = server.client().arg("cat").stdin(reader).run().expect(0);
        assert_eq!(ran.stdout, input);
    }
}

/// As from a descriptor that can only be written to nothing is read from a pipe that is one.
#[test]
fn the_wrong_end_of_a_pipe_gives_nothing() {
    let server = Server::start(&[]);
    let (_reader, writer) = std::io::pipe().unwrap();
    assert_eq!(server.client().arg("cat").stdin(writer).run().expect(0).stdout, b"");
}
