//! User certificates: made by `ssh-keygen`, offered by `rexec -i KEY` that finds `KEY-cert.pub` beside it, and
//! judged by the server for each request.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rexec::client::{Error, Target};
use rexec::identity::{KeyRing, Nobody};
use rexec::proto::code::Code;
use rexec::transport::HostTrust;

use super::support::agent::RealAgent;
use super::support::{Client, Ran, Server, program, wait_until};

fn keygen(folder: &Path, args: &[&str]) {
    let mut command = Command::new("ssh-keygen");
    let made = command.current_dir(folder).arg("-q").args(args).output().unwrap();
    assert!(made.status.success(), "{args:?}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A CA that a server trusts for `deploy`, and a user whose key no file lists.
struct Office {
    here: tempfile::TempDir,
    server: Server,
}

impl Office {
    /// `kind`: of the CA's key. `options`: of its line, with a comma behind them.
    fn open(kind: &[&str], options: &str) -> Self {
        let here = tempfile::tempdir().unwrap();
        for (name, kind) in [("ca", kind), ("user", &["ed25519"][..]), ("nobody", &["ed25519"])] {
            keygen(here.path(), &[&["-N", "", "-C", name, "-f", name, "-t"], kind].concat());
        }
        for name in ["keys", "cas", "revoked"] {
            std::fs::write(here.path().join(name), "").unwrap();
        }
        let path = |name: &str| here.path().join(name).to_str().unwrap().to_owned();
        let [keys, cas, revoked] = ["keys", "cas", "revoked"].map(path);
        let args =
            ["--authorized-keys", &keys, "--trusted-user-ca", &cas, "--revoked-keys", &revoked];
        let server = Server::start(&args);
        let office = Self { here, server };
        office.trust(options);
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.here.path().join(name)
    }

    fn line(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name).with_extension("pub")).unwrap()
    }

    fn trust(&self, options: &str) {
        let line = format!("{options}cert-authority,principals=\"deploy\" {}", self.line("ca"));
        std::fs::write(self.path("keys"), line).unwrap();
    }

    /// `ssh-keygen -s CA -I ID MORE... user.pub`
    fn sign(&self, ca: &str, more: &[&str]) {
        let args = [&["-s", ca, "-I", "user's badge"], more, &["user.pub"]].concat();
        keygen(self.here.path(), &args);
    }

    fn ask(&self, words: &[&str]) -> Ran {
        let print = super::auth::host_key(&self.server).1.to_string();
        let client = Client::new(&self.path("state")).arg("-i").arg(self.path("user"));
        let address = self.server.addr.replace("127.0.0.1", "127.1");
        client.args(&["--host-key", &print, &address]).args(words).run()
    }

    fn greeted(&self) {
        assert_eq!(self.ask(&["echo hi"]).expect(0).text(), "hi\n");
    }

    /// Nobody is let in, and the log says why. What strangers cause is logged once a second.
    fn refused(&self, why: &str) {
        wait_until(why, || {
            let ran = self.ask(&["echo hi"]).expect(254);
            assert!(
                ran.stderr.contains("none of the client's keys is authorized"),
                "{}",
                ran.stderr
            );
            self.server.log().contains(why)
        });
    }
}

#[test]
fn a_certificate_of_a_trusted_ca_lets_in_whom_it_names() {
    for kind in [&["ed25519"][..], &["ecdsa", "-b", "384"], &["rsa", "-b", "2048"]] {
        let office = Office::open(kind, "");
        office.refused("no key that it listed is authorized");
        office.sign("ca", &["-n", "root,deploy", "-V", "-1h:+1h"]);
        office.greeted();
    }
}

