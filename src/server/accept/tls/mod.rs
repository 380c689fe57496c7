//! TLS of the server: its certificate, and the handshake.
//!
//! The certificate can be replaced while the server runs: each connection keeps the configuration that
//! was current when its handshake started.

pub(crate) mod certificate;
pub(crate) mod error;
pub(crate) mod handshake;
pub(crate) mod identity;
pub(crate) mod self_signed;

pub use crate::server::accept::tls::certificate::ServerCertificate;
pub use crate::server::accept::tls::error::TlsError;
pub(crate) use crate::server::accept::tls::handshake::handshake;
pub(crate) use crate::server::accept::tls::identity::TlsIdentity;
pub use crate::server::accept::tls::identity::check_certificate;
