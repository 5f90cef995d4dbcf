//! Reading a record whose supervisor is gone: how far it came, and what of it is whole.
//!
//! Its frames follow each other from the start. From the last mark on every piece is also hashed: a
//! machine that went down may have left a tail of zeros or of an older file.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;

use crate::proto::digest::Running;
use crate::proto::frame::{self, Decoded, Limits};
use crate::proto::header::{MarkedStream, Output, ServerHeader, Stream};
use crate::proto::stored::StoredHeader;
use crate::proto::verdict::Verdict;
use crate::runs::excerpt::{Excerpt, FRAMES_LIMIT, Taker};
use crate::sys::process::{Pid, ProcessRef};

/// What a record says.
#[derive(Debug, Default)]
pub struct Scan {
    /// Its supervisor, or a server, has claimed it: whether the command was to be started.
    pub claimed: Option<bool>,
    /// Pid and start of the main process.
    pub running: Option<(u32, u64)>,
    /// How the run ended.
    pub verdict: Option<Box<Verdict>>,
    /// Bytes of whole frames, without the verdict.
    pub length: u64,
    /// Place of the last whole frame, without the verdict.
    pub last: u64,
    /// Bytes behind them that are no whole frame.
    pub torn: u64,
}

/// What a record has before the frames that clients see is not longer.
const HEAD: usize = 512;

/// The main process of a run that was started, as its supervisor has written it down.
///
/// # Errors
/// What the system says.
pub(in crate::runs) fn running(file: &File) -> io::Result<Option<ProcessRef>> {
    let mut head = [0; HEAD];
    let length = file.read_at(&mut head, 0)?;
    let mut rest = &head[..length];
    while let Ok(Decoded::Frame(frame)) = frame::decode(rest, Limits::FULL) {
        match serde_json::from_slice(frame.header) {
            Ok(StoredHeader::Claimed { .. }) => rest = &rest[frame.len()..],
            Ok(StoredHeader::Running { pid, start_time }) => {
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                return Ok(pid.map(|pid| ProcessRef { pid, start_time }));
            }
            _ => break,
        }
    }
    Ok(None)
}

/// A place from which the digests can be checked.
#[derive(Default)]
struct From {
    offset: u64,
    last: u64,
    streams: Vec<(Stream, Running)>,
}

/// Reads a record from its first byte to its last.
///
/// # Errors
/// What the system says. A damaged record is no error: it ends where the damage begins.
pub fn scan(file: &File) -> io::Result<Scan> {
    let mut from = From::default();
    let mut found = walk(file, 0, |frame, at, last| {
        if let Ok(ServerHeader::Mark(mark)) = serde_json::from_slice(frame.header) {
            from = From {
                offset: at,
                last,
                streams: mark.streams.iter().filter_map(resume).collect(),
            };
        }
        true
    })?;
    if found.verdict.is_none() {
        let mut streams = from.streams;
        let checked =
            walk(file, from.offset, |frame, _, _| match serde_json::from_slice(frame.header) {
                Ok(ServerHeader::Output(output)) => is_right(&mut streams, &output, frame.body),
                _ => true,
            })?;
        found.length = from.offset + checked.length;
        found.last = checked.last.max(from.last);
    }
    let whole = found.length + found.verdict.as_ref().map_or(0, |_| file_left(file, found.length));
    found.torn = file.metadata()?.len().saturating_sub(whole);
    Ok(found)
}

/// The beginning of the output in a record.
///
/// # Errors
/// What the system says.
pub(in crate::runs) fn excerpt(file: &File, limit: u64) -> io::Result<Option<Excerpt>> {
    let (mut taker, mut frames) = (Taker::new(Some(limit)), 0);
    walk(file, 0, |frame, _, _| {
        frames += 1;
        match serde_json::from_slice(frame.header) {
            Ok(ServerHeader::Output(_)) if frames > FRAMES_LIMIT => {
                taker.leave_off();
                false
            }
            Ok(ServerHeader::Output(output)) => taker.add(output.stream, frame.body),
            _ => true,
        }
    })?;
    Ok(taker.excerpt())
}

fn file_left(file: &File, length: u64) -> u64 {
    file.metadata().map_or(0, |m| m.len().saturating_sub(length))
}

fn resume(marked: &MarkedStream) -> Option<(Stream, Running)> {
    Some((marked.stream, Running::resume(&marked.state, marked.offset)?))
}

fn is_right(streams: &mut Vec<(Stream, Running)>, output: &Output, body: &[u8]) -> bool {
    if !streams.iter().any(|(stream, _)| *stream == output.stream) {
        streams.push((output.stream, Running::new()));
    }
    let Some((_, running)) = streams.iter_mut().find(|(stream, _)| *stream == output.stream) else {
        return false;
    };
    if running.offset() != output.offset {
        return false;
    }
    running.update(body);
    running.digest() == output.hash
}

/// Goes from frame to frame until one is not whole, or `each` does not take it. `each` gets the
/// frame, the offset behind it and the place of the last frame that clients see.
fn walk(
    file: &File,
    offset: u64,
    mut each: impl FnMut(&frame::FrameRef<'_>, u64, u64) -> bool,
) -> io::Result<Scan> {
    use std::io::Seek as _;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    reader.seek(io::SeekFrom::Start(offset))?;
    let mut found = Scan::default();
    let mut buffer = Vec::new();
    while next(&mut reader, &mut buffer)? {
        let Ok(Decoded::Frame(frame)) = frame::decode(&buffer, Limits::FULL) else { break };
        let header = serde_json::from_slice(frame.header);
        let (last, verdict) = match header {
            Ok(ServerHeader::Output(output)) => (output.seq, None),
            Ok(ServerHeader::Mark(mark)) => (mark.seq, None),
            Ok(ServerHeader::Verdict(verdict)) => (verdict.seq, Some(verdict)),
            Ok(ServerHeader::Unknown) => {
                match serde_json::from_slice(frame.header) {
                    Ok(StoredHeader::Claimed { start, .. }) => found.claimed = Some(start),
                    Ok(StoredHeader::Running { pid, start_time }) => {
                        found.running = Some((pid, start_time));
                    }
                    _ => {}
                }
                (found.last, None)
            }
            _ => break,
        };
        if !each(&frame, offset + found.length + frame.len() as u64, last) {
            break;
        }
        if verdict.is_some() {
            found.verdict = verdict;
            return Ok(found);
        }
        found.last = last;
        found.length += frame.len() as u64;
    }
    Ok(found)
}

/// Reads the next frame. False at the end, and where no whole frame follows.
fn next(reader: &mut impl io::Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    let mut need = frame::PREFIX;
    loop {
        let missing = need.saturating_sub(buffer.len()) as u64;
        if (reader.by_ref().take(missing).read_to_end(buffer)? as u64) < missing {
            return Ok(false);
        }
        match frame::decode(buffer, Limits::FULL) {
            Ok(Decoded::Frame(_)) => return Ok(true),
            Ok(Decoded::Incomplete { need: more }) => need = more,
            Err(_) => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests;
