//! What one look at a run brings for its client.

use super::end::SessionEnd;
use crate::proto::code::Code;
use crate::runs::owner::Outgoing;

/// So much of the record is taken at a time: two of an engine's largest pieces with their headers, or a
/// file would be read in parts that end just before the second one does.
pub(super) const BATCH: usize = 520 * 1024;

/// What is to be sent, and whether the run is done with.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) outgoing: Outgoing,
    /// It may wait for what else there is to say, as `started` does.
    pub(super) may_wait: bool,
    /// The last word was among it: no confirmation will come.
    pub(super) over: bool,
    /// The supervisor is gone: the rest comes without it.
    pub(super) is_left: bool,
}

/// The record cannot be read: the client is not to take what it has for all that there is.
pub(super) fn damaged(error: &std::io::Error) -> SessionEnd {
    SessionEnd::word(Code::Corrupt, format!("cannot read the run's record: {error}"))
}
