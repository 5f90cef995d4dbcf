//! What a connection serves: a run of this process, the supervisor of a durable one, or its record.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::end::SessionEnd;
use super::policy::Whose;
use super::posted::Posted;
use crate::conn::{ConnError, Frame};
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, ServerHeader, ShowFrom};
use crate::runs::disk::View;
use crate::runs::durable::{Durable, Source, State, There, lost_frame};
use crate::runs::host::Host;
use crate::runs::id::RunId;
use crate::runs::link::Link;
use crate::runs::owner::{Outgoing, Owner};
use crate::runs::record::encode;
use crate::runs::run::Run;

/// So much of the record is taken at a time: two of an engine's largest pieces with their headers, or a
/// file would be read in parts that end just before the second one does.
const BATCH: usize = 520 * 1024;

/// A run, and this connection's part in it.
pub(super) enum Serving {
    /// A run whose record is in memory, for its owner.
    Owned(Owner),
    /// A run whose record is on disk, in its supervisor.
    Seen(Seen),
    /// A run that a supervisor drives.
    Linked(Linked),
    /// The record of a run that is over.
    Left(Arc<Durable>, Box<View>),
}

/// A run whose record is read from the disk.
pub(super) struct Seen {
    run: Arc<Run>,
    /// None: this connection only looks.
    owner: Option<Owner>,
    view: Box<View>,
    /// Whether to wait for what is still to come.
    follow: bool,
}

/// A run behind a link.
pub(super) struct Linked {
    host: Arc<Host>,
    run: Arc<Durable>,
    link: Arc<Link>,
    outgoing: Posted,
    inbox: Mutex<Inbox>,
}

#[derive(Default)]
struct Inbox {
    frames: Vec<Frame>,
    /// The supervisor has closed the link, and it is known what became of the run.
    closed: bool,
    /// The verdict was passed on: nothing may follow it.
    ended: bool,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Owned(_) => "Owned",
            Self::Seen(_) => "Seen",
            Self::Linked(_) => "Linked",
            Self::Left(..) => "Left",
        })
    }
}

/// What is to be sent, and whether the run is done with.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) outgoing: Outgoing,
    /// The last word was among it: no confirmation will come.
    pub(super) over: bool,
    /// The supervisor is gone: the rest comes from here.
    pub(super) instead: Option<Box<Serving>>,
}

impl Serving {
    /// A run of this process: `owner` has it, or looks at it.
    pub(super) fn here(owner: Owner, after: u64, host: &Host) -> Result<Self, SessionEnd> {
        let run = Arc::clone(owner.run());
        match run.progress() {
            None => Ok(Self::Owned(owner)),
            Some(_) => Self::seen(run, Some(owner), (after, ShowFrom::Start, true), host),
        }
    }

    /// A run of this process whose record is on disk.
    pub(super) fn seen(
        run: Arc<Run>,
        owner: Option<Owner>,
        (after, from, follow): (u64, ShowFrom, bool),
        host: &Host,
    ) -> Result<Self, SessionEnd> {
        let file = host.record().map_err(|e| damaged(&e))?;
        let (Some(file), Some(progress)) = (file, run.progress()) else {
            return Err(SessionEnd::word(Code::NotDurable, "the run has no record on disk"));
        };
        let view = Box::new(View::new(file, progress, (after, from)));
        Ok(Self::Seen(Seen { run, owner, view, follow }))
    }

    /// A durable run.
    pub(super) fn there(there: There, host: &Arc<Host>) -> Self {
        match there.source {
            Source::Link(link) => Self::Linked(Linked {
                host: Arc::clone(host),
                run: there.run,
                outgoing: Posted::to(&link),
                link,
                inbox: Mutex::default(),
            }),
            Source::Record(view) => Self::Left(there.run, view),
        }
    }

