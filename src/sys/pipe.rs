//! Pipes, pipe(7).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A pipe's size from the start, bytes.
pub const PIPE_SIZE: usize = 65_536;
/// Size of one that was found full; `pipe-max-size` of most machines.
pub const GROWN_SIZE: usize = 1 << 20;

/// When a pipe is made larger, which saves switches between writer and reader: once, after it was found full a few
/// times in a row. A larger pipe is memory of the kernel that counts against the account (`pipe-user-pages-soft`), so
/// only those grow that are found full.
#[derive(Debug)]
pub struct Growth {
    after: u8,
    /// In a row so far; stands when the pipe has grown.
    full: u8,
}

impl Growth {
    /// For a pipe that grows when it was found full for the `after`th time in a row.
    #[must_use]
    pub fn after(after: u8) -> Self {
        Self { after, full: 0 }
    }

    /// The pipe was found full, or was not. Does nothing to what is no pipe, or when the account has its share of
    /// such memory.
    pub fn found(&mut self, is_full: bool, pipe: impl AsFd) {
        if self.full == self.after {
            return;
        }
        self.full = if is_full { self.full + 1 } else { 0 };
        if self.full == self.after {
            let _ = rustix::pipe::fcntl_setpipe_size(pipe, GROWN_SIZE);
        }
    }
}

/// `/dev/null` to read from, opened once: to find it takes longer than to hand it on.
///
/// # Errors
/// It cannot be opened.
pub fn null() -> io::Result<BorrowedFd<'static>> {
    static NULL: OnceLock<File> = OnceLock::new();
    let null = match NULL.get() {
        Some(null) => null,
        None => {
            let opened = File::open("/dev/null")?;
            NULL.get_or_init(|| opened)
        }
    };
    Ok(null.as_fd())
}

/// What another process says, until its end.
///
/// # Errors
/// `InvalidData` if that is more than `limit` bytes, `TimedOut` if it takes longer than `patience`.
pub fn read_all(mut pipe: File, limit: usize, patience: Option<Duration>) -> io::Result<Vec<u8>> {
    let started = Instant::now();
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = patience.map(|patience| patience.saturating_sub(started.elapsed()));
        let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        if rustix::io::retry_on_intr(|| poll(&mut fds, left.as_ref()))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match pipe.read(&mut piece)? {
            0 => return Ok(all),
            len if all.len() + len <= limit => all.extend_from_slice(&piece[..len]),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn a_pipe_grows_once_when_it_was_full_often_enough_in_a_row() {
        let (reader, _writer) = pipe();
        let size = || rustix::pipe::fcntl_getpipe_size(&reader).unwrap();
        let mut growth = Growth::after(2);
        for is_full in [true, false, true, false, false, true] {
            growth.found(is_full, &reader);
            assert_eq!(size(), PIPE_SIZE);
        }
        growth.found(true, &reader);
        assert_eq!(size(), GROWN_SIZE);
        rustix::pipe::fcntl_setpipe_size(&reader, PIPE_SIZE).unwrap();
        (0..4).for_each(|_| growth.found(true, &reader));
        assert_eq!(size(), PIPE_SIZE, "what somebody has made smaller since stays so");
        Growth::after(1).found(true, File::open("/dev/null").unwrap());
    }

    #[test]
    fn up_to_the_limit_and_not_one_byte_more() {
        for (limit, ok) in [(5, true), (4, false)] {
            let (reader, mut writer) = pipe();
            writer.write_all(b"hello").unwrap();
            drop(writer);
            let read = read_all(reader, limit, None);
            assert_eq!(
                read.map_err(|e| e.kind()),
                match ok {
                    true => Ok(b"hello".to_vec()),
                    false => Err(io::ErrorKind::InvalidData),
                }
            );
        }
    }

    #[test]
    fn who_says_nothing_is_not_waited_for_longer() {
        let (reader, _writer) = pipe();
        let read = read_all(reader, 5, Some(Duration::from_millis(1)));
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
