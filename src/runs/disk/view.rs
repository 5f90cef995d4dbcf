//! Reading a record for one connection, from any place, while it is written or afterwards.
//!
//! A view slows nobody down: it reads the file, and sends no more than a window beyond what its client
//! has confirmed. How far the record is it is told: by the supervisor that writes it, or by what that has left.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::proto::frame::{self, BODY_LIMIT, Decoded, HEADER_LIMIT, Limits};
use crate::proto::header::ShowFrom;
use crate::proto::stored::Grown;
use crate::runs::credit::OUTPUT;
use crate::runs::record::{AckAhead, FRAME_COST};
use crate::sys::mutex::lock;

/// Enough bytes for nearly every verdict: memory for the longest would be new, page by page.
const A_VERDICT: usize = 4096;
const LONGEST_FRAME: usize = frame::PREFIX + HEADER_LIMIT + BODY_LIMIT;

/// One connection's look at a record. Debug shows no output.
pub struct View {
    file: Arc<File>,
    place: Mutex<Place>,
    /// Called when more is there, or was confirmed.
    news: Notify,
}

struct Place {
    /// How far the record is.
    told: Grown,
    /// The run's last word as it is to be sent, and its place.
    end: Option<(u64, Bytes)>,
    offset: u64,
    /// Frames up to this one were sent, or are not wanted.
    sent: u64,
    /// Where a client joined late: it is told of the gap first.
    gap: Option<(u64, u64)>,
    only_verdict: bool,
    over: bool,
    unconfirmed: VecDeque<(u64, usize)>,
    in_flight: usize,
}

/// What is there for a view's client.
#[derive(Default)]
pub struct Seen {
    /// Frames, in order.
    pub frames: Vec<Bytes>,
    /// Place of the last of them, or of what came before.
    pub last: u64,
    /// Frames that are left out before them.
    pub gap: Option<(u64, u64)>,
    /// Whether the verdict is among them.
    pub ended: bool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View(at {}, frame {})", self.lock().offset, self.lock().sent)
    }
}

#[derive(Deserialize)]
struct Placed {
    seq: Option<u64>,
}

impl View {
    /// A look at the record in `file`, which is so far, behind frame `after`.
    #[must_use]
    pub fn new(file: File, told: Grown, (after, from): (u64, ShowFrom)) -> Self {
        let mut place = Place {
            told,
            end: None,
            offset: 0,
            sent: after,
            gap: None,
            only_verdict: from == ShowFrom::Verdict,
            over: false,
            unconfirmed: VecDeque::new(),
            in_flight: 0,
        };
        if from == ShowFrom::End && told.last > after {
            place.jump(told.length, told.last);
        }
        Self { file: Arc::new(file), place: Mutex::new(place), news: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        lock(&self.place)
    }

    /// The record is so far.
    pub fn grown(&self, told: Grown) {
        self.lock().told = told;
        self.news.notify_one();
    }

    /// Nothing more will come but this frame, which has this place.
    pub fn ends_with(&self, seq: u64, frame: Bytes) {
        self.lock().end = Some((seq, frame));
        self.news.notify_one();
    }

    /// Whether everything that there is was sent.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        let place = self.lock();
        place.over || (place.end.is_none() && place.is_behind().is_none())
    }

    /// The last frame of all that there is, when that was read and more is wanted.
    #[must_use]
    pub fn read_up_to(&self) -> Option<u64> {
        let place = self.lock();
        (!place.only_verdict && place.is_behind().is_none()).then_some(place.told.last)
    }

    /// Waits until there may be more.
    pub async fn changed(&self) {
        while !self.lock().may_send() {
            self.news.notified().await;
        }
    }

    /// About `bytes` of what comes next, as far as the client's window has room.
    ///
    /// # Errors
    /// What the system says, or `InvalidData` if the record is damaged.
    pub async fn next(&self, bytes: usize) -> io::Result<Seen> {
        loop {
            let (offset, left) = {
                let mut place = self.lock();
                if !place.may_send() {
                    return Ok(Seen { last: place.sent, gap: place.gap.take(), ..Seen::default() });
                }
                let Some(left) = place.is_behind() else { return Ok(place.end()) };
                (place.offset, left)
            };
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(bytes);
            let chunk = read(&self.file, offset, wanted, left).await;
            match chunk.and_then(|chunk| self.take(chunk)) {
                Ok(seen) if seen.frames.is_empty() => {}
                Ok(seen) => return Ok(seen),
                Err(e) if is_damage(&e) => self.leave_out_the_rest(e)?,
                Err(e) => return Err(e),
            }
        }
    }

