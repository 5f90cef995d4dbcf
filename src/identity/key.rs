//! Private keys in OpenSSH's files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::SigningKey;
use ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData};
use ssh_key::public::Ed25519PublicKey;
use ssh_key::{Algorithm, LineEnding, PrivateKey, Signature};
use zeroize::Zeroizing;

use super::{PublicKey, PublicKeyError};
use crate::sys::fs::{self, FsError};

/// Most bytes of a key file.
pub const KEY_FILE_LIMIT: usize = 64 << 10;

/// How the file of a public key begins: with its type.
const PUBLIC_START: &[u8] = b"ssh-";

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
    signer: Arc<dyn SigningKey>,
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
        "{0} is not a whole OpenSSH private key: all of its file belongs there, from BEGIN to END"
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
    /// The key needs a passphrase.
    #[error(
        "{} is protected by a passphrase, which is not supported yet; use a key without one",
        .0.display()
    )]
    Passphrase(PathBuf),
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

impl Key {
    /// Loads an OpenSSH private key file that nobody else can read.
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
        if pem.starts_with(PUBLIC_START) {
            return Err(KeyError::Public { path: path.to_owned() });
        }
        Self::from_openssh(&pem, path)
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
        match Self::from_openssh(&pem, Path::new(&format!("${name}"))) {
            Err(KeyError::Damaged(_)) => Err(KeyError::Variable(name.to_owned())),
            read => read.map(Some),
        }
    }

    /// Reads the content of the key file `path`.
    pub(super) fn from_openssh(pem: &[u8], path: &Path) -> Result<Self, KeyError> {
        let damaged = || KeyError::Damaged(path.to_owned());
        let file = PrivateKey::from_openssh(pem).map_err(|_| damaged())?;
        match file.key_data() {
            KeypairData::Ed25519(pair) => Self::from_pair(pair).ok_or_else(damaged),
            KeypairData::Encrypted(_) => Err(KeyError::Passphrase(path.to_owned())),
            _ => {
                let reason = PublicKeyError::Unsupported(file.algorithm().to_string());
                Err(KeyError::Unsupported { path: path.to_owned(), reason })
            }
        }
    }

    /// The public half alone, read from the content of the key file `path` without the private half's
    /// arithmetic, which costs a short-lived program more than the reading.
    pub(super) fn public_from_openssh(pem: &[u8], path: &Path) -> Result<PublicKey, KeyError> {
        let damaged = || KeyError::Damaged(path.to_owned());
        let file = PrivateKey::from_openssh(pem).map_err(|_| damaged())?;
        let blob = file.public_key().to_bytes().map_err(|_| damaged())?;
        PublicKey::from_blob(&blob)
            .map_err(|reason| KeyError::Unsupported { path: path.to_owned(), reason })
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
        Some(Self { public, signer })
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

    /// The key in the form that TLS signs with.
    #[must_use]
    pub fn tls_signer(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.signer)
    }

    /// Signs `message` as an SSH signature of the key's own algorithm; none if the provider fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Signature> {
        let signer = self.signer.choose_scheme(&[SignatureScheme::ED25519])?;
        Signature::new(Algorithm::Ed25519, signer.sign(message).ok()?).ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, private half hidden)", self.public.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn keygen(args: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let status = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(args).status();
        assert!(status.unwrap().success());
        (dir, path)
    }

    #[test]
    fn loads_what_ssh_keygen_made() {
        let (_dir, path) = keygen(&["-t", "ed25519", "-N", "", "-C", "a comment"]);
        let key = Key::load(&path).unwrap();
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(format!("{} a comment\n", key.public()), line);
        let listed = Command::new("ssh-keygen").arg("-lf").arg(&path).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.contains(&format!(" {} ", key.public().fingerprint())), "{listed}");
        assert!(format!("{key:?}").contains("hidden"));
    }

    #[test]
    fn other_keys_are_named() {
        let (_dir, path) = keygen(&["-t", "ed25519", "-N", "hunter22"]);
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains("passphrase, which is not supported yet"), "{text}");
        let (_dir, path) = keygen(&["-t", "ecdsa", "-N", ""]);
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains("keys of type ecdsa-sha2-nistp256 are not supported yet"), "{text}");
        let (_dir, path) = keygen(&["-t", "rsa", "-b", "2048", "-N", ""]);
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains("keys of type ssh-rsa are not supported yet"), "{text}");
    }

    #[test]
    fn damage_is_damage() {
        let path = Path::new("k");
        let (_, pem) = Key::generate("c").unwrap();
        Key::from_openssh(pem.as_bytes(), path).unwrap();
        for cut in 0..pem.len() - 1 {
            assert!(
                matches!(
                    Key::from_openssh(&pem.as_bytes()[..cut], path),
                    Err(KeyError::Damaged(_))
                ),
                "cut at {cut}"
            );
        }
        assert!(Key::from_openssh(b"PuTTY-User-Key-File-3: ssh-ed25519", path).is_err());
    }

    #[test]
    fn halves_of_two_keys_are_no_key() {
        let seed = [7; 32];
        let public = *Key::from_seed(&[8; 32]).unwrap().public.data().ed25519().unwrap();
        let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&seed) };
        assert!(Key::from_pair(&pair).is_none());
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::atomic_write(&path, 0o600, &vec![b'x'; KEY_FILE_LIMIT + 1]).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::File(FsError::TooLong { .. }))));
    }
}
