//! A file that decides who is let in, read again whenever it may have changed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::LineError;
use super::line::FILE_LIMIT;
use crate::sys::fs::{FsError, TrustedFile, Version};
use crate::sys::mutex::lock;

/// Seconds for which a file counts as still being changed: two changes within one tick of a file
/// system's clock (two seconds on FAT) cannot be told apart.
const UNSETTLED_S: i64 = 3;

/// A file of keys.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it must be there: a file that was named must, one at its default place need not.
    pub required: bool,
}

/// The text of a file that nobody else could change.
///
/// # Errors
/// Somebody else could, or it is too long or cannot be read.
pub fn read_list(path: &Path) -> Result<String, FsError> {
    TrustedFile::open(path)?.read(FILE_LIMIT)
}

/// A file that is read elsewhere, with other rights than this process has: clones are the same file.
#[derive(Debug, Clone)]
pub struct Handed {
    path: PathBuf,
    found: Arc<Mutex<(u64, Shared)>>,
}

/// The same, without a copy for each who reads it.
type Shared = Result<Option<Arc<String>>, String>;

/// The text of a file; none: it is not there; or why it cannot be used, in one line.
pub type Found = Result<Option<String>, String>;

impl Handed {
    /// Of which nothing is known yet. The path is only shown.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, found: Arc::new(Mutex::new((0, Ok(None)))) }
    }

    /// What was found when it was read last.
    pub fn put(&self, found: Found) {
        let found = found.map(|text| text.map(Arc::new));
        let mut last = lock(&self.found);
        if last.1 != found {
            *last = (last.0 + 1, found);
        }
    }

    /// What was found last.
    #[cfg(test)]
    pub(crate) fn found(&self) -> Shared {
        lock(&self.found).1.clone()
    }

    /// What was found last, if that is another thing than when it had this number, and its number.
    fn found_since(&self, number: Option<u64>) -> Option<(u64, Shared)> {
        let last = lock(&self.found);
        (number != Some(last.0)).then(|| last.clone())
    }
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Keys that are let in: `authorized_keys`.
    Keys,
    /// Keys that sign certificates for this account.
    Authorities,
    /// What is not let in any more.
    Revoked,
}

impl Role {
    /// The option of `rexec-server` that names such a file.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Keys => "--authorized-keys",
            Self::Authorities => "--trusted-user-ca",
            Self::Revoked => "--revoked-keys",
        }
    }
}

/// What is worth a line in the log, told once for each version of a file.
#[derive(Debug)]
pub struct News {
    /// What the file is for.
    pub role: Role,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub trouble: Trouble,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A line that is left out; of a revocation list, that keeps everybody out.
    #[error(transparent)]
    Line(LineError),
    /// It cannot be used.
    #[error(transparent)]
    File(FsError),
    /// Whoever has read it says that it cannot be used.
    #[error("{0}")]
    Told(String),
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, path, trouble } = self;
        let path = path.display();
        match (role, trouble) {
            (Role::Revoked, Trouble::Line(e)) => {
                write!(f, "{path}: {e}; until it is corrected no key is let in")
            }
            (Role::Revoked, Trouble::File(e)) => write!(f, "no key is let in without {path}: {e}"),
            (_, Trouble::Line(e)) => write!(f, "{path}: {e}"),
            (_, Trouble::File(e)) => write!(f, "no key of {path} is let in: {e}"),
            (_, Trouble::Told(e)) => write!(f, "no key of {path} is let in: {e}"),
        }
    }
}

/// What a file's text says, and its lines that say nothing.
pub(super) type Parsed<T> = (T, Vec<LineError>);

/// Reads a file's text.
type Parse<T> = Box<dyn Fn(&Arc<String>) -> Parsed<T> + Send>;

/// A file and what was last found in it.
pub(super) struct Watched<T> {
    pub(super) source: Source,
    role: Role,
    parse: Parse<T>,
    /// Whoever reads it, if that is not this process, and the number of what was found last.
    handed: Option<(Handed, Option<u64>)>,
    state: State<T>,
}

enum State<T> {
    /// Not looked at yet.
    New,
    /// Not there, which is fine.
    Absent,
    /// Read as it was at `version`. If `settled`, an equal version means equal content.
    Read {
        version: Option<Version>,
        settled: bool,
        /// Kept, and not a digest: to compare a long file with it costs a tenth.
        text: Arc<String>,
        content: T,
        errors: Vec<LineError>,
    },
    /// It cannot be used, for the reason in the text.
    Failed(String),
}

impl<T> Watched<T> {
    pub(super) fn new(
        source: Source,
        role: Role,
        parse: impl Fn(&Arc<String>) -> Parsed<T> + Send + 'static,
    ) -> Self {
        Self { source, role, parse: Box::new(parse), handed: None, state: State::New }
    }

    /// One that is read elsewhere.
    pub(super) fn handed(
        handed: Handed,
        role: Role,
        parse: impl Fn(&Arc<String>) -> Parsed<T> + Send + 'static,
    ) -> Self {
        let source = Source { path: handed.path.clone(), required: false };
        Self { handed: Some((handed, None)), ..Self::new(source, role, parse) }
    }

    /// What was in it when it was last looked at; none if it is not there or cannot be used.
    pub(super) fn content(&self) -> Option<&T> {
        match &self.state {
            State::Read { content, .. } => Some(content),
            State::New | State::Absent | State::Failed(_) => None,
        }
    }