    /// What is behind the damage cannot be had: a gap tells of it, before the run's last word. Fails as long as that is
    /// still to come.
    fn leave_out_the_rest(&self, damage: io::Error) -> io::Result<()> {
        let mut place = self.lock();
        if place.end.is_none() {
            return Err(damage);
        }
        tracing::warn!("a record is shown without what is behind frame {}: {damage}", place.sent);
        place.only_verdict = true;
        Ok(())
    }

    /// The whole frames at the start of `chunk` that the client does not have.
    fn take(&self, mut chunk: Bytes) -> io::Result<Seen> {
        let mut place = self.lock();
        let mut frames = Vec::new();
        while !chunk.is_empty() {
            let (len, seq) = match placed(&chunk) {
                Ok(Some(placed)) => placed,
                Err(e) if frames.is_empty() => return Err(e),
                // Damage is met again when these are sent.
                Ok(None) | Err(_) => break,
            };
            let whole = chunk.split_to(len);
            place.offset += len as u64;
            if let Some(seq) = seq.filter(|seq| *seq > place.sent) {
                place.send(seq, len);
                frames.push(whole);
            }
        }
        // It is told of before a frame.
        let gap = if frames.is_empty() { None } else { place.gap.take() };
        Ok(Seen { frames, last: place.sent, gap, ended: false })
    }

    /// The client has written every frame up to `seq`. True if the verdict is among them.
    ///
    /// # Errors
    /// [`AckAhead`] if no such frame was sent.
    pub fn ack(&self, seq: u64) -> Result<bool, AckAhead> {
        let mut place = self.lock();
        if seq > place.sent {
            return Err(AckAhead { acked: seq, last: place.sent });
        }
        while let Some((sent, cost)) = place.unconfirmed.front().copied()
            && sent <= seq
        {
            place.in_flight -= cost;
            place.unconfirmed.pop_front();
        }
        self.news.notify_one();
        Ok(place.over && seq == place.sent)
    }
}

impl Place {
    /// How many bytes there are after what was read.
    fn is_behind(&self) -> Option<u64> {
        let left = self.told.length.saturating_sub(self.offset);
        (left > 0 && !self.only_verdict).then_some(left)
    }

    /// Whether there is something to send, and room for it.
    fn may_send(&self) -> bool {
        let is_due = self.is_behind().is_some() || self.end.is_some();
        is_due && !self.over && self.in_flight < OUTPUT.largest / 2
    }

    /// The last word; nothing if there is none.
    fn end(&mut self) -> Seen {
        let Some((last, frame)) = self.end.clone() else { return Seen::default() };
        if self.sent + 1 < last {
            self.jump(self.told.length, last - 1);
        }
        self.over = true;
        if self.sent >= last {
            // The client had it already, and asks again because its confirmation was lost.
            self.sent = last - 1;
        }
        self.send(last, frame.len());
        Seen { frames: vec![frame], last, gap: self.gap.take(), ended: true }
    }

    fn send(&mut self, seq: u64, len: usize) {
        self.sent = seq;
        self.unconfirmed.push_back((seq, len + FRAME_COST));
        self.in_flight += len + FRAME_COST;
    }

    fn jump(&mut self, offset: u64, to: u64) {
        let from = self.gap.map_or(self.sent + 1, |(from, _)| from);
        (self.offset, self.sent, self.gap) = (offset, to, Some((from, to)));
    }
}

/// The length of the first frame and its place, if it has one; none if it is cut.
fn placed(chunk: &[u8]) -> io::Result<Option<(usize, Option<u64>)>> {
    match frame::decode(chunk, Limits::FULL) {
        Ok(Decoded::Frame(found)) => {
            let placed: Placed = serde_json::from_slice(found.header).map_err(|e| damaged(&e))?;
            Ok(Some((found.len(), placed.seq)))
        }
        Ok(Decoded::Incomplete { .. }) => Ok(None),
        Err(e) => Err(damaged(&e)),
    }
}

/// Whether this is what the disk has, or cannot give.
fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData || Errno::from_io_error(error) == Some(Errno::IO)
}

