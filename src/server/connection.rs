//! One connection from accept to its end: a place in the lobby, TLS, login, then its session.

use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::counters::Why;
use super::end::{SessionEnd, last_word, say_and_close};
use super::lobby::Place;
use super::outbox::Outbox;
use super::policy::{Asked, Forbidden, Subject, decide};
use super::requests::{Judge, Requests};
use super::rights::{self, RightsNow};
use super::session::{Patience, serve as serve_session};
use super::shared::{Shared, Whom};
use super::users::{Guest, shell};
use super::waiting::Waiting;
use crate::conn::{ConnError, FrameReader, FrameWriter, SILENCE};
use crate::exec::Groups;
use crate::handshake::{AGENT, Doors, Login, LoginError, Origin, judge};
use crate::identity::{Authorized, Caller, Channel, Identity, News};
use crate::proto::code::Code;
use crate::proto::frame::{FrameError, Limits};
use crate::proto::header::{Refused, ServerHeader, Welcome};
use crate::runs::judged::How;
use crate::transport::{Accepted, HandshakeError, Peer, Stream};

/// How long TLS and login together may take.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to prove a key that would be let in: somebody may have to touch a device, or type a
/// passphrase.
pub const PERSON_TIMEOUT: Duration = Duration::from_secs(60);

type Reader = FrameReader<ReadHalf<Stream>>;
type Writer = FrameWriter<WriteHalf<Stream>>;

/// A connection that was accepted.
pub(super) struct Came {
    pub(super) accepted: Accepted,
    /// It came over a socket of a service manager's.
    pub(super) is_managed: bool,
}

/// A connection that has logged in.
struct LoggedIn {
    is_managed: bool,
    reader: Reader,
    writer: Writer,
    who: Identity,
    /// The user that it has logged in as; none: the server's own account.
    guest: Option<Arc<Guest>>,
    rights: RightsNow,
    peer: Peer,
    client: String,
}

/// Why nobody logged in.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("{1}")]
    Refused(Code, String),
    #[error("no login within {} s", .0.as_secs())]
    Late(Duration),
    #[error("shown out for a newcomer before it had logged in")]
    ShownOut,
}

impl Stranger {
    fn kind(&self) -> Why {
        match self {
            Self::Refused(Code::NotAuthorized, _) => Why::NotAuthorized,
            Self::Refused(..) => Why::Refused,
            Self::Login(LoginError::Protocol(_) | LoginError::Conn(ConnError::Frame(_))) => {
                Why::Protocol
            }
            Self::Handshake(_) | Self::Login(_) => Why::Broken,
            Self::Late(_) => Why::Late,
            Self::ShownOut => Why::ShownOut,
        }
    }
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(came: Came, mut place: Place, shared: Arc<Shared>) {
    let address = came.accepted.address();
    let most = LOGIN_TIMEOUT + PERSON_TIMEOUT;
    let login = tokio::select! {
        login = timeout(most, log_in(came, &shared)) => login.unwrap_or(Err(Stranger::Late(most))),
        () = place.shown_out() => Err(Stranger::ShownOut),
    };
    match login {
        Ok(logged_in) => {
            let mut served = pin!(logged_in.serve(&shared));
            // What came with the login is answered from the lobby: a server that stops waits for that.
            let mut place = Some(place);
            poll_fn(|cx| {
                let polled = served.as_mut().poll(cx);
                place = None;
                polled
            })
            .await;
        }
        Err(why) => {
            // A refusal was noted before it was said.
            if !matches!(why, Stranger::Refused(..)) {
                shared.failed(why.kind(), address);
            }
            shared.about_strangers(|| {
                let from = peer_name(address);
                format!("no login from {from}: {why}")
            });
        }
    }
}

/// Where a peer is, for people.
fn peer_name(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "a unix socket".into(), |address| address.to_string())
}

