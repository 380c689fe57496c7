//! Who is at the other end of a connection, as far as the transport knows.

use std::fmt;
use std::net::SocketAddr;

use crate::accounts::UserName;

/// The other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
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
            secured: false,
            certificate: None,
        }
    }

    /// A peer within this process.
    #[must_use]
    pub fn in_process() -> Self {
        Self {
            address: None,
            secured: false,
            certificate: None,
        }
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

    /// Whether nobody between can read along: a password may pass.
    #[must_use]
    pub fn is_private(&self) -> bool {
        self.secured
            || self
                .address
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
