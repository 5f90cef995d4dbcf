use super::*;
use crate::identity::soft_key::{SoftKey, TOUCHED, string};

fn identities(count: u32, keys: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut reply = vec![IDENTITIES_ANSWER];
    reply.extend(count.to_be_bytes());
    for (blob, comment) in keys {
        reply.extend([string(blob), string(comment)].concat());
    }
    reply
}

#[test]
fn keys_that_can_be_used_are_read_in_their_order() {
    let (one, two) = (SoftKey::new(true), SoftKey::new(false));
    let blobs = [one.blob(), two.blob()];
    let reply = identities(3, &[(&blobs[0], b"a\x1b[2J"), (b"?", b""), (&blobs[1], b"\xff")]);
    let keys = read_keys(&reply).unwrap();
    assert_eq!(keys.iter().map(|key| key.public.blob()).collect::<Vec<_>>(), blobs);
    assert_eq!(
        keys.iter().map(|key| key.comment.as_str()).collect::<Vec<_>>(),
        ["a?[2J", "\u{fffd}"]
    );
    assert_eq!(read_keys(&identities(0, &[])).unwrap(), []);
}

#[test]
fn an_answer_that_is_cut_or_goes_on_is_damaged() {
    let key = SoftKey::new(true);
    let (blob, signature) = (key.blob(), key.sign(b"m", TOUCHED, 1));
    let list = identities(1, &[(&blob, b"c")]);
    let signed = [vec![SIGN_RESPONSE], string(&signature)].concat();
    assert!(read_keys(&list).is_ok() && read_signature(&signed).is_ok());
    for cut in 0..list.len() {
        assert!(matches!(read_keys(&list[..cut]), Err(AgentError::Malformed)), "{cut}");
    }
    for cut in 0..signed.len() {
        assert!(matches!(read_signature(&signed[..cut]), Err(AgentError::Malformed)), "{cut}");
    }
    for reply in [list, signed] {
        let longer = [reply.as_slice(), &[0]].concat();
        assert!(read_keys(&longer).is_err() && read_signature(&longer).is_err());
    }
    for refusal in [5, 30, 102] {
        assert!(matches!(read_keys(&[refusal]), Err(AgentError::Refused)));
    }
}

/// The longest answer is taken, and one byte more is not.
#[tokio::test]
async fn an_answer_over_the_limit_is_not_read() {
    use tokio::net::UnixListener;
    let dir = tempfile::tempdir().unwrap();
    for (length, is_read) in [(REPLY_LIMIT, true), (REPLY_LIMIT + 1, false)] {
        let socket = dir.path().join(length.to_string());
        let listener = UnixListener::bind(&socket).unwrap();
        let serve = async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 5];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&u32::try_from(length).unwrap().to_be_bytes()).await.unwrap();
            // Whoever is not wanted any more finds the connection closed.
            let _ = stream.write_all(&vec![FAILURE; length]).await;
        };
        let agent = Agent::at(&socket);
        let (_, answer) = tokio::join!(serve, agent.keys());
        match answer {
            Err(AgentError::Refused) => assert!(is_read),
            Err(AgentError::TooLong(said)) => assert!(!is_read && said == length),
            other => panic!("{other:?}"),
        }
    }
}

/// Time stands still but for what waits: the limits are met exactly.
#[tokio::test(start_paused = true)]
async fn an_agent_that_hangs_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent");
    let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let agent = Agent::at(&socket);
    assert!(matches!(agent.keys().await, Err(AgentError::Late(AGENT_TIMEOUT))));
    let key = read_key(&SoftKey::new(true).blob(), b"").unwrap();
    assert!(matches!(agent.sign(&key, b"m").await, Err(AgentError::Late(TOUCH_TIMEOUT))));
}

#[test]
fn certificates_and_their_key_are_one_and_the_bare_key_signs_if_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let keygen = |args: &[&str]| {
        let mut command = std::process::Command::new("ssh-keygen");
        assert!(command.current_dir(dir.path()).arg("-q").args(args).status().unwrap().success());
    };
    for name in ["ca", "user"] {
        keygen(&["-t", "ed25519", "-N", "", "-f", name]);
    }
    let certificate = |serial| {
        keygen(&["-s", "ca", "-I", "id", "-n", "deploy", "-z", serial, "user.pub"]);
        Certificate::load(&dir.path().join("user-cert.pub")).unwrap()
    };
    let (first, second) = (certificate("1"), certificate("2"));
    let blob = |certificate: &Certificate| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.decode(certificate.to_base64()).unwrap()
    };
    let (one, two, bare) = (blob(&first), blob(&second), first.key().blob().to_owned());
    for (listed, held) in
        [(vec![&one, &two], &one), (vec![&one, &bare, &two], &bare), (vec![&bare, &one], &bare)]
    {
        let all: Vec<_> = listed.iter().map(|blob| (blob.as_slice(), &b""[..])).collect();
        let keys = read_keys(&identities(u32::try_from(all.len()).unwrap(), &all)).unwrap();
        let [key] = &keys[..] else { panic!("{keys:?}") };
        let all = [&first, &second].into_iter().filter(|one| listed.contains(&&blob(one)));
        assert_eq!((&key.held, key.certificates.iter().collect()), (held, all.collect::<Vec<_>>()));
        assert_eq!(&key.public, first.key());
    }
}
