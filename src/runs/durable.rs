//! A durable run as its server sees it: launched, found again, and answered for when it is over.
//!
//! The supervisor owns the command and the record; the server has the journal. A run's end is written
//! down by the server as soon as it hears of it, over a link that waits for nothing but the verdict.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::clock::{self, millis};
use super::disk::scan::excerpt;
use super::disk::{Folder, Meta, Outcome, View};
use super::excerpt::Excerpt;
use super::journal::Origin;
use super::judged::Judged;
use super::link::Link;
use super::request::Request;
use super::table::Key;
use crate::exec::{Leftovers, Mark};
use crate::proto::code::Code;
use crate::proto::digest::{Algorithm, Digest};
use crate::proto::frame::{FrameError, encoded};
use crate::proto::header::{Refusal, ServerHeader, ShowFrom, Started};
use crate::proto::stored::Grown;
use crate::proto::verdict::{Anchor, Received, Verdict};
use crate::sys::mutex::lock;
use crate::sys::shortage::is_shortage;

/// Where a server keeps its durable runs, and with what.
#[derive(Debug)]
pub struct Keeping {
    /// The folder of their folders.
    pub runs: PathBuf,
    /// Where a folder is prepared for the next.
    pub ready: PathBuf,
    /// This program, as it was when the server started.
    pub program: File,
    /// Most bytes of one record.
    pub record_limit: u64,
    /// What is kept of those that are over.
    pub retention: super::retention::Retention,
}

/// One durable run.
#[derive(Debug)]
pub struct Durable {
    /// Its id under its identity.
    pub key: Key,
    /// Where it is kept.
    pub folder: Folder,
    /// What it is.
    pub meta: Meta,
    /// How much of its output the journal is to have, if this server has judged it.
    excerpt: OnceLock<Option<u64>>,
    state: watch::Sender<State>,
    /// Held while its end is written down, so that it is written once.
    pub(super) settling: Mutex<()>,
    /// Held while its outcome is put on the disk, or its record removed.
    pub(super) noting: Mutex<()>,
    /// Where the journal has its end already, from a server that did not come to note it in the folder.
    pub(super) journaled: Option<Anchor>,
}

/// How far a durable run is.
#[derive(Debug, Clone)]
pub enum State {
    /// Whether it starts is not known yet.
    Starting,
    /// Nothing was started, and the id is free again.
    NotStarted {
        /// Why.
        code: Code,
        /// One line for people.
        text: String,
    },
    /// A server before this one has left it, and whether its supervisor lives is not known yet.
    Found,
    /// Its supervisor lives, as far as is known.
    Live {
        /// The main process; 0 if a server before this one started it.
        pid: u32,
    },
    /// It is over.
    Over(Arc<Outcome>),
    /// It is over and its record is no longer kept.
    Forgotten(Arc<Outcome>),
}

/// What serves a client of a durable run.
#[derive(Debug)]
pub struct There {
    /// The run.
    pub run: Arc<Durable>,
    /// The first answer.
    pub answer: Bytes,
    /// What there is to be seen of the run; none: the answer was all.
    pub shown: Option<Shown>,
}

/// The record of a durable run, as one client sees it.
#[derive(Debug)]
pub struct Shown {
    /// Where in the record.
    pub view: Arc<View>,
    /// Its supervisor, which tells how it goes on; none: it is over.
    pub link: Option<Arc<Link>>,
    /// Whether to wait for what is still to come.
    pub follow: bool,
}

/// The part of a record that a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// The last frame that it has.
    pub after: u64,
    /// From where to show the rest.
    pub from: ShowFrom,
    /// Whether to wait for what is still to come.
    pub follow: bool,
}

impl Wanted {
    /// What is shown to whoever has asked for the run.
    pub(super) fn of(request: &Request) -> Self {
        Self { after: request.after, from: request.shown_from(), follow: true }
    }

    /// Only how it ended.
    pub(super) const END: Self = Self { after: 0, from: ShowFrom::Verdict, follow: true };
}

impl Durable {
    /// A run that was just claimed.
    #[must_use]
    pub fn new(key: &Key, request: &Request, keeping: &Keeping) -> Self {
        let meta = Meta {
            run: key.id.to_string(),
            identity: key.identity.to_string(),
            mark: String::new(),
            uid: None,
            excerpt: None,
            command: request.command(),
            terms: request.terms.clone(),
            accepted: clock::timestamp(),
            origin: Origin::default(),
        };
        let folder = Folder::of(&keeping.runs, key);
        Self::found(key.clone(), folder, meta, State::Starting, None)
    }

    /// A run of a server before this one.
    #[must_use]
    pub fn found(
        key: Key,
        folder: Folder,
        meta: Meta,
        state: State,
        journaled: Option<Anchor>,
    ) -> Self {
        let (state, _) = watch::channel(state);
        Self {
            key,
            folder,
            meta,
            excerpt: OnceLock::new(),
            state,
            settling: Mutex::default(),
            noting: Mutex::default(),
            journaled,
        }
    }

    /// What is written into its folder before its supervisor starts.
    #[must_use]
    pub fn full_meta(&self, mark: Mark, judged: &Judged, origin: &Origin) -> Meta {
        let origin = Origin { boottime_ms: millis(clock::boottime()), ..origin.clone() };
        let (mark, uid, excerpt) = (mark.to_string(), judged.uid(), judged.ceilings.excerpt);
        // It is judged once.
        let _ = self.excerpt.set(excerpt);
        Meta { mark, uid, excerpt, origin, ..self.meta.clone() }
    }

