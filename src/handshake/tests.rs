//! Both halves against each other, over bytes in memory.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::identity::{AccessFiles, Key, KeyFile, KeyRing, Nobody, Source};

/// A folder with keys of which a server lists some.
struct Place {
    dir: tempfile::TempDir,
    authorized: Arc<Authorized>,
}

fn path(dir: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
    dir.path().canonicalize().unwrap().join(name)
}

fn made(dir: &tempfile::TempDir, name: &str, passphrase: &str) -> Arc<Candidate> {
    let mut command = std::process::Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-a", "1", "-N", passphrase, "-f"]);
    assert!(command.arg(path(dir, name)).status().unwrap().success());
    let KeyFile::Key(key) = KeyFile::load(&path(dir, name)).unwrap() else { panic!() };
    Arc::new(Candidate::stored(key))
}

impl Place {
    fn listing(dir: tempfile::TempDir, keys: &[&Arc<Candidate>]) -> Self {
        let list = path(&dir, "list");
        let lines: Vec<_> = keys.iter().map(|key| key.public().to_string()).collect();
        crate::sys::fs::testing::put(&list, 0o600, lines.join("\n").as_bytes());
        Self { authorized: Self::reading(&dir, list), dir }
    }

    fn reading(dir: &tempfile::TempDir, list: std::path::PathBuf) -> Arc<Authorized> {
        let local = made(dir, "local", "");
        let keys = vec![Source { path: list, required: true }];
        let files = AccessFiles { keys, ..AccessFiles::default() };
        Arc::new(Authorized::new(files, local.public()))
    }

    async fn judges(&self, hello: &ClientHeader, hellos: usize) -> Login {
        let mut bytes = Vec::new();
        crate::proto::frame::encode(hello, b"", &mut bytes).unwrap();
        let mut reader = FrameReader::new(bytes.as_slice(), Limits::HELLO);
        let origin = Origin::Tls { channel: channel(), caller: HERE };
        judge(&mut reader, &origin, &self.authorized, hellos, |_| ()).await.unwrap()
    }
}

const HERE: Caller = Caller { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), loopback: true };

fn channel() -> Channel {
    Channel { host_key: Fingerprint::of_blob(b"host"), exporter: [7; 32] }
}

async fn read(login: &mut ClientLogin, refused: Refused) -> Result<Answer, LoginError> {
    let mut bytes = Vec::new();
    crate::proto::frame::encode(&ServerHeader::Refused(refused), b"", &mut bytes).unwrap();
    login.answer(&mut FrameReader::new(bytes.as_slice(), Limits::FULL)).await
}

fn of(hello: &ClientHeader) -> &Hello {
    let ClientHeader::Hello(hello) = hello else { panic!("{hello:?}") };
    hello
}

/// Here the passphrase is never given; what counts is that nobody is asked too early.
#[tokio::test]
async fn a_key_that_needs_somebody_is_asked_about_first() {
    let dir = tempfile::tempdir().unwrap();
    let (locked, other) = (made(&dir, "locked", "secret"), made(&dir, "other", "secret"));
    let place = Place::listing(dir, &[&other]);
    let mut login = ClientLogin::new(None, vec![Arc::clone(&locked), Arc::clone(&other)]);
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    let (question, prints) = (of(&hello), [&locked, &other].map(|k| k.public().fingerprint()));
    assert_eq!((&question.key, &question.signature), (&None, &None));
    assert_eq!(question.keys, prints.map(|print| print.to_string()));
    assert!(login.proven().is_none());
    let Login::Again(refused) = place.judges(&hello, 0).await else { panic!("no question") };
    assert_eq!(refused.key, Some(prints[1].to_string()));
    assert!(matches!(read(&mut login, refused.clone()).await, Ok(Answer::Again)));
    // It cannot be proved, so the next question is about what is left.
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    assert_eq!(of(&hello).keys, [prints[0].to_string()]);
    let Login::Out { refused, .. } = place.judges(&hello, 1).await else { panic!("let in") };
    assert!(matches!(read(&mut login, refused).await, Err(LoginError::Refused(_))));
    assert!(other.is_spoiled() && !locked.is_spoiled());
}

