//! Private keys in OpenSSH's files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{LineEnding, PrivateKey, Signature};
use zeroize::Zeroizing;

use super::private::Private;
use super::{PublicKey, PublicKeyError, ed25519, short_scalar};
use crate::sys::fs::{self, FsError};

#[cfg(test)]
mod tests;

/// Most bytes of a key file.
pub const KEY_FILE_LIMIT: usize = 64 << 10;

/// How the file of a public key begins: with its type.
const PUBLIC_STARTS: [&[u8]; 3] = [b"ssh-", b"ecdsa-", b"sk-"];

fn has_public_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pub")
}

/// `ssh-keygen` puts `NAME.pub` beside `NAME`.
fn private_beside(path: &Path) -> String {
    let private = path.with_extension("");
    if has_public_name(path) { format!(", {}", private.display()) } else { String::new() }
}

/// The PKCS #8 form of an Ed25519 key up to its 32 bytes (RFC 8410, 7).
const ED25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 2, 1, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A private key, ready to sign. The file's bytes are wiped once it is loaded.
#[derive(Clone)]
pub struct Key {
    public: PublicKey,
    private: Arc<Private>,
}

/// What a file of a private key holds.
#[derive(Debug)]
pub enum KeyFile {
    /// A key.
    Key(Arc<StoredKey>),
    /// The handle of a security key, with which ssh-agent can use it.
    Handle(PublicKey),
}

/// A private key as its file holds it, possibly encrypted with a passphrase. Its public half is not.
pub struct StoredKey {
    public: PublicKey,
    path: PathBuf,
    file: PrivateKey,
}

/// Why there is no key to use. The text names the file and says what to do, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file, or a folder on its way, cannot be used.
    #[error(transparent)]
    File(#[from] FsError),
    /// The file does not hold one whole OpenSSH private key.
    #[error(
        "{} is not a whole OpenSSH private key; if it is of an older format, run: ssh-keygen -p -f {}",
        .0.display(), .0.display()
    )]
    Damaged(PathBuf),
    /// The variable does not hold one whole OpenSSH private key.
    #[error(
        "{0} is not a whole OpenSSH private key: all of its file belongs there, from BEGIN to END, with its line \
         breaks"
    )]
    Variable(String),
    /// A public key, where the private one is needed.
    #[error("{} is the public key; give the private one{}", path.display(), private_beside(path))]
    Public {
        /// The file.
        path: PathBuf,
    },
    /// A key of rexec's own is damaged. It is not replaced: those who know the old key would refuse the new one.
    #[error(
        "{} is not a whole OpenSSH private key; restore it, or move it away to have a new one made",
        .0.display()
    )]
    OwnDamaged(PathBuf),
    /// The keys of rexec's own could not be read when they were first needed.
    #[error(transparent)]
    Own(Arc<Self>),
    /// The key needs a passphrase, and nobody is there to be asked.
    #[error(
        "{} is protected by a passphrase, and there is nobody to ask for it; add the key to ssh-agent, or let \
         REXEC_ASKPASS name a program that prints the passphrase",
        .0.display()
    )]
    Passphrase(PathBuf),
    /// The passphrase is another one.
    #[error("that is not the passphrase of {}", .0.display())]
    WrongPassphrase(PathBuf),
    /// A security key's handle, where a key is needed that signs here.
    #[error(
        "{} is a handle of a security key, which rexec uses through ssh-agent; run: ssh-add {}",
        .0.display(), .0.display()
    )]
    Handle(PathBuf),
    /// An RSA key of a length that cannot sign here.
    #[error(
        "{} is an RSA key of another length than 2048, 3072 or 4096 bits; add it to ssh-agent, which signs with \
         it: ssh-add {}",
        .0.display(), .0.display()
    )]
    RsaLength(PathBuf),
    /// A kind of key that cannot be used.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Which kind.
        reason: PublicKeyError,
    },
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Make(String),
}

impl KeyFile {
    /// Reads an OpenSSH private key file that nobody else can read.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = match fs::read_private(path, KEY_FILE_LIMIT) {
            // A public key's file is open to others, and closing it would help nobody.
            Err(FsError::Readable { .. }) if has_public_name(path) => {
                return Err(KeyError::Public { path: path.to_owned() });
            }
            read => read?,
        };
        if PUBLIC_STARTS.iter().any(|start| pem.starts_with(start)) {
            return Err(KeyError::Public { path: path.to_owned() });
        }
        Self::parse(&pem, path)
    }

    /// The private key in a variable of the environment, in OpenSSH's format; none if it is unset or empty.
    ///
    /// # Errors
    /// [`KeyError`], which names the variable.
    pub fn from_env(name: &str) -> Result<Option<Self>, KeyError> {
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let value = Zeroizing::new(value.into_encoded_bytes());
        // Many who paste a secret lose the end of its last line, or gain another.
        let pem = Zeroizing::new([value.trim_ascii(), b"\n"].concat());
        match Self::parse(&pem, Path::new(&format!("${name}"))) {
            Err(KeyError::Damaged(_)) => Err(KeyError::Variable(name.to_owned())),
            read => read.map(Some),
        }
    }

    /// Reads the content of the key file `path`.
    fn parse(pem: &[u8], path: &Path) -> Result<Self, KeyError> {
        let read = PrivateKey::from_openssh(pem).ok().or_else(|| short_scalar::read(pem));
        let file = read.ok_or_else(|| KeyError::Damaged(path.to_owned()))?;
        let public = public_half(&file, path)?;
        if public.is_security_key() {
            return Ok(Self::Handle(public));
        }
        if !Private::can_sign(&public) {
            return Err(KeyError::RsaLength(path.to_owned()));
        }
        Ok(Self::Key(Arc::new(StoredKey { public, path: path.to_owned(), file })))
    }

    /// The key, if nothing is needed for it.
    fn open(self, path: &Path) -> Result<Key, KeyError> {
        match self {
            Self::Key(key) => key.open(),
            Self::Handle(_) => Err(KeyError::Handle(path.to_owned())),
        }
    }
}

