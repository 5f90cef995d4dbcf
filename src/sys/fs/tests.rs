use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::state::state_path;
use super::testing::put;
use super::*;

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap();
    (dir, path)
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn vars<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
    |name| pairs.iter().find(|(k, _)| *k == name).map(|(_, v)| OsString::from(v))
}

fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<_> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

#[test]
fn the_path_comes_from_the_environment() {
    let path = |pairs: &[(&str, &str)]| {
        state_path(vars(pairs), || None).map(|p| p.display().to_string()).map_err(|e| e.to_string())
    };
    assert_eq!(path(&[("REXEC_STATE_DIR", "/s"), ("HOME", "/h")]).unwrap(), "/s");
    assert_eq!(path(&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")]).unwrap(), "/x/rexec");
    assert_eq!(path(&[("HOME", "/h")]).unwrap(), "/h/.local/state/rexec");
    assert_eq!(
        path(&[("XDG_STATE_HOME", "x"), ("REXEC_STATE_DIR", ""), ("HOME", "/h")]).unwrap(),
        "/h/.local/state/rexec"
    );
    assert!(path(&[]).unwrap_err().starts_with("HOME is not set, and "));
    assert!(path(&[("HOME", "h")]).unwrap_err().starts_with("HOME is not an absolute path; "));
    assert_eq!(
        path(&[("REXEC_STATE_DIR", "s")]).unwrap_err(),
        "REXEC_STATE_DIR=s is not an absolute path"
    );
    for unset in [&[][..], &[("HOME", "")]] {
        let found = state_path(vars(unset), || Some("/a".into())).unwrap();
        assert_eq!(found, Path::new("/a/.local/state/rexec"));
    }
}

#[test]
fn missing_folders_are_made_private() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("a/b/c")).unwrap();
    for part in ["a", "a/b", "a/b/c"] {
        assert_eq!(root.join(part).metadata().unwrap().mode() & 0o7777, 0o700);
    }
    let sub = dir.subdir("instances").unwrap();
    assert_eq!(sub.path(), root.join("a/b/c/instances"));
    assert_eq!(sub.path().metadata().unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn a_folder_that_others_can_write_is_named() {
    let (_guard, root) = temp();
    let open = root.join("open");
    std::fs::create_dir(&open).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        chmod(&open, mode);
        let error = StateDir::open(&open.join("state")).unwrap_err();
        assert!(matches!(&error, FsError::Writable { path, .. } if *path == open), "{error}");
        assert!(error.to_string().contains(&format!("chmod go-w {}", open.display())));
    }
    chmod(&open, 0o1777);
    StateDir::open(&open.join("state")).unwrap();
}

#[test]
fn another_owner_is_named_with_what_to_do() {
    let (_guard, root) = temp();
    let state = root.join("state");
    std::fs::create_dir(&state).unwrap();
    // Seen by a process of another uid, the folder of this one is another's.
    let other = euid() + 1;
    let error = StateDir::open_as(&state, other).unwrap_err();
    if euid() == 0 {
        // On the way root's folders are fine; the last must be one's own.
        assert!(matches!(&error, FsError::Owner { path, owner: 0, .. } if *path == state));
    }
    let text = FsError::StateOwner(Box::new(error)).to_string();
    assert!(text.contains(&format!("but this process is uid {other}; set REXEC_STATE_DIR")));
}

#[test]
fn only_an_empty_folder_is_closed_to_others() {
    let (_guard, root) = temp();
    let state = root.join("state");
    std::fs::create_dir(&state).unwrap();
    chmod(&state, 0o755);
    StateDir::open(&state).unwrap();
    assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o700);

    chmod(&state, 0o755);
    std::fs::create_dir(state.join("something")).unwrap();
    let error = StateDir::open(&state).unwrap_err();
    assert!(matches!(error, FsError::Shared { mode: 0o755, .. }), "{error}");
    assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
fn a_folder_that_its_owner_cannot_write_is_not_said_to_be_open_to_others() {
    let (_guard, root) = temp();
    let state = root.join("state");
    std::fs::create_dir_all(state.join("something")).unwrap();
    for mode in [0o500, 0o600, 0o400] {
        chmod(&state, mode);
        let opened = StateDir::open(&state);
        chmod(&state, 0o700);
        let text = opened.unwrap_err().to_string();
        // Without the right to search it, only root gets so far as to see its mode.
        if euid() == 0 || mode == 0o500 {
            let said = format!(
                "{0} cannot be used by its owner (mode {mode:04o}); run: chmod 700 {0}",
                state.display()
            );
            assert_eq!(text, said);
        }
    }
}

#[test]
fn links_are_followed_and_checked() {
    let (_guard, root) = temp();
    std::fs::create_dir(root.join("real")).unwrap();
    chmod(&root.join("real"), 0o700);
    symlink("real", root.join("relative")).unwrap();
    symlink(root.join("real"), root.join("absolute")).unwrap();
    StateDir::open(&root.join("relative/x")).unwrap();
    StateDir::open(&root.join("absolute/../absolute/y")).unwrap();
    assert_eq!(names(&root.join("real")), ["x", "y"]);

    symlink("loop", root.join("loop")).unwrap();
    assert!(matches!(StateDir::open(&root.join("loop/x")).unwrap_err(), FsError::Links(_)));
    symlink("nowhere", root.join("dangling")).unwrap();
    StateDir::open(&root.join("dangling/z")).unwrap();
    assert!(root.join("nowhere/z").is_dir());
}

#[test]
fn a_file_in_the_way_is_named() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    create_once(&dir, "file", 0o600, b"x").unwrap();
    let error = StateDir::open(&root.join("state/file/x")).unwrap_err();
    assert!(matches!(error, FsError::NotAFolder(path) if path == root.join("state/file")));
    assert!(matches!(dir.subdir("file").unwrap_err(), FsError::NotAFolder(_)));
    for name in ["", ".", "..", "a/b", "/a", "a/"] {
        assert!(matches!(dir.subdir(name).unwrap_err(), FsError::Name(_)), "{name:?}");
    }
}