/// The verdict that stands at this offset of a record, as it is sent.
///
/// # Errors
/// What the system says, or `InvalidData` if it is none.
pub async fn verdict_at(file: &Arc<File>, offset: u64) -> io::Result<Bytes> {
    let chunk = read(file, offset, A_VERDICT, u64::MAX).await?;
    match frame::decode(&chunk, Limits::FULL) {
        Ok(Decoded::Frame(found)) => Ok(chunk.slice(..found.len())),
        Ok(Decoded::Incomplete { .. }) => Err(damaged(&"the verdict is cut")),
        Err(e) => Err(damaged(&e)),
    }
}

fn damaged(why: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the record is damaged: {why}"))
}

/// Reads about `wanted` bytes, and at least one whole frame if there is one in `left` bytes.
async fn read(file: &Arc<File>, offset: u64, wanted: usize, left: u64) -> io::Result<Bytes> {
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(LONGEST_FRAME);
    // What was just written is in memory: a thread would take longer to wake than the bytes to copy.
    if let Some(chunk) = read_cached(file, offset, wanted)
        && !begins_cut(&chunk)
    {
        return Ok(chunk);
    }
    let file = Arc::clone(file);
    let read = tokio::task::spawn_blocking(move || {
        let chunk = read_at(&file, offset, wanted)?;
        if !begins_cut(&chunk) {
            return Ok(chunk);
        }
        let chunk = read_at(&file, offset, most)?;
        if begins_cut(&chunk) { Err(damaged(&"a frame is cut")) } else { Ok(chunk) }
    });
    read.await.map_err(io::Error::other)?
}

/// Whether the first frame is not whole. What is no frame is the caller's to find out.
fn begins_cut(chunk: &[u8]) -> bool {
    matches!(frame::decode(chunk, Limits::FULL), Ok(Decoded::Incomplete { .. }))
}

/// What of the next bytes can be had without waiting for the disk; none if that is nothing.
fn read_cached(file: &File, offset: u64, wanted: usize) -> Option<Bytes> {
    let mut chunk = room(wanted);
    let got = preadv2(file, &mut [IoSliceMut::new(&mut chunk)], offset, ReadWriteFlags::NOWAIT);
    chunk.truncate(got.ok().filter(|got| *got > 0)?);
    let chunk = chunk.freeze();
    *spare() = chunk.clone();
    Some(chunk)
}

/// What was read last. When it is sent the next read has its memory: pages that are new each time would cost a
/// reader of a long record more than to copy into them. One for all views, so that those who wait hold nothing.
static SPARE: Mutex<Bytes> = Mutex::new(Bytes::new());

fn spare() -> MutexGuard<'static, Bytes> {
    lock(&SPARE)
}

fn room(wanted: usize) -> BytesMut {
    match std::mem::take(&mut *spare()).try_into_mut() {
        Ok(mut room) if room.capacity() >= wanted => {
            room.resize(wanted, 0);
            room
        }
        _ => BytesMut::zeroed(wanted),
    }
}

fn read_at(file: &File, offset: u64, wanted: usize) -> io::Result<Bytes> {
    let mut chunk = BytesMut::zeroed(wanted);
    let mut got = 0;
    while got < wanted {
        match file.read_at(&mut chunk[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    chunk.truncate(got);
    Ok(chunk.freeze())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_longest_verdict_is_read_whole_and_a_cut_one_is_not() {
        let file = tempfile::tempfile().unwrap();
        let padding = HEADER_LIMIT - json!({"type": "verdict", "text": ""}).to_string().len();
        let mut longest = Vec::new();
        let header = json!({"type": "verdict", "text": "x".repeat(padding)});
        frame::encode(&header, b"", &mut longest).unwrap();
        assert!(longest.len() > HEADER_LIMIT);
        file.write_all_at(&longest, 7).unwrap();
        let file = Arc::new(file);
        assert_eq!(verdict_at(&file, 7).await.unwrap(), longest);
        file.set_len(7 + longest.len() as u64 - 1).unwrap();
        let cut = verdict_at(&file, 7).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_frame_that_claims_more_than_is_left_of_the_record_is_damage() {
        let file = tempfile::tempfile().unwrap();
        let mut frame = Vec::new();
        frame::encode(&json!({"type": "stdout", "seq": 1}), b"output", &mut frame).unwrap();
        file.write_all_at(&frame[..frame.len() - 1], 0).unwrap();
        let told = Grown { length: frame.len() as u64 - 1, last: 1 };
        let view = View::new(file, told, (0, ShowFrom::Start));
        let next = tokio::time::timeout(Duration::from_secs(10), view.next(1024)).await;
        let damaged = next.expect("it is read over and over").err().unwrap();
        assert_eq!(damaged.kind(), io::ErrorKind::InvalidData);
    }
}
