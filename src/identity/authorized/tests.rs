use super::*;
use crate::identity::Key;
use crate::sys::fs::atomic_write;

fn key() -> PublicKey {
    Key::generate("").unwrap().0.public().clone()
}

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
    let authorized = Authorized::new(vec![Source { path: path.clone(), required }], &local);
    Fixture { _dir: dir, path, local, authorized }
}

impl Fixture {
    fn write(&self, text: &str) {
        atomic_write(&self.path, 0o600, text.as_bytes()).unwrap();
    }

    fn who(&self, key: &PublicKey) -> Option<String> {
        let found = self.authorized.lookup(&[key.fingerprint()], false).found;
        found.map(|(_, who)| who.to_string())
    }

    fn news(&self) -> Vec<String> {
        let lookup = self.authorized.lookup(&[self.local.fingerprint()], false);
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
    let local = f.authorized.lookup(&[print], true);
    assert_eq!(local.found, Some((print, Identity::Local { uid: euid() })));
    assert!(local.news.is_empty());
    assert_eq!(f.authorized.lookup(&[print], false).found, None);
    // Listed by the administrator, it is let in as any other key.
    f.write(&f.local.to_string());
    assert!(matches!(f.authorized.lookup(&[print], false).found, Some((_, Identity::Key { .. }))));
}

#[test]
fn bad_lines_are_told_once_for_each_version() {
    let f = fixture(true);
    f.write("rubbish\n");
    let told = f.news();
    assert_eq!(told.len(), 1);
    assert!(told[0].ends_with("authorized_keys: line 1: \"rubbish\" is not a type of key"));
    assert!(f.news().is_empty());
    f.write("# new\nrubbish\n");
    assert!(f.news()[0].contains("line 2"));
    assert!(f.news().is_empty());
    f.write("# same again\nrubbish\n");
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
fn a_settled_file_is_not_read_again() {
    let f = fixture(true);
    f.write("rubbish\n");
    let mut file = Watched::new(Source { path: f.path.clone(), required: true });
    assert_eq!(file.refresh().len(), 1);
    let State::Read { settled, entries, .. } = &mut file.state else { panic!("read") };
    assert!(!*settled, "just written");
    let planted = Entry { line: 1, fingerprint: key().fingerprint(), comment: String::new() };
    entries.push(planted);
    *settled = true;
    file.refresh();
    assert_eq!(file.entries().len(), 1, "kept as it was");
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
    let (first, _) = f.authorized.lookup(&prints, false).found.unwrap();
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
