use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::identity::Key;
use crate::sys::fs::testing::put;

fn key() -> PublicKey {
    Key::generate("").unwrap().0.public().clone()
}

const ABROAD: Caller =
    Caller { address: Some(IpAddr::V4(Ipv4Addr::new(10, 1, 1, 1))), loopback: false };
const HERE: Caller = Caller { address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), loopback: true };

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
    local: PublicKey,
    authorized: Authorized,
}

fn fixture(required: bool) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("authorized_keys");
    let local = key();
    let keys = vec![Source { path: path.clone(), required }];
    let files = AccessFiles { keys, ..AccessFiles::default() };
    let authorized = Authorized::new(files, &local);
    Fixture { _dir: dir, path, local, authorized }
}

impl Fixture {
    fn write(&self, text: &str) {
        put(&self.path, 0o600, text.as_bytes());
    }

    fn who(&self, key: &PublicKey) -> Option<String> {
        let found = self.authorized.lookup(&[Sought::Key(key.clone())], ABROAD).found;
        found.ok().map(|(_, granted)| granted.who.to_string())
    }

    fn news(&self) -> Vec<String> {
        let lookup = self.authorized.lookup(&[Sought::Key(self.local.clone())], ABROAD);
        lookup.news.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn the_file_as_it_is_now_decides() {
    let f = fixture(true);
    let (a, b) = (key(), key());
    f.write(&format!("{a} alice\n"));
    assert_eq!(f.who(&a), Some(format!("key:{}", a.fingerprint())));
    assert_eq!(f.who(&b), None);
    assert_eq!(f.authorized.count().0, 1);
    // Replaced, and changed in place to the same length within one tick of the clock.
    f.write(&format!("{b} bob!!\n"));
    assert_eq!((f.who(&a), f.who(&b).is_some()), (None, true));
    std::fs::write(&f.path, format!("{a} alice\n")).unwrap();
    assert_eq!((f.who(&a).is_some(), f.who(&b)), (true, None));
    std::fs::remove_file(&f.path).unwrap();
    assert_eq!(f.who(&a), None);
}

#[test]
fn the_local_identity_counts_over_loopback_only() {
    let f = fixture(false);
    let print = f.local.fingerprint();
    let local = f.authorized.lookup(&[Sought::Named(print)], HERE);
    assert_eq!(local.found, Ok((print, Granted::local(euid()))));
    assert!(local.news.is_empty());
    assert_eq!(f.authorized.lookup(&[Sought::Named(print)], ABROAD).found, Err(Refusal::Unlisted));
    // Listed by the administrator, it is let in as any other key.
    f.write(&f.local.to_string());
    let (_, granted) = f.authorized.lookup(&[Sought::Named(print)], ABROAD).found.unwrap();
    assert!(matches!(granted.who, Identity::Key { .. }));
}

#[test]
fn bad_lines_are_told_once_for_each_version() {
    let f = fixture(true);
    f.write("rubbish it is\n");
    let told = f.news();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("authorized_keys: line 1: \"rubbish\" is not a type of key"));
    assert!(f.news().is_empty());
    f.write("# new\nrubbish it is\n");
    assert!(f.news()[0].contains("line 2"));
    assert!(f.news().is_empty());
    f.write("# same again\nrubbish it is\n");
    assert_eq!(f.news().len(), 1);
}

#[test]
fn a_file_that_cannot_be_used_lets_nobody_in_and_says_so_once() {
    use std::os::unix::fs::PermissionsExt as _;
    let f = fixture(true);
    let told = f.news();
    assert!(told[0].starts_with("no key of ") && told[0].contains("cannot"), "{told:?}");
    assert!(f.news().is_empty());
    let a = key();
    f.write(&a.to_string());
    assert!(f.who(&a).is_some());
    std::fs::set_permissions(&f.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(f.news()[0].contains("can be written by others"));
    assert!(f.news().is_empty());
    assert_eq!(f.who(&a), None);
}

#[test]
fn a_file_that_need_not_be_there_is_no_news() {
    assert!(fixture(false).news().is_empty());
}

#[test]
fn a_question_about_many_keys_is_answered_from_one_look_at_the_file() {
    let f = fixture(true);
    let keys: Vec<_> = (0..5).map(|_| key()).collect();
    f.write(&format!("{}\n{}\n", keys[4], keys[3]));
    let inotify = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::NONBLOCK).unwrap();
    let opened = rustix::fs::inotify::WatchFlags::OPEN;
    rustix::fs::inotify::add_watch(&inotify, &f.path, opened).unwrap();
    let prints: Vec<_> = keys.iter().map(PublicKey::fingerprint).collect();
    let named: Vec<_> = prints.iter().copied().map(Sought::Named).collect();
    let (first, _) = f.authorized.lookup(&named, ABROAD).found.unwrap();
    assert_eq!(first, prints[3], "the first as they were asked for");
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = rustix::fs::inotify::Reader::new(&inotify, &mut buffer);
    let mut opens = 0;
    while events.next().is_ok() {
        opens += 1;
    }
    assert_eq!(opens, 1);
}

#[test]
fn a_comment_is_no_part_of_who() {
    let fingerprint = key().fingerprint();
    let who = |comment: &str| Identity::Key { fingerprint, comment: comment.to_owned() };
    assert_eq!(who("a"), who("b"));
    assert_ne!(who("a"), Identity::Local { uid: 0 });
    let set: std::collections::HashSet<_> = [who("a"), who("b")].into();
    assert_eq!(set.len(), 1);
}

#[test]
fn unix_peers() {
    assert_eq!(Identity::of_unix_peer(0), Some(Identity::Local { uid: 0 }));
    assert_eq!(Identity::of_unix_peer(euid()), Some(Identity::Local { uid: euid() }));
    assert_eq!(Identity::of_unix_peer(euid() + 1), None);
    assert_eq!(Identity::Local { uid: 7 }.to_string(), "local:7");
}

/// As with sshd: a line that does not count now is passed over, the first that does decides.
#[test]
fn of_several_lines_with_a_key_the_first_that_counts_decides() {
    let f = fixture(true);
    let key = key();
    let command = |caller: Caller| {
        let found = f.authorized.lookup(&[Sought::Key(key.clone())], caller).found;
        found.map(|(_, granted)| granted.options.command.clone().unwrap_or_default())
    };
    f.write(&format!(
        "from=\"192.0.2.1\",command=\"a\" {key}\nexpiry-time=\"20010101\",command=\"b\" {key}\n\
         unheard-of,command=\"c\" {key}\ncommand=\"d\" {key}\ncommand=\"e\" {key}\n"
    ));
    assert_eq!(command(ABROAD).unwrap(), "d");
    let listed = Caller { address: Some([192, 0, 2, 1].into()), loopback: false };
    assert_eq!(command(listed).unwrap(), "a");
    f.write(&format!("# x\nfrom=\"192.0.2.1\" {key}\nexpiry-time=\"20010101\" {key}\n"));
    let refusal = command(ABROAD).unwrap_err().to_string();
    assert!(
        refusal.ends_with("line 2 lists its key, but it may not come from 10.1.1.1"),
        "{refusal}"
    );
}

#[test]
fn a_key_that_signs_certificates_is_not_let_in_itself() {
    let f = fixture(true);
    let key = key();
    f.write(&format!("cert-authority {key}\n"));
    assert_eq!(f.who(&key), None);
    assert_eq!(f.authorized.count().0, 1);
}

/// A login asks for 64 keys at most; the list is as long as lists get.
#[test]
fn a_key_is_found_among_ten_thousand_without_all_of_them_being_understood_again() {
    let f = fixture(true);
    let line = |n: u32| {
        let point = [&n.to_be_bytes()[..], &[7; 28]].concat();
        let blob = [&b"\0\0\0\x0bssh-ed25519\0\0\0\x20"[..], &point].concat();
        PublicKey::from_blob(&blob).unwrap()
    };
    let keys: Vec<_> = (0..10_000).map(line).collect();
    let text: Vec<_> = keys.iter().map(|k| format!("command=\"echo hi\" {k} someone\n")).collect();
    f.write(&text.concat());
    let keys: Vec<_> = keys[9_000..9_064].iter().cloned().map(Sought::Key).collect();
    let ask = || {
        let start = std::time::Instant::now();
        assert_eq!(f.authorized.lookup(&keys, ABROAD).found.unwrap().0, keys[0].fingerprint());
        start.elapsed()
    };
    let first = ask();
    // The file was just written, so it is read each time.
    let best = (0..20).map(|_| ask()).min().unwrap();
    assert!(best * 4 < first, "first {first:?}, then {best:?}");
}

/// A CA, and a certificate that it has signed for `names`.
fn certificate(dir: &Path, names: &str) -> (PublicKey, Certificate) {
    let keygen = |args: &[&str]| {
        let mut command = std::process::Command::new("ssh-keygen");
        assert!(command.current_dir(dir).arg("-q").args(args).status().unwrap().success());
    };
    for name in ["ca", "user"] {
        keygen(&["-t", "ed25519", "-N", "", "-f", name]);
    }
    keygen(&["-s", "ca", "-I", "the id", "-z", "17", "-n", names, "user.pub"]);
    let word = |file: &str| {
        let line = std::fs::read_to_string(dir.join(file)).unwrap();
        line.split(' ').nth(1).unwrap().to_owned()
    };
    let ca = PublicKey::from_base64(&word("ca.pub")).unwrap();
    (ca, Certificate::from_base64(&word("user-cert.pub")).unwrap())
}

/// A folder with the files `keys`, `cas` and `revoked`, which are there and empty.
fn three() -> (tempfile::TempDir, PathBuf, Authorized) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    let file = |name: &str| {
        std::fs::write(path.join(name), "").unwrap();
        vec![Source { path: path.join(name), required: true }]
    };
    let files = AccessFiles {
        keys: file("keys"),
        authorities: file("cas"),
        revoked: file("revoked"),
        permits: Permits::default(),
    };
    let authorized = Authorized::new(files, &key());
    (dir, path, authorized)
}

