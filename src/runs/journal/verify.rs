//! Whether a journal is what its servers wrote.
//!
//! Each line holds the number and the digest of the line before, so what was changed, removed, added or
//! moved in the middle shows. Whoever can write the folder can write a whole new chain, and nothing in
//! a journal tells that its last lines are missing: against both helps an [`Anchor`] that was kept elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::read::{Chain, Found, Place, Reader};
use super::{JournalError, Line};
use crate::proto::digest::Digest;
use crate::proto::verdict::Anchor;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Lines whose chain is whole, from the first one on.
    pub lines: u64,
    /// When the first of them was written, RFC 3339.
    pub first: Option<String>,
    /// When the last of them was written.
    pub last: Option<String>,
    /// The last of them; not told if it is that one which is wrong.
    pub head: Option<Anchor>,
    /// Where the last line is unfinished, and its bytes: a server is just writing it, or the machine went
    /// down. No sign of tampering.
    pub torn: Option<(Place, u64)>,
    /// What is wrong, at the first place where something is.
    pub fault: Option<Fault>,
}

/// Something that no server wrote so.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// Where; none if there is no line at all.
    pub place: Option<Place>,
    /// The number of the line that is wrong or missing.
    pub seq: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not what a server writes.
    NotALine(String),
    /// Its segment ends within it, and other segments follow.
    CutWithin,
    /// The lines after it do not go with it.
    Changed,
    /// It, or the hash of it in the next line; nothing further on tells which.
    ChangedOrNext,
    /// It does not hold what the line before demands.
    Unchained,
    /// It, and those up to this number, are missing before the line that stands here.
    Missing(u64),
    /// Another one, of this number, stands in its place; it stands elsewhere.
    Reordered(u64, Place),
    /// One of this number, which has had its place before, stands there.
    Repeated(u64),
    /// An anchor tells that this line, or one before it, was another one.
    NotTheAnchors(Digest),
    /// The journal ends before it; an anchor tells that the line of this number was there.
    CutOff(u64),
    /// There is not one line.
    Empty,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seq = self.seq;
        if let Some(Place { path, line }) = &self.place {
            write!(f, "{}, line {line}, seq {seq}: ", path.display())?;
        }
        match &self.wrong {
            Wrong::NotALine(why) => write!(f, "changed: no server wrote this line: {why}"),
            Wrong::CutWithin => write!(f, "cut: the file ends within this line, and others follow"),
            Wrong::Changed => write!(f, "changed: the next line holds another hash of it"),
            Wrong::ChangedOrNext => {
                write!(f, "changed: this line, or the hash of it that the next line holds")
            }
            Wrong::Unchained => write!(f, "changed: it does not go on from the line before"),
            Wrong::Missing(to) if *to == seq => write!(f, "removed: it is missing here"),
            Wrong::Missing(to) => write!(f, "removed: the lines {seq} to {to} are missing here"),
            Wrong::Reordered(other, Place { path, line }) => {
                let path = path.display();
                write!(
                    f,
                    "reordered: seq {other} stands here, and seq {seq} at {path}, line {line}"
                )
            }
            Wrong::Repeated(other) => {
                write!(f, "added or moved: seq {other} stands here, which has had its place before")
            }
            Wrong::NotTheAnchors(hash) => write!(
                f,
                "changed: its hash is not the anchor's, {hash}; this line or one before it was changed, or the \
                 anchor is of another journal"
            ),
            Wrong::CutOff(anchor) => {
                write!(
                    f,
                    "cut: the journal ends before it, and an anchor says that seq {anchor} was there"
                )
            }
            Wrong::Empty => write!(f, "there is not one line of a journal"),
        }
    }
}

/// Walks along the chain in `folder`, up to the first fault. Every anchor must be on it.
///
/// # Errors
/// [`JournalError::Io`]: something cannot be read.
pub fn verify(folder: &Path, anchors: &[Anchor]) -> Result<Report, JournalError> {
    let mut hashes = BTreeMap::<u64, Vec<Digest>>::new();
    for anchor in anchors {
        hashes.entry(anchor.seq).or_default().push(anchor.hash);
    }
    let report = Report { lines: 0, first: None, last: None, head: None, torn: None, fault: None };
    let (reader, chain) = (Reader::open(folder)?, Chain::default());
    let mut walk = Walk { reader, anchors: hashes, chain, before: None, report };
    walk.report.fault = walk.first_fault()?;
    walk.report.head = walk.chain.head;
    Ok(walk.report)
}

struct Walk {
    reader: Reader,
    anchors: BTreeMap<u64, Vec<Digest>>,
    chain: Chain,
    /// Where its head stands.
    before: Option<Place>,
    report: Report,
}

