//! The two keys that need no configuration: the server's host key and the identity of this account on
//! this machine. Both live in the state folder, made by whichever program comes first.

use std::sync::{Arc, OnceLock};

use super::{Candidate, KEY_FILE_LIMIT, Key, KeyError, PublicKey};
use crate::sys::fs::{StateDir, create_once, open_state_dir};

/// Name of the file with the host key.
const HOST_KEY: &str = "host_key";
/// Where the local identity is, for people.
pub(super) const LOCAL: &str = "the local identity of this account";
/// Permissions of a file with a private key.
const PRIVATE: u32 = 0o600;
/// Permissions of a file with a public key.
const PUBLIC: u32 = 0o644;

/// The key that a server of this account shows: `host_key`, and `host_key.pub` to read.
///
/// # Errors
/// The file cannot be used or made. One that is damaged or open to others is never replaced.
pub fn host_key(state: &StateDir) -> Result<Key, KeyError> {
    load_or_create(state, HOST_KEY, "rexec host key")
}

/// The public half of [`host_key`], for the clients of this account.
///
/// # Errors
/// As [`host_key`].
pub fn host_public_key(state: &StateDir) -> Result<PublicKey, KeyError> {
    match state.read_private(HOST_KEY, KEY_FILE_LIMIT) {
        Ok(pem) => Key::public_from_openssh(&pem, &state.file(HOST_KEY)?),
        Err(e) if e.is_missing() => Ok(host_key(state)?.public().clone()),
        Err(e) => Err(e.into()),
    }
}

/// The key by which this account's programs on this machine know each other: `identity`, and
/// `identity.pub`. A server lets it in over loopback only.
///
/// # Errors
/// As [`host_key`].
pub fn local_identity(state: &StateDir) -> Result<Key, KeyError> {
    load_or_create(state, "identity", "rexec local identity")
}

/// The keys of this account that a client needs, in the state folder: read when they are first needed, which
/// is while a server answers, and once. Clones share them.
#[derive(Debug, Clone)]
pub struct OwnKeys(Arc<Unread>);

#[derive(Debug)]
struct Unread {
    with_identity: bool,
    read: OnceLock<Result<Pair, Arc<KeyError>>>,
}

#[derive(Debug)]
struct Pair {
    host: PublicKey,
    identity: Option<Arc<Candidate>>,
}

impl OwnKeys {
    /// Those of the state folder; the identity is read too if it is to be proved.
    #[must_use]
    pub fn new(with_identity: bool) -> Self {
        Self(Arc::new(Unread { with_identity, read: OnceLock::new() }))
    }

    /// The host key that a server of this account shows.
    ///
    /// # Errors
    /// Either key cannot be used or made.
    pub fn host(&self) -> Result<&PublicKey, KeyError> {
        self.read().map(|pair| &pair.host)
    }

    /// What is proved to such a server; none if that is another key.
    ///
    /// # Errors
    /// As [`host`](Self::host).
    pub fn identity(&self) -> Result<Option<&Arc<Candidate>>, KeyError> {
        self.read().map(|pair| pair.identity.as_ref())
    }

    fn read(&self) -> Result<&Pair, KeyError> {
        let read = self.0.read.get_or_init(|| read_pair(self.0.with_identity).map_err(Arc::new));
        read.as_ref().map_err(|e| KeyError::Own(Arc::clone(e)))
    }
}

fn read_pair(with_identity: bool) -> Result<Pair, KeyError> {
    let state = open_state_dir()?;
    let host = host_public_key(&state)?;
    let identity = with_identity.then(|| local_identity(&state)).transpose()?;
    Ok(Pair { host, identity: identity.map(|key| Arc::new(Candidate::held(key, LOCAL))) })
}

fn load_or_create(state: &StateDir, name: &str, comment: &str) -> Result<Key, KeyError> {
    if let Some(key) = load(state, name)? {
        return Ok(key);
    }
    let (key, pem) = Key::generate(comment)?;
    if create_once(state, name, PRIVATE, pem.as_bytes())? {
        let line = format!("{} {comment}\n", key.public());
        create_once(state, &format!("{name}.pub"), PUBLIC, line.as_bytes())?;
    }
    // The file decides, whoever made it: what is used now is what the next start will find.
    match load(state, name)? {
        Some(key) => Ok(key),
        None => Err(KeyError::Make(format!("{name} was removed while it was being made"))),
    }
}

fn load(state: &StateDir, name: &str) -> Result<Option<Key>, KeyError> {
    match state.read_private(name, KEY_FILE_LIMIT) {
        Ok(pem) => match Key::from_openssh(&pem, &state.file(name)?) {
            Err(KeyError::Damaged(path)) => Err(KeyError::OwnDamaged(path)),
            key => key.map(Some),
        },
        Err(e) if e.is_missing() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;

    use super::*;

    fn state() -> (tempfile::TempDir, StateDir) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().canonicalize().unwrap().join("state")).unwrap();
        (dir, state)
    }

    #[test]
    fn the_same_key_is_found_again() {
        let (_guard, state) = state();
        let host = host_key(&state).unwrap();
        let identity = local_identity(&state).unwrap();
        assert_ne!(host.public(), identity.public());
        assert_eq!(host_key(&state).unwrap().public(), host.public());
        assert_eq!(host_public_key(&state).unwrap(), *host.public());
        let line = std::fs::read_to_string(state.path().join("host_key.pub")).unwrap();
        assert_eq!(line, format!("{} rexec host key\n", host.public()));
        let mode = state.path().join("host_key").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let listed = std::process::Command::new("ssh-keygen")
            .args(["-y", "-f"])
            .arg(state.path().join("identity"))
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        assert_eq!(listed, format!("{} rexec local identity\n", identity.public()));
    }

    #[test]
    fn fifty_at_once_make_one_key() {
        for _ in 0..20 {
            let (_guard, state) = state();
            let barrier = Barrier::new(50);
            let keys: HashSet<_> = std::thread::scope(|scope| {
                let make = || {
                    barrier.wait();
                    host_key(&state).unwrap().public().clone()
                };
                let threads: Vec<_> = (0..50).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(keys.len(), 1);
            let names = std::fs::read_dir(state.path()).unwrap().count();
            assert_eq!(names, 2, "host_key and host_key.pub, nothing left over");
            let line = std::fs::read_to_string(state.path().join("host_key.pub")).unwrap();
            let key = keys.into_iter().next().unwrap();
            assert_eq!(line, format!("{key} rexec host key\n"));
        }
    }

    #[test]
    fn a_bad_file_is_named_and_kept() {
        for content in ["", "rubbish", "-----BEGIN OPENSSH PRIVATE KEY-----\n"] {
            let (_guard, state) = state();
            create_once(&state, "host_key", PRIVATE, content.as_bytes()).unwrap();
            let text = host_key(&state).unwrap_err().to_string();
            let path = state.path().join("host_key");
            assert!(text.starts_with(&format!("{} is not a whole", path.display())), "{text}");
            assert!(text.ends_with("or move it away to have a new one made"), "{text}");
            assert_eq!(text.lines().count(), 1);
            assert_eq!(std::fs::read_to_string(path).unwrap(), content);
        }
    }

    #[test]
    fn a_readable_key_is_refused() {
        let (_guard, state) = state();
        host_key(&state).unwrap();
        let path = state.path().join("host_key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let text = host_key(&state).unwrap_err().to_string();
        assert!(text.contains("can be used by others (mode 0640); run: chmod go-rwx"), "{text}");
    }
}
