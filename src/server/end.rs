//! How a session ends, and the last word to the client.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::conn::{ConnError, FrameReader, FrameWriter};
use crate::proto::code::Code;
use crate::proto::frame::FrameError;
use crate::proto::header::ServerHeader;
use crate::runs::run::TakenOver;

/// After the last word so much is read, for so long, so that the word arrives.
pub(super) const LAST_WORD: (usize, Duration) = (1 << 20, Duration::from_secs(1));

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
        SessionEnd::Conn(e @ ConnError::Silent(_)) => (Code::PeerSilent, e.to_string()),
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
    let (bytes, time) = LAST_WORD;
    let said = async {
        writer.send(header, b"").await?;
        writer.shutdown().await
    };
    // The peer may be gone or may not read: then there is nobody to tell.
    if let Ok(Ok(())) = tokio::time::timeout(time, said).await {
        reader.drain(bytes, time).await;
    }
}
