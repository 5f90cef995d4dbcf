//! What is decided about the journal.

use crate::runs::journal::copy::CopyTo;
use crate::runs::journal::rules::{Commands, Rules, Surety};

const COMMANDS: &str = "text";
const SYNC: &str = "interval";

/// What is written down, how surely, and where else.
#[derive(Debug, clap::Args)]
pub(super) struct JournalArgs {
    /// What the journal has of commands: their text, or only a digest with a key of this server's (hash)
    #[arg(long, value_name = "text|hash", default_value = COMMANDS)]
    pub(super) journal_commands: Commands,

    /// When a journal line is on the disk: always before its command is started; at an interval of 1 s, but before
    /// the start of a durable run; or never waited for
    #[arg(long, value_name = "always|interval|never", default_value = SYNC)]
    pub(super) journal_sync: Surety,

    /// Send each line of the journal to the system's log as well: syslog or journald, or syslog:/path/to/socket
    #[arg(long, value_name = "LOG")]
    pub(super) journal_copy: Option<CopyTo>,
}

impl JournalArgs {
    /// The same without a command line.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            commands: self.journal_commands,
            surety: self.journal_sync,
            copy: self.journal_copy.clone(),
        }
    }
}
