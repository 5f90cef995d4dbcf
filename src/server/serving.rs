//! What a connection serves: a run of this process, or the record of a durable one.

use std::sync::Arc;

use bytes::Bytes;

use super::batch::{BATCH, Batch, damaged};
use super::end::SessionEnd;
use super::policy::Whose;
use super::showing::Showing;
use super::told::Told;
use crate::proto::code::Code;
use crate::proto::header::{ClientHeader, ServerHeader};
use crate::proto::id::RunId;
use crate::runs::host::Host;
use crate::runs::owner::Owner;
use crate::runs::record::AckAhead;
use crate::runs::run::Run;

/// A run, and this connection's part in it.
#[derive(Debug)]
pub(super) enum Serving {
    /// A run whose record is in memory, for its owner.
    Owned(Owner),
    /// A run of a supervisor, for its server: that reads the record itself.
    Told(Told),
    /// The record of a durable run, for a client.
    Shown(Showing),
}

impl Serving {
    /// A run of this process, for its owner.
    pub(super) fn here(owner: Owner, host: &Host) -> Result<Self, SessionEnd> {
        let run = Arc::clone(owner.run());
        match run.progress() {
            None => Ok(Self::Owned(owner)),
            Some(_) => Self::told(&run, Some(owner), host),
        }
    }

    /// A run of this process whose record is on disk.
    pub(super) fn told(
        run: &Arc<Run>,
        owner: Option<Owner>,
        host: &Host,
    ) -> Result<Self, SessionEnd> {
        let file = host.record().map_err(|e| damaged(&e))?;
        let (Some(file), Some(progress)) = (file, run.progress()) else {
            return Err(SessionEnd::word(Code::NotDurable, "the run has no record on disk"));
        };
        Ok(Self::Told(Told::new(Arc::clone(run), owner, (file, progress))))
    }

    /// This connection's hold on a run of this process.
    pub(super) fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Owned(owner) => Some(owner),
            Self::Told(told) => told.owner(),
            Self::Shown(_) => None,
        }
    }

    /// Waits until there may be something to send.
    pub(super) async fn called(&self) {
        match self {
            Self::Owned(owner) => owner.called().await,
            Self::Told(told) => told.called().await,
            Self::Shown(shown) => shown.called().await,
        }
    }

    /// What there is to send after frame `after`.
    pub(super) async fn batch(&self, after: u64) -> Result<Batch, SessionEnd> {
        match self {
            Self::Owned(owner) => {
                Ok(Batch { outgoing: owner.outgoing(after, BATCH)?, ..Batch::default() })
            }
            Self::Told(told) => told.batch(after).await,
            Self::Shown(shown) => shown.batch().await,
        }
    }

    /// The same look without its supervisor, which is gone. Only who looks at a record has one.
    pub(super) fn without_supervisor(&self) -> Option<Self> {
        match self {
            Self::Shown(shown) => Some(Self::Shown(shown.without_supervisor())),
            Self::Owned(_) | Self::Told(_) => None,
        }
    }

    /// The client has every frame up to `seq`. True if the verdict is among them.
    pub(super) fn ack(&self, seq: u64) -> Result<bool, SessionEnd> {
        let acked = match self {
            Self::Owned(owner) => owner.ack(seq)?,
            Self::Told(told) => told.ack(seq),
            Self::Shown(shown) => shown.ack(seq),
        };
        acked.map_err(|e: AckAhead| SessionEnd::word(Code::BadFrame, e.to_string()))
    }

    /// A piece of the standard input, or its end.
    pub(super) fn stdin(&self, header: &ClientHeader, body: &Bytes) -> Result<(), SessionEnd> {
        let corrupt =
            |e: crate::runs::stdin::StdinError| SessionEnd::word(Code::Corrupt, e.to_string());
        if let Self::Shown(shown) = self {
            return shown.pass_on(header, body).map(drop);
        }
        // This client only looks: what it sends is thrown away.
        let Some(owner) = self.owner() else { return Ok(()) };
        let taken = match header {
            ClientHeader::Stdin(piece) => owner.stdin(*piece, body)?,
            ClientHeader::StdinEnd(piece) => owner.stdin_end(*piece)?,
            _ => Ok(()),
        };
        taken.map_err(corrupt)
    }

    /// An order to the run. The answer, if there is one now.
    pub(super) fn order(&self, order: Order) -> Result<Option<ServerHeader>, SessionEnd> {
        match self {
            Self::Shown(shown) => shown.ask(&order.header(None)),
            Self::Owned(_) | Self::Told(_) => {
                let Some(owner) = self.owner() else {
                    let text = "this connection only looks at the run; name the run";
                    return Err(SessionEnd::word(Code::BadFrame, text));
                };
                let run = owner.run().key.id.to_string();
                Ok((!order.give(owner)?).then_some(ServerHeader::AlreadyEnded { run }))
            }
        }
    }

    /// Lets the run go on without this connection. The answer, if there is one now.
    pub(super) fn detach(&self) -> Result<Option<ServerHeader>, SessionEnd> {
        match self {
            Self::Shown(shown) => shown.ask(&ClientHeader::Detach),
            Self::Told(told) => Ok(Some(told.detach())),
            Self::Owned(_) => {
                let text = "only a durable run can be left alone; start it with -d or --durable";
                Err(SessionEnd::word(Code::NotDurable, text))
            }
        }
    }
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
