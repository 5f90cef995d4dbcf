use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;
use crate::identity::{Key, Presence, PublicKey, host_key, sign_auth, verify_auth};
use crate::sys::fs::{StateDir, euid};
use crate::transport::{ClientStream, DialError, HostKeyError, HostTrust, connect, tls};

struct Server {
    _dir: tempfile::TempDir,
    key: Key,
    tls: TlsServer,
    listener: Listener,
}

fn listen(address: &str) -> Listener {
    bind(&address.parse().unwrap()).unwrap().remove(0).register().unwrap()
}

fn server(address: &str) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().canonicalize().unwrap().join("state");
    let key = host_key(&StateDir::open(&state).unwrap()).unwrap();
    let tls = TlsServer::new(&key).unwrap();
    Server { _dir: dir, key, tls, listener: listen(address) }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn own(key: &PublicKey) -> Arc<HostTrust> {
    Arc::new(HostTrust { own: Some(key.clone().into()), ..HostTrust::default() })
}

impl Server {
    async fn secure(&self) -> Result<ServerStream, HandshakeError> {
        self.listener.accept().await.unwrap().secure(&self.tls).await
    }

    async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.listener.address().to_string()).await.unwrap()
    }

    async fn both(
        &self,
    ) -> (Result<ServerStream, HandshakeError>, Result<ClientStream, DialError>) {
        let trust = own(self.key.public());
        tokio::join!(self.secure(), connect(self.listener.address(), deadline(), trust))
    }
}

async fn echo(mut server: Stream, mut client: Stream) {
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (mut from, mut to) = tokio::io::split(&mut client);
    let mut back = Vec::new();
    let serve = async {
        let (mut from, mut to) = tokio::io::split(&mut server);
        tokio::io::copy(&mut from, &mut to).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let write = async {
        to.write_all(&bytes).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (_, (), read) = tokio::join!(serve, write, from.read_to_end(&mut back));
    read.unwrap();
    assert!(back == bytes);
}

#[tokio::test]
async fn tls_carries_bytes_and_a_proof() {
    let server = server("127.0.0.1:0");
    let (s, c) = server.both().await;
    let (s, c) = (s.unwrap(), c.unwrap());
    assert!(matches!(s.peer, Peer::Tcp { loopback: true, .. }) && s.peer.is_local());
    let (sc, cc) = (s.channel.unwrap(), c.channel.unwrap());
    assert_eq!(sc.exporter, cc.exporter);
    let shown = server.key.public().fingerprint();
    assert_eq!((sc.host_key, cc.host_key), (shown, shown));
    let proof = sign_auth(&server.key, &cc.host_key, None, &cc.exporter).unwrap();
    let check = |exporter| {
        verify_auth(server.key.public(), &proof, &sc.host_key, None, exporter, Presence::default())
    };
    check(&sc.exporter).unwrap();
    let (s2, _c2) = server.both().await;
    assert!(check(&s2.unwrap().channel.unwrap().exporter).is_err(), "another connection's");
    assert!(s.stream.is_write_vectored() && c.stream.is_write_vectored());
    assert_eq!(format!("{cc:?}"), format!("Channel({shown}, exporter hidden)"));
    echo(s.stream, c.stream).await;
}

/// As what is accepted should have it, and nobody sets it there.
#[tokio::test]
async fn what_is_accepted_sends_small_frames_at_once_and_notices_a_machine_that_is_gone() {
    use rustix::net::sockopt;
    let server = server("127.0.0.1:0");
    let (_ours, accepted) = tokio::join!(server.raw(), server.listener.accept());
    let Accepted::Tcp(socket, _) = accepted.unwrap() else { panic!("no TCP") };
    assert_eq!(sockopt::tcp_nodelay(&socket), Ok(true));
    assert_eq!(sockopt::socket_keepalive(&socket), Ok(true));
    assert_eq!(sockopt::tcp_keepidle(&socket), Ok(Duration::from_secs(60)));
}

#[tokio::test]
async fn localhost_is_both_families_on_one_port() {
    let bound = bind(&"localhost:0".parse().unwrap()).unwrap();
    assert_eq!(bound.len(), 2);
    let ports: Vec<_> = bound.iter().map(|b| b.address().to_string()).collect();
    let port = ports[0].strip_prefix("127.0.0.1:").unwrap();
    assert_eq!(ports[1], format!("[::1]:{port}"));
    // Only ::1 is left: the client finds it.
    let server = server("127.0.0.1:0");
    let v6 = bound.into_iter().nth(1).unwrap().register().unwrap();
    let endpoint = format!("localhost:{port}").parse().unwrap();
    let (accepted, client) = tokio::join!(
        async { v6.accept().await.unwrap().secure(&server.tls).await },
        connect(&endpoint, deadline(), own(server.key.public()))
    );
    let peer = accepted.unwrap().peer;
    assert!(matches!(peer, Peer::Tcp { loopback: true, address } if address.is_ipv6()));
    client.unwrap();
}

#[tokio::test]
async fn another_host_key_is_refused_before_the_request() {
    let server = server("127.0.0.1:0");
    let other = self::server("127.0.0.1:0");
    let trust = own(other.key.public());
    let endpoint = server.listener.address();
    let (s, c) = tokio::join!(server.secure(), connect(endpoint, deadline(), trust));
    let error = c.unwrap_err();
    assert!(matches!(error, DialError::HostKey(HostKeyError::NotOwn { .. })), "{error}");
    assert!(matches!(s.unwrap_err(), HandshakeError::Tls(TlsFault::KeyRefused)));
}

/// A server that shows a public key whose private half it does not hold.
#[tokio::test]
async fn a_borrowed_host_key_is_refused() {
    let (real, thief) = (server("127.0.0.1:0"), server("127.0.0.1:0"));
    let spki = real.key.public().to_spki().unwrap();
    let shown = CertificateDer::from(spki.as_ref().to_vec());
    let certified = rustls::sign::CertifiedKey::new(vec![shown], thief.key.tls_signer().unwrap());
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified));
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let serve = async {
        let Accepted::Tcp(socket, _) = thief.listener.accept().await.unwrap() else {
            panic!("tcp")
        };
        acceptor.accept(socket).await.map(drop)
    };
    let trust = own(real.key.public());
    let (s, c) = tokio::join!(serve, connect(thief.listener.address(), deadline(), trust));
    let error = c.unwrap_err();
    assert!(matches!(error, DialError::NotRexec { fault: TlsFault::OtherTls(_), .. }), "{error}");
    s.unwrap_err();
}

