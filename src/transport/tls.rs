//! TLS 1.3 with a raw Ed25519 host key, and nothing else: no certificates, no tickets, no resumption.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::stream::Socket;
use super::{HostKeyCheck, HostKeyError, Stream, verifier::Verifier};
use crate::identity::{Channel, Fingerprint, Key, PublicKey};
use crate::transport::Endpoint;

/// The protocol and its major version (RFC 7301).
pub const ALPN: &[u8] = b"rexec/1";
/// Label of the 32 bytes over which a client proves its key (RFC 8446, 7.5).
pub const EXPORTER_LABEL: &str = "EXPORTER-rexec-auth-v1";
/// Most bytes of plain text, and of records, that a stream holds back before a write waits.
pub const BUFFER_LIMIT: usize = 64 << 10;

/// Why two ends did not get to a TLS connection. Holds no text of the peer's.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The bytes are no TLS.
    #[error("the other side does not speak TLS")]
    NotTls,
    /// TLS, but not with raw public keys and version 1.3.
    #[error("the other side speaks another kind of TLS ({0})")]
    OtherTls(rustls::Error),
    /// TLS for another protocol, or another major version of this one.
    #[error("the other side does not speak {}", String::from_utf8_lossy(ALPN))]
    NoAlpn,
    /// The client knows the server by another key.
    #[error("the other side does not accept this server's key")]
    KeyRefused,
    /// Closed before the handshake was over.
    #[error("the connection was closed during the TLS handshake")]
    Closed,
    /// The network failed.
    #[error("the connection failed during the TLS handshake: {0}")]
    Io(io::Error),
}

impl From<io::Error> for TlsFault {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            Some(tls) => tls.clone().into(),
            None => match error.kind() {
                Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe => Self::Closed,
                _ => Self::Io(error),
            },
        }
    }
}

impl From<rustls::Error> for TlsFault {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidMessage(_) => Self::NotTls,
            E::NoApplicationProtocol
            | E::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::NoAlpn,
            E::AlertReceived(AlertDescription::AccessDenied) => Self::KeyRefused,
            other => Self::OtherTls(other),
        }
    }
}

/// The one place that chooses whose cryptography is used, but for that of [`server_provider`].
///
/// AES-128 goes first: 128 bits are what X25519 and Ed25519 give the rest of the connection, and its
/// SHA-256 has instructions of its own where the SHA-384 of AES-256 takes a tenth of a short client's
/// time. A peer that wants another still gets it.
pub(super) fn provider() -> Arc<CryptoProvider> {
    use rustls::crypto::ring::cipher_suite as suite;
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let cipher_suites = vec![
            suite::TLS13_AES_128_GCM_SHA256,
            suite::TLS13_AES_256_GCM_SHA384,
            suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let provider = rustls::crypto::ring::default_provider();
        Arc::new(CryptoProvider { cipher_suites, ..provider })
    });
    Arc::clone(&PROVIDER)
}

/// The same for a server, which has many handshakes: a short-lived client would lose by the question what the processor
/// can do what it gains by the answer.
fn server_provider() -> Arc<CryptoProvider> {
    #[cfg(target_arch = "x86_64")]
    if crate::sys::processor::suits_graviola() {
        let mut provider = CryptoProvider::clone(&provider());
        provider.kx_groups.retain(|group| group.name() != rustls::NamedGroup::X25519);
        provider.kx_groups.insert(0, &super::x25519::X25519);
        return Arc::new(provider);
    }
    provider()
}

/// The server's half: its host key, ready for any number of handshakes.
#[derive(Clone)]
pub struct TlsServer {
    acceptor: TlsAcceptor,
    host_key: PublicKey,
}

impl TlsServer {
    /// A server that shows `key`.
    ///
    /// # Errors
    /// The key cannot be shown in TLS.
    pub fn new(key: &Key) -> Result<Self, rustls::Error> {
        let host_key = key.public().clone();
        let no_key = || rustls::Error::General("the host key is not an Ed25519 key".to_owned());
        let spki = host_key.to_spki().ok_or_else(no_key)?;
        let shown = CertificateDer::from(spki.as_ref().to_vec());
        let certified = CertifiedKey::new(vec![shown], key.tls_signer().ok_or_else(no_key)?);
        let mut config = ServerConfig::builder_with_provider(server_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(
                certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A ticket would be a second way to be let in; unread, it makes a client that only writes reset.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), host_key })
    }

    /// The key that is shown.
    #[must_use]
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    pub(super) async fn accept(&self, socket: TcpStream) -> Result<(Stream, Channel), TlsFault> {
        let stream = self.acceptor.accept(Socket::from(socket)).await?;
        finish(stream.into(), self.host_key.fingerprint())
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsServer({:?})", self.host_key)
    }
}

/// Why a client did not get to a TLS connection.
#[derive(Debug)]
pub(super) enum ClientFault {
    /// The key was not accepted.
    HostKey(HostKeyError),
    /// Anything else.
    Tls(TlsFault),
}

impl<E: Into<TlsFault>> From<E> for ClientFault {
    fn from(error: E) -> Self {
        Self::Tls(error.into())
    }
}

/// The client's half. The host key is judged before the handshake ends: no byte of a request can go
/// to a server that is not the right one.
pub(super) async fn client(
    socket: Socket,
    endpoint: &Endpoint,
    check: Arc<dyn HostKeyCheck>,
) -> Result<(Stream, Channel), ClientFault> {
    let name = server_name(endpoint, socket.tcp())?;
    let provider = provider();
    let verifier = Arc::new(Verifier::new(endpoint.clone(), check, &provider));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let done = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    if let Some(refused) = verifier.refused() {
        return Err(ClientFault::HostKey(refused));
    }
    let stream = done?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let key = shown.and_then(|spki| PublicKey::from_spki(spki).ok()).ok_or(TlsFault::NotTls)?;
    Ok(finish(stream.into(), key.fingerprint())?)
}

/// The name for SNI. Only a server behind a router of names looks at it; an address sends none.
fn server_name(endpoint: &Endpoint, socket: &TcpStream) -> io::Result<ServerName<'static>> {
    if let Endpoint::Tcp { host, .. } = endpoint
        && let Ok(name) = ServerName::try_from(host.to_string())
    {
        return Ok(name);
    }
    Ok(ServerName::from(socket.peer_addr()?.ip()))
}

fn finish(
    mut stream: TlsStream<Socket>,
    host_key: Fingerprint,
) -> Result<(Stream, Channel), TlsFault> {
    // A peer that offers no protocol at all gets through the handshake itself.
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(TlsFault::NoAlpn);
    }
    let exporter = match &mut stream {
        TlsStream::Client(stream) => prepare(stream.get_mut().1),
        TlsStream::Server(stream) => prepare(stream.get_mut().1),
    }?;
    Ok((stream.into(), Channel { host_key, exporter }))
}

/// Bounds what the connection holds back and takes its exporter.
fn prepare<Side>(
    connection: &mut rustls::ConnectionCommon<Side>,
) -> Result<[u8; 32], rustls::Error> {
    connection.set_buffer_limit(Some(BUFFER_LIMIT));
    connection.export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
}