#[test]
fn a_ca_is_trusted_by_either_file_and_only_as_a_ca() {
    let (_dir, path, authorized) = three();
    let me = account().unwrap().name.into_string().unwrap();
    let (ca, certificate) = certificate(&path, &me);
    let granted = || authorized.certified(&certificate, ABROAD).granted;
    let put = |file: &str, text: String| std::fs::write(path.join(file), text).unwrap();
    assert_eq!(granted(), Err(Refusal::Authority(ca.fingerprint())));
    put("keys", format!("{ca}\n"));
    assert_eq!(granted(), Err(Refusal::Authority(ca.fingerprint())), "a key that is no CA");
    put("keys", format!("cert-authority {ca}\n"));
    assert!(granted().is_ok());
    put("keys", format!("cert-authority,principals=\"other\" {ca}\n"));
    let refusal = granted().unwrap_err().to_string();
    assert!(
        refusal.contains("line 1 trusts the CA of its certificate, but it is for"),
        "{refusal}"
    );
    put("cas", format!("# ours\n{ca} comment\n"));
    let comment = match granted().unwrap().who {
        Identity::Key { fingerprint, comment }
            if fingerprint == certificate.key().fingerprint() =>
        {
            comment
        }
        other => panic!("{other}"),
    };
    assert_eq!(comment, "the id");
    // The first line that lets it in counts.
    put(
        "keys",
        format!("cert-authority,principals=\"x\" {ca}\ncert-authority,command=\"b\" {ca}\n"),
    );
    assert_eq!(granted().unwrap().options.command.as_deref(), Some("b"));
    put("keys", String::new());
    put("cas", format!("cert-authority {ca}\n"));
    let again = authorized.certified(&certificate, ABROAD);
    assert_eq!(again.granted, Err(Refusal::Authority(ca.fingerprint())));
    assert!(
        again.news[0].to_string().contains("line 1: a key that signs certificates stands here")
    );
}

