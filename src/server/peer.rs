//! Who is at the other end of a connection, as far as the transport knows.

use std::fmt;
use std::net::SocketAddr;

use super::limits::Block;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
    /// The address is what a balancer says.
    proxied: bool,
}

impl Peer {
    /// A peer that connected over TCP without encryption.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            proxied: false,
        }
    }

    /// A peer that a balancer connects, at the address that it names. It is another machine,
    /// whatever that address is.
    #[must_use]
    pub fn proxied(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            proxied: true,
        }
    }

    /// A peer within this process.
    #[must_use]
    pub fn in_process() -> Self {
        Self {
            address: None,
            proxied: false,
        }
    }

    /// What counts as its address.
    pub(super) fn block(&self) -> Block {
        self.address
            .map_or(Block::Here, |address| address.ip().into())
    }

    /// Whether nobody between can read along: a password may pass.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let is_here = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        !self.proxied && self.address.is_none_or(is_here)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("in-process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_itself_is_private_and_what_a_balancer_names_never_is() {
        for (address, private) in [
            ("127.0.0.1:4660", true),
            ("[::1]:4660", true),
            ("[::ffff:127.0.0.1]:4660", true),
            ("192.0.2.1:4660", false),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(Peer::plain(address).is_private(), private, "{address}");
            assert!(!Peer::proxied(address).is_private(), "{address}");
        }
        assert!(Peer::in_process().is_private());
    }
}
