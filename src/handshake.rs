//! Login: both halves side by side.
//!
//! Over TLS the client proves a key with a signature over the channel's exporter, so a proof is worth
//! nothing on another connection. `hello` leaves together with the first request: login costs no
//! round trip of its own. A server that would accept another of the listed keys names it; the client
//! then says `hello` once more, which costs one. A `hello` without a proof only asks which key that is:
//! so nobody has to touch a device or type a passphrase for a server that does not know the key.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::conn::{ConnError, FrameReader, SILENCE};
use crate::identity::{
    Again, Ask, Authorized, Caller, Candidate, Certificate, Channel, Fingerprint, Granted,
    Identity, News, Presence, Proven, PublicKey, Refusal, Sought, auth_text, verify_auth,
};
use crate::proto::code::Code;
use crate::proto::frame::{FrameError, Limits};
use crate::proto::header::{ClientHeader, Hello, Refused, ServerHeader, Welcome};

/// Name and version, as `hello` and `welcome` give it.
pub const AGENT: &str = concat!("rexec ", env!("CARGO_PKG_VERSION"));
/// Most keys that a `hello` may list.
pub const KEYS_LIMIT: usize = 64;
/// Most certificates of a `hello` that are looked at.
pub const CERTIFICATES_LIMIT: usize = 8;
/// Most times that a client may say `hello` on a connection.
pub const HELLOS_LIMIT: usize = 6;
/// Most characters of a peer's name that are shown.
const AGENT_SHOWN: usize = 64;
/// Frames that may stand between a refused `hello` and the next one: the request that came with it.
const SKIPPED_LIMIT: usize = 2;

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
    /// The client has no key that it can prove.
    #[error("{0}")]
    NoKey(String),
    /// The peer answered something that has no place here.
    #[error("the peer does not speak this protocol: {0}")]
    Protocol(String),
}

impl From<FrameError> for LoginError {
    fn from(error: FrameError) -> Self {
        ConnError::from(error).into()
    }
}

/// The client's half: which key is proved next.
pub struct ClientLogin {
    /// As whom; none: as the server's own account.
    user: Option<String>,
    keys: Vec<Arc<Candidate>>,
    /// The key that the server has named.
    named: Option<Arc<Candidate>>,
    /// The key that was proved last.
    proven: Option<Arc<Candidate>>,
    /// Why keys could not be proved.
    failures: Vec<String>,
}

/// The server's answer to a `hello`, as the client reads it.
#[derive(Debug)]
pub enum Answer {
    /// Logged in.
    Welcome(Welcome),
    /// Say `hello` again: the server has named another key.
    Again,
}

impl ClientLogin {
    /// As this user of the server's, with these keys, the one to prove first in front; at most [`KEYS_LIMIT`] count. None are needed on
    /// a unix socket.
    #[must_use]
    pub fn new(user: Option<String>, mut keys: Vec<Arc<Candidate>>) -> Self {
        keys.truncate(KEYS_LIMIT);
        Self { user, keys, named: None, proven: None, failures: Vec::new() }
    }

    /// The next `hello`. On a unix socket (no channel) the kernel says who is calling. Over TLS it has the
    /// proof of the key that the server has named, else of the first that needs nobody to do anything.
    /// If only keys are left that do, it asks the server which of them it lists. A key that cannot be
    /// proved is told of and left out.
    ///
    /// # Errors
    /// [`LoginError::NoKey`].
    pub async fn hello(
        &mut self,
        channel: Option<&Channel>,
        ask: &dyn Ask,
    ) -> Result<ClientHeader, LoginError> {
        let mut hello = Hello { client: AGENT.into(), user: self.user.clone(), ..Hello::default() };
        let Some(channel) = channel else { return Ok(ClientHeader::Hello(hello)) };
        self.proven = None;
        while let Some(key) = self.next() {
            match prove(&key, channel, self.user.as_deref(), ask).await {
                Ok(signature) => {
                    hello.key = Some(key.public().to_base64());
                    hello.signature = Some(signature);
                    self.put_first(&key);
                    self.proven = Some(key);
                    break;
                }
                Err(why) => self.leave_out(&key, &why, ask),
            }
        }
        if self.keys.is_empty() {
            let why = self.failures.join("; ");
            let why = if why.is_empty() { "there is no key to prove".into() } else { why };
            return Err(LoginError::NoKey(why));
        }
        if self.proven.is_none() {
            ask.note(
                "asking which of the keys the server lists, before somebody is needed for one",
            );
        }
        hello.keys = self.keys.iter().map(|key| key.public().fingerprint().to_string()).collect();
        self.show_certificates(&mut hello, ask);
        Ok(ClientHeader::Hello(hello))
    }

    /// Those of the key that is proved, which stands first, and then the others, about which the server is asked; as
    /// many as a stranger may send.
    fn show_certificates(&self, hello: &mut Hello, ask: &dyn Ask) {
        let mut all = self.keys.iter().flat_map(|key| key.certificates());
        let mut shown = all.by_ref().take(CERTIFICATES_LIMIT).map(|one| one.to_base64());
        hello.certificate = shown.next();
        hello.certificates = shown.collect();
        let mut left_out = all.count();
        while !hello.certificates.is_empty() && !fits(hello) {
            hello.certificates.pop();
            left_out += 1;
        }
        if left_out > 0 {
            ask.note(&format!("{left_out} certificates are left out: there are too many"));
        }
    }

