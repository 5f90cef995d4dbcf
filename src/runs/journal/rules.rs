//! What a server writes into its journal, how surely, and where else.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use ring::hmac;

use super::copy::CopyTo;
use crate::proto::digest::Digest;
use crate::sys::fs::{FsError, StateDir, create_once};

/// With [`Surety::Interval`]: how long after it was written a line is on the disk at the latest.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);
const KEY_FILE: &str = "journal.key";
const KEY_LEN: usize = 32;

/// What is decided about a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// What is written of commands.
    pub commands: Commands,
    /// When lines are on the disk.
    pub surety: Surety,
    /// Where copies of the lines go.
    pub copy: Option<CopyTo>,
}

/// What is written of commands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Commands {
    /// Their text, and their digest.
    #[default]
    Text,
    /// Their digest only.
    Hash,
}

/// When lines are on the disk, so that they are there after the machine went down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Surety {
    /// Each claim before its command is started.
    Always,
    /// Those of durable runs before the command is started, all others within [`SYNC_INTERVAL`].
    #[default]
    Interval,
    /// When the system gets to it.
    Never,
}

macro_rules! words {
    ($type:ident, $($name:literal => $value:ident),+) => {
        impl $type {
            /// How they are written.
            pub const WORDS: &[&str] = &[$($name),+];
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$value),)+
                    _ => Err(format!("one of: {}", Self::WORDS.join(", "))),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$value => $name,)+
                })
            }
        }
    };
}

words!(Commands, "text" => Text, "hash" => Hash);
words!(Surety, "always" => Always, "interval" => Interval, "never" => Never);

/// Makes the digests of commands: with a key that stays in the state folder, or whoever reads a line could try
/// out which command has its digest. Debug shows nothing of it.
pub struct Digester(hmac::Key);

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// With the key in a folder, which is made there the first time.
    ///
    /// # Errors
    /// The file cannot be read or made, or is not what was made.
    pub fn of(folder: &StateDir) -> Result<Self, FsError> {
        let mut fresh = [0; KEY_LEN];
        getrandom::fill(&mut fresh).map_err(|e| own(folder, e.into()))?;
        create_once(folder, KEY_FILE, 0o600, &fresh)?;
        // The file decides, whoever made it.
        let key = folder.read_private(KEY_FILE, KEY_LEN)?;
        if key.len() != KEY_LEN {
            return Err(own(
                folder,
                io::Error::other("it is damaged; remove it, and digests begin anew"),
            ));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// HMAC-SHA-256 (RFC 2104) of a digest.
    #[must_use]
    pub fn digest(&self, of: Digest) -> Digest {
        let tag = hmac::sign(&self.0, &of.0);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(tag.as_ref());
        Digest(bytes)
    }
}

fn own(folder: &StateDir, error: io::Error) -> FsError {
    FsError::Io { action: "use", path: folder.path().join(KEY_FILE), source: error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_back() {
        for word in ["always", "interval", "never"] {
            assert_eq!(word.parse::<Surety>().unwrap().to_string(), word);
        }
        for word in ["text", "hash"] {
            assert_eq!(word.parse::<Commands>().unwrap().to_string(), word);
        }
        assert_eq!("Always".parse::<Surety>(), Err("one of: always, interval, never".into()));
    }

    #[test]
    fn digests_differ_between_folders_and_stay_in_one() {
        let folder = || {
            let dir = tempfile::tempdir().unwrap();
            let state = StateDir::open(&dir.path().canonicalize().unwrap().join("state")).unwrap();
            (dir, state)
        };
        let ((_a, one), (_b, two)) = (folder(), folder());
        let digest = |folder| Digester::of(folder).unwrap().digest(Digest::of(b"rm -r /\0"));
        assert_eq!(digest(&one), digest(&one));
        assert_ne!(digest(&one), digest(&two));
        assert_ne!(digest(&one), Digest::of(b"rm -r /\0"));
        assert_eq!(format!("{:?}", Digester::of(&one).unwrap()), "Digester");
        std::fs::write(one.path().join(KEY_FILE), b"short").unwrap();
        assert!(Digester::of(&one).unwrap_err().to_string().contains("damaged"));
    }
}
