//! The pipes of a standard input: those that are found full are made larger.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::fs::OFlags;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

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
