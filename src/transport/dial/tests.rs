use super::*;

struct Refuse;

impl HostKeyCheck for Refuse {
    fn check(&self, _: &Endpoint, _: &crate::identity::PublicKey) -> Result<(), HostKeyError> {
        unreachable!("no server gets as far as showing a key")
    }
}

async fn fail(endpoint: &str) -> DialError {
    let deadline = Instant::now() + Duration::from_secs(10);
    connect(&endpoint.parse().unwrap(), deadline, Arc::new(Refuse)).await.unwrap_err()
}

/// Two sockets that hold one port of both families without listening on it.
fn closed_port() -> (u16, [std::os::fd::OwnedFd; 2]) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    loop {
        let v4 = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let v6 = socket(AddressFamily::INET6, SocketType::STREAM, None).unwrap();
        bind(&v4, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let port = SocketAddr::try_from(getsockname(&v4).unwrap()).unwrap().port();
        if bind(&v6, &SocketAddr::from((Ipv6Addr::LOCALHOST, port))).is_ok() {
            return (port, [v4, v6]);
        }
    }
}

#[tokio::test]
async fn every_address_is_named() {
    let (port, _held) = closed_port();
    let error = fail(&format!("localhost:{port}")).await;
    let text = error.to_string();
    assert!(matches!(&error, DialError::Unreachable { tried, .. } if tried.len() == 2), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}: ")), "{text}");
    assert!(text.contains(&format!("[::1]:{port}: ")), "{text}");
    assert!(text.ends_with("is rexec-server running there?"), "{text}");
}

#[tokio::test]
async fn a_name_that_is_none() {
    let error = fail("no-such-host.invalid:1").await;
    assert!(matches!(error, DialError::Resolve { .. }), "{error}");
}

#[tokio::test]
async fn a_socket_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = fail(&format!("unix:{}", dir.path().join("s").display())).await;
    assert!(matches!(error, DialError::Unix { .. }), "{error}");
}

/// Serves one connection with `answer` and whatever the client sends read first.
async fn answering(answer: &'static [u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut hello = [0; 4096];
        let _ = socket.read(&mut hello).await.unwrap();
        socket.write_all(answer).await.unwrap();
        let _ = socket.shutdown().await;
    });
    address.to_string()
}

#[tokio::test]
async fn other_servers_are_told_apart() {
    for answer in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail\r\n"]
    {
        let error = fail(&answering(answer).await).await;
        let text = error.to_string();
        assert!(matches!(error, DialError::NotRexec { fault: TlsFault::NotTls, .. }), "{text}");
        assert!(text.starts_with("something else than rexec answers on 127.0.0.1:"), "{text}");
    }
    // A fatal alert handshake_failure, as a server of TLS 1.2 sends it.
    let error = fail(&answering(&[21, 3, 3, 0, 2, 2, 40]).await).await;
    assert!(matches!(error, DialError::NotRexec { fault: TlsFault::OtherTls(_), .. }), "{error}");
    // A fatal alert no_application_protocol.
    let error = fail(&answering(&[21, 3, 3, 0, 2, 2, 120]).await).await;
    assert!(matches!(error, DialError::NotRexec { fault: TlsFault::NoAlpn, .. }), "{error}");
    let error = fail(&answering(b"").await).await;
    assert!(matches!(error, DialError::Broken { fault: TlsFault::Closed, .. }), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_at_the_deadline() {
    // The kernel completes the connection; nobody ever accepts it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let error = connect(&endpoint, deadline, Arc::new(Refuse)).await.unwrap_err();
    assert!(matches!(error, DialError::Timeout { stage: "setting up TLS", .. }), "{error}");
}

#[test]
fn each_address_has_its_share() {
    let seconds = Duration::from_secs;
    assert_eq!(share(seconds(12), 3), seconds(4));
    assert_eq!(share(seconds(12), 1), seconds(12));
    assert_eq!(share(seconds(0), 3), seconds(0));
    assert_eq!(share(seconds(12), 0), seconds(12));
}