#[test]
fn only_the_first_creates() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    assert!(create_once(&dir, "name", 0o600, b"first").unwrap());
    assert!(!create_once(&dir, "name", 0o600, b"second").unwrap());
    assert_eq!(*dir.read_private("name", 100).unwrap(), b"first");
    assert_eq!(names(dir.path()), ["name"]);
}

#[test]
fn of_many_creators_one_wins_and_all_read_a_whole_file() {
    for _ in 0..20 {
        let (_guard, root) = temp();
        let dir = StateDir::open(&root.join("state")).unwrap();
        let won: usize = std::thread::scope(|scope| {
            let make = |i: u8| {
                let made = create_once(&dir, "name", 0o600, &[i; 5000]).unwrap();
                let read = dir.read_private("name", 5000).unwrap();
                assert!(read.len() == 5000 && read.iter().all(|b| *b == read[0]));
                usize::from(made)
            };
            let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || make(i))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(names(dir.path()), ["name"]);
    }
}

#[test]
fn without_hard_links_only_the_first_creates_too() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    for (content, first) in [("one", true), ("two", false)] {
        let temp = Temp::write(dir.as_fd(), 0o600, content.as_bytes()).unwrap();
        let name = temp.name.clone();
        assert_eq!(rename_if_free(dir.as_fd(), &name, Path::new("name")).unwrap(), first);
    }
    assert_eq!(*dir.read_private("name", 3).unwrap(), b"one");
    assert_eq!(names(dir.path()), ["name"]);
}

/// `/dev/full` cannot hold a folder, so the disk is full here by the process' own file size limit.
#[test]
fn a_full_disk_leaves_nothing() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact sys::fs::tests::fills_the_disk";
    let status = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("REXEC_TEST_FULL", dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(names(dir.path()), ["tried"]);
}

/// The other half of [`a_full_disk_leaves_nothing`]; alone it has nothing to do.
#[test]
fn fills_the_disk() {
    let Some(path) = std::env::var_os("REXEC_TEST_FULL") else { return };
    let dir = StateDir::open(Path::new(&path)).unwrap();
    let error = create_once(&dir, "name", 0o600, &[7; 100_000]).unwrap_err();
    assert!(matches!(error, FsError::Io { action: "write", .. }), "{error}");
    dir.subdir("tried").unwrap();
}