async fn log_in(came: Came, shared: &Arc<Shared>) -> Result<LoggedIn, Stranger> {
    let Came { accepted, is_managed } = came;
    let address = accepted.address();
    let deadline = Instant::now() + LOGIN_TIMEOUT;
    let securing = timeout_at(deadline, accepted.secure(&shared.tls));
    let secured = securing.await.map_err(|_| Stranger::Late(LOGIN_TIMEOUT))??;
    let peer = secured.peer;
    let origin = origin(secured.channel, peer);
    let (read, write) = split(secured.stream);
    let mut reader = FrameReader::new(read, Limits::HELLO);
    let mut writer = FrameWriter::new(write);
    let origin = match origin {
        Ok(origin) => origin,
        Err(refused) => {
            return Err(refuse(shared, address, (refused, None), &mut reader, &mut writer).await);
        }
    };
    let news = |news| shared.doors.tell(&news);
    let heard = hear((&mut reader, &mut writer), &origin, &shared.doors, deadline, news).await;
    let (refused, why) = match heard {
        Ok(Login::In { granted, proven, user, client }) => {
            let who = granted.who;
            let door = door_of(shared, user.as_deref())?;
            let guest = door.1.clone();
            let rights = rights::of(shared, (who.clone(), proven), caller(peer), door);
            return Ok(LoggedIn { is_managed, reader, writer, who, guest, rights, peer, client });
        }
        Ok(Login::Again(refused)) => (refused, None),
        Ok(Login::Out { refused, why }) => (refused, why),
        Err(stranger) => {
            if let Stranger::Login(e) = &stranger
                && let Some(end) = fault(e)
            {
                last_word(&end, reader, writer).await;
            }
            return Err(stranger);
        }
    };
    Err(refuse(shared, address, (refused, why), &mut reader, &mut writer).await)
}

/// Hears one `hello` after the other until one of them decides. Who has asked about a key that would be let in has
/// [`PERSON_TIMEOUT`] from then on, once.
async fn hear<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    (reader, writer): (&mut FrameReader<R>, &mut FrameWriter<W>),
    origin: &Origin,
    doors: &impl Doors,
    mut deadline: Instant,
    mut news: impl FnMut(News),
) -> Result<Login, Stranger> {
    let (mut patience, mut hellos) = (LOGIN_TIMEOUT, 0);
    loop {
        let judging = judge(reader, origin, doors, hellos, &mut news);
        let judged =
            timeout_at(deadline, judging).await.map_err(|_| Stranger::Late(patience))??;
        let Login::Again(refused) = judged else { return Ok(judged) };
        writer.send(&ServerHeader::Refused(refused), b"").await.map_err(LoginError::from)?;
        if hellos == 0 {
            patience = PERSON_TIMEOUT;
            deadline = Instant::now() + patience;
        }
        hellos += 1;
    }
}

/// The door by which somebody came in.
fn door_of(
    shared: &Shared,
    user: Option<&str>,
) -> Result<(Arc<Authorized>, Option<Arc<Guest>>), Stranger> {
    // A door that lets nobody in has let nobody in.
    let nobody = || Stranger::Refused(Code::NotAuthorized, "this user is not served".into());
    match (&shared.doors, user) {
        (Whom::Itself(authorized), None) => Ok((Arc::clone(authorized), None)),
        (Whom::Users(users), Some(name)) => {
            let guest = users.guest(name).ok_or_else(nobody)?;
            Ok((Arc::clone(guest.authorized()), Some(guest)))
        }
        (Whom::Itself(_), Some(_)) | (Whom::Users(_), None) => Err(nobody()),
    }
}

/// Where a peer comes from; to another user's process, why that is not good enough.
fn origin(channel: Option<Channel>, peer: Peer) -> Result<Origin, Refused> {
    let uid = match (channel, peer) {
        (Some(channel), _) => return Ok(Origin::Tls { channel, caller: caller(peer) }),
        (None, Peer::Unix { uid, .. }) => Some(uid),
        (None, Peer::Tcp { .. }) => None,
    };
    uid.and_then(Identity::of_unix_peer).map(Origin::Unix).ok_or_else(|| Refused {
        code: Code::NotAuthorized,
        text: format!("{peer} is neither the server's account nor root"),
        key: None,
    })
}

fn caller(peer: Peer) -> Caller {
    Caller { address: peer.address(), loopback: peer.is_local() }
}

/// `why`: what the operator is told, if it is more than the peer is.
async fn refuse(
    shared: &Shared,
    address: Option<SocketAddr>,
    (refused, why): (Refused, Option<String>),
    reader: &mut Reader,
    writer: &mut Writer,
) -> Stranger {
    let why = why.unwrap_or_else(|| refused.text.clone());
    if let Some(ledger) = shared.host.ledger() {
        let from = peer_name(address);
        ledger.refused(None, &from, refused.code.name(), &why);
    }
    let stranger = Stranger::Refused(refused.code, why);
    shared.failed(stranger.kind(), address);
    say_and_close(&ServerHeader::Refused(refused), reader, writer).await;
    stranger
}