impl Walk {
    fn first_fault(&mut self) -> Result<Option<Fault>, JournalError> {
        while let Some((place, found)) = self.reader.advance()? {
            if let Some((torn, _)) = self.report.torn.take() {
                return Ok(Some(self.fault_at(torn, Wrong::CutWithin)));
            }
            let (line, hash) = match found {
                Found::Line(line, hash) => (line, hash),
                Found::Bad(why) => return Ok(Some(self.fault_at(place, Wrong::NotALine(why)))),
                Found::Torn(bytes) => {
                    self.report.torn = Some((place, bytes));
                    continue;
                }
            };
            if !self.chain.goes_on_with(&line) {
                return self.judge(place, &line, hash).map(Some);
            }
            if let Some(expected) = self.contradicts(line.seq, hash) {
                return Ok(Some(self.fault_at(place, Wrong::NotTheAnchors(expected))));
            }
            self.take(place, *line, hash);
        }
        Ok(self.end())
    }

    fn take(&mut self, place: Place, line: Line, hash: Digest) {
        self.report.lines += 1;
        self.report.first.get_or_insert_with(|| line.time.clone());
        self.chain.take(&line, hash);
        self.report.last = Some(line.time);
        self.before = Some(place);
    }

    /// The hash that an anchor demands of this line instead of its own.
    fn contradicts(&self, seq: u64, hash: Digest) -> Option<Digest> {
        self.anchors.get(&seq)?.iter().find(|anchor| **anchor != hash).copied()
    }

    fn is_anchored(&self, seq: u64, hash: Digest) -> bool {
        self.anchors.get(&seq).is_some_and(|anchors| anchors.contains(&hash))
    }

    fn fault_at(&self, place: Place, wrong: Wrong) -> Fault {
        Fault { place: Some(place), seq: self.chain.due(), wrong }
    }

    /// What is wrong with a line that does not follow the one before.
    fn judge(&mut self, place: Place, line: &Line, hash: Digest) -> Result<Fault, JournalError> {
        let due = self.chain.due();
        if line.seq == due {
            return self.judge_hash(place, line, hash);
        }
        if line.prev.is_some() && line.prev == self.chain.head.map(|head| head.hash) {
            return Ok(self.fault_at(place, Wrong::Unchained));
        }
        if line.seq < due {
            return Ok(self.fault_at(place, Wrong::Repeated(line.seq)));
        }
        let wrong = match self.find(due)? {
            Some(elsewhere) => Wrong::Reordered(line.seq, elsewhere),
            None => Wrong::Missing(line.seq - 1),
        };
        Ok(self.fault_at(place, wrong))
    }

    /// The line's number is right, and it holds another hash than that of the line before. Either of the two was
    /// changed: an anchor or the line after tells which.
    fn judge_hash(
        &mut self,
        place: Place,
        line: &Line,
        hash: Digest,
    ) -> Result<Fault, JournalError> {
        let (Some(head), Some(before)) = (self.chain.head, self.before.clone()) else {
            return Ok(self.fault_at(place, Wrong::Unchained));
        };
        let is_proven =
            self.is_anchored(head.seq, head.hash) || self.contradicts(line.seq, hash).is_some();
        if is_proven {
            return Ok(self.fault_at(place, Wrong::Unchained));
        }
        let next = match self.reader.advance()? {
            Some((_, Found::Line(next, _))) if next.seq == line.seq + 1 => Some(next.prev),
            _ => None,
        };
        let wrong = match next {
            _ if self.is_anchored(line.seq, hash) => Wrong::Changed,
            Some(prev) if prev == Some(hash) => Wrong::Changed,
            Some(_) => return Ok(self.fault_at(place, Wrong::Unchained)),
            None => Wrong::ChangedOrNext,
        };
        self.report.lines -= 1;
        self.chain.head = None;
        Ok(Fault { place: Some(before), seq: head.seq, wrong })
    }

    /// Where the line of this number stands further on.
    fn find(&mut self, seq: u64) -> Result<Option<Place>, JournalError> {
        while let Some((place, found)) = self.reader.advance()? {
            if matches!(found, Found::Line(line, _) if line.seq == seq) {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// What is wrong with the end.
    fn end(&self) -> Option<Fault> {
        let due = self.chain.due();
        let after = |place: &Place| Place { line: place.line + 1, ..place.clone() };
        let torn = self.report.torn.as_ref().map(|(place, _)| place.clone());
        let place = torn.or_else(|| self.before.as_ref().map(after));
        match self.anchors.keys().next_back() {
            Some(last) if *last >= due => {
                Some(Fault { place, seq: due, wrong: Wrong::CutOff(*last) })
            }
            _ if self.report.lines == 0 && self.report.torn.is_none() => {
                Some(Fault { place: None, seq: due, wrong: Wrong::Empty })
            }
            _ => None,
        }
    }
}
