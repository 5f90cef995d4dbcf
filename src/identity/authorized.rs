//! Who is let in, judged anew on every question.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use super::authorized_keys::{self, Entry};
use super::{Fingerprint, LineError, PublicKey};
use crate::sys::fs::{FsError, TrustedFile, Version, euid, is_own_or_root};

#[cfg(test)]
mod tests;

/// Seconds for which a file counts as still being changed: two changes within one tick of a file
/// system's clock (two seconds on FAT) cannot be told apart.
const UNSETTLED_S: i64 = 3;

/// Who a peer is. Runs belong to one of these.
#[derive(Debug, Clone)]
pub enum Identity {
    /// A program of this account on this machine: it holds the local identity's key, or came over a
    /// unix socket, where the kernel names its uid.
    Local {
        /// Whose program it is.
        uid: u32,
    },
    /// The holder of a listed key.
    Key {
        /// The key.
        fingerprint: Fingerprint,
        /// What the list says after it; for people, and no part of who it is.
        comment: String,
    },
}

impl Identity {
    /// Who comes from `uid` over a unix socket; none if that is neither this server's account nor root.
    #[must_use]
    pub fn of_unix_peer(uid: u32) -> Option<Self> {
        is_own_or_root(uid).then_some(Self::Local { uid })
    }

    /// What makes two of them the same.
    fn key(&self) -> Result<u32, &Fingerprint> {
        match self {
            Self::Local { uid } => Ok(*uid),
            Self::Key { fingerprint, .. } => Err(fingerprint),
        }
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// `local:1000` or `key:SHA256:…`: stable, so it may be stored.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid } => write!(f, "local:{uid}"),
            Self::Key { fingerprint, .. } => write!(f, "key:{fingerprint}"),
        }
    }
}

/// A file of keys.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it must be there: a file that was named must, one at its default place need not.
    pub required: bool,
}

/// What is worth a line in the log, told once for each version of a file.
#[derive(Debug, thiserror::Error)]
pub enum News {
    /// A line that lets nobody in.
    #[error("{}: {error}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line and why.
        error: LineError,
    },
    /// A file that lets nobody in.
    #[error("no key of {} is let in: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why it cannot be used.
        error: FsError,
    },
}

/// The answer to one question.
#[derive(Debug)]
pub struct Lookup {
    /// The first of the keys that is let in, and who its holder is.
    pub found: Option<(Fingerprint, Identity)>,
    /// What has come up in the files since the last question.
    pub news: Vec<News>,
}

/// The keys that are let in: those in the files as they are now, and the local identity's over loopback.
#[derive(Debug)]
pub struct Authorized {
    local: Fingerprint,
    files: Mutex<Vec<Watched>>,
}

impl Authorized {
    /// Looks at no file yet.
    #[must_use]
    pub fn new(sources: Vec<Source>, local: &PublicKey) -> Self {
        let files = sources.into_iter().map(Watched::new).collect();
        Self { local: local.fingerprint(), files: Mutex::new(files) }
    }

    /// The first of `keys` that is let in, and who its holder is, should the peer prove that it holds it.
    /// `loopback`: the peer is on this machine. However many keys are asked for, each file is looked at
    /// once.
    #[must_use]
    pub fn lookup(&self, keys: &[Fingerprint], loopback: bool) -> Lookup {
        let (found, news) = self.with_files(|files| {
            keys.iter().find_map(|key| Some((*key, self.who(files, key, loopback)?)))
        });
        Lookup { found, news }
    }

    fn who(&self, files: &[Watched], key: &Fingerprint, loopback: bool) -> Option<Identity> {
        if loopback && *key == self.local {
            return Some(Identity::Local { uid: euid() });
        }
        let entry = files.iter().find_map(|file| file.find(key))?;
        Some(Identity::Key { fingerprint: *key, comment: entry.comment.clone() })
    }

    /// How many keys the files let in, the local identity aside: a server that others can reach
    /// should not start with none.
    #[must_use]
    pub fn count(&self) -> (usize, Vec<News>) {
        self.with_files(|files| files.iter().map(|file| file.entries().len()).sum())
    }

    fn with_files<T>(&self, ask: impl FnOnce(&[Watched]) -> T) -> (T, Vec<News>) {
        // A panic elsewhere cannot leave a list half-made: each is replaced as a whole.
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let news = files.iter_mut().flat_map(Watched::refresh).collect();
        (ask(&files), news)
    }
}

/// A file and what was last found in it.
#[derive(Debug)]
struct Watched {
    source: Source,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Not looked at yet.
    New,
    /// Not there, which is fine.
    Absent,
    /// Read as it was at `version`. If `settled`, an equal version means equal content.
    Read { version: Version, settled: bool, entries: Vec<Entry>, errors: Vec<LineError> },
    /// It lets nobody in, for the reason in the text.
    Failed(String),
}

impl Watched {
    fn new(source: Source) -> Self {
        Self { source, state: State::New }
    }

    fn entries(&self) -> &[Entry] {
        match &self.state {
            State::Read { entries, .. } => entries,
            State::New | State::Absent | State::Failed(_) => &[],
        }
    }

    fn find(&self, key: &Fingerprint) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.fingerprint == *key)
    }

    /// Reads the file again if it may have changed. A file that cannot be read lets nobody in.
    fn refresh(&mut self) -> Vec<News> {
        match self.reload() {
            Ok(news) => news,
            Err(e) if e.is_missing() && !self.source.required => {
                self.state = State::Absent;
                Vec::new()
            }
            Err(error) => self.fail(error),
        }
    }

    fn reload(&mut self) -> Result<Vec<News>, FsError> {
        let path = &self.source.path;
        let file = TrustedFile::open(path)?;
        let version = file.version();
        let unchanged = |s: &State| matches!(s, State::Read { version: v, .. } if *v == version);
        if unchanged(&self.state) && matches!(self.state, State::Read { settled: true, .. }) {
            return Ok(Vec::new());
        }
        let settled = now_s().saturating_sub(version.changed_at()) > UNSETTLED_S;
        let (entries, errors) = authorized_keys::read(file)?;
        let told = matches!(&self.state, State::Read { errors: old, .. } if *old == errors);
        let news =
            if told && unchanged(&self.state) { Vec::new() } else { line_news(path, &errors) };
        self.state = State::Read { version, settled, entries, errors };
        Ok(news)
    }

    fn fail(&mut self, error: FsError) -> Vec<News> {
        let text = error.to_string();
        if matches!(&self.state, State::Failed(old) if *old == text) {
            return Vec::new();
        }
        self.state = State::Failed(text);
        vec![News::File { path: self.source.path.clone(), error }]
    }
}

fn line_news(path: &Path, errors: &[LineError]) -> Vec<News> {
    errors.iter().map(|e| News::Line { path: path.to_owned(), error: e.clone() }).collect()
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