/// What to tell a peer that does not speak the protocol; nothing to one that is gone.
fn fault(error: &LoginError) -> Option<SessionEnd> {
    match error {
        LoginError::Protocol(text) => Some(SessionEnd::word(Code::BadFrame, text.clone())),
        LoginError::Conn(ConnError::Frame(e)) => {
            Some(SessionEnd::word(Code::BadFrame, e.to_string()))
        }
        _ => None,
    }
}

impl LoggedIn {
    async fn serve(mut self, shared: &Arc<Shared>) {
        let Ok(_permit) = Arc::clone(&shared.places).try_acquire_owned() else {
            return self.turn_away(shared).await;
        };
        let _open = shared.counters.logged_in();
        debug!(peer = %self.peer, identity = %self.who, client = self.client, "logged in");
        let subject: Arc<str> = self.who.to_string().into();
        let identity = match &self.guest {
            None => Arc::clone(&subject),
            Some(guest) => format!("{}@{subject}", guest.name()).into(),
        };
        if self.welcome(shared, &identity).is_err() {
            return;
        }
        let Self { is_managed, reader, writer, guest, rights, peer, .. } = self;
        let requests = Requests {
            host: Arc::clone(&shared.host),
            identity,
            from: peer.to_string().into(),
            outbox: Arc::new(Outbox::greeting()),
            rights,
            judge: by_policy(shared, &subject, guest.clone()),
            guest,
            refusals: Arc::clone(&shared.peers),
            is_stale: false,
            holds: Arc::clone(&shared.holds),
            is_managed,
            held: None,
            waiting: Waiting::default(),
        };
        let patience = Patience { idle: shared.config.idle_timeout, silence: Some(SILENCE) };
        let end = serve_session(reader, writer, requests, patience).await;
        shared.host.left();
        match end {
            SessionEnd::Closed => debug!(%peer, "{end}"),
            SessionEnd::Conn(_) | SessionEnd::Word { .. } => {
                shared.about_peers(|| format!("connection of {peer} ended: {end}"));
            }
        }
    }

    /// Says that there is no place.
    async fn turn_away(self, shared: &Shared) {
        let Self { mut reader, mut writer, who, peer, .. } = self;
        let most = shared.config.max_connections;
        let text = format!("the server has {most} connections already");
        shared.about_strangers(|| format!("refusing {who} from {peer}: {text}"));
        let refused = Refused { code: Code::TooManyConnections, text, key: None };
        say_and_close(&ServerHeader::Refused(refused), &mut reader, &mut writer).await;
    }

    /// From here on the peer may ask for something.
    fn welcome(&mut self, shared: &Shared, identity: &Arc<str>) -> Result<(), FrameError> {
        if let Some(ledger) = shared.host.ledger() {
            ledger.login(identity, &self.peer.to_string(), &self.client);
        }
        let welcome = Welcome { server: AGENT.into(), identity: identity.to_string() };
        self.writer.queue(&ServerHeader::Welcome(welcome), b"")?;
        self.reader.set_limits(Limits::FULL);
        self.reader.set_arrivals(shared.arrivals.clone());
        Ok(())
    }
}

/// What the policy says of what an identity asks for, and as whom it is run.
fn by_policy(shared: &Arc<Shared>, identity: &Arc<str>, guest: Option<Arc<Guest>>) -> Judge {
    let (shared, identity) = (Arc::clone(shared), Arc::clone(identity));
    Arc::new(move |asked, rights, usage| {
        let mut allowed =
            decide(&shared.policy, Subject { identity: &identity, rights }, asked, usage)?;
        if matches!(asked, Asked::Run(_)) {
            allowed.judged.cgroup = shared.groups.as_ref().map(Groups::enter);
        }
        if let Some(guest) = &guest {
            let user = guest.account().map_err(|_| Forbidden::no_longer_in())?;
            if let (Asked::Run(command), How::AsAsked) = (asked, allowed.judged.how)
                && let Some(text) = shell::passes_by(&user, command)
            {
                return Err(Forbidden { code: Code::NotPermitted, text });
            }
            allowed.judged.user = Some(user);
        }
        Ok(allowed)
    })
}

#[cfg(test)]
mod tests;
