use std::path::PathBuf;
use std::process::Command;

use super::*;
use crate::identity::Barred;

/// A CA and a user's key, made by `ssh-keygen`.
struct Office {
    dir: tempfile::TempDir,
}

impl Office {
    fn open() -> Self {
        let office = Self { dir: tempfile::tempdir().unwrap() };
        for name in ["ca", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
                .arg(office.path(name))
                .status();
            assert!(made.unwrap().success());
        }
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn key(&self, name: &str) -> PublicKey {
        let line = std::fs::read_to_string(self.path(name).with_extension("pub")).unwrap();
        PublicKey::from_base64(line.split(' ').nth(1).unwrap()).unwrap()
    }

    /// What `ssh-keygen -s ca -I id MORE... user.pub` makes.
    fn sign(&self, more: &[&str]) -> Vec<u8> {
        let signed = Command::new("ssh-keygen")
            .args(["-q", "-I", "someone's", "-s"])
            .arg(self.path("ca"))
            .args(more)
            .arg(self.path("user.pub"))
            .output()
            .unwrap();
        assert!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
        let line = std::fs::read_to_string(self.path("user-cert.pub")).unwrap();
        STANDARD.decode(line.split(' ').nth(1).unwrap()).unwrap()
    }

    fn read(&self, more: &[&str]) -> Certificate {
        Certificate::from_blob(&self.sign(more)).unwrap()
    }
}

fn grants(
    certificate: &Certificate,
    principals: Option<&[&str]>,
) -> Result<KeyOptions, Uncertified> {
    let principals = principals.map(|all| all.iter().map(|p| (*p).to_owned()).collect());
    let line = KeyOptions::default();
    certificate.grants((&Authority { principals }, &line), Some("me"), SystemTime::now())
}

#[test]
fn a_certificate_of_ssh_keygen_is_read() {
    let office = Office::open();
    let certificate = office.read(&["-n", "me,you", "-z", "17", "-V", "-1h:+1h"]);
    assert_eq!(certificate.key(), &office.key("user"));
    assert_eq!(certificate.authority().fingerprint(), office.key("ca").fingerprint());
    assert_eq!((certificate.serial(), certificate.id()), (17, "someone's"));
    assert_eq!(certificate.who().to_string(), format!("key:{}", office.key("user").fingerprint()));
    let granted = grants(&certificate, None).unwrap();
    assert!(!granted.no_pty && granted.command.is_none() && granted.from.is_empty());
    let left = granted.expires.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(3600) && left > Duration::from_secs(3000), "{left:?}");
    assert_eq!(grants(&office.read(&["-n", "me"]), None).unwrap().expires, None, "without an end");
}

#[test]
fn a_principal_has_to_be_the_accounts_or_one_of_the_cas_line() {
    let office = Office::open();
    let two = office.read(&["-n", "root,ops"]);
    assert_eq!(grants(&two, None), Err(Uncertified::Principal("root,ops".into())));
    assert!(grants(&two, Some(&["deploy", "ops"])).is_ok());
    let refused = Err(Uncertified::Principal("root,ops".into()));
    assert_eq!(grants(&two, Some(&["deploy", "me"])), refused);
    let nobodys = office.read(&[]);
    for principals in [None, Some(&["me"][..])] {
        assert_eq!(grants(&nobodys, principals), Err(Uncertified::NoPrincipal));
    }
    let (ca, line) = (Authority::default(), KeyOptions::default());
    let nameless = office.read(&["-n", "me"]).grants((&ca, &line), None, SystemTime::now());
    assert!(nameless.is_err(), "an account without a name");
}

#[test]
fn a_certificate_counts_within_its_time() {
    let office = Office::open();
    let (ca, line) = (Authority::default(), KeyOptions::default());
    let valid = ["-n", "me", "-V", "20260101000000Z:20260102000000Z"];
    let certificate = office.read(&valid);
    let at = |text| {
        let now = crate::identity::parse_time(text).unwrap();
        certificate.grants((&ca, &line), Some("me"), now).map(drop)
    };
    assert_eq!(at("20251231235959Z"), Err(Uncertified::NotYet));
    assert_eq!((at("20260101Z"), at("20260101235959Z")), (Ok(()), Ok(())));
    assert_eq!(at("20260102Z"), Err(Uncertified::Expired));
}

#[test]
fn critical_options_are_honoured() {
    let office = Office::open();
    let certificate = office.read(&[
        "-n",
        "me",
        "-O",
        "clear",
        "-O",
        "force-command=echo \"a b\"",
        "-O",
        "source-address=10.0.0.0/8,::1",
        "-O",
        "verify-required",
    ]);
    let granted = grants(&certificate, None).unwrap();
    assert_eq!(granted.command.as_deref(), Some("echo \"a b\""));
    assert!(granted.no_pty && granted.verify_required && granted.is_restricted());
    let now = SystemTime::now();
    assert_eq!(granted.admit(Some([10, 1, 1, 1].into()), now), Ok(()));
    let outside = std::net::IpAddr::from([11, 1, 1, 1]);
    assert_eq!(granted.admit(Some(outside), now), Err(Barred::From(outside)));
}

