//! The journal: what was accepted, what ran and how it ended, one JSON object a line.
//!
//! Each line holds its number and the SHA-256 of the line before, so a line that is changed, removed
//! or moved breaks the chain. A line is one `write(2)` to a file opened for appending: what a killed
//! server wrote is whole, and only a machine that goes down can tear the last line.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::io::Errno;
use serde::Serialize;

use self::copy::Copier;
pub use self::error::JournalError;
pub use self::line::{Accepted, Event, LINE_LIMIT, Line, Origin, Refused, TEXT_LIMIT};
use self::read::{Chain, Found, Segment, io_error, path_of, segments};
use super::clock;
use crate::proto::digest::Digest;
use crate::proto::verdict::Anchor;
use crate::sys::mutex::lock;
use crate::sys::pause;

pub mod copy;
pub mod ends;
mod error;
pub mod history;
mod line;
pub mod read;
pub mod rules;
pub mod verify;

/// The length in bytes at which a segment is followed by the next one.
pub const SEGMENT_LIMIT: u64 = 64 * 1024 * 1024;
/// Room for most lines.
const LINE_ROOM: usize = 1000;

#[derive(Serialize)]
struct LineOut<'a> {
    seq: u64,
    prev: Option<Digest>,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// The open journal of one server.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// The folder, open.
    names: File,
    tail: Mutex<Tail>,
    copier: Option<Copier>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    segment: u64,
    length: u64,
    seq: u64,
    last: Option<Digest>,
    /// A part of a line could neither be finished nor cut off; nothing is added before it is.
    torn: bool,
    /// The disk may have lost a line of it. It says so once (fsync(2)), and passes over it the next time.
    doubtful: bool,
}

impl Journal {
    /// Opens the journal in `folder`, which must exist, and hands each line of its newest segment to
    /// `each`, with its place. A torn last line is cut off; the count of its bytes is returned.
    ///
    /// # Errors
    /// [`JournalError`]: a file cannot be read or written, or the newest segment's chain is broken.
    pub fn open(
        folder: &Path,
        each: impl FnMut(Line, Anchor),
    ) -> Result<(Self, u64), JournalError> {
        let newest = newest_segment(folder)?;
        let segment = newest.unwrap_or(1);
        let path = path_of(folder, segment);
        let names = File::open(folder).map_err(|e| io_error(folder, e))?;
        let file =
            open_segment(&path).map_err(|error| JournalError::Io { path: path.clone(), error })?;
        let read = read_segment(&path, each)?;
        file.set_len(read.whole).map_err(|error| JournalError::Io { path, error })?;
        let seq = read.chain.head.map_or(0, |head| head.seq);
        let last = read.chain.head.map(|head| head.hash);
        let doubtful = newest.is_none() && !has_names(&names);
        let tail = Tail { file, segment, length: read.whole, seq, last, torn: false, doubtful };
        let (folder, tail) = (folder.to_owned(), Mutex::new(tail));
        Ok((Self { folder, names, tail, copier: None }, read.torn))
    }

    /// The same journal, whose lines are copied from now on.
    #[must_use]
    pub fn copied_by(self, copier: Copier) -> Self {
        Self { copier: Some(copier), ..self }
    }

    /// Adds a line. It is in the system's hands when this returns: a killed server keeps it.
    ///
    /// # Errors
    /// [`JournalError::Io`], for example on a full disk; no part of the line is then left behind.
    pub fn add(&self, event: &Event) -> Result<Anchor, JournalError> {
        let mut tail = lock(&self.tail);
        tail.write(event, self.copier.as_ref())
            .map_err(|error| JournalError::Io { path: path_of(&self.folder, tail.segment), error })
    }

    /// Calls `work` while no line is being written: what it does to this process leaves none half done.
    pub fn while_nothing_is_written<T>(&self, work: impl FnOnce() -> T) -> T {
        let _tail = lock(&self.tail);
        work()
    }

    /// The place of the last line.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        lock(&self.tail).seq
    }

    /// Returns when every line that was added before is on the disk; the place of the last of them.
    ///
    /// # Errors
    /// What the system says; from then on it fails until the next segment is begun.
    pub fn sync(&self) -> io::Result<u64> {
        let (file, segment, seq) = {
            let tail = lock(&self.tail);
            if tail.doubtful {
                return Err(io::Error::other("its disk may have lost a line before"));
            }
            (tail.file.try_clone()?, tail.segment, tail.seq)
        };
        // A segment is synced before the next one is begun, so its lines are on the disk as well.
        let synced = file.sync_data();
        if synced.is_err() {
            let mut tail = lock(&self.tail);
            tail.doubtful |= tail.segment == segment;
        }
        synced.map(|()| seq)
    }

    /// True if the segment is so large that the next one should be begun.
    #[must_use]
    pub fn is_full(&self) -> bool {
        lock(&self.tail).length >= SEGMENT_LIMIT
    }

    /// True if no line is known to come to the disk before the next segment is begun.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        lock(&self.tail).doubtful
    }

    /// Begins the next segment with `carried`: what a reader of that segment alone must know.
    ///
    /// # Errors
    /// [`JournalError::Io`]; the journal then goes on in the old segment.
    pub fn rotate(&self, carried: &[Event]) -> Result<(), JournalError> {
        let mut tail = lock(&self.tail);
        if tail.length < SEGMENT_LIMIT && !tail.doubtful {
            return Ok(());
        }
        let path = path_of(&self.folder, tail.segment + 1);
        // Whatever the disk loses of it, a reader of the next one needs nothing of it.
        tail.doubtful |= tail.file.sync_data().is_err();
        *tail = next(&tail, (&path, &self.names), carried, self.copier.as_ref())
            .map_err(|error| JournalError::Io { path, error })?;
        Ok(())
    }
}

