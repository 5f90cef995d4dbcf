//! Networks: ranges of addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address. IPv4-mapped ones are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    /// The first address.
    first: IpAddr,
    /// Bits that count.
    bits: u8,
}

impl Network {
    /// Loopback addresses.
    pub const LOOPBACK: [Self; 2] = [
        Self { first: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), bits: 8 },
        Self { first: IpAddr::V6(Ipv6Addr::LOCALHOST), bits: 128 },
    ];

    /// All addresses that have the first `bits` of this one; those beyond the last count as the last.
    #[must_use]
    pub fn new(address: IpAddr, bits: u8) -> Self {
        let bits = bits.min(width(address));
        let first = first(address, bits);
        match first.to_canonical() {
            IpAddr::V4(mapped) if first.is_ipv6() && bits >= 96 => {
                Self { first: mapped.into(), bits: bits - 96 }
            }
            _ => Self { first, bits },
        }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // The address that an IPv4 peer has on a socket for both families is IPv4 all the same.
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && first(address, self.bits) == self.first
    }
}

/// Bits of an address.
pub(super) fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all but its first `bits` cleared; it has no fewer.
pub(super) fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no address or network, such as 10.0.0.0/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| wrong())?;
        let most = width(address);
        match bits.unwrap_or(most) {
            bits if bits <= most => Ok(Self::new(address, bits)),
            _ => Err(wrong()),
        }
    }
}

/// As it is written: one address without the count of its bits.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        if self.bits < width(self.first) { write!(f, "/{}", self.bits) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_mapped_ones_are_ipv4() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        let has = |text: &str, address: &str| network(text).contains(address.parse().unwrap());
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.0"));
        assert!(has("10.1.2.3/8", "::ffff:10.9.9.9"));
        assert!(has("::ffff:10.1.2.3/104", "10.9.9.9") && has("::ffff:192.0.2.7", "192.0.2.7"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && has("::/0", "2001::1") && !has("::/0", "1.2.3.4"));
        assert!(has("192.0.2.7", "192.0.2.7") && !has("192.0.2.7", "192.0.2.6"));
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1/32", "192.0.2.1"),
            ("2001:db8::7/64", "2001:db8::/64"),
            ("::1/128", "::1"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(network(text).to_string(), shown);
        }
        for bad in ["", "10", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "a/8", "10.0.0.0/8/8"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let beyond = Network::new(Ipv4Addr::LOCALHOST.into(), 200);
        assert_eq!(beyond, network("127.0.0.1"));
    }
}
