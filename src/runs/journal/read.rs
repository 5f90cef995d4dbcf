//! Reading a journal: its segments in order, and their lines one after another. Nothing is locked or
//! written, so a reader may look on while a server adds lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;

use super::{JournalError, LINE_LIMIT, Line};
use crate::proto::digest::Digest;
use crate::proto::verdict::Anchor;

const SUFFIX: &str = ".jsonl";
/// No line has a number from here on: JSON keeps whole numbers exact below 2^53.
const SEQ_LIMIT: u64 = 1 << 53;

/// The chain as far as it was followed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chain {
    /// The last line; none before the first one.
    pub head: Option<Anchor>,
}

impl Chain {
    /// The number of the line that comes next.
    #[must_use]
    pub fn due(&self) -> u64 {
        self.head.map_or(0, |head| head.seq) + 1
    }

    /// Whether `line` is the next one.
    #[must_use]
    pub fn goes_on_with(&self, line: &Line) -> bool {
        line.seq == self.due() && line.prev == self.head.map(|head| head.hash)
    }

    /// Goes on to `line`, whose digest is `hash`.
    pub fn take(&mut self, line: &Line, hash: Digest) {
        self.head = Some(Anchor { seq: line.seq, hash });
    }
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub path: Arc<Path>,
    /// The line in it, from 1.
    pub line: u64,
}

/// What stands in a place.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A whole line, and its digest.
    Line(Box<Line>, Digest),
    /// A line that no server wrote, and why.
    Bad(String),
    /// So many bytes without an end of line, the last ones of their segment.
    Torn(u64),
}

/// All lines of a journal's segments, in order.
#[derive(Debug)]
pub struct Reader {
    /// Those to come.
    segments: std::vec::IntoIter<PathBuf>,
    current: Option<Segment>,
}

impl Reader {
    /// Looks for the segments in `folder`, as they are now.
    ///
    /// # Errors
    /// [`JournalError::Io`]: the folder cannot be read.
    pub fn open(folder: &Path) -> Result<Self, JournalError> {
        let mut numbers = segments(folder)?;
        numbers.sort_unstable();
        let paths: Vec<_> = numbers.into_iter().map(|number| path_of(folder, number)).collect();
        Ok(Self { segments: paths.into_iter(), current: None })
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// [`JournalError::Io`]: a segment cannot be read, or is no regular file.
    pub fn advance(&mut self) -> Result<Option<(Place, Found)>, JournalError> {
        loop {
            if let Some(segment) = &mut self.current
                && let Some(found) = segment.advance()?
            {
                return Ok(Some((segment.place(), found)));
            }
            let Some(path) = self.segments.next() else { return Ok(None) };
            self.current = Some(Segment::open(&path)?);
        }
    }

    /// The bytes of the line that was last returned, without its end.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        self.current.as_ref().map_or(b"", Segment::text)
    }
}

/// One segment, read line by line.
#[derive(Debug)]
pub(super) struct Segment {
    path: Arc<Path>,
    reader: BufReader<File>,
    bytes: Vec<u8>,
    number: u64,
    /// Its end was seen. A server may have added the rest of a torn line since: that is for the next reader.
    ended: bool,
}

impl Segment {
    /// Opens it without being caught by a pipe that stands in its place.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let open = || {
            let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
            if file.metadata()?.is_file() {
                return Ok(file);
            }
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
        };
        let file = open().map_err(|error| io_error(path, error))?;
        let reader = BufReader::new(file);
        Ok(Self { path: path.into(), reader, bytes: Vec::new(), number: 0, ended: false })
    }

    /// What stands next; none at the end.
    pub(super) fn advance(&mut self) -> Result<Option<Found>, JournalError> {
        if self.ended {
            return Ok(None);
        }
        let found = self.step().map_err(|error| io_error(&self.path, error))?;
        self.ended = matches!(found, None | Some(Found::Torn(_)));
        Ok(found)
    }

    fn step(&mut self) -> io::Result<Option<Found>> {
        self.bytes.clear();
        let most = LINE_LIMIT as u64 + 1;
        let got = (&mut self.reader).take(most).read_until(b'\n', &mut self.bytes)?;
        if got == 0 {
            return Ok(None);
        }
        self.number += 1;
        if got > LINE_LIMIT {
            return self.pass_over().map(Some);
        }
        if self.bytes.last() != Some(&b'\n') {
            return Ok(Some(Found::Torn(got as u64)));
        }
        Ok(Some(parse(self.text())))
    }

    /// Goes on after a line that is too long. Nothing but zeros up to the end of the file are blocks that were
    /// never written, because the machine went down: they are part of a torn line.
    fn pass_over(&mut self) -> io::Result<Found> {
        let mut count = self.bytes.len() as u64;
        let mut blank = self.bytes.last() == Some(&0);
        let mut ended = self.bytes.last() == Some(&b'\n');
        while !ended {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |at| at + 1);
            blank &= buffer[..taken].iter().all(|byte| *byte == 0);
            ended = end.is_some();
            count += taken as u64;
            self.reader.consume(taken);
        }
        if blank {
            return Ok(Found::Torn(count));
        }
        Ok(Found::Bad(format!("it has more than {LINE_LIMIT} bytes")))
    }

    /// Where that which was last returned stands.
    pub(super) fn place(&self) -> Place {
        Place { path: Arc::clone(&self.path), line: self.number }
    }

    /// The bytes of the line that was last returned, without its end.
    pub(super) fn text(&self) -> &[u8] {
        self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes)
    }
}

/// What a line without its end is.
#[must_use]
pub fn parse(text: &[u8]) -> Found {
    match serde_json::from_slice::<Line>(text) {
        Ok(line) if line.seq < SEQ_LIMIT => Found::Line(Box::new(line), Digest::of(text)),
        Ok(line) => Found::Bad(format!("no line has the number {}", line.seq)),
        Err(e) => Found::Bad(e.to_string()),
    }
}

/// The segment of a number.
pub(super) fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:06}{SUFFIX}"))
}

/// The numbers of the segments in `folder`; other files are passed over.
pub(super) fn segments(folder: &Path) -> Result<Vec<u64>, JournalError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| io_error(folder, e))? {
        let name = entry.map_err(|e| io_error(folder, e))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        // Only as it is written: 1.jsonl beside 000001.jsonl would be read as the same one.
        numbers.extend(
            digits.and_then(|d| d.parse().ok()).filter(|n| path_of(folder, *n).ends_with(&name)),
        );
    }
    Ok(numbers)
}

pub(super) fn io_error(path: &Path, error: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), error }
}
