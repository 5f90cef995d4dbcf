//! Keys that a client can prove, wherever their private halves are.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::OnceCell;

use super::proof::{armour, sign, signed_data};
use super::{
    Agent, AgentError, AgentKey, Ask, Certificate, Key, KeyError, ProofError, PublicKey, StoredKey,
};
use crate::sys::mutex::lock;

/// So often a passphrase may be wrong.
pub const PASSPHRASE_TRIES: usize = 3;

/// A key that a client can prove.
pub struct Candidate {
    public: PublicKey,
    holder: Holder,
    /// Where it is, for people.
    place: String,
    /// It could not be proved: it is not tried again.
    spoiled: AtomicBool,
    /// What CAs say of it.
    certificates: Mutex<Vec<Certificate>>,
}

/// Who signs.
enum Holder {
    Held(Key),
    Agent(Agent, Box<AgentKey>),
    Stored { file: Arc<StoredKey>, opened: OnceCell<Key> },
}

/// Why a key could not be proved.
#[derive(Debug, thiserror::Error)]
pub enum CannotProve {
    /// The agent did not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The file's key is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signature cannot be made.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// Nobody gave the passphrase.
    #[error("its passphrase was not given")]
    Declined,
}

impl Candidate {
    /// A key in memory, which came from `place`.
    #[must_use]
    pub fn held(key: Key, place: &str) -> Self {
        Self::new(key.public().clone(), Holder::Held(key), place.to_owned())
    }

    /// A key that `agent` holds.
    #[must_use]
    pub fn in_agent(agent: &Agent, key: AgentKey) -> Self {
        let place = format!("in ssh-agent ({})", key.comment);
        let (public, certificates) = (key.public.clone(), key.certificates.clone());
        let held = Self::new(public, Holder::Agent(agent.clone(), Box::new(key)), place);
        certificates.iter().for_each(|certificate| held.certify(certificate));
        held
    }

    /// A key in a file, opened when it is needed.
    #[must_use]
    pub fn stored(file: Arc<StoredKey>) -> Self {
        let (public, place) = (file.public().clone(), file.path().display().to_string());
        let holder = Holder::Stored { file, opened: OnceCell::new() };
        Self::new(public, holder, place)
    }

    fn new(public: PublicKey, holder: Holder, place: String) -> Self {
        let (spoiled, certificates) = (AtomicBool::new(false), Mutex::default());
        Self { public, holder, place, spoiled, certificates }
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Its certificates.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        self.all_certificates().clone()
    }

    /// Has it show this certificate too, if it is the key's.
    pub(crate) fn certify(&self, certificate: &Certificate) {
        let mut all = self.all_certificates();
        if certificate.key() == &self.public && !all.contains(certificate) {
            all.push(certificate.clone());
        }
    }

    fn all_certificates(&self) -> MutexGuard<'_, Vec<Certificate>> {
        lock(&self.certificates)
    }

    /// Whether somebody has to do something before it can be proved: touch a device, type a passphrase.
    #[must_use]
    pub fn needs_somebody(&self) -> bool {
        match &self.holder {
            Holder::Held(_) => false,
            Holder::Agent(..) => self.public.is_security_key(),
            Holder::Stored { file, opened } => file.is_locked() && !opened.initialized(),
        }
    }

    /// Whether an earlier try to prove it failed.
    #[must_use]
    pub fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Relaxed)
    }

    /// Signs `text` in rexec's namespace: the armoured signature. One that fails is not tried again.
    ///
    /// # Errors
    /// [`CannotProve`].
    pub async fn prove(&self, text: &str, ask: &dyn Ask) -> Result<String, CannotProve> {
        let proof = self.try_to_prove(text.as_bytes(), ask).await;
        if proof.is_err() {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        proof
    }

    async fn try_to_prove(&self, text: &[u8], ask: &dyn Ask) -> Result<String, CannotProve> {
        match &self.holder {
            Holder::Held(key) => Ok(sign(key, text)?),
            Holder::Agent(agent, held) => {
                if self.public.is_security_key() {
                    ask.tell(&format!("touch the security key to prove {self}"));
                }
                let made = agent.sign(held, &signed_data(text)?).await?;
                Ok(armour(&self.public, made)?)
            }
            Holder::Stored { file, opened } => {
                // Of many connections at once only one asks.
                let key = opened.get_or_try_init(|| open(file, ask)).await?;
                Ok(sign(key, text)?)
            }
        }
    }
}

async fn open(file: &Arc<StoredKey>, ask: &dyn Ask) -> Result<Key, CannotProve> {
    if !file.is_locked() {
        return Ok(file.open()?);
    }
    let question = format!("Passphrase for {}: ", file.path().display());
    for _ in 0..PASSPHRASE_TRIES {
        let Some(passphrase) = ask.passphrase(&question).await.filter(|p| !p.is_empty()) else {
            return Err(CannotProve::Declined);
        };
        let locked = Arc::clone(file);
        let unlocking = tokio::task::spawn_blocking(move || locked.unlock(passphrase.as_bytes()));
        match unlocking.await {
            Ok(Ok(key)) => return Ok(key),
            Ok(Err(e @ KeyError::WrongPassphrase(_))) => ask.tell(&e.to_string()),
            Ok(Err(e)) => return Err(e.into()),
            Err(_) => return Err(CannotProve::Declined),
        }
    }
    Err(KeyError::WrongPassphrase(file.path().to_owned()).into())
}

/// `ssh-ed25519 SHA256:… in ssh-agent (me@here)`.
impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.public.algorithm(), self.public.fingerprint(), self.place)
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({self})")
    }
}