impl Tail {
    /// Adds a line, or nothing of it.
    fn write(&mut self, event: &Event, copier: Option<&Copier>) -> io::Result<Anchor> {
        if self.torn {
            self.file.set_len(self.length)?;
            self.torn = false;
        }
        let (bytes, anchor) = encode(self.seq + 1, self.last, event)?;
        if let Err(e) = self.file.write_all(&bytes) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(e);
        }
        self.length += bytes.len() as u64;
        (self.seq, self.last) = (anchor.seq, Some(anchor.hash));
        copy_lines(&bytes, copier);
        Ok(anchor)
    }
}

/// A line's bytes, and what the line after it says of it.
fn encode(seq: u64, prev: Option<Digest>, event: &Event) -> io::Result<(Vec<u8>, Anchor)> {
    let line = LineOut { seq, prev, time: clock::timestamp(), event };
    let mut bytes = Vec::with_capacity(LINE_ROOM);
    serde_json::to_writer(&mut bytes, &line)?;
    let anchor = Anchor { seq, hash: Digest::of(&bytes) };
    bytes.push(b'\n');
    Ok((bytes, anchor))
}

fn copy_lines(bytes: &[u8], copier: Option<&Copier>) {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    copier.into_iter().for_each(|copier| lines.clone().for_each(|line| copier.copy(line)));
}

/// The segment after `tail`'s. It gets its name when all of its first lines are on the disk: a server that is
/// killed in between, and an error, leave the old one the newest.
fn next(
    tail: &Tail,
    (path, names): (&Path, &File),
    carried: &[Event],
    copier: Option<&Copier>,
) -> io::Result<Tail> {
    let (mut seq, mut last, mut bytes) = (tail.seq, tail.last, Vec::new());
    for event in carried {
        let (line, anchor) = encode(seq + 1, last, event)?;
        (seq, last) = (anchor.seq, Some(anchor.hash));
        bytes.extend(line);
    }
    let unfinished = path.with_extension("new");
    let mut file = open_segment(&unfinished)?;
    file.set_len(0)?;
    file.write_all(&bytes)?;
    file.sync_data()?;
    pause::point("segment");
    fs::rename(unfinished, path)?;
    copy_lines(&bytes, copier);
    let length = bytes.len() as u64;
    // It is the newest already, whatever becomes of its name.
    let doubtful = !has_names(names);
    Ok(Tail { file, segment: tail.segment + 1, length, seq, last, torn: false, doubtful })
}

/// Whether the disk has the names that were given in a folder: without its name a segment's lines are lost, however
/// often they were synced (fsync(2)). Where folders cannot be synced nobody knows more.
fn has_names(folder: &File) -> bool {
    match folder.sync_all() {
        Ok(()) => true,
        Err(e) => Errno::from_io_error(&e) == Some(Errno::INVAL),
    }
}

/// What was found in a segment.
struct SegmentRead {
    whole: u64,
    torn: u64,
    chain: Chain,
}

fn read_segment(
    path: &Path,
    mut each: impl FnMut(Line, Anchor),
) -> Result<SegmentRead, JournalError> {
    let mut segment = Segment::open(path)?;
    let mut read = SegmentRead { whole: 0, torn: 0, chain: Chain::default() };
    while let Some(found) = segment.advance()? {
        let number = segment.place().line;
        let broken = |what| JournalError::Broken { path: path.to_owned(), line: number, what };
        let (line, hash) = match found {
            Found::Line(line, hash) => (line, hash),
            Found::Bad(what) => return Err(broken(what)),
            Found::Torn(bytes) => {
                read.torn = bytes;
                break;
            }
        };
        if number > 1 && !read.chain.goes_on_with(&line) {
            return Err(broken("it does not follow the line before".into()));
        }
        read.whole += segment.text().len() as u64 + 1;
        read.chain.take(&line, hash);
        each(*line, Anchor { seq: read.chain.due() - 1, hash });
    }
    Ok(read)
}

fn open_segment(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The newest segment that has a line: a server may have been killed when it had just made the next.
fn newest_segment(folder: &Path) -> Result<Option<u64>, JournalError> {
    let mut newest = None;
    for number in segments(folder)? {
        let path = path_of(folder, number);
        if fs::metadata(&path).map_err(|e| io_error(&path, e))?.len() > 0 {
            newest = newest.max(Some(number));
        }
    }
    Ok(newest)
}

#[cfg(test)]
mod tests;
