//! Which keys a client can prove, and in which order: those that were named, and no others; else those of
//! ssh-agent, `~/.ssh/id_*` and the local identity. They are looked for when a server asks, once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::OnceCell;

use super::line::{LINE_LIMIT, word};
use super::local::LOCAL;
use super::{
    Agent, AgentError, AgentKey, Ask, Candidate, Certificate, Fingerprint, Key, KeyError, KeyFile,
    Nobody, OwnKeys, PublicKey, StoredKey, local_identity,
};
use crate::sys::fs::{home_dir, open_state_dir, read_public as read_public_file};

/// The files of `~/.ssh` that are looked for, in this order.
pub const USUAL_FILES: [&str; 5] =
    ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"];

/// The keys of one client. Cheap to clone; clones look for keys once between them.
#[derive(Debug, Clone)]
pub struct KeyRing {
    source: Arc<Source>,
    found: Arc<OnceCell<Vec<Arc<Candidate>>>>,
    /// Those beside the files that were named.
    certificates: Arc<[Certificate]>,
    ask: Arc<dyn Ask>,
}

#[derive(Debug)]
enum Source {
    Given,
    Named(Vec<Named>),
    /// `own`: what this account's own server is known by, and what is proved to it.
    Usual {
        own: Option<OwnKeys>,
    },
}

/// A key that the caller named.
#[derive(Debug)]
enum Named {
    /// It can sign.
    Ready(Arc<Candidate>),
    /// It needs its passphrase, unless ssh-agent has it open.
    Locked(Arc<Candidate>, PathBuf),
    /// Only its public half is in the file, or beside it: ssh-agent may have the other one.
    Public(PublicKey, PathBuf),
}

impl KeyRing {
    /// These keys and no others, with nobody to ask.
    #[must_use]
    pub fn of(keys: impl IntoIterator<Item = Key>) -> Self {
        let held = |key| Arc::new(Candidate::held(key, "of the caller"));
        Self::given(keys.into_iter().map(held).collect(), Arc::new(Nobody))
    }