fn public_half(file: &PrivateKey, path: &Path) -> Result<PublicKey, KeyError> {
    let damaged = || KeyError::Damaged(path.to_owned());
    let blob = file.public_key().to_bytes().map_err(|_| damaged())?;
    PublicKey::from_blob(&blob)
        .map_err(|reason| KeyError::Unsupported { path: path.to_owned(), reason })
}

impl StoredKey {
    /// The public half, which needs no passphrase.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it needs a passphrase.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.file.is_encrypted()
    }

    /// The key, ready to sign.
    ///
    /// # Errors
    /// It is damaged, or needs a passphrase.
    pub fn open(&self) -> Result<Key, KeyError> {
        if self.is_locked() {
            return Err(KeyError::Passphrase(self.path.clone()));
        }
        self.ready(&self.file)
    }

    /// The key, ready to sign. Takes a tenth of a second or more: that is what makes guessing dear.
    ///
    /// # Errors
    /// [`KeyError::WrongPassphrase`], or it is damaged.
    pub fn unlock(&self, passphrase: &[u8]) -> Result<Key, KeyError> {
        let is_p256 = self.public.algorithm() == "ecdsa-sha2-nistp256";
        let short = || is_p256.then(|| short_scalar::unlock(&self.file, passphrase)).flatten();
        let opened = self.file.decrypt(passphrase).ok().or_else(short);
        self.ready(&opened.ok_or_else(|| KeyError::WrongPassphrase(self.path.clone()))?)
    }

    fn ready(&self, file: &PrivateKey) -> Result<Key, KeyError> {
        let damaged = || KeyError::Damaged(self.path.clone());
        let key = match file.key_data() {
            KeypairData::Ed25519(pair) => Key::from_pair(pair),
            data => Private::of(data)
                .map(|private| Key { public: self.public.clone(), private: Arc::new(private) }),
        };
        // The halves outside and inside may have been put together by somebody.
        let is_whole = public_half(file, &self.path)? == self.public;
        key.filter(|key| is_whole && key.public == self.public).ok_or_else(damaged)
    }
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredKey({}, private half hidden)", self.public.fingerprint())
    }
}

impl Key {
    /// Loads an OpenSSH private key file that nobody else can read and that needs no passphrase.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        KeyFile::load(path)?.open(path)
    }

    /// Reads the content of the key file `path`.
    pub(super) fn from_openssh(pem: &[u8], path: &Path) -> Result<Self, KeyError> {
        KeyFile::parse(pem, path)?.open(path)
    }

    /// The public half alone, read from the content of the key file `path` without the private half's
    /// arithmetic, which costs a short-lived program more than the reading.
    pub(super) fn public_from_openssh(pem: &[u8], path: &Path) -> Result<PublicKey, KeyError> {
        let damaged = || KeyError::Damaged(path.to_owned());
        let file = PrivateKey::from_openssh(pem).map_err(|_| damaged())?;
        public_half(&file, path)
    }

    /// None if the public half is not this private key's: a signature by such a pair gives the key away.
    fn from_pair(pair: &Ed25519Keypair) -> Option<Self> {
        let key = Self::from_seed(pair.private.as_ref())?;
        (key.public.data().ed25519() == Some(&pair.public)).then_some(key)
    }

    fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let der = Zeroizing::new([ED25519_PKCS8.as_slice(), seed].concat());
        let der = PrivatePkcs8KeyDer::from(der.as_slice());
        let signer = rustls::crypto::ring::sign::any_eddsa_type(&der).ok()?;
        let public = PublicKey::from_spki(&signer.public_key()?).ok()?;
        let private = Private::Ed25519(signer, Zeroizing::new(*seed));
        Some(Self { public, private: Arc::new(private) })
    }

    /// Makes a new key; gives its OpenSSH file too.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(super) fn generate(comment: &str) -> Result<(Self, Zeroizing<String>), KeyError> {
        let make = |e: &dyn fmt::Display| KeyError::Make(e.to_string());
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|e| make(&e))?;
        let key = Self::from_seed(&seed).ok_or_else(|| make(&"the seed was refused"))?;
        let public = key.public.data().ed25519().copied().unwrap_or(Ed25519PublicKey([0; 32]));
        let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&seed) };
        let file = PrivateKey::new(KeypairData::Ed25519(pair), comment).map_err(|e| make(&e))?;
        let pem = file.to_openssh(LineEnding::LF).map_err(|e| make(&e))?;
        Ok((key, pem))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key in the form that TLS signs with, made for a server that does so often; none if it is not an Ed25519 key.
    #[must_use]
    pub fn tls_signer(&self) -> Option<Arc<dyn SigningKey>> {
        match &*self.private {
            Private::Ed25519(signer, seed) => {
                ed25519::signing_key(seed).or_else(|| Some(Arc::clone(signer)))
            }
            Private::Ecdsa(_) | Private::Rsa(_) => None,
        }
    }

    /// Signs `message` as an SSH signature of the key's own algorithm; none if that fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Signature> {
        self.private.sign(message)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, private half hidden)", self.public.fingerprint())
    }
}
