//! Login: both halves side by side.
//!
//! Over TLS the client proves a key with a signature over the channel's exporter, so a proof is worth
//! nothing on another connection. `hello` leaves together with the first request: login costs no
//! round trip of its own. A server that would accept another of the listed keys names it; the client
//! then says `hello` once more, which costs one.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::conn::{ConnError, FrameReader};
use crate::identity::{
    Again, Authorized, Caller, Certificate, Fingerprint, Granted, Identity, Key, News, Proven,
    PublicKey, Refusal, sign_auth, verify_auth,
};
use crate::proto::code::Code;
use crate::proto::frame::Limits;
use crate::proto::header::{ClientHeader, Hello, Refused, ServerHeader, Welcome};

/// Name and version, as `hello` and `welcome` give it.
pub const AGENT: &str = concat!("rexec ", env!("CARGO_PKG_VERSION"));
/// Most keys that a `hello` may list.
pub const KEYS_LIMIT: usize = 64;
/// Most characters of a peer's name that are shown.
const AGENT_SHOWN: usize = 64;
/// Frames that may stand between a refused `hello` and the next one: the request that came with it.
const SKIPPED_LIMIT: usize = 2;

/// What a TLS channel is: who its server is, and what no other channel has.
#[derive(Clone)]
pub struct Channel {
    /// The server's key.
    pub host_key: Fingerprint,
    /// 32 bytes of the exporter (RFC 8446, 7.5), label `EXPORTER-rexec-auth-v1`, empty context.
    pub exporter: [u8; 32],
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The connection broke first.
    #[error(transparent)]
    Conn(#[from] ConnError),
    /// The peer closed the connection first.
    #[error("the peer closed the connection before the login was finished")]
    Closed,
    /// The server says no.
    #[error("{}", .0.text)]
    Refused(Refused),
    /// The client's key cannot make a proof.
    #[error("the proof of the key cannot be made: {0}")]
    Proof(#[from] crate::identity::ProofError),
    /// The peer answered something that has no place here.
    #[error("the peer does not speak this protocol: {0}")]
    Protocol(String),
}

impl From<crate::proto::frame::FrameError> for LoginError {
    fn from(error: crate::proto::frame::FrameError) -> Self {
        ConnError::from(error).into()
    }
}

/// The client's half: `hello` with a proof of `keys[index]`; on a unix socket (no channel) the kernel
/// says who is calling.
///
/// # Errors
/// [`LoginError::Proof`].
pub fn hello(
    channel: Option<&Channel>,
    keys: &[Arc<Key>],
    index: usize,
) -> Result<ClientHeader, LoginError> {
    let mut hello = Hello { client: AGENT.into(), ..Hello::default() };
    if let (Some(channel), Some(key)) = (channel, keys.get(index)) {
        hello.keys =
            keys.iter().take(KEYS_LIMIT).map(|k| k.public().fingerprint().to_string()).collect();
        hello.key = Some(key.public().to_base64());
        hello.signature = Some(sign_auth(key, &channel.host_key, None, &channel.exporter)?);
    }
    Ok(ClientHeader::Hello(hello))
}

/// The server's answer to a `hello`, as the client reads it.
#[derive(Debug)]
pub enum Answer {
    /// Logged in.
    Welcome(Welcome),
    /// Say `hello` again, with this one of the keys.
    Try(usize),
}

/// The client's half: reads the answer.
///
/// # Errors
/// A [`LoginError`].
pub async fn answer<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    keys: &[Arc<Key>],
) -> Result<Answer, LoginError> {
    let frame = reader.next(Some(crate::conn::SILENCE)).await?.ok_or(LoginError::Closed)?;
    match frame.header::<ServerHeader>()? {
        ServerHeader::Welcome(welcome) => Ok(Answer::Welcome(welcome)),
        ServerHeader::Refused(refused) => {
            let named = refused.key.as_deref().filter(|_| refused.code == Code::TryKey);
            let is_named =
                |key: &Arc<Key>| Some(key.public().fingerprint().to_string().as_str()) == named;
            keys.iter().position(is_named).map(Answer::Try).ok_or(LoginError::Refused(refused))
        }
        ServerHeader::Error { code, text } => {
            Err(LoginError::Refused(Refused { code, text, key: None }))
        }
        _ => Err(LoginError::Protocol("its answer to hello is none".into())),
    }
}

/// Where a connection comes from, as the server sees it.
#[derive(Clone)]
pub enum Origin {
    /// Over TLS.
    Tls {
        /// The channel.
        channel: Channel,
        /// Where the peer calls from.
        caller: Caller,
    },
    /// Over a unix socket, from a process of this account or root.
    Unix(Identity),
}

/// The server's half: the outcome of one `hello`.
#[derive(Debug)]
pub enum Login {
    /// Let in.
    In {
        /// Who it is, and what it may do now.
        granted: Granted,
        /// By what: to be asked again for each request.
        proven: Proven,
        /// The client's name, fit to be shown.
        client: String,
    },
    /// Not with this key, but with that one: send the refusal and read on.
    Again(Refused),
    /// Not let in: send the refusal and close.
    Out {
        /// What the peer is told.
        refused: Refused,
        /// What the operator is told, if it is more.
        why: Option<String>,
    },
}

/// The server's half: reads the next `hello`, skipping the request that came with a refused one, and
/// judges it. What has come up in the key files goes to `news`.
///
/// # Errors
/// A [`LoginError`]: the peer does not speak the protocol, or is gone.
pub async fn judge<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    origin: &Origin,
    authorized: &Authorized,
    first: bool,
    news: impl FnMut(News),
) -> Result<Login, LoginError> {
    for _ in 0..=SKIPPED_LIMIT {
        // The request behind a refused hello may be as long as any: a stranger's is not held.
        reader.set_limits(if first { Limits::HELLO } else { Limits::FULL });
        let frame = reader.next_without_body().await?.ok_or(LoginError::Closed)?;
        match frame.header::<ClientHeader>()? {
            ClientHeader::Hello(hello) => {
                return Ok(decide(&hello, origin, authorized, first, news));
            }
            _ if first => return Err(LoginError::Protocol("the first frame must be hello".into())),
            _ => {}
        }
    }
    Err(LoginError::Protocol("no second hello came".into()))
}