    /// This connection's hold on a run of this process.
    pub(super) fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Owned(owner) => Some(owner),
            Self::Seen(seen) => seen.owner.as_ref(),
            Self::Linked(_) | Self::Left(..) => None,
        }
    }

    /// Waits until there may be something to send.
    pub(super) async fn called(&self) {
        match self {
            Self::Owned(owner) => owner.called().await,
            Self::Seen(Seen { owner: Some(owner), view, .. }) => tokio::select! {
                () = owner.called() => {}
                () = view.changed() => {}
            },
            Self::Seen(Seen { owner: None, view, .. }) | Self::Left(_, view) => {
                view.changed().await;
            }
            Self::Linked(linked) => linked.fetch().await,
        }
    }

    /// What there is to send after frame `after`.
    pub(super) async fn batch(&self, after: u64) -> Result<Batch, SessionEnd> {
        match self {
            Self::Owned(owner) => {
                Ok(Batch { outgoing: owner.outgoing(after, BATCH)?, ..Batch::default() })
            }
            Self::Seen(seen) => seen.batch(after).await,
            Self::Left(_, view) => {
                let outgoing = look(view).await?;
                Ok(Batch { outgoing, ..Batch::default() })
            }
            Self::Linked(linked) => linked.batch(after),
        }
    }

    /// The client has every frame up to `seq`. True if the verdict is among them.
    pub(super) fn ack(&self, seq: u64, sent: u64) -> Result<bool, SessionEnd> {
        let ahead =
            |e: crate::runs::record::AckAhead| SessionEnd::word(Code::BadFrame, e.to_string());
        match self {
            Self::Owned(owner) => owner.ack(seq)?.map_err(ahead),
            Self::Seen(Seen { view, .. }) | Self::Left(_, view) => view.ack(seq).map_err(ahead),
            Self::Linked(linked) => {
                linked.outgoing.send(&ClientHeader::Ack { seq }, b"")?;
                Ok(seq >= sent)
            }
        }
    }

    /// A piece of the standard input, or its end.
    pub(super) fn stdin(&self, header: &ClientHeader, body: &Bytes) -> Result<(), SessionEnd> {
        let corrupt =
            |e: crate::runs::stdin::StdinError| SessionEnd::word(Code::Corrupt, e.to_string());
        if let Self::Linked(linked) = self {
            return linked.outgoing.send(header, body);
        }
        let Some(owner) = self.owner() else {
            // The run is over, or this client only looks: what crosses that on its way is thrown away.
            return Ok(());
        };
        let taken = match header {
            ClientHeader::Stdin(piece) => owner.stdin(*piece, body)?,
            ClientHeader::StdinEnd(piece) => owner.stdin_end(*piece)?,
            _ => Ok(()),
        };
        taken.map_err(corrupt)
    }

    /// An order to the run. The answer, if there is one now.
    pub(super) fn order(&self, order: Order) -> Result<Option<ServerHeader>, SessionEnd> {
        let (run, obeyed) = match self {
            Self::Linked(linked) => {
                linked.outgoing.send(&order.header(None), b"")?;
                return Ok(None);
            }
            Self::Left(run, _) => (run.key.id.to_string(), false),
            Self::Owned(owner) => (owner.run().key.id.to_string(), order.give(owner)?),
            Self::Seen(Seen { run, owner: Some(owner), .. }) => {
                (run.key.id.to_string(), order.give(owner)?)
            }
            Self::Seen(_) => {
                let text = "this connection only looks at the run; name the run";
                return Err(SessionEnd::word(Code::BadFrame, text));
            }
        };
        Ok((!obeyed).then_some(ServerHeader::AlreadyEnded { run }))
    }

    /// Lets the run go on without this connection. The answer, if there is one now.
    pub(super) fn detach(&self) -> Result<Option<ServerHeader>, SessionEnd> {
        match self {
            Self::Linked(linked) => {
                linked.outgoing.send(&ClientHeader::Detach, b"")?;
                Ok(None)
            }
            Self::Left(run, _) => {
                Ok(Some(ServerHeader::AlreadyEnded { run: run.key.id.to_string() }))
            }
            // Who only looks was never needed.
            Self::Seen(Seen { run, owner: None, .. }) => Ok(Some(detached(run))),
            Self::Seen(Seen { run, owner: Some(_), .. }) => {
                let header = if run.detach() { detached(run) } else { already_ended(run) };
                Ok(Some(header))
            }
            Self::Owned(_) => {
                let text = "only a durable run can be left alone; start it with -d or --durable";
                Err(SessionEnd::word(Code::NotDurable, text))
            }
        }
    }
}

fn detached(run: &Run) -> ServerHeader {
    ServerHeader::Detached { run: run.key.id.to_string() }
}

fn already_ended(run: &Run) -> ServerHeader {
    ServerHeader::AlreadyEnded { run: run.key.id.to_string() }
}

/// What a client may tell a run: its own, or as an operator anybody's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Signal(u8),
    Cancel(Whose),
}

impl Order {
    fn give(self, owner: &Owner) -> Result<bool, SessionEnd> {
        Ok(match self {
            Self::Signal(signal) => owner.signal(signal)?,
            Self::Cancel(_) => owner.cancel()?,
        })
    }