#[test]
fn what_is_revoked_is_not_let_in_and_a_list_that_is_not_understood_lets_in_nobody() {
    let (_dir, path, authorized) = three();
    let (ca, certificate) = certificate(&path, "someone");
    let plain = key();
    let put = |file: &str, text: String| std::fs::write(path.join(file), text).unwrap();
    put("keys", format!("{plain}\ncert-authority,principals=\"someone\" {ca}\n"));
    let ask = || {
        let key = authorized.lookup(&[Sought::Key(plain.clone())], ABROAD).found;
        (key.is_ok(), authorized.certified(&certificate, ABROAD).granted.is_ok())
    };
    assert_eq!(ask(), (true, true));
    for (line, answer) in [
        (plain.to_string(), (false, true)),
        (plain.fingerprint().to_string(), (false, true)),
        (certificate.key().to_string(), (true, false)),
        (format!("hash: {}", ca.fingerprint()), (true, false)),
        ("serial: 17".into(), (true, false)),
        ("serial: 1-16".into(), (true, true)),
        ("serial: 10-20".into(), (true, false)),
        ("id: the id".into(), (true, false)),
        ("id: the".into(), (true, true)),
        ("nonsense".into(), (false, false)),
    ] {
        put("revoked", format!("# list\n{line}\n"));
        assert_eq!(ask(), answer, "{line}");
    }
    put("revoked", "".into());
    assert_eq!(ask(), (true, true));
    std::fs::remove_file(path.join("revoked")).unwrap();
    assert_eq!(ask(), (false, false), "a list that has vanished");
    // Who is on this machine and of this account is asked for no key that could be revoked.
    assert!(authorized.lookup(&[Sought::Named(authorized.local.unwrap())], HERE).found.is_ok());
}
