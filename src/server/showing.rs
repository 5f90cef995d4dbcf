//! What a client sees of a durable run: its record, read from the disk, and behind it the run's end. While the run
//! goes on its supervisor tells how far the record is, and takes what the client has to say.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use super::batch::{BATCH, Batch, damaged};
use super::end::SessionEnd;
use super::posted::Posted;
use crate::conn::{ConnError, Frame};
use crate::proto::code::Code;
use crate::proto::frame::encoded;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::proto::stored::Grown;
use crate::runs::disk::View;
use crate::runs::durable::{Durable, Shown, State, lost_frame};
use crate::runs::host::Host;
use crate::runs::link::Link;
use crate::runs::owner::Outgoing;
use crate::runs::record::AckAhead;
use crate::sys::mutex::lock;

/// A client's look at a durable run.
pub(super) struct Showing {
    run: Arc<Durable>,
    view: Arc<View>,
    /// Whether to wait for what is still to come.
    follow: bool,
    /// None: the run is over.
    supervisor: Option<Supervisor>,
}

/// The way to the run's supervisor.
struct Supervisor {
    host: Arc<Host>,
    link: Arc<Link>,
    outgoing: Posted,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    frames: Vec<Frame>,
    /// The supervisor has closed the link, and it is known what became of the run.
    closed: bool,
    /// The supervisor waits to be asked for more.
    owed: bool,
}

impl fmt::Debug for Showing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Showing({:?}, link: {})", self.view, self.supervisor.is_some())
    }
}

impl Showing {
    pub(super) fn new(run: Arc<Durable>, shown: Shown, host: &Arc<Host>) -> Self {
        let supervisor = shown.link.map(|link| Supervisor {
            host: Arc::clone(host),
            outgoing: Posted::to(&link),
            link,
            // The first word came with the answer.
            inbox: Inbox { owed: true, ..Inbox::default() }.into(),
        });
        Self { run, view: shown.view, follow: shown.follow, supervisor }
    }

    pub(super) async fn called(&self) {
        let told = async {
            match &self.supervisor {
                Some(supervisor) => supervisor.fetch(&self.run).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.view.changed() => {}
            () = told => {}
        }
    }

    pub(super) async fn batch(&self) -> Result<Batch, SessionEnd> {
        let mut batch = Batch::default();
        if let Some(supervisor) = &self.supervisor {
            supervisor.hear(self, &mut batch).await?;
        }
        let seen = self.view.next(BATCH).await.map_err(|e| damaged(&e))?;
        let Outgoing { frames, last, gap, ended, .. } = &mut batch.outgoing;
        frames.extend(seen.frames);
        (*last, *gap, *ended) = (seen.last, seen.gap, seen.ended);
        if let (Some(supervisor), false) = (&self.supervisor, batch.over) {
            // Before what was read is sent: when that is done there is the next to read.
            supervisor.confirm(&self.view)?;
        }
        if !self.follow && self.supervisor.is_some() && self.view.is_at_end() && !*ended {
            let (run, seq) = (self.run.key.id.to_string(), *last);
            batch.outgoing.frames.push(encoded(&ServerHeader::SoFar { run, seq }, b"")?);
            batch.over = true;
        }
        Ok(batch)
    }

    pub(super) fn ack(&self, seq: u64) -> Result<bool, AckAhead> {
        self.view.ack(seq)
    }

    /// Passes on what its client has to say. False if the run is over.
    pub(super) fn pass_on(&self, header: &ClientHeader, body: &[u8]) -> Result<bool, SessionEnd> {
        let Some(supervisor) = &self.supervisor else { return Ok(false) };
        supervisor.outgoing.send(header, body)?;
        Ok(true)
    }

    /// Passes on what is answered: now, if the run is over.
    pub(super) fn ask(&self, order: &ClientHeader) -> Result<Option<ServerHeader>, SessionEnd> {
        let run = || self.run.key.id.to_string();
        Ok((!self.pass_on(order, b"")?).then(|| ServerHeader::AlreadyEnded { run: run() }))
    }

    /// The same look, without the supervisor.
    pub(super) fn without_supervisor(&self) -> Self {
        let (run, view) = (Arc::clone(&self.run), Arc::clone(&self.view));
        Self { run, view, follow: self.follow, supervisor: None }
    }
}

impl Supervisor {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    /// Waits for the supervisor's next word. Cancel safe.
    async fn fetch(&self, run: &Durable) {
        if self.lock().closed {
            return std::future::pending().await;
        }
        match self.link.next().await {
            Ok(Some(frame)) => self.lock().frames.push(frame),
            Ok(None) | Err(_) => {
                run.over().await;
                self.lock().closed = true;
            }
        }
    }

    /// What the supervisor has said, also to a client that is busy with what there is to see.
    async fn hear(&self, showing: &Showing, batch: &mut Batch) -> Result<(), SessionEnd> {
        while let Some(frame) = self.link.next_now().await {
            self.lock().frames.push(frame);
        }
        let (frames, closed) = {
            let mut inbox = self.lock();
            (std::mem::take(&mut inbox.frames), inbox.closed)
        };
        for frame in frames {
            self.take(&frame, showing, batch)?;
        }
        if closed {
            self.after_the_link(showing, batch)?;
        }
        Ok(())
    }

    fn take(&self, frame: &Frame, showing: &Showing, batch: &mut Batch) -> Result<(), SessionEnd> {
        if let Ok(grown) = frame.header::<Grown>() {
            showing.view.grown(grown);
            self.lock().owed = true;
            return Ok(());
        }
        match frame.header::<ServerHeader>().map_err(ConnError::from)? {
            ServerHeader::Verdict(verdict) => {
                let noted = self.host.ended(&showing.run, frame);
                showing.view.ends_with(verdict.seq, noted.unwrap_or_else(|| frame.encoded()));
                self.outgoing.send(&ClientHeader::Ack { seq: verdict.seq }, b"")?;
                batch.is_left = true;
            }
            ServerHeader::Error { code, text } => return Err(SessionEnd::word(code, text)),
            ServerHeader::Detached { .. } => {
                batch.over = true;
                batch.outgoing.frames.push(frame.encoded());
            }
            _ => batch.outgoing.frames.push(frame.encoded()),
        }
        Ok(())
    }

    /// The supervisor is gone: what is known says how the record ends.
    fn after_the_link(&self, showing: &Showing, batch: &mut Batch) -> Result<(), SessionEnd> {
        let run = &showing.run;
        if let State::Over(outcome) | State::Forgotten(outcome) = run.state() {
            run.finish(&showing.view, &outcome).map_err(|e| damaged(&e))?;
            batch.is_left = true;
            return Ok(());
        }
        batch.over = true;
        batch.outgoing.frames.push(lost_frame(&run.key, Code::Forgotten)?);
        Ok(())
    }

    /// Asks for more when everything is read.
    fn confirm(&self, view: &View) -> Result<(), SessionEnd> {
        if let Some(seq) = view.read_up_to()
            && std::mem::take(&mut self.lock().owed)
        {
            self.outgoing.send(&ClientHeader::Ack { seq }, b"")?;
        }
        Ok(())
    }
}