    /// The same order for a supervisor: to the run that this connection owns, or to one that is named.
    pub(super) fn header(self, run: Option<&RunId>) -> ClientHeader {
        let run = run.map(ToString::to_string);
        match self {
            Self::Signal(signal) => ClientHeader::Signal { signal: signal.to_string(), run },
            Self::Cancel(whose) => ClientHeader::Cancel { run, as_operator: whose == Whose::All },
        }
    }
}

async fn look(view: &View) -> Result<Outgoing, SessionEnd> {
    let seen = view.next(BATCH).await.map_err(|e| damaged(&e))?;
    let (frames, last, gap, ended) = (seen.frames, seen.last, seen.gap, seen.ended);
    Ok(Outgoing { frames, last, gap, ended, ..Outgoing::default() })
}

fn damaged(error: &std::io::Error) -> SessionEnd {
    SessionEnd::word(Code::Corrupt, format!("cannot read the run's record: {error}"))
}

impl Seen {
    async fn batch(&self, after: u64) -> Result<Batch, SessionEnd> {
        let mut outgoing = look(&self.view).await?;
        if let Some(owner) = &self.owner {
            let own = owner.outgoing(after, 0)?;
            (outgoing.grant, outgoing.stdin_closed) = (own.grant, own.stdin_closed);
        }
        let mut over = false;
        if !self.follow && !outgoing.ended && outgoing.frames.is_empty() && self.view.is_at_end() {
            let (run, seq) = (self.run.key.id.to_string(), outgoing.last);
            outgoing.frames.push(encode(&ServerHeader::SoFar { run, seq }, b"")?);
            over = true;
        }
        Ok(Batch { outgoing, over, instead: None })
    }
}

impl Linked {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the supervisor's next frame, and takes with it what is there already. Cancel safe.
    async fn fetch(&self) {
        if self.lock().closed {
            return std::future::pending().await;
        }
        match self.link.next().await {
            Ok(Some(frame)) => {
                let mut held = frame.size();
                self.lock().frames.push(frame);
                while held < BATCH
                    && let Some(frame) = self.link.next_now().await
                {
                    held += frame.size();
                    self.lock().frames.push(frame);
                }
            }
            Ok(None) | Err(_) => {
                self.run.over().await;
                self.lock().closed = true;
            }
        }
    }

    fn batch(&self, after: u64) -> Result<Batch, SessionEnd> {
        let (frames, closed) = {
            let mut inbox = self.lock();
            (std::mem::take(&mut inbox.frames), inbox.closed && !inbox.ended)
        };
        let mut batch = Batch::default();
        batch.outgoing.last = after;
        for frame in frames {
            self.take(&frame, &mut batch)?;
        }
        if closed && batch.outgoing.frames.is_empty() {
            self.after_the_link(after, &mut batch)?;
        }
        Ok(batch)
    }

    fn take(&self, frame: &Frame, batch: &mut Batch) -> Result<(), SessionEnd> {
        let header = frame.header::<ServerHeader>().map_err(ConnError::from)?;
        let mut encoded = frame.encoded();
        match header {
            ServerHeader::Output(output) => batch.outgoing.last = output.seq,
            ServerHeader::Mark(mark) => batch.outgoing.last = mark.seq,
            ServerHeader::Gap { to, .. } => batch.outgoing.last = to,
            ServerHeader::Verdict(verdict) => {
                batch.outgoing.last = verdict.seq;
                batch.outgoing.ended = true;
                self.lock().ended = true;
                if let Some(noted) = self.host.ended(&self.run, frame) {
                    encoded = noted;
                }
            }
            ServerHeader::Error { code, text } => return Err(SessionEnd::word(code, text)),
            ServerHeader::Detached { .. } | ServerHeader::SoFar { .. } => batch.over = true,
            _ => {}
        }
        batch.outgoing.frames.push(encoded);
        Ok(())
    }

    /// The supervisor is gone: its record, or what is known, says the rest.
    fn after_the_link(&self, after: u64, batch: &mut Batch) -> Result<(), SessionEnd> {
        let State::Over(outcome) = self.run.state() else {
            batch.over = true;
            batch.outgoing.frames.push(lost_frame(&self.run.key, Code::Forgotten)?);
            return Ok(());
        };
        match self.run.left(&outcome, (after, ShowFrom::Start)) {
            Ok(Some((_, view))) => {
                batch.instead = Some(Box::new(Serving::Left(Arc::clone(&self.run), view)));
            }
            Ok(None) => {
                batch.over = true;
                batch.outgoing.frames.push(lost_frame(&self.run.key, Code::Forgotten)?);
            }
            Err(e) => return Err(damaged(&e)),
        }
        Ok(())
    }
}
