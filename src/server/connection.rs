//! One connection from accept to its end: a place in the lobby, TLS, login, then its session.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf, split};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::Shared;
use super::end::{SessionEnd, last_word, say_and_close};
use super::lobby::Place;
use super::outbox::Outbox;
use super::requests::Requests;
use super::session::{Patience, serve as serve_session};
use super::waiting::Waiting;
use crate::conn::{FrameReader, FrameWriter, SILENCE};
use crate::handshake::{AGENT, Channel, Login, LoginError, Origin, judge};
use crate::identity::{Identity, News};
use crate::proto::code::Code;
use crate::proto::frame::Limits;
use crate::proto::header::{Refused, ServerHeader, Welcome};
use crate::transport::{self, Accepted, HandshakeError, Peer, Stream};

/// TLS and login together may take so long.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

type Reader = FrameReader<ReadHalf<Stream>>;
type Writer = FrameWriter<WriteHalf<Stream>>;

/// A connection that has logged in.
struct LoggedIn {
    reader: Reader,
    writer: Writer,
    who: Identity,
    origin: Origin,
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
    #[error("{}", .0.text)]
    Refused(Refused),
    #[error("no login within {} s", LOGIN_TIMEOUT.as_secs())]
    Late,
    #[error("shown out for a newcomer before it had logged in")]
    ShownOut,
}

/// Serves a connection from its first byte to its last.
pub(super) async fn serve(accepted: Accepted, mut place: Place, shared: Arc<Shared>) {
    let address = accepted.address();
    let deadline = Instant::now() + LOGIN_TIMEOUT;
    let login = tokio::select! {
        login = timeout_at(deadline, log_in(accepted, &shared)) => login.unwrap_or(Err(Stranger::Late)),
        () = place.shown_out() => Err(Stranger::ShownOut),
    };
    match login {
        Ok(logged_in) => {
            let mut served = pin!(logged_in.serve(&shared));
            // What came with the login is answered from the lobby: a server that stops waits for that.
            let over = poll_fn(|cx| Poll::Ready(served.as_mut().poll(cx).is_ready())).await;
            drop(place);
            if !over {
                served.await;
            }
        }
        Err(why) => shared.about_strangers(|| {
            let from = address.map_or_else(|| "a unix socket".to_owned(), |a| a.to_string());
            format!("no login from {from}: {why}")
        }),
    }
}

async fn log_in(accepted: Accepted, shared: &Shared) -> Result<LoggedIn, Stranger> {
    let secured = accepted.secure(&shared.tls).await?;
    let peer = secured.peer;
    let origin = origin(secured.channel.as_ref(), peer);
    let (read, write) = split(secured.stream);
    let mut reader = FrameReader::new(read, Limits::HELLO);
    let mut writer = FrameWriter::new(write);
    let origin = match origin {
        Ok(origin) => origin,
        Err(refused) => return Err(refuse(refused, &mut reader, &mut writer).await),
    };
    let mut first = true;
    loop {
        let judged =
            judge(&mut reader, &origin, &shared.authorized, first, |news| tell(&news)).await;
        let refused = match judged {
            Ok(Login::In { who, client }) => {
                return Ok(LoggedIn { reader, writer, who, origin, peer, client });
            }
            Ok(Login::Again(refused)) => {
                writer
                    .send(&ServerHeader::Refused(refused), b"")
                    .await
                    .map_err(LoginError::from)?;
                first = false;
                continue;
            }
            Ok(Login::Out(refused)) => refused,
            Err(e) => {
                if let Some(end) = fault(&e) {
                    last_word(&end, reader, writer).await;
                }
                return Err(e.into());
            }
        };
        return Err(refuse(refused, &mut reader, &mut writer).await);
    }
}

/// Where a peer comes from; to another user's process, why that is not good enough.
fn origin(channel: Option<&transport::Channel>, peer: Peer) -> Result<Origin, Refused> {
    let uid = match (channel, peer) {
        (Some(channel), _) => {
            let channel = Channel { host_key: channel.fingerprint(), exporter: channel.exporter };
            return Ok(Origin::Tls { channel, loopback: peer.is_local() });
        }
        (None, Peer::Unix { uid, .. }) => Some(uid),
        (None, Peer::Tcp { .. }) => None,
    };
    uid.and_then(Identity::of_unix_peer).map(Origin::Unix).ok_or_else(|| Refused {
        code: Code::NotAuthorized,
        text: format!("{peer} is neither the server's account nor root"),
        key: None,
    })
}

async fn refuse(refused: Refused, reader: &mut Reader, writer: &mut Writer) -> Stranger {
    say_and_close(&ServerHeader::Refused(refused.clone()), reader, writer).await;
    Stranger::Refused(refused)
}

/// What to tell a peer that does not speak the protocol; nothing to one that is gone.
fn fault(error: &LoginError) -> Option<SessionEnd> {
    match error {
        LoginError::Protocol(text) => Some(SessionEnd::word(Code::BadFrame, text.clone())),
        LoginError::Conn(crate::conn::ConnError::Frame(e)) => {
            Some(SessionEnd::word(Code::BadFrame, e.to_string()))
        }
        _ => None,
    }
}

fn tell(news: &News) {
    warn!("{news}");
}

impl LoggedIn {
    async fn serve(self, shared: &Arc<Shared>) {
        let Self { mut reader, mut writer, who, origin, peer, client } = self;
        let Ok(_permit) = Arc::clone(&shared.places).try_acquire_owned() else {
            let most = shared.config.max_connections;
            let text = format!("the server has {most} connections already");
            shared.about_strangers(|| format!("refusing {who} from {peer}: {text}"));
            let refused = Refused { code: Code::TooManyConnections, text, key: None };
            return say_and_close(&ServerHeader::Refused(refused), &mut reader, &mut writer).await;
        };
        debug!(%peer, identity = %who, client, "logged in");
        let identity: Arc<str> = who.to_string().into();
        let welcome = Welcome { server: AGENT.into(), identity: identity.to_string() };
        if writer.queue(&ServerHeader::Welcome(welcome), b"").is_err() {
            return;
        }
        reader.set_limits(Limits::FULL);
        let outbox = Arc::new(Outbox::greeting());
        let host = Arc::clone(&shared.host);
        let still_in = still_in(shared, origin, who);
        let refusals = Arc::clone(&shared.peers);
        let requests = Requests {
            host,
            identity,
            outbox,
            still_in,
            refusals,
            is_stale: false,
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
}

/// A long connection does not outlive its rights: each request asks the key files again.
fn still_in(shared: &Arc<Shared>, origin: Origin, who: Identity) -> super::requests::StillIn {
    let shared = Arc::clone(shared);
    Box::new(move || match (&origin, &who) {
        (Origin::Unix(_), _) | (_, Identity::Local { .. }) => true,
        (Origin::Tls { loopback, .. }, Identity::Key { fingerprint, .. }) => {
            let lookup = shared.authorized.lookup(&[*fingerprint], *loopback);
            lookup.news.iter().for_each(tell);
            lookup.found.is_some_and(|(_, found)| found == who)
        }
    })
}
