use std::process::Command;

use ssh_key::private::{EcdsaKeypair, RsaKeypair};

use super::*;

fn keygen(args: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let status = Command::new("ssh-keygen").args(["-q", "-f"]).arg(&path).args(args).status();
    assert!(status.unwrap().success());
    (dir, path)
}

/// Every kind that can sign from a file.
const KINDS: [&[&str]; 6] = [
    &["-t", "ed25519"],
    &["-t", "ecdsa", "-b", "256"],
    &["-t", "ecdsa", "-b", "384"],
    &["-t", "rsa", "-b", "2048"],
    &["-t", "rsa", "-b", "3072"],
    &["-t", "rsa", "-b", "4096"],
];

#[test]
fn loads_what_ssh_keygen_made() {
    for kind in KINDS {
        let (_dir, path) = keygen(&[kind, &["-N", "", "-C", "a comment"]].concat());
        let key = Key::load(&path).unwrap();
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(format!("{} a comment\n", key.public()), line);
        let listed = Command::new("ssh-keygen").arg("-lf").arg(&path).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap();
        assert!(listed.contains(&format!(" {} ", key.public().fingerprint())), "{listed}");
        assert!(format!("{key:?}").contains("hidden"));
        assert_eq!(key.tls_signer().is_some(), kind[1] == "ed25519");
    }
}

#[test]
fn a_passphrase_opens_what_ssh_keygen_locked() {
    for kind in KINDS {
        let (_dir, path) = keygen(&[kind, &["-N", "hunter22", "-a", "2"]].concat());
        let KeyFile::Key(stored) = KeyFile::load(&path).unwrap() else { panic!() };
        assert!(stored.is_locked() && !format!("{stored:?}").contains("file"));
        let line = std::fs::read_to_string(path.with_extension("pub")).unwrap();
        assert!(line.starts_with(&stored.public().to_string()));
        for wrong in ["", "hunter2", "hunter222"] {
            let error = stored.unlock(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, KeyError::WrongPassphrase(_)), "{error}");
        }
        assert_eq!(stored.unlock(b"hunter22").unwrap().public(), stored.public());
        let text = stored.open().unwrap_err().to_string();
        assert!(text.contains("nobody to ask") && text.contains("REXEC_ASKPASS"), "{text}");
    }
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    for (kind, part) in [
        (["ecdsa", "521"], "keys of type ecdsa-sha2-nistp521 are not supported"),
        (["rsa", "1024"], "an RSA key has 2048 to 8192 bits, this one has 1024"),
        (["rsa", "2560"], "of another length than 2048, 3072 or 4096 bits; add it to ssh-agent"),
    ] {
        let (_dir, path) = keygen(&["-t", kind[0], "-b", kind[1], "-N", ""]);
        let text = Key::load(&path).unwrap_err().to_string();
        assert!(text.contains(part) && text.contains(path.to_str().unwrap()), "{text}");
    }
}

#[test]
fn damage_is_damage() {
    let path = Path::new("k");
    let (_, pem) = Key::generate("c").unwrap();
    Key::from_openssh(pem.as_bytes(), path).unwrap();
    for cut in 0..pem.len() - 1 {
        assert!(
            matches!(Key::from_openssh(&pem.as_bytes()[..cut], path), Err(KeyError::Damaged(_))),
            "cut at {cut}"
        );
    }
    assert!(Key::from_openssh(b"PuTTY-User-Key-File-3: ssh-ed25519", path).is_err());
}

/// A signature by such a pair gives the private half away.
#[test]
fn halves_of_two_keys_are_no_key() {
    let public = *Key::from_seed(&[8; 32]).unwrap().public.data().ed25519().unwrap();
    let pair = Ed25519Keypair { public, private: Ed25519PrivateKey::from_bytes(&[7; 32]) };
    assert!(Key::from_pair(&pair).is_none());

    let pair = |kind: &str| {
        let (_dir, path) = keygen(&["-t", kind, "-N", ""]);
        PrivateKey::from_openssh(std::fs::read(path).unwrap()).unwrap().key_data().clone()
    };
    let (KeypairData::Ecdsa(one), KeypairData::Ecdsa(two)) = (pair("ecdsa"), pair("ecdsa")) else {
        panic!("ssh-keygen makes other keys")
    };
    let (EcdsaKeypair::NistP256 { public, .. }, EcdsaKeypair::NistP256 { private, .. }) =
        (one.clone(), two)
    else {
        panic!("ssh-keygen makes other keys")
    };
    let mixed = KeypairData::Ecdsa(EcdsaKeypair::NistP256 { public, private });
    assert!(Private::of(&KeypairData::Ecdsa(one)).is_some() && Private::of(&mixed).is_none());

    let (KeypairData::Rsa(one), KeypairData::Rsa(two)) = (pair("rsa"), pair("rsa")) else {
        panic!("ssh-keygen makes other keys")
    };
    let mixed = RsaKeypair::new(one.public().clone(), two.private().clone()).unwrap();
    assert!(Private::of(&KeypairData::Rsa(one)).is_some());
    assert!(Private::of(&KeypairData::Rsa(mixed)).is_none());
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    fs::atomic_write(&path, 0o600, &vec![b'x'; KEY_FILE_LIMIT + 1]).unwrap();
    assert!(matches!(Key::load(&path), Err(KeyError::File(FsError::TooLong { .. }))));
}