#[tokio::test]
async fn bytes_that_are_no_tls() {
    let server = server("127.0.0.1:0");
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], b"SSH-2.0-x\r\n", &[0; 64], &[0xff; 64]]
    {
        let mut socket = server.raw().await;
        socket.write_all(bytes).await.unwrap();
        let error = server.secure().await.unwrap_err();
        assert!(matches!(error, HandshakeError::Tls(TlsFault::NotTls)), "{error}");
    }
    drop(server.raw().await);
    let error = server.secure().await.unwrap_err();
    assert!(matches!(error, HandshakeError::Tls(TlsFault::Closed)), "{error}");
}

/// A ClientHello of TLS 1.2 without extensions (RFC 5246, 7.4.1.2).
#[tokio::test]
async fn tls_12_is_refused() {
    let server = server("127.0.0.1:0");
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let mut socket = server.raw().await;
    socket.write_all(&hello).await.unwrap();
    let error = server.secure().await.unwrap_err();
    assert!(matches!(error, HandshakeError::Tls(TlsFault::OtherTls(_))), "{error}");
    let mut alert = Vec::new();
    socket.read_to_end(&mut alert).await.unwrap();
    assert_eq!(&alert[..1], [21], "the client is told");
}

/// A client that takes every server, by a raw key or by a certificate.
#[derive(Debug)]
struct TakesAny {
    raw_key: bool,
}

impl ServerCertVerifier for TakesAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw_key
    }
}

/// What both ends say when a client with these wishes comes.
async fn other_client(raw_key: bool, alpn: &[&[u8]]) -> (HandshakeError, Option<std::io::Error>) {
    let server = server("127.0.0.1:0");
    let mut config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakesAny { raw_key }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = server.raw().await;
    let name = ServerName::try_from("localhost").unwrap();
    let (s, c) = tokio::join!(server.secure(), connector.connect(name, socket));
    (s.unwrap_err(), c.err())
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let (s, c) = other_client(true, &[b"rexec/2", b"h2"]).await;
    assert!(matches!(s, HandshakeError::Tls(TlsFault::NoAlpn)), "{s}");
    assert!(matches!(TlsFault::from(c.unwrap()), TlsFault::NoAlpn));
    let (s, _) = other_client(true, &[]).await;
    assert!(matches!(s, HandshakeError::Tls(TlsFault::NoAlpn)), "{s}");
}