    /// The keys in these files and no others. The file of a public key will do, if ssh-agent has the
    /// private one.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn named(paths: &[PathBuf], ask: Arc<dyn Ask>) -> Result<Self, KeyError> {
        let named = paths.iter().map(|path| Named::load(path)).collect::<Result<Vec<_>, _>>()?;
        let certificates =
            paths.iter().filter_map(|path| certificate_beside(path, &*ask)).collect();
        Ok(Self { certificates, ..Self::of_named(named, ask)? })
    }

    /// The key in a variable of the environment, and no other; none if it is unset or empty.
    ///
    /// # Errors
    /// There is something else in it.
    pub fn from_env(name: &str, ask: Arc<dyn Ask>) -> Result<Option<Self>, KeyError> {
        let path = PathBuf::from(format!("${name}"));
        let Some(file) = KeyFile::from_env(name)? else { return Ok(None) };
        Self::of_named(vec![Named::of(file, &path)?], ask).map(Some)
    }

    /// Without an agent it is known at once which of them are of use.
    fn of_named(named: Vec<Named>, ask: Arc<dyn Ask>) -> Result<Self, KeyError> {
        if Agent::from_env().is_some() {
            return Ok(Self::new(Source::Named(named), ask));
        }
        let keys = named.iter().map(|named| named.candidate(None, &*ask));
        Ok(Self::given(keys.collect::<Result<_, _>>()?, ask))
    }

    /// The keys of ssh-agent, of `~/.ssh` and of this account on this machine. A server that shows the host
    /// key of `own` is this account's: its identity is proved to it, and no other key is looked for.
    #[must_use]
    pub fn usual(own: Option<OwnKeys>, ask: Arc<dyn Ask>) -> Self {
        Self::new(Source::Usual { own }, ask)
    }

    /// One of the keys, and no other.
    #[must_use]
    pub fn only(&self, key: Arc<Candidate>) -> Self {
        Self::given(vec![key], Arc::clone(&self.ask))
    }

    fn given(keys: Vec<Arc<Candidate>>, ask: Arc<dyn Ask>) -> Self {
        let found = Arc::new(OnceCell::new_with(Some(keys)));
        Self { source: Arc::new(Source::Given), found, certificates: Arc::default(), ask }
    }

    fn new(source: Source, ask: Arc<dyn Ask>) -> Self {
        let found = Arc::new(OnceCell::new());
        Self { source: Arc::new(source), found, certificates: Arc::default(), ask }
    }

    /// Whoever is to be asked.
    #[must_use]
    pub fn ask(&self) -> &dyn Ask {
        &*self.ask
    }

    /// The keys for a server that shows `host_key`, without those that could not be proved before.
    ///
    /// # Errors
    /// A key that was named cannot be used, or there is none.
    pub async fn keys(&self, host_key: &Fingerprint) -> Result<Vec<Arc<Candidate>>, KeyError> {
        if let Source::Usual { own: Some(own) } = &*self.source
            && own.host()?.fingerprint() == *host_key
            && let Some(key) = own.identity()?
        {
            self.ask.note(&format!("the server is this account's own, so it is shown {key}"));
            return Ok(vec![Arc::clone(key)]);
        }
        let found = self.found.get_or_try_init(|| self.find()).await?;
        certify(found, &self.certificates);
        Ok(found.iter().filter(|key| !key.is_spoiled()).cloned().collect())
    }

    async fn find(&self) -> Result<Vec<Arc<Candidate>>, KeyError> {
        match &*self.source {
            Source::Given => Ok(Vec::new()),
            Source::Named(named) => self.find_named(named).await,
            Source::Usual { own } => {
                let own = own.as_ref().map(OwnKeys::identity).transpose()?;
                self.find_usual(own.flatten()).await
            }
        }
    }

    async fn find_named(&self, named: &[Named]) -> Result<Vec<Arc<Candidate>>, KeyError> {
        let mut agent = None;
        if named.iter().any(|named| !matches!(named, Named::Ready(_))) {
            agent = self.agent().await;
        }
        named.iter().map(|named| named.candidate(agent.as_ref(), &*self.ask)).collect()
    }

    async fn find_usual(
        &self,
        own: Option<&Arc<Candidate>>,
    ) -> Result<Vec<Arc<Candidate>>, KeyError> {
        let mut found = Vec::new();
        if let Some((agent, keys)) = self.agent().await {
            self.ask.note(&format!("ssh-agent has {} keys that can be used", keys.len()));
            found.extend(keys.into_iter().map(|key| Arc::new(Candidate::in_agent(&agent, key))));
        }
        let folder = home_dir().map(|home| home.join(".ssh")).unwrap_or_default();
        for name in USUAL_FILES {
            let Some(key) = self.stored(&folder.join(name)) else { continue };
            if found.iter().all(|other: &Arc<Candidate>| other.public() != key.public()) {
                found.push(Arc::new(Candidate::stored(key)));
            }
        }
        let beside = |name| certificate_beside(&folder.join(name), &*self.ask);
        certify(&found, &USUAL_FILES.iter().filter_map(beside).collect::<Vec<_>>());
        let local = match own {
            Some(key) => Ok(Arc::clone(key)),
            None => open_state_dir()
                .map_err(KeyError::from)
                .and_then(|state| local_identity(&state))
                .map(|key| Arc::new(Candidate::held(key, LOCAL))),
        };
        match local {
            Ok(key) => found.push(key),
            Err(e) if found.is_empty() => return Err(e),
            Err(e) => self.ask.note(&format!("left out: {e}")),
        }
        Ok(found)
    }

    /// The key of a file that need not be there, nor be of any use.
    fn stored(&self, path: &Path) -> Option<Arc<StoredKey>> {
        let why = match KeyFile::load(path) {
            Ok(KeyFile::Key(key)) if !key.is_locked() || self.ask.can_unlock() => return Some(key),
            Ok(KeyFile::Key(_)) => KeyError::Passphrase(path.to_owned()),
            Ok(KeyFile::Handle(_)) => KeyError::Handle(path.to_owned()),
            Err(KeyError::File(e)) if e.is_missing() => return None,
            Err(e) => e,
        };
        self.ask.note(&format!("left out: {why}"));
        None
    }

    /// The agent, if there is one, and its keys.
    async fn agent(&self) -> Option<(Agent, Vec<AgentKey>)> {
        let agent = Agent::from_env()?;
        match agent.keys().await {
            Ok(keys) => return Some((agent, keys)),
            // A socket that was left behind is nothing to tell each time.
            Err(e @ AgentError::Absent { .. }) => self.ask.note(&e.to_string()),
            Err(e) => self.ask.tell(&e.to_string()),
        }
        None
    }
}

