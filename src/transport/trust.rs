//! Which host key a client accepts.

use std::future::ready;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Endpoint, HostKeyCheck, HostKeyError, UnknownHost};
use crate::identity::known_hosts::{Known, KnownHosts, line_for};
use crate::identity::{Ask, Asking, Fingerprint, KeyError, OwnKeys, PublicKey};
use crate::sys::clock::boottime;
use crate::sys::fs::{FsError, append_line, home_dir};
use crate::sys::mutex::lock;

/// Lines that were not understood, of which an error names at most so many.
const NAMED_LINES: usize = 3;

/// What is done about a host that nobody has spoken of.
#[derive(Debug, Clone, Default)]
pub enum NewHosts {
    /// It is refused.
    #[default]
    Refuse,
    /// Its key is believed and remembered.
    Accept(Arc<dyn Ask>),
    /// Somebody is asked.
    Ask(Arc<dyn Ask>),
}

/// A host key of this account's own.
#[derive(Debug, Clone)]
pub enum Own {
    /// This one.
    Key(PublicKey),
    /// The one in the state folder, to be read when it is needed.
    Kept(OwnKeys),
}

impl From<PublicKey> for Own {
    fn from(key: PublicKey) -> Self {
        Self::Key(key)
    }
}

impl Own {
    fn key(&self) -> Result<&PublicKey, KeyError> {
        match self {
            Self::Key(key) => Ok(key),
            Self::Kept(keys) => keys.host(),
        }
    }
}

/// What a client knows of host keys, asked in the order of the fields.
#[derive(Debug, Clone, Default)]
pub struct HostTrust {
    /// The only keys accepted, if there are any: the caller named them. Of what the files say, only a revocation
    /// counts beside them.
    pub pins: Vec<Fingerprint>,
    /// Files of known hosts. One that is missing knows no host.
    pub files: Vec<PathBuf>,
    /// This account's own host key, for a server on this machine that no file speaks of.
    pub own: Option<Own>,
    /// What is done about any other host.
    pub new_hosts: NewHosts,
    /// What the files said a moment ago.
    pub recent: Recent,
}

/// For so long what was read of the files counts, if it accepts a key: many servers that are reached at once
/// have them read once.
const FRESH: Duration = Duration::from_secs(1);

/// What files of known hosts said when they were last read, and when that was. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Recent(Arc<Mutex<Option<Said>>>);

#[derive(Debug)]
struct Said {
    /// Since boot.
    at: Duration,
    /// File by file.
    files: Vec<(PathBuf, Arc<KnownHosts>)>,
}

impl Recent {
    fn forget(&self) {
        *lock(&self.0) = None;
    }

    /// What these files say, `now` by the time since boot. An error is no answer, and not kept.
    fn load(
        &self,
        files: &[PathBuf],
        now: Duration,
    ) -> Result<Vec<(PathBuf, Arc<KnownHosts>)>, FsError> {
        let mut recent = lock(&self.0);
        if let Some(said) = &*recent
            && said.files.iter().map(|(path, _)| path).eq(files)
            && now.saturating_sub(said.at) < FRESH
        {
            return Ok(said.files.clone());
        }
        let read = |path: &PathBuf| Ok((path.clone(), Arc::new(KnownHosts::load(path)?)));
        let files = files.iter().map(read).collect::<Result<Vec<_>, FsError>>()?;
        *recent = Some(Said { at: now, files: files.clone() });
        Ok(files)
    }
}

/// What one file says.
struct Answer {
    file: PathBuf,
    known: Known,
}

impl HostTrust {
    /// The file of known hosts that is used unless another is named: `~/.config/rexec/known_hosts`.
    ///
    /// # Errors
    /// There is no home.
    pub fn default_file() -> Result<PathBuf, FsError> {
        Ok(home_dir()?.join(".config/rexec/known_hosts"))
    }

    /// Asks every file; `left_out` is what could not be understood in them.
    fn ask(
        &self,
        host: &str,
        port: u16,
        key: &PublicKey,
    ) -> Result<(Vec<Answer>, String), FsError> {
        let (mut answers, mut lines) = (Vec::new(), Vec::new());
        for (file, hosts) in self.recent.load(&self.files, boottime())? {
            lines.extend(hosts.errors().iter().map(|e| format!("{} {e}", file.display())));
            answers.push(Answer { file, known: hosts.check(host, port, key) });
        }
        let more = lines.len().saturating_sub(NAMED_LINES);
        lines.truncate(NAMED_LINES);
        let mut left_out =
            lines.iter().fold(String::new(), |text, line| text + "; left out: " + line);
        if more > 0 {
            left_out += &format!(" and {more} more");
        }
        Ok((answers, left_out))
    }

