//! Where a peer may come from: the lists of `from=` and of a certificate's `source-address`.
//!
//! As sshd(8) has it with its default of `UseDNS no`: patterns are compared with the peer's address, and
//! no name is looked up.

use std::fmt;
use std::net::IpAddr;

use super::glob::is_match;
use super::network::{Network, first, width};

/// A list of addresses. A peer is in it if a pattern has it and no pattern with `!` in front has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Pattern>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    negated: bool,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Net(Network),
    /// The address as text, with `*` and `?`, in lower case.
    Text(String),
    /// The name of a host, which no address matches.
    Name(String),
}

/// Why something is no list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressesError {
    /// Two commas, or nothing at all.
    #[error("an address is missing")]
    Empty,
    /// Digits that are neither an address nor a network.
    #[error("{0:?} is no address; write 10.0.0.1, 10.0.0.0/8, 10.0.* or 2001:db8::/32")]
    NotAnAddress(String),
    /// The network's address goes on after its length.
    #[error("{0} has bits beyond its length; write {1}")]
    HostBits(String, String),
    /// A name is not looked up, so to pass it over would be to let in more than was written.
    #[error(
        "{0:?} cannot be kept out by its name, because no names are looked up; use its address"
    )]
    NegatedName(String),
    /// A certificate's list holds addresses and networks only.
    #[error("{0:?} is neither an address nor a network")]
    NotANet(String),
}

impl Addresses {
    /// Reads a list of patterns, separated by commas: addresses, networks (`10.0.0.0/8`), text with `*`
    /// and `?`, each with `!` in front or not.
    ///
    /// # Errors
    /// [`AddressesError`].
    pub fn patterns(text: &str) -> Result<Self, AddressesError> {
        text.split(',').map(|item| Pattern::parse(item.trim())).collect::<Result<_, _>>().map(Self)
    }

    /// Reads a certificate's list: addresses and networks, separated by commas.
    ///
    /// # Errors
    /// [`AddressesError`].
    pub fn nets(text: &str) -> Result<Self, AddressesError> {
        let net = |item: &str| {
            let not_a_net = || AddressesError::NotANet(item.to_owned());
            let kind = net(item)?.ok_or_else(not_a_net)?;
            Ok(Pattern { negated: false, kind })
        };
        text.split(',').map(net).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a peer may come from there.
    #[must_use]
    pub fn has(&self, peer: IpAddr) -> bool {
        // The address that an IPv4 peer has on a socket for both families is IPv4 all the same.
        let peer = peer.to_canonical();
        let matching = || self.0.iter().filter(|pattern| pattern.kind.has(peer));
        matching().any(|p| !p.negated) && !matching().any(|p| p.negated)
    }

    /// The names of hosts in it, which match nobody.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|pattern| match &pattern.kind {
            Kind::Name(name) => Some(name.as_str()),
            Kind::Net(_) | Kind::Text(_) => None,
        })
    }
}

impl Pattern {
    fn parse(item: &str) -> Result<Self, AddressesError> {
        let (negated, text) = match item.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, item),
        };
        if text.is_empty() {
            return Err(AddressesError::Empty);
        }
        let kind = match net(text)? {
            Some(kind) => kind,
            None if !is_like_an_address(text) && negated => {
                return Err(AddressesError::NegatedName(text.to_owned()));
            }
            None if !is_like_an_address(text) => Kind::Name(text.to_owned()),
            // No address is compared in its mapped form: it would keep nobody out.
            None if text.contains(['*', '?']) && !is_mapped(text) => {
                Kind::Text(text.to_ascii_lowercase())
            }
            None => return Err(AddressesError::NotAnAddress(text.to_owned())),
        };
        Ok(Self { negated, kind })
    }
}

/// Whether an address may look like this: all else is a name.
fn is_like_an_address(text: &str) -> bool {
    let is_in = |more: &str| text.chars().all(|c| c.is_ascii_digit() || more.contains(c));
    is_in("./*?") || (text.contains(':') && is_in("./*?:abcdefABCDEF"))
}

/// Whether it begins as an IPv4-mapped address does.
fn is_mapped(text: &str) -> bool {
    text.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("::ffff:"))
}

/// An address or a network; none if it is something else.
fn net(text: &str) -> Result<Option<Kind>, AddressesError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else { return Ok(None) };
    let most = width(address);
    let bits = match length {
        None => most,
        Some(digits) => match digits.parse::<u8>() {
            Ok(bits) if bits <= most && digits.bytes().all(|b| b.is_ascii_digit()) => bits,
            _ => return Err(AddressesError::NotAnAddress(text.to_owned())),
        },
    };
    let start = first(address, bits);
    if start != address {
        return Err(AddressesError::HostBits(text.to_owned(), format!("{start}/{bits}")));
    }
    Ok(Some(Kind::Net(Network::new(address, bits))))
}