fn decide(
    hello: &Hello,
    origin: &Origin,
    authorized: &Authorized,
    first: bool,
    mut news: impl FnMut(News),
) -> Login {
    let client = shown(&hello.client);
    if hello.user.is_some() {
        let text = "this server runs commands as its own account only; leave the user out".into();
        return out(Refused { code: Code::Unsupported, text, key: None });
    }
    let (channel, caller) = match origin {
        Origin::Unix(who) => {
            let granted = Granted { who: who.clone(), options: Arc::default() };
            return Login::In { granted, proven: Proven::Kernel, client };
        }
        Origin::Tls { channel, caller } => (channel, *caller),
    };
    let key = hello.key.as_deref().and_then(|k| PublicKey::from_base64(k).ok());
    let proof = key.as_ref().zip(hello.signature.as_ref());
    let proven = proof.map(|(key, _)| key.fingerprint());
    let listed = hello.keys.iter().take(KEYS_LIMIT).filter(|_| first);
    let candidates: Vec<Fingerprint> =
        proven.into_iter().chain(listed.filter_map(|k| k.parse().ok())).collect();
    let mut why_not = None;
    if let (Some(text), Some((key, proof))) = (&hello.certificate, proof) {
        match certified(text, key, authorized, caller, &mut news) {
            Ok((certificate, granted)) => {
                let proven = Proven::Certificate(certificate);
                return prove(Login::In { granted, proven, client }, (key, proof), channel);
            }
            Err(why) => why_not = Some(why.to_string()),
        }
    }
    let lookup = authorized.lookup(&candidates, caller);
    lookup.news.into_iter().for_each(&mut news);
    match (lookup.found, proof) {
        (Ok((found, granted)), Some((key, proof))) if proven == Some(found) => {
            let proven = Proven::Key(found);
            prove(Login::In { granted, proven, client }, (key, proof), channel)
        }
        (Ok((found, _)), _) => Login::Again(Refused {
            code: Code::TryKey,
            text: "another of the listed keys is authorized here".into(),
            key: Some(found.to_string()),
        }),
        (Err(why), proof) => {
            let out = not_authorized(why_not.or(Some(why.to_string())));
            // Neither the answer nor the time that it takes tells a key that is not let in from a wrong proof
            // of one that is.
            match proof {
                Some(proof) => prove(out, proof, channel),
                None => out,
            }
        }
    }
}

/// What the holder of a certificate is granted, if it is one of `key`.
fn certified(
    text: &str,
    key: &PublicKey,
    authorized: &Authorized,
    caller: Caller,
    news: impl FnMut(News),
) -> Result<(Certificate, Granted), Refusal> {
    let certificate = Certificate::from_base64(text).map_err(Refusal::Certificate)?;
    if certificate.key() != key {
        return Err(Refusal::OtherKey);
    }
    let Again { granted, news: all } = authorized.certified(&certificate, caller);
    all.into_iter().for_each(news);
    Ok((certificate, granted?))
}

/// `login`, if the proof is the key's on this connection.
fn prove(login: Login, (key, proof): (&PublicKey, &String), channel: &Channel) -> Login {
    match verify_auth(key, proof, &channel.host_key, None, &channel.exporter) {
        Ok(()) => login,
        Err(e) => not_authorized(Some(e.to_string())),
    }
}

fn not_authorized(why: Option<String>) -> Login {
    let text = "none of the client's keys is authorized on this server".into();
    Login::Out { refused: Refused { code: Code::NotAuthorized, text, key: None }, why }
}

fn out(refused: Refused) -> Login {
    Login::Out { refused, why: None }
}

/// A peer's text without control characters, shortened.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(AGENT_SHOWN).collect()
}
