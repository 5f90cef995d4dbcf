//! A client of `ssh-agent` (draft-ietf-sshm-ssh-agent): which keys it holds, and signatures by them.
//!
//! A message is its length (32 bits, big-endian), one byte that says its type, and the rest. Nothing that
//! an agent says is believed: lengths are checked before memory is taken, and every signature is checked.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use byteorder::{BigEndian, ByteOrder as _};
use ssh_key::Signature;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::line::quote;
use super::wire::{LENGTH, put_string, take, take_string};
use super::{Certificate, Presence, PublicKey, signature};

#[cfg(test)]
mod tests;

/// The variable that names an agent's socket.
pub const AGENT_VAR: &str = "SSH_AUTH_SOCK";
/// Most bytes of an agent's answer, as OpenSSH has it (`MAX_AGENT_REPLY_LEN`).
pub const REPLY_LIMIT: usize = 256 << 10;
/// An agent may take so long to answer.
pub const AGENT_TIMEOUT: Duration = Duration::from_secs(5);
/// A security key waits so long to be touched.
pub const TOUCH_TIMEOUT: Duration = Duration::from_secs(45);

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// Asks for SHA-512 of an RSA key, which would sign with SHA-1 otherwise (RFC 8332).
const RSA_SHA2_512: u32 = 4;

/// An agent, by its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    socket: PathBuf,
}

/// A key that an agent holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    /// Its public half.
    pub public: PublicKey,
    /// Its certificates, if the agent has any.
    pub certificates: Vec<Certificate>,
    /// By what the agent knows it: the key's blob, or the certificate's if it has that alone.
    pub(super) held: Vec<u8>,
    /// What the agent calls it, fit to be shown.
    pub comment: String,
}

/// Why an agent is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody listens on its socket.
    #[error("no ssh-agent answers on {} ({error})", socket.display())]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// It did not answer in time.
    #[error("ssh-agent did not answer within {} s", .0.as_secs())]
    Late(Duration),
    /// The connection to it broke.
    #[error("ssh-agent closed the connection: {0}")]
    Closed(io::Error),
    /// An answer that is longer than any.
    #[error("ssh-agent announced an answer of {0} bytes; the limit is {REPLY_LIMIT}")]
    TooLong(usize),
    /// An answer that is none.
    #[error("ssh-agent's answer is damaged")]
    Malformed,
    /// It does not do it.
    #[error("ssh-agent refused; it may be locked, or somebody said no")]
    Refused,
    /// A signature that is wrong, or of an algorithm that is not the key's.
    #[error("ssh-agent made a signature that does not prove the key")]
    WrongSignature,
}

impl Agent {
    /// The agent on this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The agent that [`AGENT_VAR`] names; none if it is unset or empty.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let socket = std::env::var_os(AGENT_VAR).filter(|value| !value.is_empty())?;
        Some(Self { socket: socket.into() })
    }

    /// The keys that it holds and that rexec can use, in its order.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn keys(&self) -> Result<Vec<AgentKey>, AgentError> {
        let reply = self.ask(&[REQUEST_IDENTITIES], AGENT_TIMEOUT).await?;
        read_keys(&reply)
    }

    /// A signature over `message` by a key that it holds.
    ///
    /// # Errors
    /// [`AgentError`].
    pub(super) async fn sign(
        &self,
        AgentKey { public: key, held, .. }: &AgentKey,
        message: &[u8],
    ) -> Result<Signature, AgentError> {
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, held);
        put_string(&mut request, message);
        let is_rsa = key.data().is_rsa();
        request.extend(if is_rsa { RSA_SHA2_512 } else { 0 }.to_be_bytes());
        let limit = if key.is_security_key() { TOUCH_TIMEOUT } else { AGENT_TIMEOUT };
        let made = read_signature(&self.ask(&request, limit).await?)?;
        // Whether it was touched is the server's to judge: its list may not ask for it.
        let presence = Presence { touch: false, verify: false };
        signature::verify(key, message, &made, presence).map_err(|_| AgentError::WrongSignature)?;
        Ok(made)
    }

    /// Sends a message and reads the answer, without its length.
    async fn ask(&self, message: &[u8], limit: Duration) -> Result<Vec<u8>, AgentError> {
        let talk = async {
            let absent = |error| AgentError::Absent { socket: self.socket.clone(), error };
            let mut stream = UnixStream::connect(&self.socket).await.map_err(absent)?;
            let mut request = Vec::with_capacity(LENGTH + message.len());
            put_string(&mut request, message);
            stream.write_all(&request).await.map_err(AgentError::Closed)?;
            let mut length = [0; LENGTH];
            stream.read_exact(&mut length).await.map_err(AgentError::Closed)?;
            let length = BigEndian::read_u32(&length) as usize;
            if length > REPLY_LIMIT {
                return Err(AgentError::TooLong(length));
            }
            let mut reply = vec![0; length];
            stream.read_exact(&mut reply).await.map_err(AgentError::Closed)?;
            Ok(reply)
        };
        timeout(limit, talk).await.unwrap_or(Err(AgentError::Late(limit)))
    }
}

