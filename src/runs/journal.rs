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

use serde::{Deserialize, Serialize};

use self::copy::Copier;
use self::read::{Chain, Found, Segment, io_error, path_of, segments};
use super::clock;
use super::excerpt::Excerpt;
use crate::proto::digest::Digest;
use crate::proto::verdict::{Anchor, Verdict};
use crate::sys::mutex::lock;
use crate::sys::pause;

pub mod copy;
pub mod ends;
pub mod history;
pub mod read;
pub mod rules;
pub mod verify;

/// The length in bytes at which a segment is followed by the next one.
pub const SEGMENT_LIMIT: u64 = 64 * 1024 * 1024;
/// Most bytes of one line.
pub const LINE_LIMIT: usize = 1 << 20;
/// Room for most lines.
const LINE_ROOM: usize = 1000;
/// So much of a command's text goes into the journal; its digest covers all of it.
pub const TEXT_LIMIT: usize = 4096;

/// One line, without the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A server opened the journal.
    Opened(Origin),
    /// A run's id was claimed; from here on it may have been started.
    Accepted(Accepted),
    /// Its main process is there.
    Running {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// The main process.
        pid: u32,
        /// Its start, clock ticks after boot (`proc(5)`, field 22 of `stat`).
        start_time: u64,
    },
    /// It could not be started; the id is free again.
    NotStarted {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// Why.
        code: String,
    },
    /// It ended.
    Ended {
        /// Under which identity.
        identity: String,
        /// How.
        verdict: Box<Verdict>,
        /// What it wrote at first, if the policy wants that written down.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Box<Excerpt>>,
    },
    /// The server was restarted while it ran.
    Lost {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
        /// Processes of it that could not be stopped.
        left_running: u32,
    },
    /// The client gave the id up before it was used.
    Buried {
        /// The run.
        run: String,
        /// Under which identity.
        identity: String,
    },
    /// Somebody logged in.
    Login {
        /// As whom.
        identity: String,
        /// From where.
        from: String,
        /// What the client calls itself.
        client: String,
    },
    /// Somebody was not let in, or asked for what is not granted.
    Refused(Refused),
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Of whom; none if nobody had logged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// From where.
    pub from: String,
    /// Why.
    pub code: String,
    /// The same for people.
    pub text: String,
    /// So many refusals since the line before of this kind have no line of their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub others: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Where and when a line was written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The machine (`machine-id(5)`), if it has an id.
    pub machine: Option<String>,
    /// The boot (`random(4)`, boot_id).
    pub boot: String,
    /// Inode of the pid namespace.
    pub pid_namespace: u64,
    /// The folder of the journal, as the system tells it from a copy: device and inode.
    #[serde(default)]
    pub folder: Option<String>,
    /// Milliseconds since boot.
    pub boottime_ms: u64,
    /// Bytes of a torn last line that were cut off at opening.
    #[serde(default)]
    pub torn: u64,
}

impl Origin {
    /// Whether the processes that were started there are the ones seen here, and ours: within one boot
    /// and one pid namespace of one machine, and not those of the folder that this one is a copy of.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        self.is_same_boot(other)
            && (self.pid_namespace, &self.folder) == (other.pid_namespace, &other.folder)
    }

    /// Whether all that was written there can be read here: the machine has not gone down since.
    #[must_use]
    pub fn is_same_boot(&self, other: &Self) -> bool {
        (&self.machine, &self.boot) == (&other.machine, &other.boot)
    }
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The run.
    pub run: String,
    /// Under which identity.
    pub identity: String,
    /// Milliseconds since boot.
    pub boottime_ms: u64,
    /// What its processes carry in their environment.
    pub mark: String,
    /// The command's words, shortened; none if the server keeps their text to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What the client asked for, shortened, if `command` was run instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// The user it is run as; none: the server's own account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Of the client's words, each ended by NUL: see [`rules::Digester`].
    pub digest: Digest,
    /// Whether a supervisor keeps the run, so that it outlives its server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub durable: bool,
}

#[derive(Serialize)]
struct LineOut<'a> {
    seq: u64,
    prev: Option<Digest>,
    time: String,
    #[serde(flatten)]
    event: &'a Event,
}

/// A line as it was read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    pub seq: u64,
    /// Digest of the line before; none in the very first.
    pub prev: Option<Digest>,
    /// When it was written, RFC 3339.
    pub time: String,
    /// What it says.
    #[serde(flatten)]
    pub event: Event,
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system's word on one of its files.
    #[error("the journal {}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A line that is whole is not what was written.
    #[error("the journal {}, line {line}: {what}; move the file away to start a new journal", .path.display())]
    Broken {
        /// The segment.
        path: PathBuf,
        /// The line in it, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// The open journal of one server.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
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
        let segment = newest_segment(folder)?.unwrap_or(1);
        let path = path_of(folder, segment);
        let file =
            open_segment(&path).map_err(|error| JournalError::Io { path: path.clone(), error })?;
        let read = read_segment(&path, each)?;
        file.set_len(read.whole).map_err(|error| JournalError::Io { path, error })?;
        let seq = read.chain.head.map_or(0, |head| head.seq);
        let last = read.chain.head.map(|head| head.hash);
        let tail =
            Tail { file, segment, length: read.whole, seq, last, torn: false, doubtful: false };
        Ok((Self { folder: folder.to_owned(), tail: Mutex::new(tail), copier: None }, read.torn))
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
        *tail = next(&tail, &path, carried, self.copier.as_ref())
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
fn next(tail: &Tail, path: &Path, carried: &[Event], copier: Option<&Copier>) -> io::Result<Tail> {
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
    Ok(Tail { file, segment: tail.segment + 1, length, seq, last, torn: false, doubtful: false })
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