#[test]
fn a_secret_must_be_secret() {
    let (_guard, root) = temp();
    let path = root.join("key");
    put(&path, 0o600, b"secret");
    assert_eq!(*read_private(&path, 6).unwrap(), b"secret");
    assert!(matches!(read_private(&path, 5).unwrap_err(), FsError::TooLong { limit: 5, .. }));
    for mode in [0o640, 0o604, 0o620] {
        chmod(&path, mode);
        assert!(matches!(read_private(&path, 6).unwrap_err(), FsError::Readable { .. }));
    }
    assert!(read_private(&root.join("none"), 6).unwrap_err().is_missing());
    assert!(matches!(read_private(Path::new("/dev/null"), 6).unwrap_err(), FsError::NotAFile(_)));
}

#[test]
fn a_pipe_is_not_waited_for() {
    let (_guard, root) = temp();
    let path = root.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    assert!(matches!(read_private(&path, 6).unwrap_err(), FsError::NotAFile(_)));
    assert!(matches!(read_public(&path, 6).unwrap_err(), FsError::NotAFile(_)));
    assert!(matches!(TrustedFile::open(&path).unwrap_err(), FsError::NotAFile(_)));
}

#[test]
fn public_text_is_bounded_and_is_text() {
    let (_guard, root) = temp();
    let path = root.join("key.pub");
    for (bytes, text) in [(&b"public"[..], Some("public")), (b"public!", None), (b"\xff", None)] {
        put(&path, 0o666, bytes);
        assert_eq!(read_public(&path, 6).ok().as_deref(), text);
    }
    assert!(read_public(&root.join("none"), 6).unwrap_err().is_missing());
}

#[test]
fn a_trusted_file_stands_in_trusted_folders() {
    let (_guard, root) = temp();
    std::fs::create_dir(root.join("ssh")).unwrap();
    chmod(&root.join("ssh"), 0o700);
    let path = root.join("ssh/authorized_keys");
    put(&path, 0o644, b"caf\xe9");
    symlink("ssh/authorized_keys", root.join("link")).unwrap();
    assert_eq!(TrustedFile::open(&root.join("link")).unwrap().read(10).unwrap(), "caf\u{fffd}");
    assert!(matches!(
        TrustedFile::open(&path).unwrap().read(3).unwrap_err(),
        FsError::TooLong { limit: 3, .. }
    ));
    chmod(&path, 0o664);
    assert!(matches!(TrustedFile::open(&path).unwrap_err(), FsError::Writable { .. }));
    chmod(&path, 0o644);
    chmod(&root.join("ssh"), 0o770);
    let error = TrustedFile::open(&root.join("link")).unwrap_err();
    assert!(matches!(error, FsError::Writable { path, .. } if path == root.join("ssh")));
    assert!(TrustedFile::open(&root.join("none")).unwrap_err().is_missing());
    assert!(TrustedFile::open(&root.join("none/none")).unwrap_err().is_missing());
    assert!(matches!(TrustedFile::open(&root).unwrap_err(), FsError::NotAFile(_)));
}

#[test]
fn one_holder_of_a_lock() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    let lock = lock_exclusive(dir.open_append("lock").unwrap()).unwrap();
    assert!(matches!(lock_exclusive(dir.open_append("lock").unwrap()), Err(Locked::Held)));
    assert!(lock.file().metadata().unwrap().is_file());
    drop(lock);
    lock_exclusive(dir.open_append("lock").unwrap()).unwrap();
}

#[test]
fn appending_goes_to_the_end_of_a_private_file() {
    let (_guard, root) = temp();
    let dir = StateDir::open(&root.join("state")).unwrap();
    let (mut one, mut two) = (dir.open_append("j").unwrap(), dir.open_append("j").unwrap());
    one.write_all(b"1").unwrap();
    two.write_all(b"2").unwrap();
    one.write_all(b"3").unwrap();
    assert_eq!(*dir.read_private("j", 3).unwrap(), b"123");
    chmod(&dir.path().join("j"), 0o644);
    assert!(matches!(dir.open_append("j").unwrap_err(), FsError::Readable { .. }));
    symlink("j", dir.path().join("link")).unwrap();
    assert!(dir.open_append("link").is_err());
}
