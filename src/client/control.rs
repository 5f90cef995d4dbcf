//! What a caller hands to a run: its input and output, and what it asks of it.

use std::convert::Infallible;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::sink::Output;

/// How long a cancelled run's answer is waited for: 5 s from SIGTERM to SIGKILL on the server, 2 s for
/// what is left, and a second for the way.
pub const CANCEL_WAIT: Duration = Duration::from_secs(8);

/// What a caller may ask of a run that is under way.
#[derive(Debug, Clone)]
pub enum Control {
    /// Send its process group a signal, named without `SIG`.
    Signal(String),
    /// Stop it and everything that it started.
    Cancel,
    /// Leave it: a durable run goes on.
    Detach,
    /// This process is about to be suspended by its terminal.
    Pause {
        /// Dropped once the server was told, or cannot be told: the receiver's end says when to go ahead.
        told: mpsc::Sender<Infallible>,
    },
}

/// A run's standard input.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// What a run is connected to on the caller's side.
pub struct RunIo {
    /// Its standard input; none: `/dev/null` on the server.
    pub stdin: Option<Input>,
    /// Takes its output.
    pub output: Box<dyn Output>,
    /// What the caller asks of it; a closed channel asks nothing.
    pub control: mpsc::UnboundedReceiver<Control>,
}
