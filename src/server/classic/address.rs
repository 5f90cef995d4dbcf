//! The argument of `--classic`, and what is said of it at start.

use std::fmt;
use std::str::FromStr;

use crate::sys::fs;
use crate::transport::{Endpoint, EndpointError, ListenAddr};

/// `overflowuid` unless somebody has changed it.
const OVERFLOW_UID: u32 = 65_534;

/// The form of a reply, for a body of `n` bytes. Lengths are four bytes, little-endian, as
/// `struct.pack('i', n)` of Python writes them on the machines that this program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The length of a header; the header, `{"filename": null, "hash": "<SHA-256, 64 hex digits>",
    /// "size": n}`; the body.
    Json,
    /// The length of the body; the body.
    Length,
    /// The body alone. An empty one cannot be told from a command that is still running.
    Raw,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Length => "length",
            Self::Raw => "raw",
        })
    }
}

impl FromStr for Kind {
    type Err = ClassicAddrError;

    fn from_str(text: &str) -> Result<Self, ClassicAddrError> {
        match text {
            "json" => Ok(Self::Json),
            "length" => Ok(Self::Length),
            "raw" => Ok(Self::Raw),
            _ => Err(ClassicAddrError::Kind(text.to_owned())),
        }
    }
}

/// Where to serve the tutorial's clients, and which: `KIND=ADDR`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicAddr {
    /// The form of the replies.
    pub kind: Kind,
    /// Where to listen.
    pub address: ListenAddr,
}

/// Why a text is no [`ClassicAddr`]. Says how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassicAddrError {
    /// No `=`.
    #[error("{0:?} is not understood; write KIND=ADDR, such as json=127.0.0.1:8081")]
    NoKind(String),
    /// An unknown kind.
    #[error("{0:?} is not a kind of classic client; the kinds are json, length and raw")]
    Kind(String),
    /// The part after `=`.
    #[error(transparent)]
    Address(#[from] EndpointError),
}

impl FromStr for ClassicAddr {
    type Err = ClassicAddrError;

    fn from_str(text: &str) -> Result<Self, ClassicAddrError> {
        let (kind, address) =
            text.split_once('=').ok_or_else(|| ClassicAddrError::NoKind(text.to_owned()))?;
        Ok(Self { kind: kind.parse()?, address: address.parse()? })
    }
}

/// As it is read.
impl fmt::Display for ClassicAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind, self.address)
    }
}

/// Why a server does not start with a classic listener. Says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// An address that other machines may reach, or a name that a resolver may answer as it likes.
    #[error(
        "--classic {0}: classic clients prove nothing, so they are served on this machine only; listen on 127.0.0.1, [::1], localhost or unix:PATH"
    )]
    NotLocal(ClassicAddr),
    /// The effective uid is 0.
    #[error(
        "--classic {0}: classic clients prove nothing, so they are never served as root; start the server as another user"
    )]
    Root(ClassicAddr),
    /// The effective uid is the one that stands for all users whom this user namespace does not know.
    #[error(
        "--classic {0}: in this user namespace other users cannot be told from this one; start the server as another user, or outside"
    )]
    Overflow(ClassicAddr),
}

impl ClassicAddr {
    /// Whether this process may serve it; to be asked before it is bound.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn check(&self) -> Result<(), StartError> {
        let euid = fs::euid();
        self.check_as(euid)?;
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (overflow, map) = (read("/proc/sys/kernel/overflowuid"), read("/proc/self/uid_map"));
        if is_overflow(euid, &overflow, &map) {
            return Err(StartError::Overflow(self.clone()));
        }
        Ok(())
    }

    fn check_as(&self, euid: u32) -> Result<(), StartError> {
        if !self.address.0.is_local() {
            return Err(StartError::NotLocal(self.clone()));
        }
        if euid == 0 {
            return Err(StartError::Root(self.clone()));
        }
        Ok(())
    }
}