    /// Judges by the files: `None` if they say nothing. A revocation in any file goes before all
    /// else, then a file that has the key, then one that has another.
    fn by_files(
        endpoint: &Endpoint,
        answers: &[Answer],
        key: &PublicKey,
    ) -> Option<Result<(), HostKeyError>> {
        let (endpoint, shown) = (endpoint.clone(), key.fingerprint());
        for Answer { file, known } in answers {
            if let Known::Revoked { line } = *known {
                let file = file.as_path().into();
                return Some(Err(HostKeyError::Revoked { endpoint, shown, file, line }));
            }
        }
        if answers.iter().any(|a| matches!(a.known, Known::Known { .. })) {
            return Some(Ok(()));
        }
        answers.iter().find_map(|Answer { file, known }| match *known {
            Known::Changed { line, fingerprint: listed } => {
                let (endpoint, file) = (endpoint.clone(), file.as_path().into());
                Some(Err(HostKeyError::Changed { endpoint, key: key.clone(), listed, file, line }))
            }
            _ => None,
        })
    }
}

impl HostKeyCheck for HostTrust {
    fn believes<'a>(&'a self, unknown: &'a UnknownHost) -> Asking<'a, bool> {
        match &self.new_hosts {
            NewHosts::Refuse => Box::pin(ready(false)),
            NewHosts::Accept(_) => Box::pin(ready(true)),
            NewHosts::Ask(ask) => {
                Box::pin(
                    async move { ask.is_right(&unknown.endpoint.to_string(), &unknown.key).await },
                )
            }
        }
    }

    fn remember(&self, unknown: &UnknownHost) -> Result<(), HostKeyError> {
        let default = || Self::default_file().map_err(HostKeyError::Remember);
        let file = unknown.file.clone().map_or_else(default, Ok)?;
        // Of several who meet a host at once the first decides which key it has.
        let is_due = || match self.judge_anew(&unknown.endpoint, &unknown.key) {
            Ok(()) => Ok(false),
            Err(HostKeyError::Unknown(_)) => Ok(true),
            Err(other) => Err(NotAdded(other)),
        };
        let added = append_line(&file, &unknown.line, is_due).map_err(|e| e.0)?;
        if !added {
            return Ok(());
        }
        if let NewHosts::Accept(ask) | NewHosts::Ask(ask) = &self.new_hosts {
            let (host, key) = (&unknown.endpoint, unknown.key.fingerprint());
            ask.tell(&format!(
                "{host} has the host key {key} from now on, says {}",
                file.display()
            ));
        }
        Ok(())
    }

    fn prepare(&self) -> Result<(), HostKeyError> {
        if let Some(own) = &self.own {
            own.key()?;
        }
        // What cannot be read now is not kept, and complained of when it is needed.
        let _ = self.recent.load(&self.files, boottime());
        Ok(())
    }

    fn check(&self, endpoint: &Endpoint, key: &PublicKey) -> Result<(), HostKeyError> {
        // A line that was added a moment ago counts at once.
        self.judge(endpoint, key).or_else(|_| self.judge_anew(endpoint, key))
    }
}

/// Why a line is not among the known hosts.
struct NotAdded(HostKeyError);

impl From<FsError> for NotAdded {
    fn from(error: FsError) -> Self {
        Self(HostKeyError::Remember(error))
    }
}

impl HostTrust {
    fn judge_anew(&self, endpoint: &Endpoint, key: &PublicKey) -> Result<(), HostKeyError> {
        self.recent.forget();
        self.judge(endpoint, key)
    }

    fn judge(&self, endpoint: &Endpoint, key: &PublicKey) -> Result<(), HostKeyError> {
        let shown = key.fingerprint();
        if !self.pins.is_empty() && !self.pins.contains(&shown) {
            return Err(HostKeyError::NotPinned { endpoint: endpoint.clone(), shown });
        }
        let (host, port) = match endpoint {
            Endpoint::Tcp { host, port } => (host.to_string(), *port),
            // A unix socket has no host key: the kernel says whose server it is.
            Endpoint::Unix(_) => (String::new(), 0),
        };
        let (answers, left_out) = self.ask(&host, port, key)?;
        let judged = Self::by_files(endpoint, &answers, key);
        if !self.pins.is_empty() {
            // Who named the key may not have heard yet that it was stolen.
            let is_revoked = matches!(judged, Some(Err(HostKeyError::Revoked { .. })));
            return judged.filter(|_| is_revoked).unwrap_or(Ok(()));
        }
        if let Some(judged) = judged {
            return judged;
        }
        let endpoint = endpoint.clone();
        match self.own.as_ref().map(Own::key).transpose()? {
            Some(own) if endpoint.is_local() && own == key => Ok(()),
            Some(own) if endpoint.is_local() => {
                let is_to_be_believed = matches!(self.new_hosts, NewHosts::Accept(_));
                let own = own.fingerprint();
                Err(HostKeyError::NotOwn { endpoint, shown, own, is_to_be_believed })
            }
            _ => {
                let line = line_for(&host, port, key);
                let (key, file) = (key.clone(), self.files.last().cloned());
                let unknown = UnknownHost { endpoint, key, line, file, left_out };
                Err(HostKeyError::Unknown(Box::new(unknown)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