    /// Whether it was read, every line of it, or need not be there and is not.
    pub(super) fn is_whole(&self) -> bool {
        match &self.state {
            State::Read { errors, .. } => errors.is_empty(),
            State::Absent => true,
            State::New | State::Failed(_) => false,
        }
    }

    /// Reads the file again if it may have changed.
    pub(super) fn refresh(&mut self) -> Vec<News> {
        if let Some((handed, number)) = &mut self.handed {
            let Some((now, found)) = handed.found_since(*number) else { return Vec::new() };
            *number = Some(now);
            return match found {
                Ok(Some(text)) => self.understand(text, None, false),
                Ok(None) => {
                    self.state = State::Absent;
                    Vec::new()
                }
                Err(text) => self.fail(text.clone(), Trouble::Told(text)),
            };
        }
        match self.reload() {
            Ok(news) => news,
            Err(e) if e.is_missing() && !self.source.required => {
                self.state = State::Absent;
                Vec::new()
            }
            Err(error) => self.fail(error.to_string(), Trouble::File(error)),
        }
    }

    fn reload(&mut self) -> Result<Vec<News>, FsError> {
        let file = TrustedFile::open(&self.source.path)?;
        let now = file.version();
        if let State::Read { version, settled: true, .. } = &self.state
            && *version == Some(now)
        {
            return Ok(Vec::new());
        }
        let is_settled = now_s().saturating_sub(now.changed_at()) > UNSETTLED_S;
        let text = Arc::new(file.read(FILE_LIMIT)?);
        Ok(self.understand(text, Some(now), is_settled))
    }

    fn understand(
        &mut self,
        text: Arc<String>,
        now: Option<Version>,
        is_settled: bool,
    ) -> Vec<News> {
        // To read a file of many keys costs little, to understand it more.
        if let State::Read { version, settled, text: known, .. } = &mut self.state
            && *known == text
        {
            (*version, *settled) = (now, is_settled);
            return Vec::new();
        }
        let (content, errors) = (self.parse)(&text);
        let news = errors.iter().map(|e| self.news(Trouble::Line(e.clone()))).collect();
        self.state = State::Read { version: now, settled: is_settled, text, content, errors };
        news
    }

    fn fail(&mut self, text: String, trouble: Trouble) -> Vec<News> {
        if matches!(&self.state, State::Failed(old) if *old == text) {
            return Vec::new();
        }
        self.state = State::Failed(text);
        vec![self.news(trouble)]
    }

    fn news(&self, trouble: Trouble) -> News {
        News { role: self.role, path: self.source.path.clone(), trouble }
    }
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn watched() -> (tempfile::TempDir, Watched<String>, Arc<AtomicUsize>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("file");
        let parsed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&parsed);
        let parse = move |text: &Arc<String>| {
            count.fetch_add(1, Ordering::Relaxed);
            (text.to_string(), Vec::new())
        };
        std::fs::write(&path, "a").unwrap();
        (dir, Watched::new(Source { path, required: true }, Role::Keys, parse), parsed)
    }

    #[test]
    fn the_same_text_is_not_understood_twice() {
        let (_dir, mut file, parsed) = watched();
        for (text, times) in [("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)] {
            std::fs::write(&file.source.path, text).unwrap();
            assert!(file.refresh().is_empty());
            assert_eq!(file.content().map(String::as_str), Some(text));
            assert_eq!(parsed.load(Ordering::Relaxed), times);
        }
    }

    #[test]
    fn what_is_handed_over_unchanged_is_not_looked_at_again() {
        let handed = Handed::new("~alice/list".into());
        let (parsed, text) = (Arc::new(AtomicUsize::new(0)), |text: &str| Ok(Some(text.into())));
        let count = Arc::clone(&parsed);
        let parse = move |text: &Arc<String>| {
            count.fetch_add(1, Ordering::Relaxed);
            (text.to_string(), Vec::new())
        };
        let mut file = Watched::handed(handed.clone(), Role::Keys, parse);
        for (found, content, times) in [
            (Ok(None), None, 0),
            (text("a"), Some("a"), 1),
            (text("a"), Some("a"), 1),
            (Err("it is gone".into()), None, 1),
            (text("a"), Some("a"), 2),
            (Ok(None), None, 2),
        ] {
            handed.put(found);
            for _ in 0..2 {
                file.refresh();
                assert_eq!(file.content().map(String::as_str), content);
                assert_eq!(parsed.load(Ordering::Relaxed), times);
            }
        }
    }

    #[test]
    fn a_settled_file_is_not_read_again() {
        let (_dir, mut file, _) = watched();
        file.refresh();
        let State::Read { settled, content, text, .. } = &mut file.state else { panic!("read") };
        assert!(!*settled, "just written");
        (*settled, *text) = (true, Arc::new("another".to_owned()));
        content.push_str("planted");
        file.refresh();
        assert_eq!(file.content().unwrap(), "aplanted", "kept as it was");
    }

    #[test]
    fn a_file_over_the_limit_cannot_be_used() {
        let (_dir, mut file, _) = watched();
        for (len, ok) in [(FILE_LIMIT, true), (FILE_LIMIT + 1, false)] {
            std::fs::write(&file.source.path, vec![b'\n'; len]).unwrap();
            assert_eq!(file.refresh().is_empty(), ok);
            assert_eq!((file.content().is_some(), file.is_whole()), (ok, ok));
        }
    }
}