/// Whether other users can show as `euid` (`user_namespaces(7)`): it is the uid that the kernel gives for
/// those that are not in the map, and the map has not all of them. What cannot be read is as usual, or as
/// bad as can be.
fn is_overflow(euid: u32, overflow: &str, map: &str) -> bool {
    let whole = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    !whole && overflow.trim().parse().unwrap_or(OVERFLOW_UID) == euid
}

/// What an operator has to be told of a classic listener when it starts; each is one line.
#[must_use]
pub fn warning_lines(kind: Kind, address: &Endpoint) -> [String; 2] {
    let who = match address {
        Endpoint::Tcp { .. } => format!("uid {} on this machine", fs::euid()),
        Endpoint::Unix(_) => format!("uid {} and root on this machine", fs::euid()),
    };
    [
        format!(
            "classic {kind} listener on {address}: no authentication, no encryption: every process of {who} can run commands here"
        ),
        format!(
            "classic {kind} listener on {address}: others are turned away, and so is what looks like HTTP; it is for the tutorial's clients, use rexec for everything else"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_arguments_print_as_they_are_read() {
        for (text, kind) in [
            ("json=127.0.0.1:0", Kind::Json),
            ("length=localhost:8080", Kind::Length),
            ("raw=unix:/run/s", Kind::Raw),
            ("raw=unix:/run/a=b", Kind::Raw),
        ] {
            let parsed: ClassicAddr = text.parse().unwrap();
            assert_eq!(parsed.kind, kind);
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn bad_arguments_say_how_to_write_them() {
        for (text, part) in [
            ("127.0.0.1:8080", "write KIND=ADDR, such as json=127.0.0.1:8081"),
            ("", "write KIND=ADDR"),
            ("xml=127.0.0.1:1", "\"xml\" is not a kind of classic client; the kinds are json"),
            ("JSON=127.0.0.1:1", "is not a kind"),
            ("=127.0.0.1:1", "\"\" is not a kind"),
            ("json=127.0.0.1", "the port is missing; write HOST:PORT"),
            ("json=", "the address is empty"),
            ("a\nb=x:1", "\"a\\nb\" is not a kind"),
        ] {
            let error = text.parse::<ClassicAddr>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn only_this_machine_and_never_root() {
        let check = |text: &str, euid| text.parse::<ClassicAddr>().unwrap().check_as(euid);
        for local in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "localhost:1", "unix:/s"] {
            let text = format!("json={local}");
            assert_eq!(check(&text, 1), Ok(()));
            let root = check(&text, 0).unwrap_err().to_string();
            assert!(root.contains("never served as root; start the server as another user"));
            assert!(root.contains(&text) && root.lines().count() == 1);
        }
        for other in ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "host:1", "[::ffff:192.0.2.1]:1"] {
            let error = check(&format!("json={other}"), 1).unwrap_err().to_string();
            assert!(error.contains("prove nothing") && error.contains("listen on 127.0.0.1"));
        }
    }

    #[test]
    fn a_uid_that_stands_for_others_is_not_trusted() {
        let whole = "         0          0 4294967295\n";
        let some = "         0     100000      65536\n";
        assert!(!is_overflow(65_534, "65534\n", whole));
        assert!(is_overflow(65_534, "65534\n", some));
        assert!(is_overflow(65_534, "", ""));
        assert!(is_overflow(7, "7\n", some));
        assert!(!is_overflow(1000, "65534\n", some));
    }

    #[test]
    fn the_warnings_name_address_and_uid() {
        let uid = fs::euid();
        for (address, who) in
            [("127.0.0.1:1", format!("uid {uid} on")), ("unix:/s", format!("uid {uid} and root"))]
        {
            let lines = warning_lines(Kind::Raw, &address.parse().unwrap());
            assert!(lines[0].contains("no authentication") && lines[0].contains(&who));
            assert!(lines.iter().all(|line| line.contains(&format!("raw listener on {address}"))));
            assert!(lines.iter().all(|line| line.lines().count() == 1));
        }
    }
}