/// Reads the answer to the question which keys there are. Keys that rexec cannot use are left out.
///
/// # Errors
/// [`AgentError::Refused`] or [`AgentError::Malformed`].
pub fn read_keys(reply: &[u8]) -> Result<Vec<AgentKey>, AgentError> {
    let mut rest = body(reply, IDENTITIES_ANSWER)?;
    let count = take(&mut rest, LENGTH).map(BigEndian::read_u32).ok_or(AgentError::Malformed)?;
    let mut keys = Vec::new();
    // However many are announced: each takes bytes of a reply that is here.
    for _ in 0..count {
        let blob = take_string(&mut rest).ok_or(AgentError::Malformed)?;
        let comment = take_string(&mut rest).ok_or(AgentError::Malformed)?;
        if let Some(key) = read_key(blob, comment) {
            add(&mut keys, key);
        }
    }
    if rest.is_empty() { Ok(keys) } else { Err(AgentError::Malformed) }
}

/// A key, or a certificate and with it the key that it is for.
fn read_key(blob: &[u8], comment: &[u8]) -> Option<AgentKey> {
    let (public, certificates) = match PublicKey::from_blob(blob) {
        Ok(public) => (public, Vec::new()),
        Err(_) => {
            let certificate = Certificate::from_blob(blob).ok()?;
            (certificate.key().clone(), vec![certificate])
        }
    };
    let comment = quote(&String::from_utf8_lossy(comment));
    Some(AgentKey { public, certificates, held: blob.to_owned(), comment })
}

/// `ssh-add` adds a key, and each of its certificates as another one: here they are one.
fn add(keys: &mut Vec<AgentKey>, key: AgentKey) {
    let Some(known) = keys.iter_mut().find(|known| known.public == key.public) else {
        return keys.push(key);
    };
    if key.certificates.is_empty() {
        known.held = key.held;
    }
    known.certificates.extend(key.certificates);
}

/// Reads the answer to the request for a signature.
///
/// # Errors
/// [`AgentError::Refused`] or [`AgentError::Malformed`].
pub fn read_signature(reply: &[u8]) -> Result<Signature, AgentError> {
    let mut rest = body(reply, SIGN_RESPONSE)?;
    let made = take_string(&mut rest).filter(|_| rest.is_empty()).ok_or(AgentError::Malformed)?;
    Signature::try_from(made).map_err(|_| AgentError::Malformed)
}

fn body(reply: &[u8], wanted: u8) -> Result<&[u8], AgentError> {
    match reply.split_first() {
        Some((&kind, body)) if kind == wanted => Ok(body),
        // 30 and 102: what older agents say (OpenSSH, authfd.h).
        Some((&(FAILURE | 30 | 102), _)) => Err(AgentError::Refused),
        _ => Err(AgentError::Malformed),
    }
}
