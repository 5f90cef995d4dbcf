//! The lines of `known_hosts` (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT), and which of them speak of a host.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::glob::is_match;
use super::line::{FILE_LIMIT, LINE_LIMIT, is_key_type, lines, quote, word};
use super::line_error::LineReason;
use super::{Fingerprint, LineError, PublicKey, PublicKeyError};
use crate::sys::fs::{FsError, TrustedFile};

/// What a file says of a host that shows a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The key is the host's.
    Known {
        /// The line that says so, from 1.
        line: usize,
    },
    /// No line speaks of the host with a key of this type.
    Unknown,
    /// A line gives the host another key of this type, and none this one.
    Changed {
        /// The line, from 1.
        line: usize,
        /// The key it gives.
        fingerprint: Fingerprint,
    },
    /// A line marked `@revoked` bars this key for this host, whatever other lines say.
    Revoked {
        /// The line, from 1.
        line: usize,
    },
}

/// A file's lines, in order.
#[derive(Debug, Default)]
pub struct KnownHosts {
    lines: Vec<Line>,
    errors: Vec<LineError>,
}

#[derive(Debug)]
struct Line {
    number: usize,
    revoked: bool,
    hosts: Hosts,
    /// The blob, also of a type that rexec's servers do not show.
    blob: Vec<u8>,
    is_ed25519: bool,
}

#[derive(Debug)]
enum Hosts {
    /// Names with `*` and `?`; `!` first takes them out again.
    Patterns(Vec<Pattern>),
    /// One name that cannot be read back: `|1|salt|hash`.
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

#[derive(Debug)]
struct Pattern {
    text: String,
    negated: bool,
}

/// The names under which a host may be listed.
struct Names {
    /// `[host]:port`, or `host` for port 22, where OpenSSH writes it so.
    exact: String,
    /// `host` alone: a line with it speaks of every port.
    plain: String,
}

impl Names {
    fn new(host: &str, port: u16) -> Self {
        let plain = host.to_ascii_lowercase();
        Self { exact: name(&plain, port), plain }
    }
}

fn name(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

/// The line to add to a file so that `key` is `host`'s.
#[must_use]
pub fn line_for(host: &str, port: u16, key: &PublicKey) -> String {
    format!("{} {key}", name(&host.to_ascii_lowercase(), port))
}

impl KnownHosts {
    /// Reads a file. A missing file knows no host; every other failure is an error, never "no host".
    ///
    /// # Errors
    /// It cannot be opened or read, others could change it, or it is too long.
    pub fn load(path: &Path) -> Result<Self, FsError> {
        match TrustedFile::open(path) {
            Ok(file) => Ok(Self::parse(&file.read(FILE_LIMIT)?)),
            Err(e) if e.is_missing() => Ok(Self::default()),
            Err(e) => Err(e),
        }
    }

    /// Reads a file's text; lines that are not understood are left out and reported.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut this = Self::default();
        for (number, content) in lines(text) {
            match parse_line(number, content) {
                Ok(line) => this.lines.push(line),
                Err(reason) => this.errors.push(LineError { line: number, reason }),
            }
        }
        this
    }

    /// The lines that were left out.
    #[must_use]
    pub fn errors(&self) -> &[LineError] {
        &self.errors
    }

    /// What the file says of `host` (a name or an address without brackets) on `port` showing `key`.
    ///
    /// Lines with `[host]:port` go before lines with the host alone.
    #[must_use]
    pub fn check(&self, host: &str, port: u16, key: &PublicKey) -> Known {
        let names = Names::new(host, port);
        let revoked = self.lines.iter().find(|line| {
            line.revoked
                && line.blob == key.blob()
                && (line.speaks_of(&names.exact, &names) || line.speaks_of(&names.plain, &names))
        });
        if let Some(line) = revoked {
            return Known::Revoked { line: line.number };
        }
        match self.check_name(&names.exact, &names, key) {
            Known::Unknown => self.check_name(&names.plain, &names, key),
            answer => answer,
        }
    }

    fn check_name(&self, name: &str, names: &Names, key: &PublicKey) -> Known {
        let judging = |line: &&Line| !line.revoked && line.is_ed25519;
        // Comparing keys is cheaper than comparing names.
        let mut its_own = self.lines.iter().filter(|line| line.blob == key.blob()).filter(judging);
        if let Some(line) = its_own.find(|line| line.speaks_of(name, names)) {
            return Known::Known { line: line.number };
        }
        match self.lines.iter().filter(judging).find(|line| line.speaks_of(name, names)) {
            Some(line) => {
                let fingerprint = Fingerprint::of_blob(&line.blob);
                Known::Changed { line: line.number, fingerprint }
            }
            None => Known::Unknown,
        }
    }
}

impl Line {
    /// Whether the line lists `name`. A negated pattern takes the host out under either of its names.
    fn speaks_of(&self, name: &str, names: &Names) -> bool {
        match &self.hosts {
            Hosts::Hashed { salt, hash } => {
                use ring::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, verify};
                verify(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt), name.as_bytes(), hash)
                    .is_ok()
            }
            Hosts::Patterns(patterns) => {
                let takes_out = |p: &Pattern| {
                    p.negated
                        && (is_match(&p.text, &names.exact) || is_match(&p.text, &names.plain))
                };
                !patterns.iter().any(takes_out)
                    && patterns.iter().any(|p| !p.negated && is_match(&p.text, name))
            }
        }
    }
}