#[tokio::test]
async fn a_client_that_wants_a_certificate_is_refused() {
    let (s, c) = other_client(false, &[tls::ALPN]).await;
    assert!(matches!(s, HandshakeError::Tls(TlsFault::OtherTls(_))), "{s}");
    assert!(matches!(TlsFault::from(c.unwrap()), TlsFault::OtherTls(_)));
}

#[test]
fn errors_name_the_address_and_what_to_do() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = bind(&address.parse().unwrap()).unwrap_err().to_string();
    assert!(text.starts_with(&format!("{address} is in use: ")), "{text}");
    // TEST-NET-1 (RFC 5737) is nobody's address.
    let text = bind(&"192.0.2.1:0".parse().unwrap()).unwrap_err().to_string();
    assert!(text.starts_with("192.0.2.1:0 is not an address of this machine"), "{text}");
    let text = bind(&"no-such-host.invalid:0".parse().unwrap()).unwrap_err().to_string();
    assert!(
        text.starts_with("cannot listen on no-such-host.invalid:0: the name has no address"),
        "{text}"
    );
    let denied = io::Error::from(io::ErrorKind::PermissionDenied);
    let text = BindError::new(&"localhost:80".parse().unwrap(), denied).to_string();
    assert!(text.contains("from 1024 up"), "{text}");
}

fn socket_path() -> (tempfile::TempDir, PathBuf, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = format!("unix:{}", path.display());
    (dir, path, address)
}

#[tokio::test]
async fn a_unix_socket_is_its_owners() {
    let (_dir, path, address) = socket_path();
    let server = server(&address);
    assert_eq!(path.symlink_metadata().unwrap().mode() & 0o777, 0o600);
    let (s, c) = server.both().await;
    let (s, c) = (s.unwrap(), c.unwrap());
    let pid = i32::try_from(std::process::id()).unwrap();
    assert_eq!(s.peer, Peer::Unix { uid: euid(), pid: Some(pid) });
    assert!(s.channel.is_none() && c.channel.is_none());
    echo(s.stream, c.stream).await;
    let text = bind(&address.parse().unwrap()).unwrap_err().to_string();
    assert_eq!(
        text,
        format!(
            "{address} is in use: another server listens there; stop it or choose another address"
        )
    );
    drop(server);
    assert!(path.symlink_metadata().is_err(), "removed");
}

#[tokio::test]
async fn a_dead_servers_socket_is_replaced_and_only_ones_own_removed() {
    let (_dir, path, address) = socket_path();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.symlink_metadata().is_ok(), "left behind");
    let first = listen(&address);
    std::fs::remove_file(&path).unwrap();
    let second = listen(&address);
    drop(first);
    std::os::unix::net::UnixStream::connect(&path).unwrap();
    drop(second);
    assert!(path.symlink_metadata().is_err());
}

#[test]
fn what_is_no_socket_is_not_touched() {
    let (dir, path, address) = socket_path();
    std::fs::File::create(&path).unwrap();
    assert!(matches!(bind(&address.parse().unwrap()), Err(BindError::NotOurs(p)) if p == path));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    assert!(matches!(bind(&address.parse().unwrap()), Err(BindError::NotOurs(_))));
    assert!(path.symlink_metadata().is_ok());
}

#[test]
fn of_many_servers_on_one_path_one_starts() {
    let (_dir, path, address) = socket_path();
    for _ in 0..20 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let barrier = std::sync::Barrier::new(8);
        let started: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                bind(&address.parse().unwrap())
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).filter_map(Result::ok).collect()
        });
        assert_eq!(started.len(), 1);
        drop(started);
        assert!(path.symlink_metadata().is_err());
    }
}

#[test]
fn loopback_behind_both_families() {
    for (address, loopback) in [
        ("127.0.0.1:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("[::1]:1", true),
        ("10.0.0.1:1", false),
    ] {
        let peer = Peer::tcp(address.parse().unwrap());
        assert_eq!(peer.is_local(), loopback, "{address}");
    }
}