impl Named {
    fn load(path: &Path) -> Result<Self, KeyError> {
        match KeyFile::load(path) {
            Ok(file) => Self::of(file, path),
            Err(e) => {
                let is_public = matches!(e, KeyError::Public { .. });
                let public = if is_public { path.to_owned() } else { beside(path) };
                let is_missing = matches!(&e, KeyError::File(e) if e.is_missing());
                let key = (is_public || is_missing).then(|| read_public(&public)).flatten();
                key.map(|key| Self::Public(key, path.to_owned())).ok_or(e)
            }
        }
    }

    fn of(file: KeyFile, path: &Path) -> Result<Self, KeyError> {
        Ok(match file {
            KeyFile::Handle(public) => Self::Public(public, path.to_owned()),
            KeyFile::Key(key) if key.is_locked() => {
                Self::Locked(Arc::new(Candidate::stored(key)), path.to_owned())
            }
            KeyFile::Key(key) => {
                Self::Ready(Arc::new(Candidate::held(key.open()?, &path.display().to_string())))
            }
        })
    }

    /// The key as it can be proved, by the agent if that has it.
    fn candidate(
        &self,
        agent: Option<&(Agent, Vec<AgentKey>)>,
        ask: &dyn Ask,
    ) -> Result<Arc<Candidate>, KeyError> {
        let in_agent = |public: &PublicKey| {
            let (agent, keys) = agent?;
            let key = keys.iter().find(|key| key.public == *public)?;
            Some(Arc::new(Candidate::in_agent(agent, key.clone())))
        };
        match self {
            Self::Ready(key) => Ok(Arc::clone(key)),
            Self::Public(public, path) => in_agent(public).ok_or_else(|| why_not(path)),
            Self::Locked(key, path) => match in_agent(key.public()) {
                Some(open) => Ok(open),
                None if ask.can_unlock() => Ok(Arc::clone(key)),
                None => Err(KeyError::Passphrase(path.clone())),
            },
        }
    }
}

/// Why the key of a file cannot sign, if ssh-agent does not.
fn why_not(path: &Path) -> KeyError {
    KeyFile::load(path).err().unwrap_or_else(|| KeyError::Handle(path.to_owned()))
}

/// `NAME.pub` for `NAME`.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// The certificate in `NAME-cert.pub` for `NAME` or `NAME.pub`, as ssh(1) looks for it.
fn certificate_beside(path: &Path, ask: &dyn Ask) -> Option<Certificate> {
    let mut name = match path.extension() {
        Some(extension) if extension == "pub" => path.with_extension("").into_os_string(),
        _ => path.as_os_str().to_owned(),
    };
    name.push("-cert.pub");
    let path = PathBuf::from(name);
    if !path.exists() {
        return None;
    }
    Certificate::load(&path).inspect_err(|why| ask.tell(&format!("left out: {why}"))).ok()
}

fn certify(keys: &[Arc<Candidate>], certificates: &[Certificate]) {
    for certificate in certificates {
        keys.iter().for_each(|key| key.certify(certificate));
    }
}

/// The key of a public key's file. It only says which key to look for.
fn read_public(path: &Path) -> Option<PublicKey> {
    let line = read_public_file(path, LINE_LIMIT).ok()?;
    let (kind, rest) = word(line.trim());
    PublicKey::from_words(kind, word(rest).0).ok()
}