#[test]
fn a_critical_option_that_is_not_known_refuses_and_an_extension_does_not() {
    let office = Office::open();
    let blob = office.sign(&["-n", "me", "-O", "critical:x@example.com=1"]);
    let error = Certificate::from_blob(&blob).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate's critical option \"x@example.com\" is not known"
    );
    assert!(grants(&office.read(&["-n", "me", "-O", "extension:x@example.com=1"]), None).is_ok());
    let blob = office.sign(&["-n", "me", "-O", "critical:source-address=10.1.0.0/8"]);
    let error = Certificate::from_blob(&blob).unwrap_err();
    assert!(
        error.to_string().contains("\"source-address\" is wrong: 10.1.0.0/8 has bits"),
        "{error}"
    );
}

#[test]
fn both_the_cas_line_and_the_certificate_hold_back() {
    let office = Office::open();
    let options = ["-n", "me", "-V", "-1h:20300101Z", "-O", "force-command=a", "-O"];
    let certificate = office.read(&[&options[..], &["source-address=10.0.0.0/8"]].concat());
    let ca = Authority::default();
    let merged = |line: &str| {
        let line = KeyOptions::parse(line, crate::identity::Permits::default()).unwrap();
        certificate.grants((&ca, &line), Some("me"), SystemTime::now())
    };
    let line = r#"cert-authority,restrict,from="10.1.*",expiry-time="20290101Z",command="a""#;
    let granted = merged(line).unwrap();
    assert!(granted.restrict && granted.no_pty && granted.authority.is_none());
    assert_eq!(granted.expires, Some(crate::identity::parse_time("20290101Z").unwrap()));
    let now = SystemTime::now();
    assert!(granted.admit(Some([10, 1, 0, 1].into()), now).is_ok());
    assert!(granted.admit(Some([10, 2, 0, 1].into()), now).is_err());
    assert_eq!(merged(r#"cert-authority,command="b""#), Err(Uncertified::Commands));
    let end = merged("cert-authority").unwrap().expires.unwrap() + Duration::from_secs(1);
    assert_eq!(end, crate::identity::parse_time("20300101Z").unwrap());
}

#[test]
fn other_kinds_are_none() {
    let office = Office::open();
    let host = office.sign(&["-h", "-n", "me"]);
    assert_eq!(Certificate::from_blob(&host).unwrap_err(), CertificateError::Host);
    let plain = Certificate::from_blob(office.key("user").blob());
    assert_eq!(plain.unwrap_err(), CertificateError::Malformed);
    // What is trusted as a CA is a key: a certificate's is no key to read a certificate by.
    let certificate = office.sign(&["-n", "me"]);
    assert!(PublicKey::from_blob(&certificate).is_err());
}

#[test]
fn no_flipped_bit_is_accepted() {
    let office = Office::open();
    let blob = office.sign(&["-n", "me", "-O", "force-command=a", "-V", "-1h:+1h"]);
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut changed = blob.clone();
            changed[at] ^= 1 << bit;
            assert!(Certificate::from_blob(&changed).is_err(), "byte {at} bit {bit}");
        }
        let cut = Certificate::from_blob(&blob[..at]);
        assert_eq!(cut.unwrap_err(), CertificateError::Malformed, "cut at {at}");
    }
    let longer = [&blob[..], &[0]].concat();
    assert_eq!(Certificate::from_blob(&longer).unwrap_err(), CertificateError::Malformed);
}

#[test]
fn a_certificate_over_the_limit() {
    let long = vec![0; CERTIFICATE_LIMIT + 1];
    assert_eq!(Certificate::from_blob(&long).unwrap_err(), CertificateError::TooLong);
    assert_eq!(Certificate::from_blob(&long[1..]).unwrap_err(), CertificateError::Malformed);
    let text = "A".repeat(CERTIFICATE_LIMIT.div_ceil(3) * 4 + 1);
    assert_eq!(Certificate::from_base64(&text).unwrap_err(), CertificateError::TooLong);
    assert_eq!(Certificate::from_base64(&text[5..]).unwrap_err(), CertificateError::Malformed);
}

/// Whatever lies beside a key, its login goes on.
#[test]
fn a_pipe_in_the_place_of_a_certificate_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key-cert.pub");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = Certificate::load(&path).unwrap_err();
    assert!(error.ends_with("key-cert.pub is not a regular file"), "{error}");
}