#[test]
fn a_certificate_that_is_not_good_here_and_now_lets_nobody_in() {
    let office = Office::open(&["ed25519"], "");
    for (ca, more, why) in [
        ("ca", &["-n", "deploy", "-V", "-2h:-1h"][..], "but it has expired"),
        ("ca", &["-n", "deploy", "-V", "+1h:+2h"], "but it is not valid yet"),
        ("ca", &["-n", "root"], "but it is for root, and none of them may log in here"),
        ("ca", &[], "but it names no principal"),
        ("nobody", &["-n", "deploy"], "the CA of its certificate, SHA256:"),
        (
            "ca",
            &["-n", "deploy", "-O", "source-address=10.0.0.0/8"],
            "but it may not come from 127.0.0.1",
        ),
    ] {
        office.sign(ca, more);
        office.refused(why);
    }
    // One that is of no use to any server is not offered.
    for (more, why) in [
        (&["-h", "-n", "deploy"][..], "the certificate is for a host, not for a user"),
        (
            &["-n", "deploy", "-O", "critical:x@example.com=1"],
            "critical option \"x@example.com\" is not known",
        ),
    ] {
        office.sign("ca", more);
        let ran = office.ask(&["true"]).expect(254);
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
}

/// SHA-1 is no signature, whoever the CA is (`ssh-keygen -t ssh-rsa`).
#[test]
fn a_certificate_that_is_signed_with_sha_1_is_none() {
    let office = Office::open(&["rsa", "-b", "2048"], "");
    office.sign("ca", &["-n", "deploy", "-t", "rsa-sha2-256"]);
    office.greeted();
    office.sign("ca", &["-n", "deploy", "-t", "ssh-rsa"]);
    let ran = office.ask(&["true"]).expect(254);
    assert!(
        ran.stderr.contains("user-cert.pub: the certificate's signature is not its CA's"),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_a_certificate_imposes_is_imposed() {
    let office = Office::open(&["ed25519"], "");
    let imposed = "force-command=echo \"imposed: $SSH_ORIGINAL_COMMAND\"";
    let options = ["-n", "deploy", "-O", imposed, "-O", "source-address=127.0.0.0/8"];
    office.sign("ca", &options);
    assert_eq!(office.ask(&["id", "-u"]).expect(0).text(), "imposed: id -u\n");
    office.trust("command=\"echo the line\",");
    office.refused("but it imposes another command than its CA's line does");
    office.sign("ca", &["-n", "deploy"]);
    assert_eq!(office.ask(&["id"]).expect(0).text(), "the line\n");
}

#[test]
fn a_ca_for_this_account_needs_its_name_in_the_certificate() {
    let office = Office::open(&["ed25519"], "");
    std::fs::write(office.path("keys"), "").unwrap();
    std::fs::write(office.path("cas"), office.line("ca")).unwrap();
    office.sign("ca", &["-n", "deploy"]);
    office.refused("but it is for deploy");
    let me = Command::new("id").arg("-un").output().unwrap().stdout;
    office.sign("ca", &["-n", String::from_utf8(me).unwrap().trim()]);
    office.greeted();
}

#[test]
fn what_is_revoked_is_refused_its_next_request_on_an_open_connection() {
    let office = Office::open(&["ed25519"], "");
    office.sign("ca", &["-n", "deploy", "-z", "17"]);
    let trust =
        HostTrust { pins: vec![super::auth::host_key(&office.server).1], ..HostTrust::default() };
    let target = Target {
        user: None,
        endpoint: office.server.addr.parse().unwrap(),
        trust: Arc::new(trust),
        keys: KeyRing::named(&[office.path("user")], Arc::new(Nobody)).unwrap(),
        connect_timeout: super::support::PATIENCE,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = rexec::Client::new(target);
        let hi = rexec::Command::shell("echo hi");
        let print = office.line("ca");
        for revoked in
            ["serial: 17\n", "id: user's badge\n", &print, &office.line("user"), "nonsense\n"]
        {
            assert_eq!(client.output(&hi).await.unwrap().stdout, b"hi\n");
            std::fs::write(office.path("revoked"), revoked).unwrap();
            let denied = client.output(&hi).await.unwrap_err();
            let code = Code::NotAuthorized;
            assert!(
                matches!(denied, Error::Refused { code: c, .. } if c == code),
                "{revoked} {denied:?}"
            );
            std::fs::write(office.path("revoked"), "serial: 1-16\n").unwrap();
        }
    });
    std::fs::write(office.path("revoked"), "serial: 17\n").unwrap();
    office.refused("revokes its key or certificate");
}

/// The server is asked first, so nobody types a passphrase for one that does not trust the CA.
#[test]
fn a_certificate_of_a_key_with_a_passphrase_is_asked_about_first() {
    let office = Office::open(&["ed25519"], "");
    keygen(office.here.path(), &["-p", "-N", "hunter22", "-P", "", "-f", "user"]);
    office.sign("ca", &["-n", "deploy"]);
    let askpass = office.path("askpass");
    program::made(&askpass, "#!/bin/sh\necho asked >&2\necho hunter22\n");
    let ask = || {
        let print = super::auth::host_key(&office.server).1.to_string();
        let client = Client::new(&office.path("state")).arg("-i").arg(office.path("user"));
        let client = client.args(&["--host-key", &print, &office.server.addr, "echo hi"]);
        client.env("REXEC_ASKPASS", &askpass).run()
    };
    assert_eq!(ask().expect(0).text(), "hi\n");
    office.sign("nobody", &["-n", "deploy"]);
    let ran = ask().expect(254);
    assert!(!ran.stderr.contains("asked"), "{}", ran.stderr);
}

/// `ssh-add` gives the agent the key and, as another one, its certificate; some agents have the certificate alone.
#[test]
fn a_certificate_that_only_ssh_agent_has_lets_in_with_or_without_the_bare_key_beside_it() {
    let office = Office::open(&["ed25519"], "");
    office.sign("ca", &["-n", "deploy"]);
    let agent = RealAgent::start();
    agent.add(&office.path("user"));
    // Nothing is left to be found but what the agent has.
    std::fs::remove_file(office.path("user-cert.pub")).unwrap();
    std::fs::remove_file(office.path("user")).unwrap();
    let ask = |options: &[&str]| {
        let print = super::auth::host_key(&office.server).1.to_string();
        let client = Client::new(&office.path("state")).env("SSH_AUTH_SOCK", agent.socket());
        let client = client.env("HOME", office.here.path()).args(options);
        let address = office.server.addr.replace("127.0.0.1", "127.1");
        client.args(&["-v", "--host-key", &print, &address, "echo hi"]).run()
    };
    let named = office.path("user.pub");
    for options in [&[][..], &["-i", named.to_str().unwrap()]] {
        assert_eq!(ask(options).expect(0).text(), "hi\n");
    }
    // The bare key goes, the certificate stays.
    let mut command = Command::new("ssh-add");
    command.args(["-q", "-d"]).arg(&named).env("SSH_AUTH_SOCK", agent.socket());
    assert!(command.status().unwrap().success());
    let ran = ask(&[]).expect(0);
    assert!(ran.stderr.contains("ssh-agent has 1 keys"), "{}", ran.stderr);
    assert_eq!(ask(&["-i", named.to_str().unwrap()]).expect(0).text(), "hi\n");
}

/// ssh-agent keeps a certificate of each CA beside the key, and each of them is as good as the first.
#[test]
fn of_several_certificates_of_a_key_each_is_tried() {
    let office = Office::open(&["ed25519"], "");
    let agent = RealAgent::start();
    for (ca, more) in [
        ("nobody", &["-n", "deploy"][..]),
        ("ca", &["-n", "root"]),
        ("ca", &["-n", "deploy", "-V", "-2h:-1h"]),
        ("ca", &["-n", "deploy", "-V", "+1h:+2h"]),
        ("nobody", &["-n", "deploy", "-z", "1"]),
        ("ca", &["-n", "deploy", "-z", "9"]),
    ] {
        office.sign(ca, more);
        agent.add(&office.path("user"));
    }
    std::fs::remove_file(office.path("user-cert.pub")).unwrap();
    let ask = || {
        let print = super::auth::host_key(&office.server).1.to_string();
        let client = Client::new(&office.path("state")).env("SSH_AUTH_SOCK", agent.socket());
        let client = client.env("HOME", office.here.path()).arg("-i").arg(office.path("user.pub"));
        let address = office.server.addr.replace("127.0.0.1", "127.1");
        client.args(&["-v", "--host-key", &print, &address, "echo hi"]).run()
    };
    std::fs::remove_file(office.path("user")).unwrap();
    let ran = ask().expect(0);
    assert_eq!(ran.text(), "hi\n");
    assert_eq!(ran.stderr.matches("proving").count(), 1, "{}", ran.stderr);
    std::fs::write(office.path("revoked"), "serial: 9\n").unwrap();
    ask().expect(254);
    let why = "trusts the CA of its certificate, but it is for root";
    wait_until("the reason in the log", || office.server.log().contains(why));
}
