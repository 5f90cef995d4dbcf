//! Copies of the journal's lines to the system's log, line by line as they are written.
//!
//! Who can write the journal's folder can write another journal; what has gone to a log that is kept
//! elsewhere shows it. A copy is never waited for: what the log does not take at once is counted and
//! told, and stands in the journal all the same.

use std::fmt;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;

use tracing::warn;

use crate::runs::throttle::Throttle;
use crate::sys::mutex::lock;

/// Where syslogd(8) listens.
const SYSLOG: &str = "/dev/log";
/// Where systemd-journald(8) listens.
const JOURNALD: &str = "/run/systemd/journal/socket";
/// Facility authpriv, severity informational (RFC 5424, section 6.2.1): 10 * 8 + 6.
const PRIORITY: u32 = 86;
const NAME: &str = "rexec-server";

/// Where copies go: `syslog`, `journald`, and after a colon the socket, if it is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTo {
    protocol: Protocol,
    socket: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// The datagrams of syslog(3).
    Syslog,
    /// Those of the journal's native protocol, <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
    Journald,
}

impl FromStr for CopyTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, socket) = text.split_once(':').map_or((text, None), |(n, s)| (n, Some(s)));
        let (protocol, usual) = match name {
            "syslog" => (Protocol::Syslog, SYSLOG),
            "journald" => (Protocol::Journald, JOURNALD),
            _ => return Err("syslog, journald, or one of them with :SOCKET".into()),
        };
        let socket = PathBuf::from(socket.unwrap_or(usual));
        if socket.is_absolute() {
            Ok(Self { protocol, socket })
        } else {
            Err("the socket's path must begin with /".into())
        }
    }
}

impl CopyTo {
    /// Where the log listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl fmt::Display for CopyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.protocol {
            Protocol::Syslog => "syslog",
            Protocol::Journald => "journald",
        };
        write!(f, "{name}:{}", self.socket.display())
    }
}

/// The way to the system's log.
#[derive(Debug)]
pub struct Copier {
    to: CopyTo,
    socket: UnixDatagram,
    lost: Mutex<Lost>,
    warnings: Throttle,
}

/// How many lines have not been copied.
#[derive(Debug, Default)]
struct Lost {
    all: u64,
    /// When that was last said.
    told: u64,
}

impl Copier {
    /// A way that is tried with each line: the log may be started later, or again.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(to: CopyTo) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { to, socket, lost: Mutex::default(), warnings: Throttle::default() })
    }

    /// Copies a line.
    pub fn copy(&self, line: &[u8]) {
        let datagram = match self.to.protocol {
            Protocol::Syslog => syslog(line),
            Protocol::Journald => journald(line),
        };
        if let Err(e) = self.socket.send_to(&datagram, &self.to.socket) {
            self.lose(&e);
        }
    }

    fn lose(&self, error: &io::Error) {
        let mut lost = lock(&self.lost);
        lost.all += 1;
        if self.warnings.allow().is_some() {
            let count = lost.all - lost.told;
            lost.told = lost.all;
            warn!("{count} lines of the journal were not copied to {}: {error}", self.to);
        }
    }
}

fn syslog(line: &[u8]) -> Vec<u8> {
    let mut datagram = format!("<{PRIORITY}>{NAME}[{}]: ", std::process::id()).into_bytes();
    datagram.extend(line);
    datagram
}

/// JSON has no line breaks outside of its strings, and none in them: one field, one line.
fn journald(line: &[u8]) -> Vec<u8> {
    let mut datagram =
        format!("PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER={NAME}\nMESSAGE=").into_bytes();
    datagram.extend(line);
    datagram.push(b'\n');
    datagram
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen() -> (tempfile::TempDir, UnixDatagram, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = UnixDatagram::bind(&path).unwrap();
        log.set_nonblocking(true).unwrap();
        (dir, log, path)
    }

    fn received(log: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let len = log.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn a_line_arrives_as_each_log_wants_it() {
        let (_dir, log, path) = listen();
        let copy = |name: &str| {
            let to = format!("{name}:{}", path.display()).parse().unwrap();
            Copier::new(to).unwrap().copy(b"{\"seq\":1}");
            received(&log)
        };
        assert_eq!(
            copy("syslog"),
            format!("<86>rexec-server[{}]: {{\"seq\":1}}", std::process::id())
        );
        let fields = copy("journald");
        assert!(fields.ends_with("\nMESSAGE={\"seq\":1}\n"), "{fields}");
        assert!(fields.contains("SYSLOG_IDENTIFIER=rexec-server\n"), "{fields}");
    }

    #[test]
    fn a_log_that_is_full_or_gone_is_not_waited_for_and_what_it_missed_is_counted() {
        let (_dir, log, path) = listen();
        let copier = Copier::new(format!("syslog:{}", path.display()).parse().unwrap()).unwrap();
        for _ in 0..10_000 {
            copier.copy(&[b'x'; 1000]);
        }
        let lost = || copier.lost.lock().unwrap().all;
        let before = lost();
        assert!(before > 1000, "{before}");
        assert!(received(&log).ends_with('x'));
        drop(log);
        // Until it executes its program, a child that another test starts at this moment has the log open too: then
        // there is room for one line, where one was received.
        copier.copy(b"{}");
        copier.copy(b"{}");
        assert!((before + 1..=before + 2).contains(&lost()), "{} after {before}", lost());
    }

    #[test]
    fn only_what_is_known_is_a_place() {
        for good in ["syslog", "journald", "syslog:/run/log"] {
            assert!(good.parse::<CopyTo>().is_ok(), "{good}");
        }
        for bad in ["", "file", "syslog:", "syslog:log", "JOURNALD"] {
            assert!(bad.parse::<CopyTo>().is_err(), "{bad}");
        }
    }
}
