//! What is decided about the journal.

use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::runs::journal::copy::CopyTo;
use crate::runs::journal::rules::{Commands, Rules, Surety};

const COMMANDS: &str = "text";
const SYNC: &str = "interval";

/// Completions and the help know these words.
fn one_of<T>(words: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words.iter().copied()).try_map(|word| word.parse())
}

/// What is written down, how surely, and where else.
#[derive(Debug, clap::Args)]
pub(super) struct JournalArgs {
    /// What the journal has of commands: their text, or only a digest with a key of this server's (hash)
    #[arg(long, value_name = "FORM", default_value = COMMANDS, value_parser = one_of::<Commands>(Commands::WORDS))]
    pub(super) journal_commands: Commands,

    /// When a journal line is on the disk: always before its command is started; at an interval of 1 s, but before
    /// the start of a durable run; or never waited for
    #[arg(long, value_name = "WHEN", default_value = SYNC, value_parser = one_of::<Surety>(Surety::WORDS))]
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