    fn next(&self) -> Option<Arc<Candidate>> {
        let first = || self.keys.iter().find(|key| !key.needs_somebody()).cloned();
        self.named.clone().or_else(first)
    }

    fn put_first(&mut self, key: &Arc<Candidate>) {
        if let Some(at) = self.keys.iter().position(|other| Arc::ptr_eq(other, key)) {
            self.keys[..=at].rotate_right(1);
        }
    }

    fn leave_out(&mut self, key: &Arc<Candidate>, why: &str, ask: &dyn Ask) {
        let line = format!("cannot prove {key}: {why}");
        ask.tell(&line);
        self.failures.push(line);
        self.keys.retain(|other| !Arc::ptr_eq(other, key));
        self.named = None;
    }

    /// The key that the last `hello` proved; none if that was only a question, and no request goes with it.
    #[must_use]
    pub fn proven(&self) -> Option<&Arc<Candidate>> {
        self.proven.as_ref()
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// A [`LoginError`].
    pub async fn answer<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut FrameReader<R>,
    ) -> Result<Answer, LoginError> {
        let frame = reader.next(Some(SILENCE)).await?.ok_or(LoginError::Closed)?;
        match frame.header_by(ServerHeader::read)? {
            ServerHeader::Welcome(welcome) => Ok(Answer::Welcome(welcome)),
            ServerHeader::Refused(refused) => self.refused(refused),
            ServerHeader::Error { code, text } => {
                Err(LoginError::Refused(Refused { code, text, key: None }))
            }
            _ => Err(LoginError::Protocol("its answer to hello is none".into())),
        }
    }

    /// A key that was proved is not named again by an honest server.
    fn refused(&mut self, refused: Refused) -> Result<Answer, LoginError> {
        let name = refused.key.as_deref().filter(|_| refused.code == Code::TryKey);
        let is_named = |key: &&Arc<Candidate>| {
            let is_new = self.proven.as_ref().is_none_or(|proven| !Arc::ptr_eq(proven, key));
            is_new && Some(key.public().fingerprint().to_string().as_str()) == name
        };
        match self.keys.iter().find(is_named) {
            Some(key) => {
                self.named = Some(Arc::clone(key));
                Ok(Answer::Again)
            }
            None => Err(LoginError::Refused(refused)),
        }
    }
}

fn fits(hello: &Hello) -> bool {
    let encoded = serde_json::to_vec(&ClientHeader::Hello(hello.clone()));
    encoded.is_ok_and(|text| text.len() <= Limits::HELLO.header)
}

