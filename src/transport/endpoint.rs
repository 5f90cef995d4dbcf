//! Where a server is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

/// Most bytes of a host name (RFC 1035, 2.3.4, as text).
const NAME_LIMIT: usize = 253;

/// An address to connect to: `HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A TCP port; 0 only in a [`ListenAddr`].
    Tcp {
        /// The machine.
        host: Host,
        /// The port.
        port: u16,
    },
    /// A unix socket's path, short enough for the system.
    Unix(PathBuf),
}

/// The machine part of an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// A numeric address.
    Ip(IpAddr),
    /// `localhost` or a name below it: this machine, over both families, without asking a resolver
    /// (RFC 6761, 6.3).
    Localhost,
    /// A name for the resolver, in lower case; or an IPv6 address with a zone.
    Name(String),
}

/// Why a text is not an address. Says how to write it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No port.
    #[error("the port is missing; write HOST:PORT, such as {0}:8080")]
    NoPort(String),
    /// No text at all.
    #[error("the address is empty; write HOST:PORT, such as localhost:8080")]
    Empty,
    /// Not a number from 1 (or 0, to listen on a free one) to 65535.
    #[error("{0:?} is not a port; a port is a number from 1 to 65535")]
    Port(String),
    /// No host.
    #[error("the host is missing; write HOST:PORT, such as localhost:{0}")]
    NoHost(String),
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets before the port, such as [::1]:8080")]
    Brackets,
    /// A character that no host name has, or too many of them.
    #[error("{0:?} is not a host name or address")]
    Host(String),
    /// A user or a scheme.
    #[error("{0:?} is not understood; write HOST:PORT or unix:PATH alone")]
    Extra(String),
    /// The path of a unix socket is empty, holds NUL or is too long for the system (`unix(7)`).
    #[error("unix:PATH needs a path of 1 to {limit} bytes, not {len}")]
    Path {
        /// Its length.
        len: usize,
        /// Most bytes a path may have here.
        limit: usize,
    },
}

/// Most bytes of a unix socket's path: `sun_path` less its NUL.
const PATH_LIMIT: usize = 107;

impl Host {
    fn parse(text: &str) -> Result<Self, EndpointError> {
        if let Ok(ip) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        let name = text.to_ascii_lowercase();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.len() > NAME_LIMIT || !name.chars().all(plain) || name.starts_with(['-', '.']) {
            return Err(EndpointError::Host(text.to_owned()));
        }
        let is_localhost = name == "localhost" || name.ends_with(".localhost");
        Ok(if is_localhost { Self::Localhost } else { Self::Name(name) })
    }

    fn parse_v6(text: &str) -> Result<Self, EndpointError> {
        let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
        let ip: Ipv6Addr = ip.parse().map_err(|_| EndpointError::Host(text.to_owned()))?;
        match zone {
            None => Ok(Self::Ip(ip.into())),
            Some(zone) if !zone.is_empty() && zone.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Ok(Self::Name(text.to_ascii_lowercase()))
            }
            Some(_) => Err(EndpointError::Host(text.to_owned())),
        }
    }
}

/// The host alone, as `known_hosts` lists it: an IPv6 address without brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Localhost => f.write_str("localhost"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Endpoint {
    /// Whether it is on this machine for certain: a unix socket, `localhost`, or a loopback address.
    /// A name that resolves to a loopback address is not: the resolver must not decide who is trusted.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Tcp { host: Host::Localhost, .. } => true,
            Self::Tcp { host: Host::Ip(ip), .. } => ip.to_canonical().is_loopback(),
            Self::Tcp { host: Host::Name(_), .. } => false,
        }
    }

    fn parse(text: &str, lowest_port: u16) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return parse_path(path);
        }
        if text.is_empty() {
            return Err(EndpointError::Empty);
        }
        if text.contains(['@', '/', '?']) {
            return Err(EndpointError::Extra(text.to_owned()));
        }
        if text.parse::<Ipv6Addr>().is_ok() {
            return Err(EndpointError::Brackets);
        }
        let is_port = text.bytes().all(|b| b.is_ascii_digit());
        let missing = if is_port { EndpointError::NoHost } else { EndpointError::NoPort };
        let no_port = || missing(text.to_owned());
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(EndpointError::Brackets)?;
            (Host::parse_v6(inside)?, after.strip_prefix(':').ok_or_else(no_port)?)
        } else {
            let (host, port) = text.split_once(':').ok_or_else(no_port)?;
            match host {
                // With a blank in it, it is several addresses.
                _ if port.contains(':') && !port.contains(char::is_whitespace) => {
                    return Err(EndpointError::Brackets);
                }
                "" => return Err(EndpointError::NoHost(port.to_owned())),
                _ => (Host::parse(host)?, port),
            }
        };
        Ok(Self::Tcp {
            host,
            port: parse_port(port, lowest_port).ok_or_else(|| bad_port(port, text))?,
        })
    }
}