impl Kind {
    fn has(&self, peer: IpAddr) -> bool {
        match self {
            Self::Net(network) => network.contains(peer),
            Self::Text(pattern) => is_match(pattern, &peer.to_string()),
            Self::Name(_) => false,
        }
    }
}

/// As it is written.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Pattern { negated, kind }) in self.0.iter().enumerate() {
            let (comma, not) = (if i > 0 { "," } else { "" }, if *negated { "!" } else { "" });
            write!(f, "{comma}{not}")?;
            match kind {
                Kind::Net(network) => write!(f, "{network}")?,
                Kind::Text(text) | Kind::Name(text) => f.write_str(text)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(list: &str, peer: &str) -> bool {
        Addresses::patterns(list).unwrap().has(peer.parse().unwrap())
    }

    #[test]
    fn addresses_networks_and_patterns() {
        for (list, peer, is_in) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.7/32", "10.0.0.7", true),
            ("10.0.0.7/32", "10.0.0.6", false),
            ("10.0.0.6/31", "10.0.0.7", true),
            ("128.0.0.0/1", "255.0.0.1", true),
            ("128.0.0.0/1", "127.0.0.1", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "1.2.3.4", false),
            ("2001:db8::/32", "2001:db8:1::2", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::/0", "2001:db8::1", true),
            ("8000::/1", "7fff::1", false),
            ("fe80::/10", "fe80::1", true),
            ("2001:db8::7/128", "2001:db8::7", true),
            ("2001:db8::7/128", "2001:db8::6", false),
            ("::ffff:0:0/96", "1.2.3.4", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
            ("fe80::1%eth0", "fe80::1", false),
            ("10.0.*", "10.0.7.7", true),
            ("10.0.*", "10.1.0.1", false),
            ("10.0.0.?", "10.0.0.12", false),
            ("2001:DB8:*", "2001:db8::1", true),
            ("*", "::1", true),
            ("10.0.0.1, 10.0.0.2", "10.0.0.2", true),
            ("*.example.com,10.0.0.0/8", "10.1.1.1", true),
            ("build.example.com", "10.1.1.1", false),
        ] {
            assert_eq!(has(list, peer), is_in, "{list} {peer}");
        }
    }

    #[test]
    fn what_is_kept_out_is_out_wherever_it_stands() {
        for list in ["10.0.0.0/8,!10.0.0.5", "!10.0.0.5,10.0.0.0/8", "10.*,!10.0.0.?", "!*,*"] {
            assert!(!has(list, "10.0.0.5"), "{list}");
        }
        assert!(has("10.0.0.0/8,!10.0.0.5", "10.0.0.6"));
        assert!(!has("!10.0.0.5", "10.0.0.6"), "nobody is let in by what keeps others out");
    }

    #[test]
    fn a_mapped_address_is_what_it_maps() {
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(has("10.*", "::ffff:10.1.2.3"));
        assert!(!has("10.0.0.0/8,!10.1.0.0/16", "::ffff:10.1.2.3"));
        assert!(!has("10.0.0.0/8,!::ffff:10.1.0.0/112", "10.1.2.3"));
        assert!(has("::ffff:10.1.2.3", "10.1.2.3"));
        assert!(has("::ffff:10.1.2.3/128", "10.1.2.3") && !has("::ffff:10.1.2.3/128", "10.1.2.2"));
    }

    #[test]
    fn lists_that_are_none() {
        use AddressesError as E;
        let error = |text| Addresses::patterns(text).unwrap_err();
        for text in ["", ",", "10.0.0.1,", "!"] {
            assert_eq!(error(text), E::Empty, "{text}");
        }
        for text in [
            "10.1",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/",
            "::1/129",
            "1:2",
            "1.2.3.4.5",
            "::ffff:10.*",
            "::FFFF:*",
        ] {
            assert_eq!(error(text), E::NotAnAddress(text.into()), "{text}");
        }
        assert_eq!(error("10.1.0.0/8"), E::HostBits("10.1.0.0/8".into(), "10.0.0.0/8".into()));
        for text in ["!bad.example.com", "!*.de", "!fe80::1%eth0"] {
            assert_eq!(error(text), E::NegatedName(text[1..].into()), "{text}");
        }
    }

    #[test]
    fn a_certificates_list_is_strict() {
        let list = Addresses::nets("10.0.0.0/8,::1").unwrap();
        assert!(list.has("::1".parse().unwrap()) && list.has("10.2.3.4".parse().unwrap()));
        assert_eq!(list.to_string(), "10.0.0.0/8,::1");
        for text in ["", "10.*", "!10.0.0.1", "host", "10.0.0.1,"] {
            assert!(Addresses::nets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_that_match_nobody_are_told() {
        let list = Addresses::patterns("*.example.com,10.0.0.0/8,!10.1.*").unwrap();
        assert_eq!(list.names().collect::<Vec<_>>(), ["*.example.com"]);
        assert_eq!(list.to_string(), "*.example.com,10.0.0.0/8,!10.1.*");
    }
}