async fn prove(
    key: &Candidate,
    channel: &Channel,
    user: Option<&str>,
    ask: &dyn Ask,
) -> Result<String, String> {
    let text = auth_text(&channel.host_key, user, key.public(), &channel.exporter)
        .map_err(|e| e.to_string())?;
    let proof = key.prove(&text, ask).await.map_err(|e| e.to_string())?;
    ask.note(&format!("proving {key}"));
    Ok(proof)
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
        /// The user that was asked for.
        user: Option<String>,
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

/// Who is let in as which user.
pub trait Doors {
    /// Those who are let in as `user`, or if it is none, as the server's own account. A user who is not served has
    /// a door that lets nobody in, so that nothing tells it from a key that is refused.
    fn door(
        &self,
        user: Option<&str>,
    ) -> impl Future<Output = Result<Arc<Authorized>, Refused>> + Send;
}

/// A server of its own account only.
impl Doors for Arc<Authorized> {
    async fn door(&self, user: Option<&str>) -> Result<Self, Refused> {
        if user.is_none() {
            return Ok(Self::clone(self));
        }
        let text = "this server runs commands as its own account only; leave the user out".into();
        Err(Refused { code: Code::Unsupported, text, key: None })
    }
}

/// The server's half: reads the next `hello`, skipping the request that came with a refused one, and
/// judges it. `hellos` came before it on this connection. What has come up in the key files goes to `news`.
///
/// # Errors
/// A [`LoginError`]: the peer does not speak the protocol, or is gone.
pub async fn judge<R: AsyncRead + Unpin>(
    reader: &mut FrameReader<R>,
    origin: &Origin,
    doors: &impl Doors,
    hellos: usize,
    news: impl FnMut(News),
) -> Result<Login, LoginError> {
    let first = hellos == 0;
    for _ in 0..=SKIPPED_LIMIT {
        // The request behind a refused hello may be as long as any: a stranger's is not held.
        reader.set_limits(if first { Limits::HELLO } else { Limits::FULL });
        let frame = reader.next_without_body().await?.ok_or(LoginError::Closed)?;
        match frame.header_by(ClientHeader::read)? {
            ClientHeader::Hello(hello) => {
                return Ok(match doors.door(hello.user.as_deref()).await {
                    Ok(authorized) => decide(hello, origin, &authorized, hellos, news),
                    Err(refused) => out(refused),
                });
            }
            _ if first => return Err(LoginError::Protocol("the first frame must be hello".into())),
            _ => {}
        }
    }
    Err(LoginError::Protocol("no further hello came".into()))
}

fn decide(
    hello: Hello,
    origin: &Origin,
    authorized: &Authorized,
    hellos: usize,
    mut news: impl FnMut(News),
) -> Login {
    let client = shown(&hello.client);
    let (channel, caller) = match origin {
        Origin::Unix(_) if !authorized.admits_local() => return not_authorized(None),
        Origin::Unix(who) => {
            let granted = Granted { who: who.clone(), options: Arc::default() };
            return Login::In { granted, proven: Proven::Kernel, user: hello.user, client };
        }
        Origin::Tls { channel, caller } => (channel, *caller),
    };
    let key = hello.key.as_deref().and_then(|k| PublicKey::from_base64(k).ok());
    let proof = key.as_ref().zip(hello.signature.as_ref());
    let proven = proof.map(|(key, _)| key.fingerprint());
    let may_ask = hellos + 1 < HELLOS_LIMIT;
    let listed = hello.keys.iter().take(KEYS_LIMIT).filter(|_| may_ask);
    let listed = listed.filter_map(|k| k.parse().ok().map(Sought::Named));
    let candidates: Vec<Sought> =
        proof.map(|(key, _)| Sought::Key(key.clone())).into_iter().chain(listed).collect();
    let user = hello.user.as_deref();
    let Certified { good, bad } = certified(&hello, authorized, caller, &mut news);
    let proven_one = good.iter().find(|(one, _)| proof.is_some_and(|(key, _)| one.key() == key));
    if let Some((certificate, granted)) = proven_one {
        let (granted, proven) = (granted.clone(), Proven::Certificate(certificate.clone()));
        let login = Login::In { granted, proven, user: hello.user.clone(), client };
        return checked(login, (user, proof), channel);
    }
    let lookup = authorized.lookup(&candidates, caller);
    lookup.news.into_iter().for_each(&mut news);
    match (lookup.found, good.first(), proof) {
        (Ok((found, granted)), _, Some((key, _))) if proven == Some(found) => {
            let proven = Proven::Key(key.clone());
            let login = Login::In { granted, proven, user: hello.user.clone(), client };
            checked(login, (user, proof), channel)
        }
        (_, Some((certificate, _)), _) if may_ask => try_key(certificate.key().fingerprint()),
        (Ok((found, _)), ..) if may_ask => try_key(found),
        // Neither the answer nor the time that it takes tells a key that is not let in from a wrong proof
        // of one that is.
        (found, ..) => {
            let why = bad.or(found.err()).map(|why| why.to_string());
            checked(not_authorized(why), (user, proof), channel)
        }
    }
}

fn try_key(key: Fingerprint) -> Login {
    Login::Again(Refused {
        code: Code::TryKey,
        text: "another of the listed keys is authorized here".into(),
        key: Some(key.to_string()),
    })
}

/// What is to be said of the certificates of a `hello`.
struct Certified {
    /// Those that let in, and what their holders are granted.
    good: Vec<(Certificate, Granted)>,
    /// Why another does not: one of a trusted CA, if there is one.
    bad: Option<Refusal>,
}

fn certified(
    hello: &Hello,
    authorized: &Authorized,
    caller: Caller,
    mut news: impl FnMut(News),
) -> Certified {
    let mut all = Certified { good: Vec::new(), bad: None };
    let shown = hello.certificate.iter().chain(&hello.certificates);
    for text in shown.take(CERTIFICATES_LIMIT) {
        match certificate(text, authorized, caller, &mut news) {
            Ok(good) => all.good.push(good),
            Err(why) => {
                let says_more = matches!(all.bad, None | Some(Refusal::Authority(_)));
                all.bad = if says_more { Some(why) } else { all.bad };
            }
        }
    }
    all
}

/// A certificate, and what its holder is granted.
fn certificate(
    text: &str,
    authorized: &Authorized,
    caller: Caller,
    news: impl FnMut(News),
) -> Result<(Certificate, Granted), Refusal> {
    let certificate = Certificate::from_base64(text).map_err(Refusal::Certificate)?;
    let Again { granted, news: all } = authorized.certified(&certificate, caller);
    all.into_iter().for_each(news);
    Ok((certificate, granted?))
}

/// `login`, if the proof is the key's on this connection. Without one nobody is let in.
fn checked(
    login: Login,
    (user, proof): (Option<&str>, Option<(&PublicKey, &String)>),
    channel: &Channel,
) -> Login {
    let Some((key, proof)) = proof else {
        let is_in = matches!(login, Login::In { .. });
        return if is_in { not_authorized(None) } else { login };
    };
    let presence = match &login {
        Login::In { granted, .. } => granted.options.presence(),
        Login::Again(_) | Login::Out { .. } => Presence::default(),
    };
    match verify_auth(key, proof, &channel.host_key, user, &channel.exporter, presence) {
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

#[cfg(test)]
mod tests;