fn parse_port(text: &str, lowest: u16) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port >= lowest)
}

fn bad_port(port: &str, text: &str) -> EndpointError {
    match port {
        "" => EndpointError::NoPort(text.trim_end_matches(':').to_owned()),
        _ => EndpointError::Port(port.to_owned()),
    }
}

fn parse_path(path: &str) -> Result<Endpoint, EndpointError> {
    if path.is_empty() || path.len() > PATH_LIMIT || path.contains('\0') {
        return Err(EndpointError::Path { len: path.len(), limit: PATH_LIMIT });
    }
    Ok(Endpoint::Unix(PathBuf::from(path)))
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::parse(text, 1)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => match host.to_string() {
                host if host.contains(':') => write!(f, "[{host}]:{port}"),
                host => write!(f, "{host}:{port}"),
            },
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address to listen on: as an [`Endpoint`], and port 0 asks for any free port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenAddr(pub Endpoint);

impl FromStr for ListenAddr {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Endpoint::parse(text, 0).map(Self)
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_addresses_print_as_they_are_read() {
        for (text, printed, local) in [
            ("host:8080", "host:8080", false),
            ("Host.Example.COM:1", "host.example.com:1", false),
            ("a_b:65535", "a_b:65535", false),
            ("localhost:8080", "localhost:8080", true),
            ("LOCALHOST:8080", "localhost:8080", true),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("1.2.3.4:80", "1.2.3.4:80", false),
            ("[::1]:8080", "[::1]:8080", true),
            ("[0:0::0001]:8080", "[::1]:8080", true),
            ("[::ffff:127.0.0.1]:8080", "[::ffff:127.0.0.1]:8080", true),
            ("[fe80::1%eth0]:8080", "[fe80::1%eth0]:8080", false),
            ("unix:/run/s", "unix:/run/s", true),
            ("unix:s", "unix:s", true),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), printed);
            assert_eq!(printed.parse(), Ok(endpoint.clone()));
            assert_eq!(endpoint.is_local(), local, "{text}");
        }
    }

    #[test]
    fn bad_addresses_say_how_to_write_them() {
        for (text, part) in [
            ("host", "the port is missing; write HOST:PORT, such as host:8080"),
            ("host:", "the port is missing"),
            ("", "the address is empty"),
            ("[::1]", "the port is missing; write HOST:PORT, such as [::1]:8080"),
            ("[::1]:", "the port is missing; write HOST:PORT, such as [::1]:8080"),
            ("::1", "stands in brackets"),
            ("::1:8080", "stands in brackets"),
            ("::1:18080", "stands in brackets"),
            ("host:1:2", "stands in brackets"),
            ("[::1:8080", "stands in brackets"),
            (":8080", "the host is missing; write HOST:PORT, such as localhost:8080"),
            ("host:0", "\"0\" is not a port"),
            ("host:65536", "\"65536\" is not a port"),
            ("host:+80", "\"+80\" is not a port"),
            ("host:http", "\"http\" is not a port"),
            ("one:80 two:80", "\"80 two:80\" is not a port"),
            ("me@host:80", "HOST:PORT or unix:PATH alone"),
            ("http://host:80", "HOST:PORT or unix:PATH alone"),
            ("host:80?host-key=SHA256:x", "HOST:PORT or unix:PATH alone"),
            ("ho st:80", "\"ho st\" is not a host name"),
            ("h\u{f6}st:80", "is not a host name"),
            ("h\nst:80", "\"h\\nst\" is not a host name"),
            ("-h:80", "is not a host name"),
            ("[host]:80", "\"host\" is not a host name or address"),
            ("[::1%]:80", "is not a host name or address"),
            ("unix:", "a path of 1 to"),
            ("unix:a\0b", "a path of 1 to"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn limits() {
        let name = |n: usize| format!("{}:1", "a".repeat(n)).parse::<Endpoint>().is_ok();
        assert!(name(NAME_LIMIT) && !name(NAME_LIMIT + 1));
        let path = |n: usize| "p".repeat(n);
        assert!(format!("unix:{}", path(PATH_LIMIT)).parse::<Endpoint>().is_ok());
        assert!(format!("unix:{}", path(PATH_LIMIT + 1)).parse::<Endpoint>().is_err());
        let system = |n| std::os::unix::net::SocketAddr::from_pathname(path(n)).is_ok();
        assert!(system(PATH_LIMIT) && !system(PATH_LIMIT + 1), "the system's own limit");
    }

    #[test]
    fn listening_takes_port_0() {
        assert_eq!("localhost:0".parse::<ListenAddr>().unwrap().to_string(), "localhost:0");
        assert!("localhost".parse::<ListenAddr>().is_err());
    }
}
