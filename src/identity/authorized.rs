//! Who is let in, judged anew on every question.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use super::authorized_keys::{self, Entry};
use super::watched::{Parsed, Watched};
use super::{
    Barred, Caller, Fingerprint, Granted, Identity, News, Permits, Proven, PublicKey, Source,
};
use crate::sys::fs::euid;

#[cfg(test)]
mod tests;

/// The files that say who is let in.
#[derive(Debug, Clone, Default)]
pub struct AccessFiles {
    /// Keys, and keys that sign certificates, as in `~/.ssh/authorized_keys`.
    pub keys: Vec<Source>,
    /// What their lines may say.
    pub permits: Permits,
}

/// Why a key is not let in. For the operator's eyes: a peer is told no more than that it is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No line lets it in.
    #[error("no key that it listed is authorized")]
    Unlisted,
    /// A line that would let it in does not do so now.
    #[error("{} line {line} lists its key, but {why}", path.display())]
    Barred {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why not.
        why: Barred,
    },
}

/// The answer to one question.
#[derive(Debug)]
pub struct Lookup {
    /// The first of the keys that is let in, and what its holder is granted; or why the first that is
    /// listed is not.
    pub found: Result<(Fingerprint, Granted), Refusal>,
    /// What has come up in the files since the last question.
    pub news: Vec<News>,
}

/// The answer about somebody who was let in before.
#[derive(Debug)]
pub struct Again {
    /// What it is granted, or why it would not be let in any more.
    pub granted: Result<Granted, Refusal>,
    /// What has come up in the files since the last question.
    pub news: Vec<News>,
}

/// The keys that are let in: those in the files as they are now, and the local identity's over loopback.
pub struct Authorized {
    local: Fingerprint,
    files: Mutex<Vec<Watched<Keys>>>,
}

impl Authorized {
    /// Looks at no file yet.
    #[must_use]
    pub fn new(files: AccessFiles, local: &PublicKey) -> Self {
        let permits = files.permits;
        let watched = |source| Watched::new(source, move |text| Keys::parse(text, permits));
        let keys = files.keys.into_iter().map(watched).collect();
        Self { local: local.fingerprint(), files: Mutex::new(keys) }
    }

    /// The first of `keys` that is let in now, and what its holder is granted, should the peer prove that it
    /// holds it. However many keys are asked for, each file is looked at once.
    #[must_use]
    pub fn lookup(&self, keys: &[Fingerprint], caller: Caller) -> Lookup {
        let now = SystemTime::now();
        let (found, news) = self.with_files(|files| {
            let mut refusal = Refusal::Unlisted;
            for key in keys {
                match self.who(files, key, caller, now) {
                    Ok(granted) => return Ok((*key, granted)),
                    Err(why) if refusal == Refusal::Unlisted => refusal = why,
                    Err(_) => {}
                }
            }
            Err(refusal)
        });
        Lookup { found, news }
    }

    /// What somebody who was let in as `who` is granted now.
    pub fn again(&self, who: &Identity, proven: &Proven, caller: Caller) -> Again {
        match proven {
            Proven::Kernel => {
                let granted = Granted { who: who.clone(), options: Arc::default() };
                Again { granted: Ok(granted), news: Vec::new() }
            }
            Proven::Key(key) => {
                let Lookup { found, news } = self.lookup(&[*key], caller);
                Again { granted: found.map(|(_, granted)| granted), news }
            }
        }
    }

    /// The first line that names the key and lets it in now counts, as with sshd.
    fn who(
        &self,
        files: &[Watched<Keys>],
        key: &Fingerprint,
        caller: Caller,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        if caller.loopback && *key == self.local {
            return Ok(Granted::local(euid()));
        }
        let mut refusal = Refusal::Unlisted;
        for file in files {
            let entries = file.content().into_iter().flat_map(|keys| keys.of(key));
            for entry in entries.filter(|entry| entry.options.authority.is_none()) {
                let path = &file.source.path;
                match entry.options.admit(caller.address, now) {
                    Ok(()) => return Ok(entry.granted()),
                    Err(why) if refusal == Refusal::Unlisted => {
                        refusal = Refusal::Barred { path: path.clone(), line: entry.line, why };
                    }
                    Err(_) => {}
                }
            }
        }
        Err(refusal)
    }

    /// How many keys the files let in, the local identity aside: a server that others can reach
    /// should not start with none.
    #[must_use]
    pub fn count(&self) -> (usize, Vec<News>) {
        self.with_files(|files| {
            files.iter().filter_map(Watched::content).map(|keys| keys.entries.len()).sum()
        })
    }

    fn with_files<T>(&self, ask: impl FnOnce(&[Watched<Keys>]) -> T) -> (T, Vec<News>) {
        // A panic elsewhere cannot leave a list half-made: each is replaced as a whole.
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let news = files.iter_mut().flat_map(Watched::refresh).collect();
        (ask(&files), news)
    }
}

impl Entry {
    fn granted(&self) -> Granted {
        let (fingerprint, comment) = (self.fingerprint, self.comment.clone());
        Granted { who: Identity::Key { fingerprint, comment }, options: self.options.clone() }
    }
}

/// A file's keys, found by their fingerprints.
struct Keys {
    entries: Vec<Entry>,
    /// Places in `entries`, by fingerprint and then by line.
    order: Vec<usize>,
}

impl Keys {
    fn parse(text: &str, permits: Permits) -> Parsed<Self> {
        let (entries, errors) = authorized_keys::parse(text, permits);
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by_key(|at| entries[*at].fingerprint);
        (Self { entries, order }, errors)
    }

    /// The lines with this key, the first one first.
    fn of(&self, key: &Fingerprint) -> impl Iterator<Item = &Entry> {
        let from = self.order.partition_point(|at| self.entries[*at].fingerprint < *key);
        let all = self.order[from..].iter().map(|at| &self.entries[*at]);
        all.take_while(move |entry| entry.fingerprint == *key)
    }
}
