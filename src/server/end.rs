//! How a session ends, and the last word to the client.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::conn::{ConnError, FrameReader, FrameWriter};
use crate::proto::code::Code;
use crate::proto::frame::{BODY_LIMIT, FrameError};
use crate::proto::header::ServerHeader;
use crate::runs::owner::TakenOver;

/// How many bytes are read after the last word, so that the word arrives: the largest request, which may
/// lie unread, and what else is on its way.
const LAST_READ: usize = 2 * BODY_LIMIT;
/// So long the peer may take to read the last word, and may then be silent.
const LAST_SILENCE: Duration = Duration::from_secs(1);
/// So long is read in all.
const LAST_TIME: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionEnd {
    /// The client said goodbye.
    #[error("the client closed the connection")]
    Closed,
    /// The connection broke.
    #[error(transparent)]
    Conn(#[from] ConnError),
    /// The session was ended with a last word to the client.
    #[error("{}: {text}", .code.name())]
    Word {
        /// The kind of error.
        code: Code,
        /// One line for people.
        text: String,
    },
}

impl SessionEnd {
    pub(super) fn word(code: Code, text: impl Into<String>) -> Self {
        Self::Word { code, text: text.into() }
    }
}

impl From<TakenOver> for SessionEnd {
    fn from(taken: TakenOver) -> Self {
        Self::word(Code::TakenOver, taken.to_string())
    }
}

impl From<FrameError> for SessionEnd {
    fn from(error: FrameError) -> Self {
        ConnError::from(error).into()
    }
}

/// Says why the connection ends, if there is something to say, and waits until it was heard.
pub(super) async fn last_word<R, W>(
    end: &SessionEnd,
    mut reader: FrameReader<R>,
    mut writer: FrameWriter<W>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (code, text) = match end {
        SessionEnd::Word { code, text } => (*code, text.clone()),
        SessionEnd::Conn(ConnError::Frame(e)) => (Code::BadFrame, e.to_string()),
        SessionEnd::Conn(e @ (ConnError::Silent(_) | ConnError::Slow(_))) => {
            (Code::PeerSilent, e.to_string())
        }
        SessionEnd::Closed | SessionEnd::Conn(_) => return,
    };
    say_and_close(&ServerHeader::Error { code, text }, &mut reader, &mut writer).await;
}

/// Sends a last frame and closes, reading on for a while: closing with unread input would reset the
/// connection and destroy the frame.
pub(super) async fn say_and_close<R, W>(
    header: &ServerHeader,
    reader: &mut FrameReader<R>,
    writer: &mut FrameWriter<W>,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let said = async {
        writer.send(header, b"").await?;
        writer.shutdown().await
    };
    // The peer may be gone or may not read: then there is nobody to tell.
    if let Ok(Ok(())) = tokio::time::timeout(LAST_SILENCE, said).await {
        reader.drain(LAST_READ, LAST_SILENCE, LAST_TIME).await;
    }
}