fn parse_line(number: usize, content: &str) -> Result<Line, LineReason> {
    if content.len() > LINE_LIMIT {
        return Err(LineReason::TooLong);
    }
    let (marker, rest) = word(content);
    let (revoked, rest) = match marker {
        "@revoked" => (true, rest),
        "@cert-authority" => return Err(LineReason::CertAuthority),
        _ if marker.starts_with('@') => return Err(LineReason::Marker(quote(marker))),
        _ => (false, content),
    };
    let (hosts, rest) = word(rest);
    let (kind, rest) = word(rest);
    let (base64, _comment) = word(rest);
    if base64.is_empty() {
        return Err(LineReason::Short);
    }
    if !is_key_type(kind) {
        return Err(LineReason::Type(quote(kind)));
    }
    let blob = parse_blob(kind, base64)?;
    let hosts = parse_hosts(hosts).ok_or(PublicKeyError::Malformed)?;
    Ok(Line { number, revoked, hosts, blob, is_ed25519: kind == "ssh-ed25519" })
}

/// Keys of other types are kept: a host may have them too, and they may be revoked.
fn parse_blob(kind: &str, base64: &str) -> Result<Vec<u8>, PublicKeyError> {
    match PublicKey::from_words(kind, base64) {
        Ok(key) => Ok(key.blob().to_vec()),
        Err(PublicKeyError::Unsupported(is)) if is == kind => {
            STANDARD.decode(base64).map_err(|_| PublicKeyError::Malformed)
        }
        Err(PublicKeyError::Unsupported(is)) => {
            Err(PublicKeyError::Mislabelled { said: kind.to_owned(), is })
        }
        Err(e) => Err(e),
    }
}

fn parse_hosts(text: &str) -> Option<Hosts> {
    if let Some(hashed) = text.strip_prefix("|1|") {
        let (salt, hash) = hashed.split_once('|')?;
        return Some(Hosts::Hashed {
            salt: STANDARD.decode(salt).ok()?,
            hash: STANDARD.decode(hash).ok()?,
        });
    }
    let pattern = |text: &str| match text.strip_prefix('!') {
        Some(text) => Pattern { text: text.to_ascii_lowercase(), negated: true },
        None => Pattern { text: text.to_ascii_lowercase(), negated: false },
    };
    Some(Hosts::Patterns(text.split(',').filter(|t| !t.is_empty()).map(pattern).collect()))
}

#[cfg(test)]
mod tests;
