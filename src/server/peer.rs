//! Who is at the other end of a connection, as far as the transport knows.

use std::fmt;
use std::net::SocketAddr;

/// The other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
}

impl Peer {
    /// A peer that connected over TCP without encryption.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
        }
    }

    /// A peer within this process.
    #[must_use]
    pub fn in_process() -> Self {
        Self { address: None }
    }

    /// Whether nobody between can read along: a password may pass.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.address
            .is_none_or(|address| address.ip().to_canonical().is_loopback())
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