#[tokio::test]
async fn the_key_that_the_server_names_is_proved_next() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<_> = ["a", "b", "c"].map(|name| made(&dir, name, "")).into();
    let place = Place::listing(dir, &[&keys[2]]);
    let mut login = ClientLogin::new(None, keys.clone());
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    assert_eq!(of(&hello).keys[0], keys[0].public().fingerprint().to_string());
    let Login::Again(refused) = place.judges(&hello, 0).await else { panic!("let in") };
    assert!(matches!(read(&mut login, refused.clone()).await, Ok(Answer::Again)));
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    assert_eq!(of(&hello).keys[0], keys[2].public().fingerprint().to_string());
    assert!(matches!(place.judges(&hello, 1).await, Login::In { .. }));
    // A server that names what it was just shown, or what it was not, is not followed.
    assert!(read(&mut login, refused.clone()).await.is_err());
    let key = Some(Fingerprint::of_blob(b"?").to_string());
    assert!(read(&mut login, Refused { key, ..refused }).await.is_err());
    drop(place.dir);
}

#[tokio::test]
async fn questions_end_one_before_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let locked = made(&dir, "locked", "secret");
    let plain = made(&dir, "plain", "");
    let place = Place::listing(dir, &[&locked, &plain]);
    let hello =
        ClientLogin::new(None, vec![locked]).hello(Some(&channel()), &Nobody).await.unwrap();
    for hellos in 0..HELLOS_LIMIT - 1 {
        assert!(matches!(place.judges(&hello, hellos).await, Login::Again(_)), "{hellos}");
    }
    let Login::Out { refused, .. } = place.judges(&hello, HELLOS_LIMIT - 1).await else { panic!() };
    assert_eq!(refused.code, Code::NotAuthorized);
    let hello = ClientLogin::new(None, vec![plain]).hello(Some(&channel()), &Nobody).await.unwrap();
    assert!(matches!(place.judges(&hello, HELLOS_LIMIT - 1).await, Login::In { .. }));
}

#[tokio::test]
async fn one_key_past_the_limit_is_not_listed() {
    let dir = tempfile::tempdir().unwrap();
    let state = crate::sys::fs::StateDir::open(&path(&dir, "state")).unwrap();
    let key: Key = crate::identity::local_identity(&state).unwrap();
    let ring = KeyRing::of(vec![key; KEYS_LIMIT + 1]);
    let keys = ring.keys(&channel().host_key).await.unwrap();
    assert_eq!(keys.len(), KEYS_LIMIT + 1);
    let hello = ClientLogin::new(None, keys).hello(Some(&channel()), &Nobody).await.unwrap();
    assert_eq!(of(&hello).keys.len(), KEYS_LIMIT);
}

/// As many certificates of a key as are asked for, with this key id.
fn certified(dir: &tempfile::TempDir, key: &Arc<Candidate>, id: &str, count: usize) {
    let keygen = |args: &[&str]| {
        let mut command = std::process::Command::new("ssh-keygen");
        assert!(command.current_dir(dir.path()).arg("-q").args(args).status().unwrap().success());
    };
    keygen(&["-t", "ed25519", "-N", "", "-f", "ca"]);
    for serial in 0..count {
        keygen(&["-s", "ca", "-I", id, "-n", "a", "-z", &serial.to_string(), "key.pub"]);
        key.certify(&Certificate::load(&path(dir, "key-cert.pub")).unwrap());
    }
}

