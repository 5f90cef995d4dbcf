//! Who is measured: the local shell, rexec, and the programs that people would use instead.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::proc::Server;

/// Its line in each row.
pub(crate) const DROPBEAR: &str = "dropbear";
/// The fastest that OpenSSH's two ends agree on; as shipped it prefers a post-quantum key exchange
/// and ChaCha20.
const FAST: [&str; 4] = [
    "-oKexAlgorithms=curve25519-sha256",
    "-oCiphers=aes128-gcm@openssh.com",
    "-oCompression=no",
    "-x",
];

/// The rexec server and its client.
#[derive(Debug, Clone)]
pub(crate) struct Rexec {
    pub(crate) addr: String,
    pub(crate) server: Server,
}

/// The SSH server and its client.
#[derive(Debug, Clone)]
pub(crate) struct Ssh {
    pub(crate) config: PathBuf,
    pub(crate) port: u16,
    pub(crate) server: Server,
}

/// Dropbear's server and its client.
#[derive(Debug, Clone)]
pub(crate) struct Dropbear {
    /// The private key in its own format.
    pub(crate) key: PathBuf,
    pub(crate) user: String,
    pub(crate) port: u16,
    pub(crate) server: Server,
}

/// What there is to measure.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    pub(crate) rexec: Rexec,
    pub(crate) ssh: Option<Ssh>,
    pub(crate) dropbear: Option<Dropbear>,
}

/// Makes the command for shell text, reaching the server at a port.
type MakeCommand = Box<dyn Fn(u16, &str) -> Command + Sync>;

/// A way to run shell text.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// Where its commands run; none: here.
    pub(crate) server: Option<Server>,
    /// The port of that server.
    pub(crate) port: u16,
    /// How.
    pub(crate) command: MakeCommand,
}

impl Contender {
    /// The command for shell text.
    pub(crate) fn run(&self, text: &str) -> Command {
        (self.command)(self.port, text)
    }
}

impl Rexec {
    pub(crate) fn port(&self) -> u16 {
        self.addr.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_default()
    }

    /// The client, with these options.
    pub(crate) fn contender(&self, name: &'static str, options: &'static [&str]) -> Contender {
        let command = Box::new(move |port, text: &str| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_rexec"));
            command.args(options).arg(format!("127.0.0.1:{port}")).arg(text);
            command
        });
        Contender { name, server: Some(self.server), port: self.port(), command }
    }
}

impl Ssh {
    /// As shipped, and as fast as it gets.
    fn contenders(&self) -> Vec<Contender> {
        let settings = [("ssh as shipped", &[][..]), ("ssh curve25519, aes128-gcm", &FAST[..])];
        let contender = |(name, options): (&'static str, &'static [&str])| {
            let from = self.clone();
            let command = Box::new(move |port, text: &str| {
                let mut command = from.command(port);
                command.args(options).arg("bench").arg(text);
                command
            });
            Contender { name, server: Some(self.server), port: self.port, command }
        };
        settings.into_iter().map(contender).collect()
    }

    /// An ssh command as shipped.
    pub(crate) fn command(&self, port: u16) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config).arg("-T").arg(format!("-oPort={port}"));
        command
    }

    /// A client of the connection that a master holds at `socket`.
    pub(crate) fn through(&self, socket: &Path) -> Command {
        let mut command = self.command(self.port);
        command.arg("-S").arg(socket);
        command
    }
}

impl Dropbear {
    fn contender(&self) -> Contender {
        let from = self.clone();
        let command = Box::new(move |port: u16, text: &str| {
            let mut command = Command::new("dbclient");
            // It knows the hosts of the account only: here it looks at no list, and says so each time.
            command.args(["-y", "-y", "-i"]).arg(&from.key).stderr(Stdio::null());
            command.arg("-p").arg(port.to_string());
            command.arg(format!("{}@127.0.0.1", from.user)).arg(text);
            command
        });
        Contender { name: DROPBEAR, server: Some(self.server), port: self.port, command }
    }
}

impl Peers {
    /// Everybody, the local shell first.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let local = Box::new(|_, text: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", text]);
            command
        });
        let mut all =
            vec![Contender { name: "local sh -c", server: None, port: 0, command: local }];
        all.push(self.rexec.contender("rexec", &[]));
        all.extend(self.ssh.iter().flat_map(Ssh::contenders));
        all.extend(self.dropbear.iter().map(Dropbear::contender));
        all
    }
}
