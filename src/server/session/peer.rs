//! The peer of a connection, as far as the transport knows.

use std::fmt;
use std::net::SocketAddr;

use crate::accounts::UserName;
use crate::server::accept::address_block::AddressBlock;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
    /// The address is what a balancer says.
    proxied: bool,
    /// Whether the connection is encrypted.
    secured: bool,
    certificate: Option<UserName>,
}

impl Peer {
    /// A peer that connected over TCP without encryption.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            proxied: false,
            secured: false,
            certificate: None,
        }
    }

    /// A peer that a balancer connects, at the address that it names. It is another machine,
    /// whatever that address is.
    #[must_use]
    pub fn proxied(address: SocketAddr) -> Self {
        Self {
            proxied: true,
            ..Self::plain(address)
        }
    }

    /// A peer within this process.
    #[must_use]
    pub fn in_process() -> Self {
        Self {
            address: None,
            proxied: false,
            secured: false,
            certificate: None,
        }
    }

    /// The address that limits count.
    pub(crate) fn block(&self) -> AddressBlock {
        self.address
            .map_or(AddressBlock::InProcess, |address| address.ip().into())
    }

    /// The same peer, to whom the connection is now encrypted; with the user whom its certificate
    /// names, if it showed one that the server trusts.
    #[must_use]
    pub fn secured(self, certificate: Option<UserName>) -> Self {
        Self {
            secured: true,
            certificate,
            ..self
        }
    }

    /// The user whom its certificate names: who may log in without any secret.
    #[must_use]
    pub fn certificate(&self) -> Option<&UserName> {
        self.certificate.as_ref()
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        self.secured
    }

    /// Whether nobody between can read along: a password may pass.
    #[must_use]
    pub fn is_private(&self) -> bool {
        let is_here = |address: SocketAddr| address.ip().to_canonical().is_loopback();
        self.secured || (!self.proxied && self.address.is_none_or(is_here))
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