    /// How far it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Tells everybody who waits how far it is.
    pub fn set_state(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Waits until it is known whether it has started.
    pub async fn known(&self) -> State {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let known = state.wait_for(|s| !matches!(s, State::Starting)).await;
        known.map_or(State::Starting, |s| s.clone())
    }

    /// Waits, if a server before this one has left it, until it is known whether it goes on.
    pub(super) async fn looked_for(&self) {
        let mut state = self.state.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = state.wait_for(|s| !matches!(s, State::Found)).await;
    }

    /// Its supervisor is there, or what is left of it has still to be stopped.
    pub(super) fn goes_on(&self) {
        self.state.send_if_modified(|state| {
            let is_found = matches!(state, State::Found);
            if is_found {
                *state = State::Live { pid: 0 };
            }
            is_found
        });
    }

    /// Waits until it is over.
    pub async fn over(&self) {
        let mut state = self.state.subscribe();
        let _ = state.wait_for(|s| matches!(s, State::Over(_) | State::Forgotten(_))).await;
    }

    /// Puts its record and its outcome on the disk, unless it is forgotten by now: its folder may be another
    /// run's. Waits for the disk.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn note(&self, outcome: &Outcome) -> io::Result<()> {
        let _one = lock(&self.noting);
        if !matches!(self.state(), State::Over(_)) {
            return Ok(());
        }
        // First: an outcome that outlives its record would promise too much.
        if let Some(record) = self.folder.record()? {
            record.sync_data()?;
        }
        self.folder.set_outcome(outcome)
    }

    /// What a client is told of a run that is over, from the record that is left; none if it is not.
    ///
    /// # Errors
    /// What the system says of the record.
    pub fn left(&self, outcome: &Outcome, wanted: Wanted) -> io::Result<Option<(Started, Shown)>> {
        let Some(file) = self.folder.record()? else { return Ok(None) };
        let (told, last) = reach_of(outcome);
        let view = Arc::new(View::new(file, told, (wanted.after, wanted.from)));
        view.ends_with(last, self.last_word(outcome)?);
        let started = self.started(0, stdin_of(outcome));
        Ok(Some((started, Shown { view, link: None, follow: wanted.follow })))
    }

    /// A view whose supervisor is gone ends with what became of the run.
    ///
    /// # Errors
    /// The end is over the limits of a frame.
    pub fn finish(&self, view: &View, outcome: &Outcome) -> io::Result<()> {
        let (told, last) = reach_of(outcome);
        let frame = self.last_word(outcome)?;
        view.grown(told);
        view.ends_with(last, frame);
        Ok(())
    }

    fn last_word(&self, outcome: &Outcome) -> io::Result<Bytes> {
        let frame = match outcome {
            Outcome::Ended { verdict, .. } => verdict_frame(verdict),
            Outcome::Lost { code, .. } => lost_frame(&self.key, *code),
        };
        frame.map_err(|e| io::Error::other(e.to_string()))
    }

    /// The answer to a request of a run that was there before.
    fn started(&self, pid: u32, stdin: Received) -> Started {
        Started {
            run: self.key.id.to_string(),
            pid,
            attached: true,
            stdin_offset: stdin.size,
            stdin_hash: stdin.hash,
            stdin_grant: stdin.size,
            hash: Algorithm::Sha256.name().into(),
        }
    }

    /// What the journal is to have of its output.
    pub(super) fn excerpt(&self) -> Option<Excerpt> {
        let limit = self.excerpt.get().copied().unwrap_or(self.meta.excerpt)?;
        excerpt(&self.folder.record().ok().flatten()?, limit).ok().flatten()
    }

    /// What is left of it once its supervisor is gone, if it was started then; none: nothing can be told from
    /// others.
    ///
    /// # Errors
    /// [`is_shortage`].
    pub(super) fn leftovers(&self, not_before: u64) -> io::Result<Option<Leftovers>> {
        let found = self.meta_there()?;
        let Meta { mark, uid, .. } = found.as_ref().unwrap_or(&self.meta);
        let mark = Mark::from_hex(mark.as_bytes());
        Ok(mark.map(|mark| Leftovers { mark, uid: *uid, not_before }))
    }

    /// What its folder says of it; none if that cannot be read.
    ///
    /// # Errors
    /// [`is_shortage`]: it cannot be read now.
    pub(super) fn meta_there(&self) -> io::Result<Option<Meta>> {
        match self.folder.meta() {
            Err(e) if is_shortage(&e) => Err(e),
            read => Ok(read.ok().flatten()),
        }
    }
}

/// How far the record is, and the place of what is said behind it. What had no space on a full disk is missing
/// between the two.
fn reach_of(outcome: &Outcome) -> (Grown, u64) {
    match outcome {
        Outcome::Ended { verdict, length, .. } => {
            (Grown { length: *length, last: verdict.seq.saturating_sub(1) }, verdict.seq)
        }
        Outcome::Lost { length, last, .. } => (Grown { length: *length, last: *last }, *last + 1),
    }
}

fn stdin_of(outcome: &Outcome) -> Received {
    let nothing = Received { size: 0, hash: Digest::of(b"") };
    match outcome {
        Outcome::Ended { verdict, .. } => verdict.stdin.unwrap_or(nothing),
        Outcome::Lost { .. } => nothing,
    }
}

/// A verdict as it is sent.
///
/// # Errors
/// [`FrameError`] if it is over the limits.
pub fn verdict_frame(verdict: &Verdict) -> Result<Bytes, FrameError> {
    encoded(&ServerHeader::Verdict(Box::new(verdict.clone())), b"")
}

/// The final answer about a run of which nobody knows how it ended.
///
/// # Errors
/// [`FrameError`] if it is over the limits.
pub fn lost_frame(key: &Key, code: Code) -> Result<Bytes, FrameError> {
    let (run, text) = (key.id.to_string(), code.clause());
    encoded(&ServerHeader::Lost(Refusal { run, code, text }), b"")
}
