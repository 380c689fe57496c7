//! What counts as one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address, or the /64 of an IPv6 address: one line is given that much, and could use a new
/// address of it for every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum AddressBlock {
    V4(Ipv4Addr),
    /// The first 64 bits, and nothing behind them.
    V6(Ipv6Addr),
    /// Within this process.
    Here,
}

impl From<IpAddr> for AddressBlock {
    /// IPv4 that came as IPv6 is IPv4.
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << 64);
                Self::V6(Ipv6Addr::from_bits(network))
            }
        }
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V4(address) => address.fmt(f),
            Self::V6(network) => write!(f, "{network}/64"),
            Self::Here => f.write_str("in-process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> AddressBlock {
        text.parse::<IpAddr>().expect("an address").into()
    }

    #[test]
    fn ipv6_counts_by_its_first_64_bits_and_ipv4_by_all_of_its_32() {
        assert_eq!(block("2001:db8:1:2::1"), block("2001:db8:1:2:ffff::"));
        assert_ne!(block("2001:db8:1:2::1"), block("2001:db8:1:3::1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
        assert_eq!(block("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn ipv4_that_comes_as_ipv6_is_the_same_and_not_all_one_block() {
        assert_eq!(block("::ffff:192.0.2.1"), block("192.0.2.1"));
        assert_ne!(block("::ffff:192.0.2.1"), block("::ffff:192.0.2.2"));
    }
}