#[tokio::test]
async fn one_certificate_past_the_limit_is_neither_shown_nor_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let key = made(&dir, "key", "");
    certified(&dir, &key, "id", CERTIFICATES_LIMIT + 1);
    let all = key.certificates();
    assert_eq!(all.len(), CERTIFICATES_LIMIT + 1);
    let mut login = ClientLogin::new(None, vec![key]);
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    let mut hello = of(&hello).clone();
    assert_eq!(hello.certificates.len() + 1, CERTIFICATES_LIMIT);
    // The one of a trusted CA comes last.
    let trusted = path(&dir, "trusted");
    let authority = std::fs::read_to_string(path(&dir, "ca.pub")).unwrap();
    std::fs::write(&trusted, format!("cert-authority,principals=\"a\" {authority}")).unwrap();
    let place = Place { authorized: Place::reading(&dir, trusted), dir };
    hello.certificate = Some("AAAA".into());
    hello.certificates = vec!["AAAA".into(); CERTIFICATES_LIMIT - 1];
    for (at, is_in) in [(CERTIFICATES_LIMIT - 2, true), (CERTIFICATES_LIMIT - 1, false)] {
        hello.certificates.insert(at, all[0].to_base64());
        let judged = place.judges(&ClientHeader::Hello(hello.clone()), 0).await;
        assert_eq!(matches!(judged, Login::In { .. }), is_in, "{at}");
        hello.certificates.remove(at);
    }
}

#[tokio::test]
async fn no_more_certificates_are_shown_than_a_stranger_may_send() {
    let dir = tempfile::tempdir().unwrap();
    let key = made(&dir, "key", "");
    certified(&dir, &key, &"i".repeat(2000), CERTIFICATES_LIMIT);
    let keys = std::iter::repeat_n(key, KEYS_LIMIT).collect();
    let hello = ClientLogin::new(None, keys).hello(Some(&channel()), &Nobody).await.unwrap();
    let shown = of(&hello).certificates.len();
    assert!((1..CERTIFICATES_LIMIT - 1).contains(&shown), "{shown}");
    let mut bytes = Vec::new();
    crate::proto::frame::encode(&hello, b"", &mut bytes).unwrap();
    assert!(crate::proto::frame::decode(&bytes, Limits::HELLO).is_ok());
}

#[tokio::test]
async fn without_a_key_nothing_is_said() {
    let mut login = ClientLogin::new(None, Vec::new());
    let none = login.hello(Some(&channel()), &Nobody).await;
    assert!(matches!(none, Err(LoginError::NoKey(_))));
    // Over a unix socket none is needed.
    assert_eq!(of(&login.hello(None, &Nobody).await.unwrap()).keys, [""; 0]);
}

/// Lets everybody in as whoever they ask for, should they prove their key.
struct Open(Arc<Authorized>);

impl Doors for Open {
    async fn door(&self, _: Option<&str>) -> Result<Arc<Authorized>, Refused> {
        Ok(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_proof_is_worth_nothing_for_another_user() {
    let dir = tempfile::tempdir().unwrap();
    let key = made(&dir, "key", "");
    let place = Place::listing(dir, &[&key]);
    let doors = Open(Arc::clone(&place.authorized));
    let mut login = ClientLogin::new(Some("alice".into()), vec![key]);
    let hello = login.hello(Some(&channel()), &Nobody).await.unwrap();
    for (user, is_in) in [(Some("alice"), true), (Some("bob"), false), (None, false)] {
        let hello = Hello { user: user.map(str::to_owned), ..of(&hello).clone() };
        let mut bytes = Vec::new();
        crate::proto::frame::encode(&ClientHeader::Hello(hello), b"", &mut bytes).unwrap();
        let mut reader = FrameReader::new(bytes.as_slice(), Limits::HELLO);
        let origin = Origin::Tls { channel: channel(), caller: HERE };
        let judged = judge(&mut reader, &origin, &doors, 0, |_| ()).await.unwrap();
        assert_eq!(matches!(judged, Login::In { .. }), is_in, "{user:?}");
    }
}
