//! Who is not served, and that the others do not notice.

use super::*;

/// A command that leaves a file behind, so that one that was executed is found out.
struct Effect(tempfile::TempDir);

impl Effect {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Other users may write here too: it is not this that keeps them away.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), all).unwrap();
        Self(dir)
    }

    fn command(&self) -> String {
        format!("touch {}", self.0.path().join("done").display())
    }

    fn was_executed(&self) -> bool {
        self.0.path().join("done").exists()
    }
}

/// That the server goes on, and has worked off what came before.
async fn still_serves(server: &Server) {
    assert_eq!(server.connect().await.ask("echo here").await, "here\n");
}

#[tokio::test]
async fn reads_that_are_no_commands_close_the_connection_unexecuted() {
    let server = Server::start(Kind::Length);
    let effect = Effect::new();
    let command = effect.command();
    let post = format!(
        "POST / HTTP/1.1\r\nHost: {}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{command}",
        server.address,
        command.len()
    );
    for read in [
        post.into_bytes(),
        format!("GET /;{command} HTTP/1.1\r\n\r\n").into_bytes(),
        format!("{command}\0").into_bytes(),
        [command.as_bytes(), b" \xff"].concat(),
        b"\x16\x03\x01\x00\xee".to_vec(),
    ] {
        let mut peer = server.connect().await;
        peer.say(&read).await;
        peer.is_closed().await;
    }
    still_serves(&server).await;
    assert!(!effect.was_executed());
}

#[tokio::test]
async fn a_later_read_is_looked_at_too() {
    let server = Server::start(Kind::Length);
    let mut peer = server.connect().await;
    assert_eq!(peer.ask("echo first").await, "first\n");
    peer.say(b"echo \xff").await;
    peer.is_closed().await;
}

#[tokio::test]
async fn a_body_that_comes_after_its_head_is_not_executed() {
    let server = Server::start(Kind::Length);
    let effect = Effect::new();
    let mut peer = server.connect().await;
    peer.say("POST /x HTTP/1.1\r\nContent-Length: 99\r\n\r\n").await;
    peer.is_closed().await;
    // The connection is gone, so this fails or goes nowhere.
    let _ = peer.0.write_all(effect.command().as_bytes()).await;
    still_serves(&server).await;
    assert!(!effect.was_executed());
}

#[tokio::test]
async fn only_the_servers_own_uid_is_served() {
    let effect = Effect::new();
    let not_ours = fs::euid() + 1;
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = Server::with(Kind::Length, address, not_ours, Limits::DEFAULT);
        let mut peer = server.connect().await;
        // It may be closed before this is written.
        let _ = peer.0.write_all(effect.command().as_bytes()).await;
        peer.is_closed().await;
    }
    assert!(!effect.was_executed());
}

#[tokio::test]
async fn two_other_users_are_refused_and_the_owner_is_served() {
    if fs::euid() != 0 {
        // Only root can become somebody else; the test above has the same refusal without.
        return;
    }
    let server = Server::start(Kind::Length);
    let effect = Effect::new();
    for user in ["uid=65534", "uid=65533"] {
        let output = python(Kind::Length, &server, &[user, &effect.command()]).await;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let refused = ["the server has closed the connection", "ConnectionReset", "BrokenPipe"];
        assert!(refused.iter().any(|text| stderr.contains(text)), "{stderr}");
        assert!(!output.status.success() && output.stdout.is_empty());
    }
    assert!(!effect.was_executed());
    let output = python(Kind::Length, &server, &["uid=0", "echo served"]).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn another_users_process_is_refused_on_a_unix_socket() {
    if fs::euid() == 0 {
        // Root's processes are served everywhere; see below.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = format!("unix:{}", path.display());
    let _server = Server::with(Kind::Raw, &address, fs::euid() + 1, Limits::DEFAULT);
    let mut unix = tokio::net::UnixStream::connect(&path).await.unwrap();
    assert!(matches!(within(unix.read(&mut [0])).await, Ok(0) | Err(_)));
}

#[tokio::test]
async fn roots_processes_are_served_on_a_unix_socket_and_not_over_tcp() {
    if fs::euid() != 0 {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let _unix = Server::with(Kind::Raw, &format!("unix:{}", path.display()), 1, Limits::DEFAULT);
    let mut unix = tokio::net::UnixStream::connect(&path).await.unwrap();
    unix.write_all(b"echo root").await.unwrap();
    within(unix.read_exact(&mut [0; 5])).await.unwrap();
    let tcp = Server::with(Kind::Raw, "127.0.0.1:0", 1, Limits::DEFAULT);
    tcp.connect().await.is_closed().await;
}

#[tokio::test]
async fn an_own_client_finds_a_place_whatever_strangers_do() {
    if fs::euid() != 0 {
        // Needs a stranger of another account.
        return;
    }
    let limits = Limits { connections: 1, ..Limits::DEFAULT };
    let server = Server::limited(Kind::Length, limits);
    let crowd = "import os,socket,sys\nos.setgroups([]); os.setuid(65534)\n\
                 held=[socket.socket() for _ in range(50)]\n\
                 for s in held: s.connect(('127.0.0.1', int(sys.argv[1])))\n\
                 print('there', flush=True)\nsys.stdin.read()";
    let mut crowd = Command::new("python3")
        .args(["-c", crowd, &server.socket_address().port().to_string()])
        .current_dir("/")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(crowd.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
    still_serves(&server).await;
    // It ends with its input.
    drop(crowd.stdin.take());
    crowd.wait().unwrap();
}

#[tokio::test]
async fn one_past_the_connections_is_closed_and_a_place_is_given_back() {
    let limits = Limits { connections: 2, ..Limits::DEFAULT };
    let server = Server::limited(Kind::Length, limits);
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(first.ask("echo 1").await, "1\n");
    assert_eq!(second.ask("echo 2").await, "2\n");
    server.connect().await.is_closed().await;
    assert_eq!(first.ask("echo 1").await, "1\n");
    drop(second);
    within(async {
        loop {
            let mut next = server.connect().await;
            // Closed as long as the server has not seen the second go.
            let said = next.0.write_all(b"echo 3").await;
            if said.is_ok() && matches!(next.0.read(&mut [0; 64]).await, Ok(1..)) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_silent_client_is_disconnected() {
    let limits = Limits { idle: Duration::from_millis(50), ..Limits::DEFAULT };
    let server = Server::limited(Kind::Length, limits);
    server.connect().await.is_closed().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_disconnected() {
    let limits = Limits { idle: Duration::from_millis(200), connections: 1, ..Limits::DEFAULT };
    let server = Server::limited(Kind::Raw, limits);
    let mut deaf = server.connect().await;
    deaf.say("head -c 50000000 /dev/zero").await;
    // Its place is free when it was given up.
    within(async {
        loop {
            let mut next = server.connect().await;
            let said = next.0.write_all(b"echo").await;
            if said.is_ok() && matches!(next.0.read(&mut [0; 64]).await, Ok(1..)) {
                return;
            }
        }
    })
    .await;
    let mut taken = Vec::new();
    let _ = within(deaf.0.read_to_end(&mut taken)).await;
    assert!(taken.len() < 50_000_000);
}
