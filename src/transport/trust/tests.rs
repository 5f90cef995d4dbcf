use super::*;
use crate::identity::host_key;
use crate::sys::fs::StateDir;
use crate::sys::fs::testing::put;

struct Fixture {
    dir: tempfile::TempDir,
    key: PublicKey,
    other: PublicKey,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let key =
        |name: &str| host_key(&StateDir::open(&root.join(name)).unwrap()).unwrap().public().clone();
    let (key, other) = (key("a"), key("b"));
    Fixture { dir, key, other }
}

impl Fixture {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().canonicalize().unwrap().join(name);
        put(&path, 0o600, text.as_bytes());
        path
    }

    fn check(&self, trust: &HostTrust, endpoint: &str) -> Result<(), HostKeyError> {
        trust.check(&endpoint.parse().unwrap(), &self.key)
    }
}

#[test]
fn a_pinned_key_is_the_only_one_and_counts_unless_it_is_revoked() {
    let f = fixture();
    let pinned = |print, text: String| HostTrust {
        pins: vec![print],
        files: vec![f.file("k", ""), f.file("l", &text)],
        own: Some(f.other.clone().into()),
        ..HostTrust::default()
    };
    let (key, other) = (f.key.fingerprint(), f.other.fingerprint());
    for text in [String::new(), format!("host {}", f.other), "rubbish".into()] {
        f.check(&pinned(key, text), "host:1").unwrap();
    }
    f.check(&pinned(key, String::new()), "localhost:1").unwrap();
    let error = f.check(&pinned(other, format!("localhost {}", f.key)), "localhost:1").unwrap_err();
    assert!(matches!(error, HostKeyError::NotPinned { .. }));
    let error = f.check(&pinned(key, format!("@revoked * {}", f.key)), "host:1").unwrap_err();
    assert!(matches!(error, HostKeyError::Revoked { line: 1, .. }));
}

#[test]
fn files_go_before_ones_own_key() {
    let f = fixture();
    let trust = |text: &str| HostTrust {
        pins: Vec::new(),
        files: vec![f.file("k", text)],
        own: Some(f.other.clone().into()),
        ..HostTrust::default()
    };
    f.check(&trust(&format!("[127.0.0.1]:1 {}", f.key)), "127.0.0.1:1").unwrap();
    let changed = f.check(&trust(&format!("[127.0.0.1]:1 {}", f.other)), "127.0.0.1:1");
    assert!(matches!(changed.unwrap_err(), HostKeyError::Changed { line: 1, .. }));
    let revoked = f.check(&trust(&format!("@revoked * {}", f.key)), "127.0.0.1:1");
    assert!(matches!(revoked.unwrap_err(), HostKeyError::Revoked { line: 1, .. }));
}

#[test]
fn all_files_are_asked() {
    let f = fixture();
    let known = f.file("known", &format!("host {}", f.key));
    let changed = f.file("changed", &format!("host {}", f.other));
    let revoked = f.file("revoked", &format!("@revoked host {}", f.key));
    let trust = |files: &[&PathBuf]| HostTrust {
        files: files.iter().map(|f| (*f).clone()).collect(),
        ..HostTrust::default()
    };
    f.check(&trust(&[&changed, &known]), "host:1").unwrap();
    let error = f.check(&trust(&[&known, &revoked]), "host:1").unwrap_err();
    assert!(matches!(error, HostKeyError::Revoked { .. }));
    let error = f.check(&trust(&[&changed]), "host:1").unwrap_err().to_string();
    assert!(error.contains("replace that line"), "{error}");
}

#[test]
fn on_this_machine_ones_own_key_is_known() {
    let f = fixture();
    let trust =
        |own: &PublicKey| HostTrust { own: Some(own.clone().into()), ..HostTrust::default() };
    for endpoint in ["localhost:1", "127.0.0.1:1", "[::1]:1"] {
        f.check(&trust(&f.key), endpoint).unwrap();
        let error = f.check(&trust(&f.other), endpoint).unwrap_err().to_string();
        assert!(error.starts_with("another user or program answers on "), "{error}");
    }
    let elsewhere = f.check(&trust(&f.key), "host:1").unwrap_err();
    assert!(matches!(elsewhere, HostKeyError::Unknown(_)));
}

#[test]
fn the_line_to_add_makes_it_known() {
    let f = fixture();
    let file = f.file("k", "@cert-authority * ssh-ed25519 AAAA\n");
    let trust = HostTrust { files: vec![file.clone()], ..HostTrust::default() };
    let error = f.check(&trust, "[2001:db8::1]:8080").unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&f.key.fingerprint().to_string()), "{text}");
    assert!(
        text.contains("left out: ") && text.contains("@cert-authority is not honoured"),
        "{text}"
    );
    let HostKeyError::Unknown(unknown) = error else { panic!("{error}") };
    let line = unknown.line;
    assert!(text.contains(&line));
    put(&file, 0o600, line.as_bytes());
    f.check(&trust, "[2001:db8::1]:8080").unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let f = fixture();
    let path = f.dir.path().canonicalize().unwrap().join("a");
    let trust =
        HostTrust { files: vec![path], own: Some(f.key.clone().into()), ..HostTrust::default() };
    assert!(matches!(f.check(&trust, "localhost:1"), Err(HostKeyError::File(_))));
}

#[test]
fn files_are_read_again_after_a_moment_and_never_taken_for_others() {
    let f = fixture();
    let (one, other) = (f.file("one", &format!("host {}", f.key)), f.file("other", ""));
    let recent = Recent::default();
    let knows = |file: &PathBuf, now: Duration| {
        let said = recent.load(std::slice::from_ref(file), now).unwrap();
        said[0].1.check("host", 1, &f.key) != Known::Unknown
    };
    assert!(knows(&one, Duration::ZERO));
    assert!(!knows(&other, Duration::ZERO));
    assert!(knows(&one, Duration::ZERO));
    f.file("one", "");
    assert!(knows(&one, FRESH - Duration::from_nanos(1)));
    assert!(!knows(&one, FRESH));
    assert!(recent.load(&[f.dir.path().into()], FRESH).is_err(), "a folder is no file");
    assert!(!knows(&one, FRESH));
}
