//! What a supervisor tells its server of the run: how far the record is, and how it ended. The output itself the
//! server reads from the file.

use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, watch};

use super::batch::{Batch, damaged};
use super::end::SessionEnd;
use crate::proto::frame::encoded;
use crate::proto::header::ServerHeader;
use crate::proto::stored::Grown;
use crate::runs::disk::{Progress, verdict_at};
use crate::runs::owner::{Outgoing, Owner};
use crate::runs::record::AckAhead;
use crate::runs::run::Run;
use crate::sys::mutex::lock;

/// A run of this process whose record is on disk, for one link.
pub(super) struct Told {
    run: Arc<Run>,
    /// None: this connection only looks.
    owner: Option<Owner>,
    file: Arc<File>,
    progress: watch::Receiver<Progress>,
    said: Mutex<Said>,
    confirmed: Notify,
}

/// What the server was told.
#[derive(Default)]
struct Said {
    /// Last; none before the first word.
    grown: Option<Grown>,
    /// It has not yet confirmed that: meanwhile it is told nothing, however fast the record grows.
    unconfirmed: bool,
    /// Place of the verdict, which was the last word.
    over: Option<u64>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Told({:?})", self.said().grown)
    }
}

impl Told {
    pub(super) fn new(
        run: Arc<Run>,
        owner: Option<Owner>,
        (file, progress): (File, watch::Receiver<Progress>),
    ) -> Self {
        let (file, said, confirmed) = (Arc::new(file), Mutex::default(), Notify::new());
        Self { run, owner, file, progress, said, confirmed }
    }

    pub(super) fn owner(&self) -> Option<&Owner> {
        self.owner.as_ref()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        lock(&self.said)
    }

    pub(super) async fn called(&self) {
        let owner = async {
            match &self.owner {
                Some(owner) => owner.called().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = owner => {}
            () = self.has_more() => {}
        }
    }

    /// Waits until there is something to say.
    async fn has_more(&self) {
        let mut progress = self.progress.clone();
        loop {
            let now = *progress.borrow_and_update();
            let confirmed = self.confirmed.notified();
            if self.said().is_due(now) {
                return;
            }
            tokio::select! {
                changed = progress.changed() => if changed.is_err() {
                    // Its writer is gone: nothing more will come.
                    std::future::pending::<()>().await;
                },
                () = confirmed => {}
            }
        }
    }

    pub(super) async fn batch(&self, after: u64) -> Result<Batch, SessionEnd> {
        let mut outgoing = match &self.owner {
            Some(owner) => Outgoing { frames: Vec::new(), ..owner.outgoing(after, 0)? },
            None => Outgoing::default(),
        };
        outgoing.last = after;
        let now = *self.progress.borrow();
        let (is_due, may_wait, grown) = {
            let mut said = self.said();
            // There is nothing to be read yet.
            let may_wait = said.grown.is_none() && now.last == 0;
            (said.is_due(now), may_wait, said.say(now))
        };
        if let Some(grown) = grown {
            outgoing.frames.push(encoded(&grown, b"")?);
        }
        if is_due && now.ended {
            let verdict = verdict_at(&self.file, now.length).await.map_err(|e| damaged(&e))?;
            outgoing.frames.push(verdict);
            (outgoing.last, outgoing.ended) = (now.last, true);
        }
        Ok(Batch { outgoing, may_wait, ..Batch::default() })
    }

    /// True if the verdict is confirmed.
    pub(super) fn ack(&self, seq: u64) -> Result<bool, AckAhead> {
        let mut said = self.said();
        let last = said.over.or(said.grown.map(|grown| grown.last)).unwrap_or(0);
        if seq > last {
            return Err(AckAhead { acked: seq, last });
        }
        said.unconfirmed &= seq < last;
        self.confirmed.notify_one();
        Ok(said.over == Some(seq))
    }

    /// Lets the run go on without this connection. Who only looks was never needed.
    pub(super) fn detach(&self) -> ServerHeader {
        let run = self.run.key.id.to_string();
        if self.owner.is_none() || self.run.detach() {
            ServerHeader::Detached { run }
        } else {
            ServerHeader::AlreadyEnded { run }
        }
    }
}

impl Said {
    fn is_due(&self, now: Progress) -> bool {
        match self.grown {
            None => true,
            Some(_) if now.ended => self.over.is_none(),
            Some(grown) => !self.unconfirmed && grown.length < now.length,
        }
    }

    /// How far the record is, if that is to be said now.
    fn say(&mut self, now: Progress) -> Option<Grown> {
        if !self.is_due(now) {
            return None;
        }
        let Progress { length, last, ended } = now;
        let grown = Grown { length, last: last - u64::from(ended) };
        self.over = ended.then_some(last);
        let is_new = self.grown != Some(grown);
        // Of a record without a frame there is nothing to be read first.
        self.unconfirmed |= is_new && grown.last > 0;
        self.grown = Some(grown);
        is_new.then_some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(length: u64, last: u64, ended: bool) -> Progress {
        Progress { length, last, ended }
    }

    #[test]
    fn a_record_that_grows_fast_is_told_of_when_the_server_has_read_what_it_was_told_before() {
        let mut said = Said::default();
        assert_eq!(said.say(progress(9, 0, false)), Some(Grown { length: 9, last: 0 }));
        assert_eq!(said.say(progress(10, 1, false)), Some(Grown { length: 10, last: 1 }));
        for last in 2..=1000 {
            assert_eq!(said.say(progress(9 + last, last, false)), None);
        }
        said.unconfirmed = false;
        assert_eq!(said.say(progress(1009, 1000, false)), Some(Grown { length: 1009, last: 1000 }));
        said.unconfirmed = false;
        assert_eq!(said.say(progress(1009, 1000, false)), None, "there is nothing new");
    }

    #[test]
    fn the_end_waits_for_nobody_and_is_said_once() {
        let mut said = Said::default();
        said.say(progress(9, 1, false));
        // The verdict has a place, and is no part of what is told.
        assert!(said.is_due(progress(20, 3, true)));
        assert_eq!(said.say(progress(20, 3, true)), Some(Grown { length: 20, last: 2 }));
        assert_eq!(said.over, Some(3));
        assert!(!said.is_due(progress(20, 3, true)));
        let mut said = Said::default();
        said.say(progress(9, 1, false));
        assert_eq!((said.say(progress(9, 2, true)), said.over), (None, Some(2)));
    }
}
